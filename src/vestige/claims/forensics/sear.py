"""Claims of SEAR against small localisers; the edits are splices, copy-moves and removals of other photographs.

The concealer learnt at 33.5 dB, above the 33 that the claims allow. Maps are cut where validation pictures serve best;
signed gradients are matched to SEAR's PSNR on validation pictures, the blur is the strongest that keeps 33.5 dB there.
Concealed pictures are eight-bit. Three contests with networks of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.forensics.verdicts import Margin, over_pictures
from vestige.claims import ClaimContext, Evidence, claim, headline

SEEDS = range(3)
VERSIONS = (
    "as it is", "sear", "sear, second round", "pgd", "pgd without masks", "fgsm", "hinge", "blur", "median", "jpeg 70",
)  # fmt: skip
Figures = Mapping[str, Any]


def hides_better(found: Sequence[Figures], ours: str, theirs: str, judge: str) -> Margin:
    """By how much the F1 of a localiser is lower under one attack than under another, of every picture."""
    more, less = ([f[f"each f1, {name}, {judge}"] for f in found] for name in (theirs, ours))
    return over_pictures(more, less)


def _table(found: Sequence[Figures], judge: str) -> list[dict[str, Any]]:
    rows = []
    for name in VERSIONS:
        row: dict[str, Any] = {"pictures": name, "psnr": float(np.mean([f[f"psnr, {name}"] for f in found]))}
        for key in ("f1", "f1 inverted", "auc"):
            row[key] = float(np.mean([f[f"{key}, {name}, {judge}"] for f in found]))
        rows.append(row)
    return rows


def _contests(context: ClaimContext) -> list[Figures]:
    return [context.run("sear", "sear", s).figures for s in SEEDS]


def _quality(found: Sequence[Figures]) -> float:
    return float(np.mean([f["psnr, sear"] for f in found]))


@headline("a localiser that nobody trained against loses more F1 than under signed gradients of equal PSNR")
def transfers(context: ClaimContext) -> Evidence:
    found = _contests(context)
    margin = hides_better(found, "sear", "pgd", "unseen")
    note = f"{margin.said('lower than under PGD, which knows the mask,')}; {_quality(found):.1f} dB"
    return Evidence(margin.holds and _quality(found) >= 33, _table(found, "unseen"), note)


@claim("white box: its supervisor's F1 is lower than under a Gaussian blur that keeps as many decibels, at >= 33 dB")
def conceals_from_its_supervisor(context: ClaimContext) -> Evidence:
    found = _contests(context)
    margin = hides_better(found, "sear", "blur", "supervisor")
    return Evidence(
        margin.holds and _quality(found) >= 33, _table(found, "supervisor"), margin.said("lower than under the blur")
    )


@claim("knowing the mask no better than it does, signed gradients of equal PSNR hide less from the unseen localiser")
def transfers_better_than_blind_gradients(context: ClaimContext) -> Evidence:
    found = _contests(context)
    margin = hides_better(found, "sear", "pgd without masks", "unseen")
    return Evidence(margin.holds, _table(found, "unseen"), margin.said("lower than under PGD without masks"))


@claim("after the localiser was trained on concealed pictures, the second round lowers its F1 more than the first does")
def survives_retraining(context: ClaimContext) -> Evidence:
    found = _contests(context)
    margin = hides_better(found, "sear, second round", "sear", "retrained")
    rows = _table(found, "retrained")
    half = rows[2]["f1"] <= rows[0]["f1"] / 2
    return Evidence(margin.holds, rows, f"{margin.said('lower')}; it {'halves' if half else 'does not halve'} the F1")
