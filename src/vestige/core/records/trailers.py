"""What cameras, phones and programs put after a picture's end, by vendor, believed only as far as its lengths add up.

A trailer is named when its own structure accounts for every byte it claims. Bytes in front of it, between its parts or
behind it that no length covers are not its own, whatever mark stands at the end: forging a mark is easy.

Sources: the trailers as ExifTool documents them (Canon VRD, AFCP, Photo Mechanic, Samsung, Vivo); CIPA DC-007 (MPF);
Google's Motion Photo format 1.0; the formats' own length fields.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vestige.core.containers import Layout, layout
from vestige.core.pictures.tiff import tiff_directories

#: Zero or FF bytes up to this many after a picture are padding: cameras have been seen to write 19,462.
PADDING = 32_768
#: So few bytes hold nothing.
STRAY = 8
_MAX_PIECES = 64


@dataclass(frozen=True)
class Piece:
    """A stretch of bytes start to end after a picture, and what it is.

    kind: "trailer" (a program's or camera's records), "padding", "picture" (one the file lists), "preview" or "film".
    """

    start: int
    end: int
    words: str
    kind: str = "trailer"


@dataclass(frozen=True)
class SefEntry:
    """One record of a Samsung trailer: its name and where its content lies."""

    name: str
    start: int
    end: int


def peel(data: bytes, parts: Layout, format: str) -> tuple[list[Piece], list[tuple[int, int]]]:
    """What follows the picture: the pieces that are known, and the stretches that nothing accounts for.

    Trailers that state their length at the end are taken off from the end, further pictures and films that the file
    lists from the front.
    """
    start, end = parts.end or len(data), len(data)
    pieces: list[Piece] = []
    while len(pieces) < _MAX_PIECES and start < end:
        piece = next((p for rule in _FROM_END if (p := rule(data, start, end))), None)
        if piece is None:
            break
        pieces.append(piece)
        end = piece.start
    front: list[Piece] = []
    listing = _listing(data, parts, format)
    while len(front) < _MAX_PIECES and start < end:
        piece = _padding(data, start, end) or _from_front(data, start, end, listing)
        if piece is None:
            break
        front.append(piece)
        start = piece.end
    return [*front, *reversed(pieces)], [(start, end)] if start < end else []


def _padding(data: bytes, start: int, end: int) -> Piece | None:
    """Zero bytes, FF bytes and line ends, where no more follow than cameras write; or too few bytes to hold a thing."""
    position = start
    while position < end and data[position] in b"\x00\xff\r\n ":
        # a start of a segment or of a box is no padding
        if data[position] == 0xFF and data[position + 1 : position + 3] in (b"\xd8\xff",):
            break
        position += 1
        if position - start > PADDING:
            return None
    if position == end and position > start:
        return Piece(start, end, f"{end - start:,} bytes of padding", "padding")
    if data[position : position + 3] == b"\xff\xd8\xff" and position > start:
        return Piece(start, position, f"{position - start:,} bytes of padding", "padding")
    if end - start <= STRAY:
        return Piece(start, end, f"{end - start} stray bytes", "padding")
    size = end - start
    if size <= PADDING:
        other = size - data.count(b"\x00", start, end) - data.count(b"\xff", start, end)
        # stray values among them are cameras' too; four in a row could be a signature
        if other <= min(64, size // 50) and not re.search(rb"[^\x00\xff]{4}", data[start:end]):
            return Piece(start, end, f"{size:,} bytes of padding with {other} others in it", "padding")
    return None


def _canon(data: bytes, start: int, end: int) -> Piece | None:
    """CANON OPTIONAL DATA: 28 bytes with the length, the recipe, 64 bytes that start with the same words."""
    mark = b"CANON OPTIONAL DATA\x00"
    footer = end - 64
    if footer < start or not data.startswith(mark, footer):
        return None
    head = data.rfind(mark, start, footer)
    while head >= start:
        if head + 28 + int.from_bytes(data[head + 24 : head + 28], "big") == footer:
            return Piece(head, end, f"{end - head:,} bytes of Canon Digital Photo Professional's settings (VRD)")
        head = data.rfind(mark, start, head)
    return None


def _photo_mechanic(data: bytes, start: int, end: int) -> Piece | None:
    """Length and "cbipcbbl" at the end; some versions count these twelve bytes."""
    if end - start < 12 or data[end - 8 : end] != b"cbipcbbl":
        return None
    size = int.from_bytes(data[end - 12 : end - 8], "big")
    for first in (end - 12 - size, end - size):
        # where more lies in front of it, its records must be seen to start there
        fields = re.match(rb"\x1c[\x01-\x09]|\x00\x00\x00.[A-Za-z ]{4}", data[first : first + 8], re.DOTALL)
        if first == start or (first > start and fields):
            return Piece(first, end, f"{end - first:,} bytes of Photo Mechanic's records")
    return None


def _afcp(data: bytes, start: int, end: int) -> Piece | None:
    """ "AXS!" or "AXS*" twelve bytes before the end, a directory of entries with absolute offsets, often outdated."""
    if end - start < 24 or data[end - 12 : end - 9] != b"AXS":
        return None
    order, mark = (">" if data[end - 9 : end - 8] == b"!" else "<"), data[end - 12 : end - 8]
    (stated,) = struct.unpack_from(order + "I", data, end - 8)
    first = stated if start <= stated < end - 12 and data[stated : stated + 4] == mark else -1
    if first < 0:
        first = data.find(mark, start, end - 12)
    if first < 0:
        return None
    (count,) = struct.unpack_from(order + "H", data, first + 6)
    covered = [(first, min(first + 12 + 12 * count, end)), (end - 12, end)]
    shift = first - stated if stated else 0
    for n in range(min(count, 256)):
        at = first + 12 + 12 * n
        if at + 12 > end:
            return None
        size, offset = struct.unpack_from(order + "II", data, at + 4)
        offset = offset + shift if not start <= offset < end else offset
        covered.append((offset, min(offset + size, end)))
    left = sum(b - a - data.count(b"\x00", a, b) for a, b in _holes(covered, first, end))
    return Piece(first, end, f"{end - first:,} bytes of AFCP records") if left <= 32 else None


def _holes(covered: list[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The stretches of start to end that none of ``covered`` lies on."""
    position = start
    for a, b in sorted(covered):
        if a > position:
            yield position, min(a, end)
        position = max(position, b)
        if position >= end:
            return
    yield position, end


def sef_entries(data: bytes, end: int | None = None) -> list[SefEntry]:
    """The records of the Samsung trailer that ends at ``end`` (the file's end), [] where its lengths are impossible."""
    end = len(data) if end is None else end
    if end < 20 or data[end - 4 : end] != b"SEFT":
        return []
    size = int.from_bytes(data[end - 8 : end - 4], "little")
    head = end - 8 - size
    if size < 12 or head < 0 or data[head : head + 4] != b"SEFH":
        return []
    (count,) = struct.unpack_from("<I", data, head + 8)
    if 12 + 12 * count > size:
        return []
    found = []
    for n in range(min(count, 256)):
        offset, length = struct.unpack_from("<II", data, head + 16 + 12 * n)
        at = head - offset
        if at < 0 or at + 8 > head or at + length > head:
            return []
        (named,) = struct.unpack_from("<I", data, at + 4)
        name = data[at + 8 : at + 8 + min(named, 80)].decode("latin-1")
        found.append(SefEntry(name, at + 8 + named, at + length))
    return found


def _samsung(data: bytes, start: int, end: int) -> Piece | None:
    """SEFH ... SEFT: a directory whose entries state how far before it their records lie and how long they are."""
    entries = sef_entries(data, end)
    if not entries:
        return None
    head = end - 8 - int.from_bytes(data[end - 8 : end - 4], "little")
    covered = [(e.start - 8 - len(e.name), e.end) for e in entries]
    first = min(a for a, _ in covered)
    if first < start or sum(b - a for a, b in _holes(covered, first, head)) > 64:
        return None
    names = ", ".join(dict.fromkeys(e.name for e in entries[:4]))
    return Piece(first, end, f"a Samsung camera trailer of {end - first:,} bytes ({names})")


def _huawei(data: bytes, start: int, end: int) -> Piece | None:
    """A film, then fields of fixed width that end with LIVE_ and a length: that of the film and some of the fields."""
    match = re.search(rb"(v\d_f[\d: ]{10,60})?LIVE_(\d{1,10}) *$", data[max(start, end - 100) : end])
    if match is None:
        return None
    text = match.start() + max(start, end - 100)
    film = next((at - 4 for at in (data.find(b"ftyp", start, start + 64),) if at >= start + 4), -1)
    size = int(match[2])
    if film < 0 or not text - film <= size <= end - film + 20 or _films_end(data, film, text) != text:
        return None
    return Piece(film, end, f"the film of a live photo (Huawei or Honor, {end - film:,} bytes)", "film")


def _fotostation(data: bytes, start: int, end: int) -> Piece | None:
    """Records that end with a tag, their whole length and A1B2C3D4."""
    if end - start < 10 or data[end - 4 : end] != b"\xa1\xb2\xc3\xd4":
        return None
    size = int.from_bytes(data[end - 8 : end - 4], "big")
    return Piece(end - size, end, f"{size:,} bytes of FotoStation's records") if 10 <= size <= end - start else None


def _insta360(data: bytes, start: int, end: int) -> Piece | None:
    """A trailer whose last 78 bytes hold its length and end with a fixed text."""
    if end - start < 78 or data[end - 32 : end] != b"8db42d694ccc418790edff439fe026bf":
        return None
    size = int.from_bytes(data[end - 40 : end - 36], "little")
    return Piece(start, end, f"an Insta360 camera trailer of {size:,} bytes") if size == end - start else None


def _vivo(data: bytes, start: int, end: int) -> Piece | None:
    """ "vivo" and a JSON object, then at most a checksum's worth of bytes."""
    at = data.rfind(b"vivo{", start, end)
    if at < 0 or end - at > 8192:
        return None
    try:
        _, stop = json.JSONDecoder().raw_decode(data[at + 4 : end].decode("latin-1"))
    except (ValueError, RecursionError):
        return None
    if end - (at + 4 + stop) > 64:
        return None
    return Piece(at, end, f"a Vivo camera trailer of {end - at:,} bytes")


#: Trailers known by what stands at the end.
_FROM_END: tuple[Callable[[bytes, int, int], Piece | None], ...] = (
    _canon, _photo_mechanic, _afcp, _samsung, _huawei, _fotostation, _insta360, _vivo,
)  # fmt: skip


@dataclass(frozen=True)
class _Listing:
    """What a JPEG file says follows it: pictures by offset (MPF), films and pictures (XMP), a camera that wrote it."""

    pictures: frozenset[int] = frozenset()
    lists: bool = False
    camera: bool = False
    size: tuple[int, int] = (0, 0)


def _listing(data: bytes, parts: Layout, format: str) -> _Listing:
    if format != "JPEG":
        return _Listing()
    pictures: set[int] = set()
    for part in parts.named("APP2")[:16]:
        if data.startswith(b"MPF\x00", part.body):
            pictures |= _mpf(data, part.body + 4, part.end)
    packets = b"".join(data[p.body : min(p.end, p.body + 65_536)] for p in parts.named("APP1")[:64])
    lists = re.search(rb"MicroVideo|MotionPhoto|Container:Directory|hdrgm:|HDRGainMap", packets) is not None
    camera = any(data.startswith(b"Exif\x00", p.body) and _has_make(data[p.body + 6 : p.end])
                 for p in parts.named("APP1")[:4])  # fmt: skip
    return _Listing(frozenset(pictures), lists, camera, _frame(data, parts))


def _has_make(block: bytes) -> bool:
    first = tiff_directories(block).find("IFD0")
    return first is not None and 0x010F in first.entries


def _frame(data: bytes, parts: Layout) -> tuple[int, int]:
    """Width and height in a JPEG's frame header."""
    for part in parts.parts:
        if part.name.startswith("SOF") and part.end - part.body >= 5:
            height, width = struct.unpack_from(">HH", data, part.body + 1)
            return width, height
    return 0, 0


def _mpf(data: bytes, base: int, end: int) -> set[int]:
    """Offsets of the pictures that a multi-picture index lists."""
    tree = tiff_directories(data[base:end])
    entry = next((d.entries[0xB002] for d in tree.items if 0xB002 in d.entries), None)
    if entry is None:
        return set()
    table = tree.value(entry)
    if not isinstance(table, bytes):
        return set()
    found = set()
    for at in range(0, len(table) - 15, 16):
        size, offset = struct.unpack_from(tree.order + "II", table, at + 4)
        if offset and size:
            found.add(base + offset)
    return found


def _from_front(data: bytes, start: int, end: int, listing: _Listing) -> Piece | None:
    if data.startswith(b"\xff\xd8\xff", start):
        return _picture(data, start, end, listing)
    if listing.lists and (box := data.find(b"ftyp", start, start + 64)) >= start + 4:
        film = box - 4
        if data[start:film].strip(b"\x00"):
            return None
        stop = _films_end(data, film, end)
        return Piece(start, stop, f"the film of a motion photo ({stop - film:,} bytes)", "film")
    return None


def _films_end(data: bytes, start: int, end: int) -> int:
    return start + (layout(data[start:end], "HEIF").end or 0)


def _picture(data: bytes, start: int, end: int, listing: _Listing) -> Piece | None:
    """A further JPEG: one that the file lists, or the smaller copy some cameras store behind the picture."""
    inner = layout(data[start:end], "JPEG")
    stop = start + (inner.end or 0)
    if stop <= start or inner.problems:
        return None
    if listing.pictures or listing.lists:
        return Piece(start, stop, f"a further picture of {stop - start:,} bytes that the file lists", "picture")
    width, height = _frame(data[start:end], inner)
    smaller = 0 < width <= listing.size[0] and 0 < height <= listing.size[1] and (width, height) != listing.size
    if listing.camera and smaller:
        words = f"a preview of {width}×{height} pixels ({stop - start:,} bytes), as cameras store it"
        return Piece(start, stop, words, "preview")
    return None
