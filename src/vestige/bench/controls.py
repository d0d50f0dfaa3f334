"""Controls and intervals for claims: what a result is held against, each in a line.

| control | catches |
|---|---|
| `untrained` | an effect of the architecture or of the evaluation |
| `shuffled` | the resolution of the test bed: a margin below it means nothing |
| `floors` | a constant, a blur, a centre prior that does as well |
| `interval`, `paired`, `over_seeds` | chance |

Nothing done, but attacked or processed all the same, is one more arm of the same call: pass the untouched inputs.

>>> a, b = np.arange(100) / 100, np.arange(100) / 100 - 0.1
>>> paired(a, b).low > 0
True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng

if TYPE_CHECKING:
    from torch import nn

M = TypeVar("M", bound="nn.Module")


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval at ``level``. how: what was resampled."""

    value: float
    low: float
    high: float
    level: float = 0.95
    how: str = "bootstrap"

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def row(self, name: str) -> dict[str, float]:
        """Three cells of a table."""
        return {name: self.value, f"{name} low": self.low, f"{name} high": self.high}


def interval(
    values: Sequence[float] | np.ndarray, statistic: Callable[..., Any] = np.mean, *, seed: int = 0,
    draws: int = 2000, level: float = 0.95,
) -> Interval:  # fmt: skip
    """Percentile bootstrap of ``statistic`` over test items. values: N, or N×k for a statistic of k columns
    (scores and labels). Raises UsageError for fewer than two items."""
    x = np.asarray(values)
    if len(x) < 2:
        raise UsageError(f"An interval needs at least two items, got {len(x)}.")
    draw = rng(seed, "bootstrap")
    found = np.array([statistic(x[draw.integers(len(x), size=len(x))]) for _ in range(draws)], float)
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) if len(found) else (np.nan, np.nan)
    return Interval(float(statistic(x)), float(low), float(high), level)


def paired(
    ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray, *, seed: int = 0, draws: int = 2000,
    level: float = 0.95,
) -> Interval:  # fmt: skip
    """The mean difference of two methods on the same items, resampling items. Raises UsageError for unequal counts."""
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    if a.shape != b.shape:
        raise UsageError(f"Paired values must be as many; got {a.shape} and {b.shape}.")
    return interval(a - b, seed=seed, draws=draws, level=level)


def over_seeds(ours: Sequence[float], theirs: Sequence[float] | None = None, level: float = 0.95) -> Interval:
    """The mean of (differences of) runs with Student's interval over seeds. Raises UsageError for fewer than three."""
    from scipy.stats import t

    x = np.asarray(ours, float) - (0.0 if theirs is None else np.asarray(theirs, float))
    if len(x) < 3:
        raise UsageError(f"An interval over seeds needs at least three runs, got {len(x)}.")
    half = float(t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, level, "seeds")


def share(hits: int, count: int, level: float = 0.95) -> Interval:
    """A share with its exact binomial interval (Clopper and Pearson, Biometrika 1934): 0 of 25 reaches up to .137.

    >>> round(share(0, 25).high, 3)
    0.137
    """
    from scipy.stats import beta

    if not 0 <= hits <= count or count < 1:
        raise UsageError(f"A share needs 0 ≤ hits ≤ count and a count of at least 1; got {hits} of {count}.")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, count - hits)) if hits < count else 1.0
    return Interval(hits / count, low, high, level, "exact binomial")


def untrained(make: Callable[[], M], seed: int = 0) -> M:
    """A network as it is before training, from a seed of its own, in evaluation mode."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 987_654)
        return make().eval()


def shuffled(labels: np.ndarray | Sequence[Any], seed: int = 0) -> np.ndarray:
    """The same labels dealt out anew: what is learned from them is the test bed's noise."""
    return rng(seed, "shuffled labels").permutation(np.asarray(labels))


def resolution(score: Callable[[np.ndarray], float], labels: np.ndarray, *, draws: int = 200, seed: int = 0) -> float:
    """The 95 % quantile of |score - its mean| over shuffled labels: differences below it mean nothing.

    score: labels -> figure, of scores that are fixed.
    """
    found = np.array([score(shuffled(labels, seed + i)) for i in range(draws)])
    return float(np.quantile(np.abs(found - found.mean()), 0.95))


def too_weak(margin: float, control: float, what: str = "shuffled labels reach") -> str:
    """Why a margin says nothing, for `Evidence.too_weak`; empty when it is larger than the control's.

    >>> too_weak(0.02, 0.05)
    'the margin 0.02 is within what shuffled labels reach (0.05)'
    """
    return f"the margin {margin:.3g} is within what {what} ({control:.3g})" if abs(margin) <= control else ""


def floors(value: float, trivial: Mapping[str, float]) -> str:
    """Which trivial answer does as well, in words; empty when none does. More is better."""
    best = max(trivial, key=lambda name: trivial[name], default="")
    return f"{best} does as well ({trivial[best]:.3g})" if best and trivial[best] >= value else ""
