"""Agreement of bits: accuracy, its p-value against guessing, and the threshold for a false-positive rate."""

from __future__ import annotations

import numpy as np
from scipy import stats

from vestige.core.errors import UsageError


def bit_accuracy(sent: np.ndarray, received: np.ndarray) -> np.ndarray:
    """Share of equal bits along the last axis, float64; bool arrays (..., B) that broadcast against each other.

    Raises UsageError when the numbers of bits differ or are zero.

    >>> bit_accuracy(np.array([True, False]), np.array([[True, True], [True, False]])).tolist()
    [0.5, 1.0]
    """
    sent, received = np.asarray(sent, bool), np.asarray(received, bool)
    if sent.ndim == 0 or received.ndim == 0 or sent.shape[-1] != received.shape[-1] or sent.shape[-1] == 0:
        raise UsageError(
            f"Bits of shape {sent.shape} and {received.shape} cannot be compared; the last axes must agree."
        )
    return (sent == received).mean(-1)


def match_p_value(matches: int | np.ndarray, n_bits: int) -> np.ndarray:
    """P(X >= matches) for X ~ Binomial(n_bits, 1/2): how likely guessing agrees on so many of n bits.

    Raises UsageError unless 0 <= matches <= n_bits and n_bits >= 1.

    >>> float(match_p_value(10, 10)) == 2.0**-10
    True
    """
    counts = np.asarray(matches)
    if n_bits < 1 or (counts < 0).any() or (counts > n_bits).any():
        raise UsageError(f"Matches lie between 0 and the number of bits, got {matches} of {n_bits}.")
    return np.asarray(stats.binom.sf(counts - 1, n_bits, 0.5))


def match_threshold(n_bits: int, false_positive_rate: float) -> int:
    """Fewest matching bits t with P(X >= t) <= false_positive_rate for X ~ Binomial(n_bits, 1/2).

    The answer is n_bits + 1 where even complete agreement is too likely by chance. Raises UsageError for a rate
    outside (0, 1] or no bits.

    >>> match_threshold(32, 1e-3)
    26
    """
    if n_bits < 1 or not 0.0 < false_positive_rate <= 1.0:
        raise UsageError(f"A threshold needs bits and a rate in (0, 1], got {n_bits} bits and {false_positive_rate}.")
    tail = stats.binom.sf(np.arange(-1, n_bits + 1), n_bits, 0.5)  # P(X >= t) for t = 0 ... n_bits + 1
    return int(np.argmax(tail <= false_positive_rate))
