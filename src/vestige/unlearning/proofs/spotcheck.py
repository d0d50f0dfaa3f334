"""Spot checks: commit to all blocks, open those that a hash of the commitment chooses, check them exactly.

Commit first, then learn the verifier's nonce; the challenge is SHA-256(root ‖ statement ‖ nonce ‖ counter). If a share
β of the blocks is wrong, t openings miss them all with probability at most (1 − β)^t. Sound by collision resistance;
without a fresh nonce a cheat may try roots until the challenge suits, at one attempt per hash. Opened blocks are seen
in clear: this is no zero knowledge. Blocks that are not opened are vouched for by that probability alone.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vestige.core.errors import NotVerifiedError, UsageError
from vestige.core.merkle import MerkleTree, root_of
from vestige.unlearning.proofs.commit import Block
from vestige.unlearning.proofs.kkt import Statement, fault, mask_digest


def openings(beta: float = 0.05, bits: int = 20) -> int:
    """How many openings miss a share β of wrong blocks with probability at most 2^−bits.

    >>> openings()
    271
    """
    if not 0 < beta <= 1:
        raise UsageError(f"The share of wrong blocks is {beta}; it must lie in (0, 1].")
    return 1 if beta == 1 else math.ceil(bits * math.log(2) / -math.log1p(-beta))


def challenge(root: bytes, statement: Statement, nonce: bytes, count: int) -> tuple[int, ...]:
    """``count`` different blocks (all when there are fewer), drawn without bias from the hash, in ascending order."""
    total = statement.blocks
    if count >= total:
        return tuple(range(total))
    chosen: set[int] = set()
    limit = 2**64 - 2**64 % total
    for counter in range(2**32):
        row = hashlib.sha256(root + statement.digest + nonce + counter.to_bytes(8, "big")).digest()
        for at in range(0, 32, 8):
            drawn = int.from_bytes(row[at : at + 8], "big")
            if drawn < limit and len(chosen) < count:
                chosen.add(drawn % total)
        if len(chosen) == count:
            break
    return tuple(sorted(chosen))


@dataclass(frozen=True)
class Opening:
    """A block in clear, with its salt and its path to the root."""

    block: Block
    salt: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True)
class Proof:
    """What the client sends after the challenge."""

    root: bytes
    nonce: bytes
    openings: tuple[Opening, ...]

    @property
    def size(self) -> int:
        """Bytes, weights and gradients counted as 32-bit integers."""
        return sum(
            4 * (o.block.gradients.size + 2 * len(o.block.theta)) + 32 * (1 + len(o.path)) for o in self.openings
        ) + len(self.root + self.nonce)


@dataclass
class Prover:
    """The client's side: ``root`` is published before any nonce is known, ``open`` answers one nonce and no second.

    secret: what salts are derived from; a fresh one for every commitment.
    """

    blocks: Sequence[Block]
    statement: Statement
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    opened: bool = False

    def __post_init__(self) -> None:
        self.tree = MerkleTree([block.leaf(self._salt(block.number)) for block in self.blocks])

    @property
    def root(self) -> bytes:
        return self.tree.root

    def open(self, nonce: bytes, count: int | None = None) -> Proof:
        """Raises UsageError the second time: every answer shows other blocks in clear."""
        if self.opened:
            raise UsageError("This commitment was opened already; opening it again would show more of the model.")
        self.opened = True
        chosen = challenge(self.root, self.statement, nonce, openings() if count is None else count)
        return Proof(self.root, nonce, tuple(Opening(self.blocks[i], self._salt(i), self.tree.path(i)) for i in chosen))

    def _salt(self, number: int) -> bytes:
        return hmac.new(self.secret, b"salt %d" % number, hashlib.sha256).digest()


class Verifier:
    """The other side: takes a root, gives a fresh nonce for it, then checks the answer.

    masked: bool blocks×size, public. count: openings asked for; by default 2^−20 for a share of 5 % wrong blocks.
    Raises UsageError when the mask is not the statement's.
    """

    def __init__(self, statement: Statement, masked: np.ndarray, count: int | None = None) -> None:
        if mask_digest(masked) != statement.mask or masked.shape != (statement.blocks, statement.size):
            raise UsageError("The mask is not the one of the statement.")
        self.statement, self.masked = statement, masked
        self.count = openings() if count is None else count
        self._waiting: dict[bytes, bytes] = {}
        self._seen: set[bytes] = set()

    def receive(self, root: bytes) -> bytes:
        """The nonce for a new root. Raises NotVerifiedError for one that was received before."""
        if root in self._seen:
            raise NotVerifiedError("This commitment was used before; the client must commit anew.")
        self._seen.add(root)
        self._waiting[root] = secrets.token_bytes(32)
        return self._waiting[root]

    def verify(self, proof: Proof) -> None:
        """Raises NotVerifiedError with the first thing that is wrong. A root has one attempt."""
        nonce = self._waiting.pop(proof.root, None)
        if nonce is None or not hmac.compare_digest(nonce, proof.nonce):
            raise NotVerifiedError("The proof answers no question that is open: its root or its nonce is an old one.")
        asked = challenge(proof.root, self.statement, nonce, self.count)
        if tuple(o.block.number for o in proof.openings) != asked:
            raise NotVerifiedError("Other blocks were opened than the challenge asks for.")
        for opening in proof.openings:
            number = opening.block.number
            if root_of(opening.block.leaf(opening.salt), number, self.statement.blocks, opening.path) != proof.root:
                raise NotVerifiedError(f"Block {number} is not what was committed to.")
            why = fault(opening.block, self.masked[number], self.statement)
            if why:
                raise NotVerifiedError(f"In block {number} {why}.")
