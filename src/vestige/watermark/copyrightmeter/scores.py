"""The scores of the audit: what protecting achieves over nothing, and how much of it an attack leaves.

m(P, A): the family's own measure with protection P under attack A; m_full: of complete protection.

    efficacy(P, A)   = (m(P, A) - m(none, A)) / (m_full - m(none, identity))
    resilience(P, A) = efficacy(P, A) / efficacy(P, identity)

"Nothing protected" runs under every attack too and is taken off: an attack that damages pictures until nobody can
imitate them has protected nobody. Efficacies are not cut off at 0 or 1, so that means over seeds are not biased.
The definition of resilience is this implementation's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from vestige.core.errors import UsageError


class Estimate(NamedTuple):
    """A mean over seeds with its interval (Student's t)."""

    value: float
    low: float
    high: float


def efficacy(protected: float, none: float, none_before: float, full: float) -> float:
    """What protecting achieves under an attack. none: nothing protected, under the same attack; none_before: without.

    0 where complete protection would change nothing.

    >>> efficacy(0.9, 0.9, 0.1, 1.1), round(efficacy(0.6, 0.1, 0.1, 1.1), 6)
    (0.0, 0.5)
    """
    span = full - none_before
    return 0.0 if abs(span) < 1e-9 else (protected - none) / span


def over_seeds(values: Sequence[float], level: float = 0.95) -> Estimate:
    """mean ± t · s/√n; raises UsageError for fewer than two seeds."""
    x = np.asarray(values, float)
    return _interval(float(x.mean()), x - x.mean(), level)


def ratio(after: Sequence[float], before: Sequence[float]) -> Estimate:
    """Mean after over mean before, in [0, 1], with the interval of a ratio estimator; 0 where nothing was before.

    r = ā/b̄, residuals (a - r b)/b̄. Source: Cochran, Sampling Techniques, 1977, chapter 6.
    """
    a, b = np.asarray(after, float), np.asarray(before, float)
    if b.mean() <= 0:
        return Estimate(0.0, 0.0, 0.0)
    r = a.mean() / b.mean()
    found = _interval(float(r), (a - r * b) / b.mean())
    return Estimate(*(float(np.clip(v, 0, 1)) for v in found))


def _interval(value: float, residuals: np.ndarray, level: float = 0.95) -> Estimate:
    n = len(residuals)
    if n < 2:
        raise UsageError(f"A confidence interval needs at least 2 seeds; got {n}.")
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * np.sqrt(np.sum(residuals**2) / (n - 1) / n))
    return Estimate(value, value - half, value + half)
