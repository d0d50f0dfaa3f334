"""What a data set holds twice: exact, near, cropped and edited copies, those across splits, labels that disagree.

Exact and near copies are told by the hashes of `vestige.copies.duplicates`. Crops and stronger edits are looked for
with the descriptor of the index, and counted only where one map explains the points of both pictures, as in
`vestige.copies.search`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vestige.copies.descriptor import Descriptor, load_descriptor, strangers
from vestige.copies.duplicates import Duplicates
from vestige.copies.local import Match, best_match, both_ways
from vestige.copies.search import PairCalibration, calibration_of
from vestige.core.dataset import DatasetSubject, FolderDataset
from vestige.core.errors import InputError, VestigeError
from vestige.core.picture import ImageSubject

#: Words for the part of a data set that a folder holds.
SPLITS = {
    "train": "train", "training": "train", "trn": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test", "eval": "test", "holdout": "test",
}  # fmt: skip
_BLOCK = 64
_KEPT = 64
_NEIGHBOURS = 4
#: Log-odds by the score alone from which on a pair is compared point by point; the score itself without a calibration.
_HOPE, _HOPED_SCORE = -1.0, 0.05
#: A region that fills so much of a picture is the picture.
_WHOLE = 0.5


@dataclass(frozen=True)
class Member:
    """A picture of a data set. name: unique. split: "" where none is told. label: None where none is given."""

    name: str
    split: str = ""
    label: str | None = None


@dataclass(frozen=True)
class Group:
    """Pictures that belong together; kind: "exact", "same pixels", "near", "cropped" or "edited"."""

    kind: str
    members: tuple[Member, ...]
    words: str = ""

    @property
    def leaks(self) -> bool:
        """Whether its members are in more than one split."""
        return len({m.split for m in self.members}) > 1

    @property
    def conflicts(self) -> bool:
        """Whether its members have different labels."""
        return len({m.label for m in self.members if m.label is not None}) > 1


@dataclass
class Audit:
    """Groups of copies of a data set of ``count`` pictures; failed: name and reason of what could not be read."""

    count: int
    groups: list[Group]
    failed: list[tuple[str, str]] = field(default_factory=list)

    def leakage(self) -> dict[tuple[str, str], int]:
        """For every two splits, how many pictures of the second have a copy in the first."""
        found: dict[tuple[str, str], set[str]] = {}
        for group in self.groups:
            for a, b in combinations(sorted({m.split for m in group.members}, key=_order), 2):
                found.setdefault((a, b), set()).update(m.name for m in group.members if m.split == b)
        return {pair: len(names) for pair, names in found.items()}

    def conflicts(self) -> list[Group]:
        """Groups whose members have different labels."""
        return [g for g in self.groups if g.conflicts]

    def sentences(self) -> list[str]:
        """What was found, for a person."""
        kinds = {
            k: sum(g.kind == k for g in self.groups) for k in ("exact", "same pixels", "near", "cropped", "edited")
        }
        some = ", ".join(f"{n:,} {k}" for k, n in kinds.items() if n) or "none"
        said = [f"{self.count:,} pictures, groups of copies: {some}."]
        for (a, b), n in self.leakage().items():
            some = "1 picture" if n == 1 else f"{n:,} pictures"
            have = "has" if n == 1 else "have"
            said.append(f"Leakage: {some} of {b or 'no split'} {have} a copy in {a or 'no split'}.")
        if conflicts := self.conflicts():
            said.append(f"Labels disagree in {len(conflicts):,} group{'s' * (len(conflicts) != 1)} of copies.")
        return said


def audit(
    sets: Sequence[tuple[str, DatasetSubject]], *, deep: bool = True, descriptor: str = "",
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Audit:  # fmt: skip
    """Look for copies within and between data sets, given with the split that each is ("" where folders tell it).

    deep: also look for crops and edited copies, which takes about a second for every ten pictures. Raises InputError
    where no picture can be read.
    """
    finder, members, failed = Duplicates(), {}, []  # type: ignore[var-annotated]
    described, places = [], []
    made = load_descriptor(descriptor) if deep else None
    for at, (member, subject) in enumerate(watch(_subjects(sets, failed))):
        before = len(finder.fingerprints)
        finder.index([subject])
        if len(finder.fingerprints) == before:
            failed.append(finder.skipped[-1])
            continue
        members[member.name] = (member, at)
        if made is not None:
            vector = made.describe(subject.pixels)
            mirrored = made.describe(np.ascontiguousarray(subject.pixels[:, ::-1]))
            if vector is not None and mirrored is not None:
                described.append((vector, mirrored))
                places.append(member)
    if not members:
        raise InputError(failed[0][1] if failed else "There is no picture in there.")
    groups = [
        Group(g.kind, tuple(members[n][0] for n in g.members), f"{g.distance} of 64 bits differ" * (g.kind == "near"))
        for g in finder.group()
    ]
    if made is not None and len(described) > 1:
        known = {frozenset(p) for g in groups for p in combinations([m.name for m in g.members], 2)}
        vectors = np.stack([d for d, _ in described]), np.stack([d for _, d in described])
        groups += _deep(made, vectors, places, known, _Opener(sets), watch)
    return Audit(len(members), groups, failed)


class _Opener:
    """Pictures of data sets again, by name."""

    def __init__(self, sets: Sequence[tuple[str, DatasetSubject]]) -> None:
        self.sets = sets
        self._at: dict[str, tuple[int, int]] | None = None

    def __call__(self, member: Member) -> ImageSubject:
        if self._at is None:
            self._at = {}
            for s, (_, dataset) in enumerate(self.sets):
                for i in range(len(dataset)):
                    self._at[_unique(i, dataset, self.sets)] = (s, i)
        s, i = self._at[member.name]
        return self.sets[s][1][i].subject()


def _unique(i: int, dataset: DatasetSubject, sets: Sequence[tuple[str, DatasetSubject]]) -> str:
    """A name that no other picture of the data sets has."""
    name = dataset.files[i].relative_to(dataset.path).as_posix() if isinstance(dataset, FolderDataset) else f"item {i}"
    return name if len(sets) == 1 else str(Path(dataset.path.name) / name)


def _subjects(
    sets: Sequence[tuple[str, DatasetSubject]], failed: list[tuple[str, str]]
) -> Iterator[tuple[Member, ImageSubject]]:
    for split, dataset in sets:
        for i in range(len(dataset)):
            name = _unique(i, dataset, sets)
            try:
                item = dataset[i]
            except VestigeError as error:
                failed.append((name, str(error)))
                continue
            inner, label = _placed(PurePosixPath(item.name), item.label, isinstance(dataset, FolderDataset))
            told = item.fields.get("split")
            inner = SPLITS.get(str(told).lower(), inner) if isinstance(told, str) else inner
            yield Member(name, split or inner, label), ImageSubject(item.data, name)


def _placed(name: PurePosixPath, label: Any, folders: bool) -> tuple[str, str | None]:
    """Split and label by the folders that a picture lies in, where the label is told by folders."""
    split = next((SPLITS[p.lower()] for p in name.parts[:-1] if p.lower() in SPLITS), "")
    if folders:
        rest = [p for p in name.parts[:-1] if p.lower() not in SPLITS]
        return split, rest[0] if rest else None
    return split, None if label is None else str(label)


def _deep(
    made: Descriptor, both: tuple[np.ndarray, np.ndarray], places: list[Member],
    known: set[frozenset[str]], opened: _Opener, watch: Callable[[Iterable[Any]], Iterable[Any]],
) -> list[Group]:  # fmt: skip
    """Pairs whose points agree and that no group holds yet. both: vectors of the pictures and of the mirrored ones."""
    vectors = both[0]
    calibration = calibration_of(made.name)
    pairs: dict[tuple[int, int], float] = {}
    for start in range(0, len(vectors), _BLOCK):
        views = [v[start : start + _BLOCK] for v in both]
        scores = np.maximum(*(v @ vectors.T - strangers(made.background, v)[:, None] for v in views))
        own = np.arange(len(scores))
        scores[own, start + own] = -np.inf
        best = np.argsort(-scores, axis=1)[:, :_NEIGHBOURS]
        for row, columns in enumerate(best):
            for column in columns.tolist():
                score = float(scores[row, column])
                if np.isfinite(score) and _promises(calibration, score):
                    key = (min(start + row, column), max(start + row, column))
                    pairs[key] = max(score, pairs.get(key, -np.inf))
    found = []
    kept = lru_cache(_KEPT)(lambda i: both_ways(opened(places[i]).pixels))  # neighbours come one after the other
    for (i, j), score in watch(sorted(pairs.items())):
        if frozenset((places[i].name, places[j].name)) in known:
            continue
        try:
            a, b = kept(i), kept(j)
        except VestigeError:
            continue  # it was read a moment ago and is gone now
        match = best_match(a, b[0])
        if match is not None and _claims(calibration, score, match.inliers):
            found.append(_told(match, places[i], places[j]))
    return found


def _promises(calibration: PairCalibration | None, score: float) -> bool:
    return score >= _HOPED_SCORE if calibration is None else calibration.z(score, None) >= _HOPE


def _claims(calibration: PairCalibration | None, score: float, inliers: int) -> bool:
    return inliers >= 20 if calibration is None else calibration.claims(score, inliers)


def _told(match: Match, a: Member, b: Member) -> Group:
    """Of which kind a pair is, by how much of either picture the shared region fills."""
    part, whole = sorted(match.covers)
    kind = "cropped" if part < _WHOLE * whole else "edited"
    words = f"{match.inliers} points agree, {match.covers[0]:.0%} and {match.covers[1]:.0%} of the pictures"
    return Group(kind, (a, b), words + ", mirrored" * match.mirrored)


def _order(split: str) -> tuple[int, str]:
    ranks = {"train": 0, "val": 1, "test": 2}
    return ranks.get(split, 3), split
