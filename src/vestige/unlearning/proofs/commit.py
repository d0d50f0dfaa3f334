"""Commitments to weights: fixed-point integers, salted leaves, a Merkle tree that opens one block at a time.

    leaf = SHA-256(0x00 ‖ salt ‖ number ‖ sizes ‖ θ_b ‖ θ'_b ‖ G_b),   node = SHA-256(0x01 ‖ left ‖ right)

Salts are 256 bits, because quantised weights alone could be guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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


class MerkleTree:
    """A tree over leaves in their order; an odd last node is carried up. Raises UsageError without leaves.

    >>> tree = MerkleTree([b"a", b"b", b"c"])
    >>> all(root_of(leaf, i, 3, tree.path(i)) == tree.root for i, leaf in enumerate([b"a", b"b", b"c"]))
    True
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise UsageError("There is nothing to commit to.")
        self.rows = [list(leaves)]
        while len(self.rows[-1]) > 1:
            row = self.rows[-1]
            above = [_node(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
            self.rows.append(above + row[len(row) - len(row) % 2 :])

    @property
    def root(self) -> bytes:
        return self.rows[-1][0]

    def path(self, place: int) -> tuple[bytes, ...]:
        """The siblings of that leaf from the bottom up, where it has one."""
        found = []
        for row in self.rows[:-1]:
            if place ^ 1 < len(row):
                found.append(row[place ^ 1])
            place //= 2
        return tuple(found)


def root_of(leaf: bytes, place: int, count: int, path: Sequence[bytes]) -> bytes:
    """The root that a leaf at that place of ``count`` leads to along its path; b"" when the path has a wrong length."""
    siblings = list(path)
    while count > 1:
        if place ^ 1 < count:
            if not siblings:
                return b""
            other = siblings.pop(0)
            leaf = _node(other, leaf) if place % 2 else _node(leaf, other)
        place, count = place // 2, (count + 1) // 2
    return b"" if siblings else leaf


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
