"""Claims of corrective unlearning on CIFAR-10: a backdoor with a 3×3 trigger, and cats confused with dogs."""

from __future__ import annotations

from typing import Any

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import Rows, apart, figures, means, values
from vestige.engines.runs import Need

NEEDS = (Need("corrective", ("poison",)), Need("corrective", ("confusion",)))
SHOWN = ("Acc_corr", "Acc_retain", "trigger success", "on bright corners too", "seconds")
CONTROL = "SSD, shown clean pictures"


def cleans(rows: Rows, ours: str = "SSD") -> tuple[bool, str, str]:
    """Whether ours lifts the accuracy on triggered pictures above EU's and above the control's at a known tenth; the
    note, and why the bed cannot tell."""
    at = {m: values(rows, "Acc_corr", known=0.1, method=m) for m in (ours, "EU (retrain)", CONTROL, "no unlearning")}
    lifts = {m: apart(at[ours], at[m]) for m in ("EU (retrain)", CONTROL)}
    loss = apart(*(values(rows, "Acc_retain", known=0.1, method=m) for m in ("no unlearning", ours)))
    took = values(rows, "trigger success", known=0.1, method="no unlearning")
    weak = "" if took and min(took) >= 0.95 else f"the trigger worked on {min(took, default=0):.0%} before, not on 95 %"
    note = "Acc_corr above " + ", above ".join(f"{m} {d}" for m, d in lifts.items())
    return all(d.low > 0 for d in lifts.values()), f"{note} (card: .30); loss on clean {loss} (card: at most .05)", weak


@headline(
    "with 10 % of a poison known, SSD names more triggered pictures right than retraining without the known part, and "
    "than SSD that was shown clean pictures"
)
def dampening_cleans(context: ClaimContext) -> Evidence:
    rows = figures(context, "corrective", "poison")
    holds, note, weak = cleans(rows)
    return Evidence(holds, means(rows, ("known", "method"), SHOWN), note, too_weak=weak)


@claim("retraining without the known 10 % leaves Acc_corr within 10 points of the un-corrected model: it is no gold "
       "standard here")  # fmt: skip
def retraining_fails(context: ClaimContext) -> Evidence:
    rows = figures(context, "corrective", "poison")
    change = apart(*(values(rows, "Acc_corr", known=0.1, method=m) for m in ("EU (retrain)", "no unlearning")))
    weak = cleans(rows)[2]
    return Evidence(
        change.low >= -0.1 and change.high <= 0.1, means(rows, ("known", "method"), SHOWN),
        f"EU less no unlearning {change}", too_weak=weak,
    )  # fmt: skip


@claim(
    "class confusion at a known share of 25 % is recorded for every method as the hard case; with everything known, EU "
    "recovers fully (poison: Acc_corr within 5 points of Acc_retain; confusion: >= 10 points above no unlearning)"
)
def confusion_is_hard(context: ClaimContext) -> Evidence:
    rows = figures(context, "corrective", "confusion", (0,))
    few, every = _at(rows, 0.25), _at(rows, 1.0)
    aim = every["EU (retrain)"]["Acc_corr"]
    solved = [n for n, r in few.items() if "oracle" not in n and "Acc_corr" in r and r["Acc_corr"] >= aim - 0.05]
    gained = aim - every["no unlearning"]["Acc_corr"]
    poison = figures(context, "corrective", "poison")
    eu = {c: values(poison, c, known=1.0, method="EU (retrain)") for c in ("Acc_corr", "Acc_retain")}
    corrected, retained = (sum(v) / len(v) for v in eu.values())
    note = (
        f"within 5 points of EU with everything known, at 25 %: {', '.join(solved) or 'no method'}; EU with everything "
        f"known: confusion +{100 * gained:.1f} points, poison {corrected:.3f} of {retained:.3f}"
    )
    return Evidence(gained >= 0.1 and corrected >= retained - 0.05, rows, note)


def _at(rows: Rows, share: float) -> dict[str, Any]:
    return {r["method"]: r for r in rows if r["known"] == share}
