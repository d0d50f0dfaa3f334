"""Statistics of an audit: how far apart two groups of pictures are, how sure that is, and what would have been seen.

Every test measures an *effect*, 0 for a model that never saw the pictures, and carries the interval, the smallest
effect it sees four times in five, and its power against half of what the original shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vestige.core.rates import interval

#: Chance that any test of an audit speaks falsely of a model that never saw the pictures; shared among the tests.
ALPHA = 0.02
#: One-sided level of the two tests that make an equivalence (TOST).
TOST = 0.02
#: One-sided level at which a fall from the original counts.
FALL = 0.05
#: Power from which a test counts.
POWER = 0.8
#: Share of the original's effect that a deleted model must be shown to stay below.
MARGIN = 0.5
#: Share of a forgotten class that may still be named; difference of what new heads find that is worth a word.
SLIGHT = 0.05


@dataclass(frozen=True)
class Test:
    """One named test. of: "answers" or "features". method: of the interval. effect: 0 where nothing is left, with
    ``low`` to ``high`` at the audit's level. before: the original's effect. margin: what it has to be shown to stay
    below; power: the chance to see an effect of that size; smallest: the effect seen with 80 % power. left, over:
    whether more, or less than nothing was found. equivalent: whether both sides of the margin are excluded (TOST).
    """

    __test__ = False  # for pytest: no test of ours

    name: str
    of: str
    method: str
    effect: float
    low: float
    high: float
    before: float
    margin: float
    power: float
    smallest: float
    left: bool
    over: bool
    equivalent: bool
    pictures: tuple[int, int]

    @property
    def measurable(self) -> bool:
        """Whether the test would have seen half of what the original shows."""
        return self.power >= POWER

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "pictures": list(self.pictures), "measurable": self.measurable}


def delong(members: np.ndarray, scores: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Areas under the curve of several scores of the same samples, and their covariance.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988, by the ranks of Sun and Xu, IEEE Signal Processing
    Letters 2014.

    >>> areas, covariance = delong(np.array([True, True, False, False]), [np.array([3.0, 1.0, 2.0, 0.0])])
    >>> float(areas[0]), float(covariance[0, 0])
    (0.75, 0.125)
    """
    from scipy.stats import rankdata

    m, n = int(members.sum()), int((~members).sum())
    tens, ones = [], []
    for values in scores:
        ranks = rankdata(values)
        tens.append((ranks[members] - rankdata(values[members])) / n)
        ones.append(1 - (ranks[~members] - rankdata(values[~members])) / m)
    v10, v01 = np.array(tens), np.array(ones)
    k = len(scores)
    covariance = np.zeros((k, k))
    for v, size in ((v10, m), (v01, n)):
        if size > 1:
            covariance += np.cov(v).reshape(k, k) / size
    return v10.mean(1), covariance


def null_spread(members: np.ndarray, values: np.ndarray) -> float:
    """Standard deviation of the area under the curve where both groups are alike, ties counted (Mann-Whitney)."""
    m, n = int(members.sum()), int((~members).sum())
    ties = np.unique(values, return_counts=True)[1].astype(float)
    total = m + n
    size = total + 1 - float((ties**3 - ties).sum()) / max(total * (total - 1), 1)
    return math.sqrt(max(size, 0.0) / (12 * m * n))


def quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(level))


def normal(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(z))


def decided(
    name: str, of: str, method: str, effect: float, spread: float, before: float, tests: int, pictures: tuple[int, int],
    *, least: float = 0.0, null: float | None = None,
) -> Test:  # fmt: skip
    """A test of an effect that is nearly normal. spread: its standard deviation; null: the same where nothing is left,
    for what is seen. tests: among which `ALPHA` is shared. least: smallest margin, and what is not worth a word."""
    critical = quantile(1 - ALPHA / (2 * tests))
    seen = max(spread, null or 0.0)
    margin = max(MARGIN * before, least)
    over = quantile(1 - TOST) * spread
    return Test(
        name, of, method, effect, effect - critical * spread, effect + critical * spread, before, margin,
        normal(margin / seen - critical) if margin > 0 else 0.0, (critical + quantile(POWER)) * seen,
        effect > max(critical * seen, least / 2), effect < -max(critical * seen, least / 2),
        effect + over < margin and effect - over > -margin, pictures,
    )  # fmt: skip


def by_scores(
    name: str, of: str, members: np.ndarray, after: np.ndarray, before: np.ndarray, tests: int,
    reference: np.ndarray | None = None,
) -> Test:  # fmt: skip
    """How well scores tell members from others, less 0.5 or less what the reference's scores do (paired DeLong)."""
    groups = (int(members.sum()), int((~members).sum()))
    floor = 1 / (2 * min(groups))
    scores = [after, before] + ([reference] if reference is not None else [])
    areas, covariance = delong(members, scores)
    if reference is None:
        effect, usual, null = areas[0] - 0.5, areas[1] - 0.5, max(null_spread(members, after), floor)
        variance = covariance[0, 0]
    else:
        effect, usual, null = areas[0] - areas[2], areas[1] - areas[2], floor
        variance = covariance[0, 0] + covariance[2, 2] - 2 * covariance[0, 2]
    spread = max(math.sqrt(max(float(variance), 0.0)), floor)
    how = "DeLong" if reference is None else "paired DeLong, less the reference"
    return decided(name, of, how, float(effect), spread, float(usual), tests, groups, null=null)


def fell(members: np.ndarray, after: np.ndarray, before: np.ndarray) -> bool:
    """Whether the scores of the model after tell members clearly worse than those of the model before."""
    areas, covariance = delong(members, [before, after])
    spread = math.sqrt(max(float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]), 0.0))
    floor = 1 / (2 * min(int(members.sum()), int((~members).sum())))
    return bool(areas[0] - areas[1] > quantile(1 - FALL) * max(spread, floor / 2))


def by_share(
    name: str, of: str, right: np.ndarray, before: np.ndarray, tests: int, reference: np.ndarray | None = None,
    least: float = 2 * SLIGHT,
) -> Test:  # fmt: skip
    """The share named right (bool N), less the reference's on the same pictures, or above `SLIGHT` without one."""
    from scipy.stats import binom

    n = len(right)
    if reference is not None:
        differences = right.astype(float) - reference
        spread = max(float(differences.std()) / math.sqrt(n), 1 / (2 * n), _pooled(right, reference))
        usual = float(before.mean() - reference.mean())
        return decided(
            name, of, "paired difference", float(differences.mean()), spread, usual, tests, (n, 0), least=least
        )
    level = ALPHA / (2 * tests)
    low, high = interval(int(right.sum()), n, 1 - 2 * level)
    bounds = np.array([interval(k, n, 1 - 2 * level)[0] for k in range(n + 1)]) if n <= 2000 else None
    margin = MARGIN * float(before.mean())
    if bounds is None:
        needed = math.ceil(n * SLIGHT + quantile(1 - level) * math.sqrt(n * SLIGHT))
    else:
        needed = int(np.argmax(bounds > SLIGHT)) if (bounds > SLIGHT).any() else n + 1
    power = float(binom.sf(needed - 1, n, margin))
    smallest = next((p for p in np.linspace(0, 1, 201) if binom.sf(needed - 1, n, p) >= POWER), 1.0)
    upper = interval(int(right.sum()), n, 1 - 2 * TOST)[1]
    return Test(name, of, "Clopper-Pearson", float(right.mean()), low, high, float(before.mean()), margin, power,
                float(smallest), low > SLIGHT, False, upper < margin, (n, 0))  # fmt: skip


def _pooled(one: np.ndarray, other: np.ndarray) -> float:
    """Spread of a difference of two shares that move together half of the time: for samples without a difference."""
    share = (one.mean() + other.mean()) / 2
    return 0.5 * math.sqrt(2 * float(share * (1 - share)) / len(one))


def stand_out(values: np.ndarray, usual: np.ndarray, level: float) -> np.ndarray:
    """Which values lie above the usual ones, false discoveries held below ``level`` (Benjamini and Hochberg 1995).

    >>> stand_out(np.array([9.0, 0.5]), np.arange(200) / 200, 0.05).tolist()
    [True, False]
    """
    ordered = np.sort(usual)
    above = len(ordered) - np.searchsorted(ordered, values, side="left")
    p = (1 + above) / (len(ordered) + 1)
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / len(p))
    found = np.zeros(len(p), bool)
    if len(passed):
        found[order[: passed[-1] + 1]] = True
    return found
