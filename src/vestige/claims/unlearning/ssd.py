"""Claims of Selective Synaptic Dampening: a class is gone in a moment, and it matters which weights are dampened.

The bed (`vestige.bench.unlearning.bed`) has three seeds, each with its own pictures, class and networks; figures are
differences between arms of the same seed.
"""

from __future__ import annotations

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import BED_NEEDS, SEEDS, Rows, apart, bed_rows, figures, means, values
from vestige.engines.runs import Need

NEEDS = (*BED_NEEDS, Need("ssd"))
PEERS = (
    "original", "retrain", "retrain, 2nd seed", "untrained", "ssd", "finetune", "grad_ascent", "bad_teacher",
    "random_labels", "unsir",
)  # fmt: skip


def nearer(rows: Rows, ours: str = "ssd", theirs: str = "finetune") -> tuple[bool, str]:
    """Whether ours comes nearer to retraining than theirs and than nothing done, at under 5 % of its samples."""
    gap = {m: values(rows, "gap", problem="class", method=m) for m in (ours, theirs, "original")}
    beside, nothing = apart(gap[ours], gap[theirs]), apart(gap[ours], gap["original"])
    passes = max(values(rows, "passes of retraining", problem="class", method=ours), default=1.0)
    note = f"gap less {theirs}'s {beside}, less that of nothing done {nothing}; {100 * passes:.1f} % of the samples"
    return beside.high < 0 and nothing.high < 0 and passes < 0.05, note


@headline(
    "forgets a class: nearer to retraining than fine-tuning comes, over seeds, at under 5 % of the samples that "
    "retraining passes"
)
def forgets_a_class(context: ClaimContext) -> Evidence:
    rows = [r for r in bed_rows(context) if r["problem"] == "class" and r["method"] in PEERS]
    curve = [r for r in figures(context, "ssd", "default") if r["arm"] == "curve"]
    holds, note = nearer(rows)
    forgotten = values(rows, "UA", problem="class", method="ssd")
    kept = apart(*(values(rows, "RA", problem="class", method=m) for m in ("ssd", "original")))
    note += f"; forget accuracy {1 - sum(forgotten) / len(forgotten):.3f} (card: at most .05), retain less original's "
    note += f"{kept} (card: at least -.03)"
    return Evidence(holds, [*means(rows), *means(curve, ("method",), ("UA", "RA"))], note)


@claim("the entropy attack calls as many forgotten samples members as on the retrained model, nearer than FT and GA")
def hides_membership(context: ClaimContext) -> Evidence:
    rows = [r for r in bed_rows(context) if r["method"] in PEERS]
    good, notes = [], []
    for kind in ("class", "random"):
        aim = values(rows, "mia_entropy", problem=kind, method="retrain")
        off = {
            m: [abs(v - a) for v, a in zip(values(rows, "mia_entropy", problem=kind, method=m), aim, strict=True)]
            for m in ("ssd", "finetune", "grad_ascent")
        }
        differences = {m: apart(off["ssd"], off[m]) for m in ("finetune", "grad_ascent")}
        good.append(all(d.high < 0 for d in differences.values()))
        notes.append(f"{kind}: " + ", ".join(f"SSD less {m} {d}" for m, d in differences.items()))
    return Evidence(all(good), means(rows), "distance to the retrained model's share; " + "; ".join(notes))


@claim(
    "dampening as many of the largest, or of random, weights to an equal forget accuracy leaves a retain accuracy "
    "lower by at least 10 points"
)
def selection_matters(context: ClaimContext) -> Evidence:
    table = [r for r in figures(context, "ssd", "default") if r["arm"] == "selection"]
    margins: list[float | None] = []
    for seed in SEEDS:
        at = {r["method"]: r for r in table if r["seed"] == seed}
        # A control that cannot forget as much even at factor 0 is not ahead of SSD at equal forgetting.
        margins += [at["ssd"]["RA"] - r["RA"] if r["reached"] else None for m, r in at.items() if m != "ssd"]
    reached = [m for m in margins if m is not None]
    note = f"{len(margins) - len(reached)} of {len(margins)} controls never forget as much"
    if reached:
        note += f"; the smallest margin of the others is {100 * min(reached):.1f} points"
    return Evidence(bool(reached) and min(reached) >= 0.10, table, note)
