"""Projection onto the capped simplex, for choosing a fixed number of things softly."""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.core.errors import UsageError


def project_capped(a: Any, total: float, tolerance: float = 1e-9) -> np.ndarray:
    """The nearest w to a (N,) with 0 ≤ w ≤ 1 and Σ w = total: clip(a − μ, 0, 1), μ by bisection in float64.

    Raises UsageError for values that are not finite or a total outside [0, N].

    >>> project_capped([0.9, 0.9, 0.0], 1).round(6).tolist()
    [0.5, 0.5, 0.0]
    """
    a = np.asarray(a, np.float64)
    if a.ndim != 1 or not np.isfinite(a).all() or not 0 <= total <= len(a):
        raise UsageError(f"Weights must be finite numbers (N,) and their sum lie in [0, N]; got {a.shape} and {total}.")
    low, high = float(a.min()) - 1, float(a.max())
    while high - low > tolerance:
        middle = (low + high) / 2
        if np.clip(a - middle, 0, 1).sum() > total:
            low = middle
        else:
            high = middle
    return np.clip(a - (low + high) / 2, 0, 1)
