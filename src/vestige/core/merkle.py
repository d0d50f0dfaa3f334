"""Merkle trees: one hash that commits to many leaves, each of which can be shown to be among them.

node = SHA-256(0x01 ‖ left ‖ right); leaves are hashes that begin with 0x00, so that no leaf passes for a node
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vestige.core.errors import UsageError


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
