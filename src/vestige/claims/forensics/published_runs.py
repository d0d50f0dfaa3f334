"""What claims read from runs on published pictures: arms over folds, differences with intervals, tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vestige.bench.controls import Interval, over_seeds, too_weak
from vestige.bench.forensics.published_bed import FEW
from vestige.claims import ClaimContext
from vestige.engines.runs import Run

FOLDS = (0, 1, 2)
MEAN = "levelled, mean"


def arm(context: ClaimContext, recipe: str, variant: str, seeds: Sequence[int] = FOLDS) -> list[Run]:
    """The runs of a variant; the seed says which third of the families and sources was left out."""
    return [context.run(recipe, variant, seed) for seed in seeds]


def figures(runs: Sequence[Run], name: str = MEAN) -> list[float]:
    """One figure of each run."""
    return [float(run.figures[name]) for run in runs]


def judged(
    ours: Sequence[float], theirs: Sequence[Sequence[float]], shuffled: float
) -> tuple[bool, list[Interval], str]:
    """(whether we are ahead of every baseline with the whole interval over folds above 0, the differences, why the bed
    cannot tell, where the least difference is within what shuffled labels are away from one half).

    >>> judged([0.8, 0.81, 0.79], [[0.7, 0.72, 0.69]], 0.52)[0]
    True
    >>> judged([0.8, 0.81, 0.79], [[0.8, 0.81, 0.79]], 0.52)[0]
    False
    """
    differences = [over_seeds(ours, other) for other in theirs]
    least = min(d.value for d in differences)
    ahead = all(d.low > 0 for d in differences)
    weak = too_weak(least, abs(shuffled - 0.5), "shuffled labels are away from one half") if ahead else ""
    return ahead, differences, weak


def row(name: str, runs: Sequence[Run], note: str = "") -> dict[str, Any]:
    """Means over folds, by handling, the spread over folds, and the share of real pictures flagged."""
    first = figures(runs)
    found: dict[str, Any] = {
        "detector": name, "folds": len(runs), MEAN: float(np.mean(first)), "spread": float(np.std(first)),
    }  # fmt: skip
    for handling in ("JPEG 70", "half size"):
        found[f"{handling}, mean"] = float(np.mean(figures(runs, f"{handling}, mean")))
    found["real flagged"] = float(np.mean(figures(runs, "flagged")))
    return {**found, "note": note} if note else found


def families(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """AUROC of every family, each in the fold that left it out; small ones are joined in each fold."""
    return [
        {"family": name, "fold": run.seed, "AUROC": float(value)}
        for run in runs for name, value in sorted(run.figures["families"].items())
    ]  # fmt: skip


def kinds(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How many of every kind of real picture were flagged over the folds, at thresholds that each fold chose on other
    sources, with the exact interval; kinds with fewer than `FEW` are marked."""
    from vestige.bench.controls import share

    counts: dict[str, list[int]] = {}
    for run in runs:
        for kind, (number, hits) in run.figures["kinds"].items():
            have = counts.setdefault(kind, [0, 0])
            have[0] += int(number)
            have[1] += int(hits)
    return [
        {"real pictures": kind, "count": number, **share(hits, number).row("flagged"), "few": number < FEW}
        for kind, (number, hits) in sorted(counts.items())
    ]  # fmt: skip


def told(differences: Sequence[Interval], names: Sequence[str]) -> str:
    """The differences in words."""
    parts = [f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] above {n}" for d, n in zip(differences, names, strict=True)]
    return "; ".join(parts) + "; interval over three folds of families and sources"
