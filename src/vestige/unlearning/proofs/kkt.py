"""Is a block's update the prescribed one? Checked without inverting anything, in exact integers.

δ = θ' − θ minimises δᵀFδ under δ_S = −θ_S, F = GᵀG/N + λI, exactly when θ'_S = 0 and (Fδ)_R = 0 on the other weights R.
F is positive definite, so weights that pass with tolerance τ are the prescribed ones up to √d·τ/λ.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from vestige.core.errors import UsageError
from vestige.unlearning.proofs.commit import LARGEST, Block


@dataclass(frozen=True)
class Statement:
    """What is claimed, public. request: digest of what must be forgotten. mask: digest of the masked positions.
    blocks, size: how many blocks of how many weights (the last one padded). samples: N. weight_bits, gradient_bits:
    fractional bits. damping, tolerance: λ and τ, in units of gradients scaled to a mean square of 1 in each matrix."""

    request: str
    mask: str
    blocks: int
    size: int
    samples: int
    weight_bits: int = 24
    gradient_bits: int = 13
    damping: float = 1.0
    tolerance: float = 2.0**-10

    def __post_init__(self) -> None:
        if min(self.blocks, self.size, self.samples) < 1 or not self.damping > 0 or not self.tolerance > 0:
            raise UsageError("Blocks, their size, samples, damping and tolerance must be positive.")

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).digest()

    @property
    def slack(self) -> float:
        """How far weights that pass may lie from the prescribed ones (L2 in a block): √d·τ/λ."""
        return float(self.size**0.5 * self.tolerance / self.damping)


def mask_digest(masked: np.ndarray) -> str:
    """SHA-256 of a bool mask blocks×size."""
    return hashlib.sha256(repr(masked.shape).encode() + np.packbits(masked).tobytes()).hexdigest()


def residual(block: Block, statement: Statement) -> np.ndarray:
    """Gᵀ(Gδ) + N·λ·δ in exact integers (object array, d), in units of 1 / (N · 2^(2·gradient_bits + weight_bits))."""
    delta = (block.theta_new - block.theta).astype(object)
    g = block.gradients.astype(object)
    damping = round(statement.damping * 4**statement.gradient_bits)
    return g.T @ (g @ delta) + statement.samples * damping * delta


def fault(block: Block, masked: np.ndarray, statement: Statement) -> str:
    """Why the block is not the prescribed update, in a few words; "" when it is.

    >>> s = Statement("", "", 1, 2, 1)
    >>> g = np.zeros((1, 2), np.int64)
    >>> fault(Block(0, np.array([5, 7]), np.array([0, 7]), g), np.array([True, False]), s)
    ''
    >>> fault(Block(0, np.array([5, 7]), np.array([1, 7]), g), np.array([True, False]), s)
    'a masked weight is not zero'
    """
    parts = (block.theta, block.theta_new, block.gradients)
    shapes = [(statement.size,), (statement.size,), (statement.samples, statement.size)]
    if [p.shape for p in parts] != shapes or any(p.dtype != np.int64 for p in parts):
        return "the opened values have another form than stated"
    if any(int(np.abs(p).max(initial=0)) >= LARGEST for p in parts):
        return "the opened values are out of range"
    if block.theta_new[masked].any():
        return "a masked weight is not zero"
    if not masked.any():
        return "" if np.array_equal(block.theta, block.theta_new) else "weights without a masked one were changed"
    if masked.all():
        return ""
    limit = int(statement.tolerance * 2.0 ** (2 * statement.gradient_bits + statement.weight_bits)) * statement.samples
    if max(abs(int(r)) for r in residual(block, statement)[~masked]) > limit:
        return "the other weights are not those that make up for the masked ones"
    return ""
