"""What a forensic set is made of: pictures and frames with label, mask and groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from vestige.core.dataset import files_below
from vestige.core.errors import InputError
from vestige.core.image_io import SUFFIXES, Decoded, decode, encode, orient, read_bytes
from vestige.core.runtime import rng
from vestige.data.forensic_sets.clips import CLIPS, clip_frame

#: The approach of pictures that are neither edited nor generated.
REAL = "real"
#: How a mask file says what was edited: where it is bright, where it is dark, where green exceeds red.
Rule = Literal["bright", "dark", "green"]


@dataclass(frozen=True)
class ForensicItem:
    """One picture, or one frame of a clip.

    name: path inside the set, with ``#k`` for the k-th frame taken. label: edited or generated. mask, rule: the file
    that says where, and how to read it; None where the set tells no more than the label. approach: `REAL` or how it was
    edited. groups: further labels by column. frame: (k, n) for the k-th of n frames of a clip, None for pictures.
    """

    name: str
    path: Path
    label: bool
    mask: Path | None = None
    rule: Rule = "bright"
    approach: str = REAL
    groups: Mapping[str, str] = field(default_factory=dict)
    frame: tuple[int, int] | None = None

    def data(self) -> bytes:
        """The file's bytes; a frame as PNG. Raises InputError when it cannot be read."""
        if self.frame is None:
            return read_bytes(self.path)
        return encode(clip_frame(self.path, *self.frame), "PNG")

    def edited(self, picture: Decoded) -> np.ndarray | None:
        """bool H×W of the upright picture, True where it was edited; None where the set does not say.

        Masks are drawn on the stored grid and turned with the picture. Raises InputError for a mask of another size,
        one without an edited pixel, or an unreadable one.
        """
        if self.mask is None:
            return None
        if self.frame is not None:
            drawn = clip_frame(self.mask, *self.frame)
        else:
            drawn = decode(read_bytes(self.mask), str(self.mask)).stored
        values = drawn.astype(np.int16)
        if self.rule == "green":
            inside = values[..., 1] > values[..., 0]
        else:
            bright = values.mean(2) > 127
            inside = bright if self.rule == "bright" else ~bright
        if inside.shape == picture.stored.shape[:2]:
            inside = orient(inside, picture.orientation)
        if inside.shape != picture.pixels.shape[:2]:
            height, width = picture.pixels.shape[:2]
            raise InputError(f"its mask is {inside.shape[1]}×{inside.shape[0]} and the picture {width}×{height}.")
        if not inside.any():
            raise InputError("its mask marks no pixel.")
        return np.ascontiguousarray(inside)


@dataclass(frozen=True)
class ForensicSet:
    """A set of one layout: its name, its folder and its items, sorted by name.

    >>> from vestige.data.forensic_sets import open_set
    >>> open_set("CASIA2").layout  # doctest: +SKIP
    'casia'
    """

    layout: str
    root: Path
    items: tuple[ForensicItem, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.items)

    def take(self, limit: int, seed: int = 0) -> ForensicSet:
        """``limit`` items (0: all) drawn by seed, as many of each label as there are, up to half each."""
        if not limit or limit >= len(self.items):
            return self
        order = rng(seed, "forensic set", self.layout).permutation(len(self.items))
        sides = [[int(i) for i in order if self.items[i].label is label] for label in (True, False)]
        shorter = min(len(side) for side in sides)
        first = max(min(limit // 2, len(sides[0])), limit - len(sides[1])) if shorter else limit
        chosen = sides[0][:first] + sides[1][: limit - min(first, len(sides[0]))]
        return replace(self, items=tuple(self.items[i] for i in sorted(chosen)))


@dataclass(frozen=True)
class Listing:
    """Every file below a folder, as paths relative to it, and how many frames of a clip are wanted."""

    root: Path
    files: tuple[PurePosixPath, ...]
    frames: int

    @classmethod
    def of(cls, root: Path, frames: int) -> Listing:
        found = tuple(PurePosixPath(f.relative_to(root).as_posix()) for f in files_below(root))
        return cls(root, found, frames)

    @cached_property
    def pictures(self) -> list[PurePosixPath]:
        return [f for f in self.files if f.suffix.lower() in SUFFIXES]

    @cached_property
    def clips(self) -> list[PurePosixPath]:
        return [f for f in self.files if f.suffix.lower() in CLIPS]

    def item(self, file: PurePosixPath, label: bool, **options: object) -> ForensicItem:
        mask = options.pop("mask", None)
        place = None if mask is None else self.root / str(mask)
        return ForensicItem(str(file), self.root / file, label, place, **options)  # type: ignore[arg-type]

    def of_clip(self, file: PurePosixPath, label: bool, **options: object) -> list[ForensicItem]:
        """The frames of a clip that are taken, evenly spread."""
        whole = self.item(file, label, **options)
        return [replace(whole, name=f"{file}#{k + 1}", frame=(k, self.frames)) for k in range(self.frames)]

    def spread(self, files: Sequence[PurePosixPath]) -> list[PurePosixPath]:
        """As many of the sorted files as frames are wanted, evenly spaced."""
        ordered = sorted(files)
        wanted = min(self.frames, len(ordered))
        return [ordered[int((k + 0.5) * len(ordered) / wanted)] for k in range(wanted)]


#: Reads a listing; None, or nothing, where it has another layout. Raises InputError where it is broken.
Layout = Callable[[Listing], "list[ForensicItem] | None"]
