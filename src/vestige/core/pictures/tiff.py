"""TIFF directories, as TIFF files and EXIF blocks hold them: bounded, and damage becomes a sentence."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

MAX_DIRECTORIES = 512
MAX_ENTRIES = 4096

#: TIFF field types and the bytes one value takes.
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_CODES = {
    3: "H",
    4: "I",
    5: "I",
    6: "b",
    8: "h",
    9: "i",
    10: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_SUB_DIRECTORIES = {0x8769: "Exif", 0x8825: "GPS", 0xA005: "Interop", 0x014A: "SubIFD"}


@dataclass(frozen=True)
class Entry:
    """One TIFF field: ``count`` values of type ``kind`` in ``size`` bytes at ``offset``."""

    tag: int
    kind: int
    count: int
    offset: int
    size: int


@dataclass(frozen=True)
class Directory:
    """One TIFF directory (IFD0, IFD1, ..., Exif, GPS, Interop, SubIFD) in bytes start to end."""

    name: str
    start: int
    end: int
    entries: dict[int, Entry]


@dataclass
class Directories:
    """The directories of a TIFF file or EXIF block (without its "Exif" prefix), and what is damaged in it."""

    data: bytes
    order: Literal["<", ">"] = "<"
    items: list[Directory] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def find(self, name: str) -> Directory | None:
        return next((d for d in self.items if d.name == name), None)

    def value(self, entry: Entry, limit: int = 65_536) -> Any:
        """A field's value: bytes for text and opaque types, otherwise a tuple of numbers, at most ``limit`` bytes.

        Rationals become floats; a zero denominator gives nan.
        """
        size = TIFF_SIZES[entry.kind]
        raw = self.data[entry.offset : entry.offset + min(entry.size, limit // size * size)]
        if entry.kind in (1, 2, 7):
            return raw
        values = struct.unpack_from(
            f"{self.order}{len(raw) // struct.calcsize(_TIFF_CODES[entry.kind])}{_TIFF_CODES[entry.kind]}", raw
        )
        if entry.kind in (5, 10):
            return tuple(a / b if b else float("nan") for a, b in zip(values[::2], values[1::2], strict=False))
        return values


def tiff_directories(data: bytes) -> Directories:
    """Every directory reachable from a TIFF header, each once, at most ``MAX_DIRECTORIES``.

    >>> tiff_directories(b"II*\\x00" + (8).to_bytes(4, "little") + bytes(6)).items[0].name
    'IFD0'
    """
    found = Directories(data)
    if data[:2] not in (b"II", b"MM") or len(data) < 8:
        found.problems.append("it does not start with a TIFF header")
        return found
    found.order = order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    if big and len(data) < 16:
        found.problems.append("it ends inside its header")
        return found
    first = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    queue, seen, pages = [("IFD0", first)], set(), 1
    while queue and len(found.items) < MAX_DIRECTORIES:
        name, offset = queue.pop(0)
        if offset == 0:
            continue
        if offset in seen:
            found.problems.append(f"its {name} directory loops back to an earlier one")
            continue
        seen.add(offset)
        parsed = _directory(found, name, offset, big)
        if parsed is None:
            continue
        directory, following = parsed
        found.items.append(directory)
        for tag, child in _SUB_DIRECTORIES.items():
            entry = directory.entries.get(tag)
            if entry is not None and entry.kind in (3, 4, 13, 16, 18):
                queue += [(child, o) for o in found.value(entry, 512)]
        if name.startswith("IFD") and following:
            queue.append((f"IFD{pages}", following))
            pages += 1
    return found


def _directory(found: Directories, name: str, offset: int, big: bool) -> tuple[Directory, int] | None:
    data, order = found.data, found.order
    head, width = (8, 20) if big else (2, 12)
    if offset + head > len(data):
        found.problems.append(f"its {name} directory lies outside the block")
        return None
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    end = offset + head + count * width
    if count > MAX_ENTRIES or end > len(data):
        found.problems.append(f"its {name} directory is cut short")
        count = min(count, MAX_ENTRIES, (len(data) - offset - head) // width)
        end = offset + head + count * width
    entries: dict[int, Entry] = {}
    for at in range(offset + head, end, width):
        tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
        inline = at + (12 if big else 8)
        size = TIFF_SIZES.get(kind, 0) * number
        if kind not in TIFF_SIZES:
            continue
        place = inline
        if size > (8 if big else 4):
            (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, inline)
        if place + size > len(data):
            if kind not in (1, 2, 7) or place >= len(data):
                found.problems.append(f"its field 0x{tag:04X} points outside the block")
                continue
            found.problems.append(f"its field 0x{tag:04X} is cut short")  # what there is of a text is still a text
            size = number = len(data) - place
        entries.setdefault(tag, Entry(tag, kind, number, place, size))
    link = struct.Struct(order + ("Q" if big else "I"))
    following = link.unpack_from(data, end)[0] if end + link.size <= len(data) else 0
    return Directory(name, offset, end + link.size, entries), following


def integers(tree: Directories, entry: Entry) -> np.ndarray:
    code = {3: "u2", 4: "u4", 16: "u8"}[entry.kind]
    values = np.frombuffer(tree.data, np.dtype(code).newbyteorder(tree.order), entry.count, entry.offset)
    return np.minimum(values.astype(np.uint64), np.uint64(1 << 62)).astype(np.int64)
