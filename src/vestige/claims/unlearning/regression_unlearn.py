"""Claims of Blindspot on rendered objects: forgetting the lowest 30 % of a regression's range."""

from __future__ import annotations

from vestige.bench.controls import floors
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import Rows, apart, figures, means, values

SHOWN = ("MAE D_f", "MAE D_r", "MAE test", "MAE test_f", "W1", "MIA", "relearn", "AIN", "seconds")


def nearest(rows: Rows, ours: str = "Blindspot") -> tuple[bool, str]:
    """Whether ours predicts nearer to the retrained model on D_f than fine-tuning, Gaussian targets and nothing."""
    w1 = {m: values(rows, "W1", method=m) for m in (ours, "FT", "Gaussian", "original")}
    differences = {m: apart(w1[ours], w1[m]) for m in ("FT", "Gaussian", "original")}
    note = "W1 to retraining, ours less " + ", less ".join(f"{m} {d}" for m, d in differences.items())
    return all(d.high < 0 for d in differences.values()), note


@headline(
    "its predictions on what is forgotten are nearer to retraining's (W1) than those of fine-tuning, of Gaussian "
    "targets and of the original"
)
def nearest_predictions(context: ClaimContext) -> Evidence:
    rows = figures(context, "regression_unlearn", "default")
    holds, note = nearest(rows)
    table = means(rows, ("method",), SHOWN)
    at = {r["method"]: r["W1"] for r in table}
    floor = floors(-at["Blindspot"], {"cutting the answers off at the border of the range": -at["clipped"]})
    note += f"; {at['Blindspot'] / max(at['FT'], 1e-9):.2f} of FT's (card: at most .5)"
    return Evidence(holds, table, f"{note}; {floor}" if floor else note)


@claim("MAE on D_r is within 10 % of retrain's")
def keeps_the_rest(context: ClaimContext) -> Evidence:
    rows = figures(context, "regression_unlearn", "default")
    mae = {m: values(rows, "MAE D_r", method=m) for m in ("Blindspot", "retrain")}
    off = [abs(a / b - 1) for a, b in zip(*mae.values(), strict=True)]
    note = "off by " + ", ".join(f"{100 * v:.0f} %" for v in off)
    return Evidence(max(off) <= 0.1, means(rows, ("method",), SHOWN), note)


def relearns(rows: Rows, ours: str = "Blindspot") -> tuple[bool, str, str]:
    """Whether ours takes longer to relearn D_f than fine-tuning, relative to retraining; the note, and why the bed
    cannot tell."""
    ain = {m: values(rows, "AIN", method=m) for m in (ours, "FT", "original")}
    slow, fast = values(rows, "relearn of retrain", method="retrain"), values(rows, "relearn", method="original")
    weak = ""
    if not min(slow, default=0) >= 4 * max(1.0, max(fast, default=0)):
        weak = "the retrained model relearns about as fast as the original knows already"
    difference = apart(ain[ours], ain["FT"])
    note = f"AIN, ours less FT {difference}; ours {', '.join(f'{v:.2f}' for v in ain[ours])} (card: .3 to 3)"
    return difference.low > 0, f"{note}; FT {', '.join(f'{v:.2f}' for v in ain['FT'])} (card: below .2)", weak


@claim("what it forgot is relearned more slowly than what fine-tuning forgot: a larger AIN over seeds")
def relearns_as_slowly(context: ClaimContext) -> Evidence:
    rows = figures(context, "regression_unlearn", "default")
    holds, note, weak = relearns(rows)
    return Evidence(holds, means(rows, ("method",), SHOWN), note, too_weak=weak)


@claim("wall time is at most 15 % of retrain's")
def is_quick(context: ClaimContext) -> Evidence:
    rows = figures(context, "regression_unlearn", "default")
    took = {m: values(rows, "seconds", method=m) for m in ("Blindspot", "retrain")}
    share = sum(took["Blindspot"]) / max(sum(took["retrain"]), 1e-9)
    return Evidence(share <= 0.15, means(rows, ("method",), SHOWN), f"{100 * share:.1f} % of retraining")
