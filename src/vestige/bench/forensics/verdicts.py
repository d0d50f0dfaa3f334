"""How claims about trained detectors are judged: a margin with its interval, held only where the bed can tell.

Each function takes figures of finished runs and nothing else, so that a planted failure can be put in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vestige.bench.controls import Interval, interval, over_seeds, paired, too_weak
from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.metrics.detection import auroc


@dataclass(frozen=True)
class Margin:
    """By how much ours is ahead. holds: the interval lies above ``least`` and every run agrees, where runs are few.
    weak: why the bed cannot tell, empty where it can."""

    ahead: Interval
    holds: bool
    weak: str = ""

    def said(self, what: str) -> str:
        """The margin in words."""
        return f"{what} by {self.ahead} ({self.ahead.how})"


def over_runs(ours: Sequence[float], theirs: Sequence[float] | float, null: float = 0.0) -> Margin:
    """Pairs of runs, or runs against one figure: Student's interval of the mean difference is above zero.

    null: what shuffled labels reach; a margin within it says nothing.
    """
    other = [theirs] * len(ours) if isinstance(theirs, int | float) else list(theirs)
    if len(other) != len(ours):
        raise UsageError(f"Runs are compared in pairs; got {len(ours)} and {len(other)}.")
    found = over_seeds(ours, other)
    return Margin(found, found.low > 0, too_weak(found.value, null) if found.low > 0 else "")


def over_pictures(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], null: float = 0.0) -> Margin:
    """Runs × pictures of each: the interval of the mean difference over pictures is above zero, and every run is ahead.

    Pictures are resampled; figures of runs are averaged first, and there are as many of both.
    """
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    if a.shape != b.shape or a.ndim != 2:
        raise UsageError(f"Figures of runs × pictures are compared; got {a.shape} and {b.shape}.")
    found = paired(a.mean(0), b.mean(0))
    found = Interval(found.value, found.low, found.high, found.level, "over pictures")
    holds = found.low > 0 and bool((a.mean(1) > b.mean(1)).all())
    return Margin(found, holds, too_weak(found.value, null) if holds else "")


def over_scores(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], labels: Sequence[bool], null: float = 0.0,
    draws: int = 500,
) -> Margin:  # fmt: skip
    """The same for the AUC of scores, runs × pictures: the mean over runs of the difference, pictures resampled."""
    a, b, truth = np.asarray(ours, float), np.asarray(theirs, float), np.asarray(labels, bool)
    if a.shape != b.shape or a.shape[1] != len(truth):
        raise UsageError(f"Scores of runs × pictures are compared; got {a.shape}, {b.shape} and {len(truth)} labels.")

    def each(rows: np.ndarray) -> np.ndarray:
        return np.array([auroc(truth[rows], x[rows]) - auroc(truth[rows], y[rows]) for x, y in zip(a, b, strict=True)])

    draw, found = rng(0, "bootstrap of scores"), []
    sides = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    for _ in range(draws):
        found.append(float(each(np.concatenate([draw.choice(s, len(s)) for s in sides])).mean()))
    whole = each(np.arange(len(truth)))
    low, high = np.quantile(found, [0.025, 0.975])
    margin = Interval(float(whole.mean()), float(low), float(high), 0.95, "over pictures")
    holds = bool(low > 0 and (whole > 0).all())
    return Margin(margin, holds, too_weak(margin.value, null) if holds else "")


def beyond(values: Sequence[float], least: float) -> Margin:
    """Figures of pictures: the interval of their mean lies above ``least``."""
    found = interval(np.asarray(values, float) - least)
    return Margin(Interval(found.value, found.low, found.high, found.level, "over pictures"), found.low > 0)
