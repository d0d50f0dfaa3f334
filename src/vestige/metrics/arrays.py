"""What the measures accept: arrays checked once, so that a wrong one is refused in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.core.errors import InputError, UsageError


def finite(values: Any, what: str, ndim: int) -> np.ndarray:
    """Float64 with that many axes, none of them empty.

    Raises UsageError for another shape or type, InputError for NaN or infinity.

    >>> finite([1, 2], "Scores", 1)
    array([1., 2.])
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{what} must be numbers in an array with {ndim} axes.") from None
    if array.ndim != ndim or array.size == 0:
        raise UsageError(f"{what} must be a non-empty array with {ndim} axes; got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise InputError(f"{what} hold values that are not finite (NaN or infinity); repair or leave out those rows.")
    return array


def binary(values: Any, what: str, count: int) -> np.ndarray:
    """Bool (count,) from bool or 0/1 values.

    Raises UsageError for another shape or other values.

    >>> binary([0, 1], "Labels", 2)
    array([False,  True])
    """
    array = np.asarray(values)
    if array.shape != (count,):
        raise UsageError(f"{what} must have shape {(count,)}, one for each score; got {array.shape}.")
    if array.dtype != bool:
        if array.dtype.kind not in "iuf" or not np.isin(array, (0, 1)).all():
            raise UsageError(f"{what} must be bool, or hold only 0 and 1.")
        array = array.astype(bool)
    return array


def classes(values: Any, what: str, count: int, n_classes: int) -> np.ndarray:
    """Int64 (count,) class numbers below ``n_classes``.

    Raises UsageError for another shape, other types or numbers out of range.

    >>> classes([0, 2], "Labels", 2, 3)
    array([0, 2])
    """
    array = np.asarray(values)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise UsageError(f"{what} must be integers of shape {(count,)}; got {array.dtype} of shape {array.shape}.")
    if array.min() < 0 or array.max() >= n_classes:
        raise UsageError(f"{what} must lie in 0 … {n_classes - 1}; got {array.min()} … {array.max()}.")
    return array.astype(np.int64)


def probabilities(values: Any, what: str) -> np.ndarray:
    """Float64 N×K, rows of probabilities that sum to one (within 1e-3), K ≥ 2.

    Raises UsageError for another shape or rows that are no distributions, InputError for NaN or infinity.

    >>> probabilities([[0.25, 0.75]], "Probabilities").shape
    (1, 2)
    """
    array = finite(values, what, 2)
    if array.shape[1] < 2 or array.min() < 0 or np.abs(array.sum(1) - 1).max() > 1e-3:
        raise UsageError(f"{what} must be N×K with K ≥ 2, not negative, each row summing to 1; apply a softmax first.")
    return array


def rate(value: float, what: str) -> float:
    """A number in (0, 1]; raises UsageError otherwise.

    >>> rate(0.5, "The rate")
    0.5
    """
    if not 0.0 < value <= 1.0:
        raise UsageError(f"{what} must lie in (0, 1]; got {value}.")
    return float(value)
