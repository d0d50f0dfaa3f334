"""Who made this picture: users and their fingerprints, agreement of a reading with each of them, and false alarms.

Fingerprints are drawn uniformly from {0, 1}^L. Whatever a reader says about a picture that no registered user made, it
agrees with a fingerprint drawn without regard to it in Binomial(L, 1/2) places; over U users

    p = 1 − (1 − P[Bin(L, ½) ≥ k])^U

for the best agreement k. That holds for every reader and picture, because the chance lies in the fingerprints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.files import read_json, write_json
from vestige.core.keys import derive
from vestige.core.runtime import rng
from vestige.metrics.bits import match_p_value

#: Largest number of users a registry file may hold.
MOST_USERS = 1_000_000


@dataclass(frozen=True)
class Attribution:
    """bits: bool (L,), as read. user: the nearest one, None in an empty registry. matches: places that agree. p_value:
    of an agreement this good with any of the users, for a picture none of them made."""

    bits: np.ndarray
    user: str | None
    matches: int
    p_value: float


class UserRegistry:
    """Names and fingerprints of up to a million users.

    bits: L. key: from which fingerprints are derived, so that a registry can be rebuilt from its names. Raises
    UsageError for fewer than 8 bits.

    >>> users = UserRegistry(32, b"k" * 32)
    >>> ada, bob = users.register("ada"), users.register("bob")
    >>> users.attribute(ada[None])[0].user
    'ada'
    """

    def __init__(self, bits: int, key: bytes) -> None:
        if not 8 <= bits <= 4096:
            raise UsageError(f"Fingerprints have 8 to 4096 bits, got {bits}.")
        self.bits, self._key = bits, bytes(key)
        self._places: dict[str, int] = {}
        self._rows: list[np.ndarray] = []
        self._taken: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> np.ndarray:
        """bool (L,). Raises UsageError for an unknown user."""
        if name not in self:
            raise UsageError(f"There is no user {name!r} in this registry.")
        return self._rows[self._places[name]].copy()

    def register(self, name: str) -> np.ndarray:
        """The fingerprint of a new user, bool (L,), different from all others.

        Raises UsageError when the name is taken or empty, or half of all fingerprints are.
        """
        if not name or name in self:
            raise UsageError(f"The user name {name!r} is empty or taken; choose another.")
        if len(self) >= min(MOST_USERS, 2 ** (self.bits - 1)):
            raise UsageError(f"{len(self)} users are as many as {self.bits} bits can tell apart.")
        for attempt in range(1000):
            seed = derive(self._key, f"fingerprint {attempt} {name}")
            drawn = rng(int.from_bytes(seed[:8], "little"), "fingerprint").integers(0, 2, self.bits).astype(bool)
            if drawn.tobytes() not in self._taken:
                break
        self._add(name, drawn)
        return drawn.copy()

    def _add(self, name: str, bits: np.ndarray) -> None:
        self._places[name] = len(self._rows)
        self._rows.append(bits)
        self._taken.add(bits.tobytes())

    def attribute(self, read: np.ndarray) -> list[Attribution]:
        """The nearest user to each reading, bool N×L. Raises UsageError for another number of bits."""
        read = np.asarray(read, bool)
        if read.ndim != 2 or read.shape[1] != self.bits:
            raise UsageError(f"Readings must be bool N×{self.bits}, got shape {read.shape}.")
        if not self._rows:
            return [Attribution(row.copy(), None, 0, 1.0) for row in read]
        signs = np.stack(self._rows).astype(np.float32) * 2 - 1
        names, found = list(self._places), []
        for row in read:
            agreement = signs @ (row.astype(np.float32) * 2 - 1)
            best = int(np.argmax(agreement))
            matches = round((float(agreement[best]) + self.bits) / 2)
            found.append(Attribution(row.copy(), names[best], matches, self.p_value(matches)))
        return found

    def p_value(self, matches: int) -> float:
        """How likely the best of these users agrees in so many places with a picture that none of them made."""
        return _any_of(float(match_p_value(matches, self.bits)), len(self))

    def save(self, path: str | Path) -> None:
        """Write names and fingerprints as JSON, without the key, atomically."""
        users = {n: "".join("01"[int(b)] for b in row) for n, row in zip(self._places, self._rows, strict=True)}
        write_json(path, {"bits": self.bits, "users": users})

    @classmethod
    def load(cls, path: str | Path, key: bytes) -> UserRegistry:
        """Read what `save` wrote; the key is for users to come. Raises InputError for any other content."""
        content = read_json(path)
        try:
            registry = cls(int(content["bits"]), key)
            users = content["users"]
            if not isinstance(users, dict) or len(users) > MOST_USERS:
                raise ValueError
            for name, text in users.items():
                if len(text) != registry.bits or set(text) - {"0", "1"}:
                    raise ValueError
                registry._add(str(name), np.array([c == "1" for c in text]))
        except (KeyError, TypeError, ValueError, UsageError):
            raise InputError(f"{path} is no registry of users; give a file that was saved by one.") from None
        return registry


def collision_budget(bits: int, errors: int, rate: float) -> int:
    """Most users for which a picture none of them made is given to one with probability at most ``rate``.

    A reading counts as a user's when at most ``errors`` of its bits differ. Raises UsageError for values out of range.

    >>> collision_budget(32, 0, 1e-6), collision_budget(32, 4, 1e-3)
    (4294, 103)
    """
    if not 0 <= errors <= bits or not 0 < rate < 1:
        raise UsageError(f"errors must lie between 0 and {bits} and the rate in (0, 1), got {errors} and {rate}.")
    single = float(match_p_value(bits - errors, bits))
    if single >= 1:
        return 0
    return int(np.log1p(-rate) / np.log1p(-single))


def needed_matches(bits: int, users: int, rate: float) -> int:
    """Fewest places that must agree for that false attribution rate over so many users; L + 1 where none suffice.

    >>> needed_matches(32, 1, 1e-3), needed_matches(32, 1000, 1e-3)
    (26, 30)
    """
    if users < 1 or not 0 < rate < 1:
        raise UsageError(f"Give at least one user and a rate in (0, 1), got {users} and {rate}.")
    return next(
        (k for k in range(bits + 1) if _any_of(float(match_p_value(k, bits)), users) <= rate),
        bits + 1,
    )


def _any_of(p: float, users: int) -> float:
    """1 - (1 - p)^users, without loss of small values."""
    if p >= 1:
        return 1.0 if users else 0.0
    return float(-np.expm1(users * np.log1p(-p)))
