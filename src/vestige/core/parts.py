"""The pictures in a file that holds several: pages, pictures of a document, pictures of a data set.

All are examined up to `MOST`; of more a sample spread evenly over them, and what is left out is counted. A page keeps
its file's own bytes where the format allows that (TIFF, multi-picture JPEG); otherwise it is a `MadeSubject`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from vestige.core.errors import InputError, VestigeError
from vestige.core.image_io import encode, open_image
from vestige.core.picture import ImageSubject

#: How many pictures of one file are examined.
MOST = 60
#: How many pages of a picture are counted; a chain of more is one made to exhaust its reader.
_MOST_PAGES = 10_000
_REDUCED, _MASK = 1, 4


class MadeSubject(ImageSubject):
    """A picture whose samples were saved anew, without loss: its bytes say nothing about where they come from."""


@dataclass(frozen=True)
class Part:
    """One picture of several: its name in the file, and how to open it (which may raise InputError)."""

    name: str
    open: Callable[[], ImageSubject]


@dataclass
class Parts:
    """What a file holds: ``met`` pictures, called ``unit``, of which ``taken`` are examined.

    left_out: (name, reason) of pictures that are not examined each by itself for a reason of their own; the rest of
    those not taken lies between the taken ones. notes: what the reader came upon.
    """

    unit: str
    met: int
    taken: Sequence[Part]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Part]:
        return iter(self.taken)

    @property
    def between(self) -> int:
        """How many a sample leaves out."""
        return self.met - len(self.taken) - len(self.left_out)


def spread(count: int, most: int = MOST) -> list[int]:
    """Up to ``most`` of ``count`` indices, spread evenly, the first and the last among them.

    >>> spread(3), spread(9, 3)
    ([0, 1, 2], [0, 4, 8])
    """
    if count <= most:
        return list(range(count))
    return sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})


def pages_of(subject: ImageSubject) -> Parts | None:
    """The pages of a picture, None where it has one.

    Raises InputError when its header cannot be read. Animations are clips, see `vestige.core.video`.
    """
    if subject.format == "TIFF":
        return _tiff_pages(subject)
    image, kind = open_image(subject.data, subject.source, subject.limits)
    if kind == "JPEG" and hasattr(image, "mpinfo"):
        return _mpo_pages(subject, image)
    count = _frames(image)
    if kind != "HEIF" or count < 2:
        return None
    taken = [_page(subject, n, count, partial(_saved_anew, subject, n)) for n in spread(min(count, _MOST_PAGES))]
    return Parts("page", min(count, _MOST_PAGES), taken)


def _page(subject: ImageSubject, n: int, count: int, open: Callable[[], ImageSubject]) -> Part:
    if n == 0:
        return Part(f"page 1 of {count}", lambda: subject)
    return Part(f"page {n + 1} of {count}", open)


def _frames(image: Any) -> int:
    try:
        return int(getattr(image, "n_frames", 1) or 1)
    except Exception:  # Pillow's readers raise many types on damaged files
        return 1


def _saved_anew(subject: ImageSubject, index: int) -> ImageSubject:
    image, kind = open_image(subject.data, subject.source, subject.limits)
    try:
        image.seek(index)
        pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # as above
        raise InputError(f"it is damaged ({' '.join(str(error).split())[:100]}) in this {kind} file.") from None
    return MadeSubject(encode(pixels, "PNG"), f"{subject.source}, page {index + 1}", subject.limits)


def _tiff_pages(subject: ImageSubject) -> Parts | None:
    """A page as a file of its own: the same bytes with the header pointing at the page's directory."""
    data = subject.data
    offsets, notes = _directories(data)
    if len(offsets) < 2:
        return None
    left, chosen = [], []
    for n, offset in enumerate(offsets):
        kind = _subfile_type(data, offset)
        if n and kind & _REDUCED:
            left.append((f"page {n + 1} of {len(offsets)}", "a reduced copy of another page"))
        elif n and kind & _MASK:
            left.append((f"page {n + 1} of {len(offsets)}", "a mask of another page"))
        else:
            chosen.append(n)

    def opener(n: int) -> Callable[[], ImageSubject]:
        source = f"{subject.source}, page {n + 1} of {len(offsets)}"
        return lambda: ImageSubject(_first(data, offsets[n]), source, subject.limits)

    taken = [_page(subject, chosen[k], len(offsets), opener(chosen[k])) for k in spread(len(chosen))]
    return Parts("page", len(offsets), taken, left, notes)


def _layout(data: bytes) -> tuple[str, bool]:
    order = "<" if data[:2] == b"II" else ">"
    return order, struct.unpack_from(order + "H", data, 2)[0] == 43


def _directories(data: bytes) -> tuple[list[int], list[str]]:
    """Offsets of the directories chained from the header, within bounds."""
    order, big = _layout(data)
    link, count, width = ("Q", "Q", 20) if big else ("I", "H", 12)
    at, seen = 8 if big else 4, set[int]()
    offsets: list[int] = []
    while len(offsets) < _MOST_PAGES:
        if at + struct.calcsize(link) > len(data):
            return offsets, ["The chain of pages is cut short."] if offsets else []
        (offset,) = struct.unpack_from(order + link, data, at)
        if not offset:
            return offsets, []
        if offset in seen:
            return offsets, ["The chain of pages leads back to an earlier page."]
        if offset + struct.calcsize(count) > len(data):
            return offsets, ["The chain of pages leads out of the file."]
        seen.add(offset)
        offsets.append(offset)
        (entries,) = struct.unpack_from(order + count, data, offset)
        at = offset + struct.calcsize(count) + entries * width
    return offsets, [f"There are more than {_MOST_PAGES} pages; the others were not counted."]


def _subfile_type(data: bytes, offset: int) -> int:
    order, big = _layout(data)
    count, width, head = ("Q", 20, 8) if big else ("H", 12, 2)
    (entries,) = struct.unpack_from(order + count, data, offset)
    for at in range(offset + head, offset + head + min(entries, 64) * width, width):
        if at + width > len(data):
            break
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag == 254:
            size = "H" if kind == 3 else "I"
            return int(struct.unpack_from(order + size, data, at + (12 if big else 8))[0])
    return 0


def _first(data: bytes, offset: int) -> bytes:
    order, big = _layout(data)
    head = struct.pack(order + ("Q" if big else "I"), offset)
    at = 8 if big else 4
    return data[:at] + head + data[at + len(head) :]


def _mpo_pages(subject: ImageSubject, image: Any) -> Parts | None:
    """The pictures of a multi-picture JPEG; previews and gain maps that cameras add are named, not examined."""
    try:
        table = [(int(e["Size"]), int(e["DataOffset"]), str(e["Attribute"]["MPType"])) for e in image.mpinfo[0xB002]]
        base = next(c[1] for c in _app2(subject.data) if c[0])
    except Exception:  # whatever a damaged table leads to
        return None
    count = len(table)
    if not 2 <= count <= _MOST_PAGES:
        return None
    left, chosen = [], [_page(subject, 0, count, lambda: subject)]
    for n, (size, offset, kind) in enumerate(table[1:], 1):
        if not kind.startswith("Multi-Frame"):
            left.append((f"page {n + 1} of {count}", f"carried along with the picture ({kind.lower()})"))
            continue
        start = base + offset

        def open(start: int = start, size: int = size, n: int = n) -> ImageSubject:
            source = f"{subject.source}, page {n + 1} of {count}"
            return ImageSubject(subject.data[start : start + size], source, subject.limits)

        chosen.append(_page(subject, n, count, open))
    taken = [chosen[k] for k in spread(len(chosen))]
    return Parts("page", count, taken, left)


def _app2(data: bytes) -> Iterator[tuple[bool, int]]:
    """(is the multi-picture block, where its offsets count from) for the application segments of a JPEG."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and 0xE0 <= data[at + 1] <= 0xEF:
        (size,) = struct.unpack_from(">H", data, at + 2)
        yield data[at + 1] == 0xE2 and data[at + 4 : at + 8] == b"MPF\0", at + 8
        at += 2 + size


def items_of(dataset: Any) -> Parts:
    """The pictures of a `vestige.core.dataset.DatasetSubject`."""
    count = len(dataset)

    def opener(n: int) -> Callable[[], ImageSubject]:
        def open() -> ImageSubject:
            subject: ImageSubject = dataset[n].subject(dataset.limits)
            return subject

        return open

    taken = [Part(_name(dataset, n, count), opener(n)) for n in spread(count)]
    return Parts("picture", count, taken)


def _name(dataset: Any, n: int, count: int) -> str:
    try:
        return f"picture {n + 1} of {count} ({dataset[n].name})"
    except VestigeError:
        return f"picture {n + 1} of {count}"
