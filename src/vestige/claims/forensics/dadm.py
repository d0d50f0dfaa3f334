"""Claims of DADM on faces presented before four made-up cameras: trained on three of them, tested on the fourth.

Every camera is left out in two of eight pairs of runs. People of training, validation and test are different; the
threshold is that of equal errors on validation people before the cameras of the training. Faces are photographs; depth
and infrared are made from a dome and another reflectance, not recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.forensics.verdicts import Margin, over_runs
from vestige.claims import ClaimContext, Evidence, claim, headline

PAIRS, ONCE = range(8), range(4)
OURS, CONCAT = "unseen", "concat"
ABOUT = {
    OURS: "DADM", CONCAT: "concatenation, cross-entropy", "no_masks": "DADM without masks",
    "dropout": "concatenation with modality dropout", "gated": "modalities weighed by certainty (MMDG-like)",
}  # fmt: skip
KEYS = ("hter", "auc", "hter without rgb", "hter without depth", "hter without ir", "hter, one missing")
Figures = Mapping[str, Any]


def generalises(ours: Sequence[Figures], theirs: Sequence[Figures], shuffled: Figures) -> Margin:
    """By how much the HTER is lower than that of the rival, over pairs of runs."""
    null = abs(float(shuffled["hter"]) - 0.5)
    return over_runs([f["hter"] for f in theirs], [f["hter"] for f in ours], null)


def _table(context: ClaimContext) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    runs = {
        name: [context.run("dadm", name, s).figures for s in (PAIRS if name in (OURS, CONCAT) else ONCE)]
        for name in ABOUT
    }
    rows: list[dict[str, Any]] = []
    for name, found in [*runs.items(), ("shuffled", [context.run("dadm", "shuffled").figures])]:
        means = {key: float(np.mean([f[key] for f in found])) for key in KEYS}
        rows.append({"detector": ABOUT.get(name, "DADM, labels dealt out anew"), "runs": len(found), **means})
    best = float(np.mean([f["hter of the best modality"] for f in runs["gated"]]))
    rows.append({"detector": "the one modality that is best in validation", "runs": len(ONCE), "hter": best})
    return runs, rows


@headline("the HTER on a camera left out is lower than that of plain concatenation with cross-entropy")
def generalises_to_another_camera(context: ClaimContext) -> Evidence:
    runs, rows = _table(context)
    margin = generalises(runs[OURS], runs[CONCAT], context.run("dadm", "shuffled").figures)
    relative = margin.ahead.value / max(rows[1]["hter"], 1e-9)
    return Evidence(margin.holds, rows, f"{margin.said('lower')}, {relative:.0%}; the card hopes for 15 %", margin.weak)


@claim("the masks help: the HTER is lower than that of the same model without them")
def masks_help(context: ClaimContext) -> Evidence:
    runs, rows = _table(context)
    margin = over_runs([f["hter"] for f in runs["no_masks"]], [f["hter"] for f in runs[OURS][: len(ONCE)]])
    return Evidence(margin.holds, rows, margin.said("lower"))


@claim("with one modality missing, the HTER rises less than that of plain concatenation")
def bears_a_missing_modality(context: ClaimContext) -> Evidence:
    runs, rows = _table(context)
    rise = {name: [f["hter, one missing"] - f["hter"] for f in runs[name]] for name in (OURS, CONCAT)}
    margin = over_runs(rise[CONCAT], rise[OURS])
    means = f"rises {np.mean(rise[OURS]):.3f} and {np.mean(rise[CONCAT]):.3f}"
    said = f"{means}; {margin.said('less')}; the card hopes for half"
    return Evidence(margin.holds, rows, said)


@claim("the mask of depth is lower on masks of a face, whose depth is right, than on prints (sign test, p < 0.05)")
def depth_is_masked_where_it_deceives(context: ClaimContext) -> Evidence:
    from scipy.stats import binomtest

    found = [context.run("dadm", OURS, s).figures for s in PAIRS]
    rows = [{"camera": f["held"], **{k: v for k, v in f.items() if k.startswith("depth mask")}} for f in found]
    lower, pairs = (sum(int(f[key]) for f in found) for key in ("lower on masks", "pairs"))
    p = float(binomtest(lower, pairs, alternative="greater").pvalue)
    rows.append({"camera": "all", "lower on masks": lower, "faces": pairs, "p": p})
    return Evidence(p < 0.05, rows, "pairs of the same face; mean mask of depth in the last block")
