"""Commitments to weights: fixed-point integers and salted leaves of a tree that opens one block at a time.

    leaf = SHA-256(0x00 ‖ salt ‖ number ‖ sizes ‖ θ_b ‖ θ'_b ‖ G_b), nodes as in `vestige.core.merkle`

Salts are 256 bits, because quantised weights alone could be guessed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from vestige.core.errors import UsageError

#: Integers of a block stay below this, so that nothing overflows before the exact arithmetic.
LARGEST = 2**31


def fixed(values: np.ndarray, bits: int) -> np.ndarray:
    """round(values · 2^bits) as int64. Raises UsageError for values that are not finite or do not fit 32 bits.

    >>> fixed(np.array([0.5, -0.25]), 2).tolist()
    [2, -1]
    """
    scaled = np.rint(np.asarray(values, np.float64) * 2.0**bits)
    if not np.isfinite(scaled).all() or (np.abs(scaled) >= LARGEST).any():
        raise UsageError(f"Some values are too large for fixed-point numbers of {bits} fractional bits.")
    return scaled.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Block:
    """A group of weights. theta, theta_new: int64 (d,), before and after. gradients: int64 N×d, of single samples."""

    number: int
    theta: np.ndarray
    theta_new: np.ndarray
    gradients: np.ndarray

    def leaf(self, salt: bytes) -> bytes:
        parts = (self.theta, self.theta_new, self.gradients)
        head = b"\x00" + salt + self.number.to_bytes(8, "big")
        sizes = b"".join(n.to_bytes(4, "big") for n in self.gradients.shape)
        return hashlib.sha256(head + sizes + b"".join(p.astype(">i8").tobytes() for p in parts)).digest()
