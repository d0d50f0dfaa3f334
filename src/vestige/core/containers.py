"""How picture files are laid out: segments, chunks and boxes with their extents, read without decoding a pixel.

`layout` walks a file's own structure and says where the picture ends; what follows does not belong to it.
Everything is bounded and nothing raises on damaged
input: what does not fit becomes a sentence in ``problems``.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from vestige.core.pictures.tiff import integers, tiff_directories

#: Most segments, chunks or boxes that are walked: a PNG's samples may lie in chunks of 8 KiB, a JPEG's profile or
#: metadata in segments of 64 KiB.
MAX_PARTS = {"JPEG": 20_000, "": 100_000}

_JPEG_NAMES = {0xC4: "DHT", 0xC8: "JPG", 0xCC: "DAC", 0xDA: "SOS", 0xDB: "DQT", 0xDC: "DNL", 0xDD: "DRI", 0xFE: "COM"}
_END_OF_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]", re.DOTALL)

#: Boxes that stand at the top level of HEIF, AVIF and their camera makers' variants.
KNOWN_BOXES = frozenset(
    "ftyp meta mdat moov moof free skip uuid pdin mfra styp sidx wide pnot idat jumb sefd mpvd emsg prft".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Part:
    """A segment, chunk, block or box: header in bytes start to body, content in bytes body to end."""

    name: str
    start: int
    body: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass
class Layout:
    """A file's parts in order.

    end: offset of the first byte after the picture, None where the format does not say.
    gaps: stretches (start, end) between parts that belong to none. problems: damage, one sentence each.
    """

    parts: list[Part] = field(default_factory=list)
    end: int | None = None
    gaps: list[tuple[int, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def named(self, *names: str) -> list[Part]:
        """The parts with one of these names."""
        return [p for p in self.parts if p.name in names]


def layout(data: bytes, format: str) -> Layout:
    """The parts of a picture file.

    format: one of JPEG PNG WEBP TIFF GIF BMP AVIF HEIF, as `vestige.core.sniff.sniff` names it; any other gives an
    empty layout. Never raises on damaged files.

    >>> layout(b"GIF89a" + bytes(7) + b";" + b"more", "GIF").end
    14
    """
    walkers: dict[str, Any] = {
        "JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "GIF": _gif, "BMP": _bmp, "TIFF": _tiff,
        "AVIF": _boxes, "HEIF": _boxes,
    }  # fmt: skip
    found = Layout()
    if format not in walkers:
        return found
    try:
        walkers[format](data, found)
    except (struct.error, IndexError):
        found.problems.append("the file ends inside its own structure")
        found.end = len(data)
    return found


def _jpeg(data: bytes, found: Layout) -> None:
    position = 2
    while len(found.parts) < MAX_PARTS["JPEG"]:
        if data[position] != 0xFF:
            following = data.find(b"\xff", position)
            if following < 0:
                break
            found.gaps.append((position, following))
            position = following
        while data[position + 1] == 0xFF:  # fill bytes may precede any marker
            position += 1
        marker = data[position + 1]
        if marker == 0xD9:
            found.end = position + 2
            return
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        end = position + 2 + max(length, 2)
        if end > len(data):
            break
        if marker == 0xDA:
            match = _END_OF_SCAN.search(data, end)
            end = match.start() if match else len(data)
        found.parts.append(Part(_jpeg_name(marker), position, position + 4, end))
        position = end
        if position >= len(data):
            break
    found.problems.append("the JPEG has no end-of-image marker")
    found.end = len(data)


def _jpeg_name(marker: int) -> str:
    if marker in _JPEG_NAMES:
        return _JPEG_NAMES[marker]
    if 0xC0 <= marker <= 0xCF:
        return f"SOF{marker - 0xC0}"
    return f"APP{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else f"0x{marker:02X}"


def _png(data: bytes, found: Layout) -> None:
    position, view = 8, memoryview(data)
    while len(found.parts) < MAX_PARTS[""]:
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if not name.isalpha() or end > len(data):
            found.problems.append("the PNG's chunks end before its IEND chunk")
            found.end = len(data)
            return
        text = name.decode("ascii")
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            found.problems.append(f"the checksum of a {text} chunk is wrong")
        found.parts.append(Part(text, position, position + 8, end - 4))
        position = end
        if name == b"IEND":
            found.end = end
            return


def _webp(data: bytes, found: Layout) -> None:
    (size,) = struct.unpack_from("<I", data, 4)
    end = 8 + size + size % 2
    if end > len(data):
        if 8 + size > len(data):
            found.problems.append("the WebP file is shorter than its header says")
        end = len(data)
    found.end, position = end, 12
    while position + 8 <= end and len(found.parts) < MAX_PARTS[""]:
        name, length = struct.unpack_from("<4sI", data, position)
        stop = position + 8 + length
        if stop > end:
            found.problems.append("a WebP chunk is longer than the file")
            return
        found.parts.append(Part(name.decode("latin-1"), position, position + 8, stop))
        position = stop + length % 2


def _gif(data: bytes, found: Layout) -> None:
    position = 13 + _gif_table(data[10])
    while len(found.parts) < MAX_PARTS[""]:
        start, introducer = position, data[position]
        if introducer == 0x3B:
            found.end = position + 1
            return
        if introducer == 0x21:
            name = {0xFE: "comment", 0xFF: "application", 0xF9: "control", 0x01: "text"}.get(
                data[position + 1], "extension"
            )
            body = position + 2
        elif introducer == 0x2C:
            name, body = "image", position + 11 + _gif_table(data[position + 9])
        else:
            found.problems.append("the GIF's blocks end before its trailer")
            found.end = len(data)
            return
        position = body
        while data[position]:
            position += 1 + data[position]
        position += 1
        found.parts.append(Part(name, start, body, position))


def _gif_table(flags: int) -> int:
    return 3 << (1 + (flags & 7)) if flags & 0x80 else 0


def gif_blocks(data: bytes, part: Part, limit: int = 1 << 20) -> bytes:
    """The content of a GIF extension: its sub-blocks joined, at most ``limit`` bytes."""
    out, position = bytearray(), part.body
    while position < part.end and data[position] and len(out) < limit:
        out += data[position + 1 : position + 1 + data[position]]
        position += 1 + data[position]
    return bytes(out[:limit])


def _bmp(data: bytes, found: Layout) -> None:
    claimed, offset, header = struct.unpack_from("<I4xII", data, 2)
    if header >= 40:
        width, height, _, bits, compression, stored = struct.unpack_from("<iiHHII", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = stored = 0
    if compression in (0, 3, 6):
        stored = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    end = offset + stored
    if header >= 124:  # version 5 may keep a colour profile after the samples
        profile, size = struct.unpack_from("<II", data, 14 + 112)
        end = max(end, 14 + profile + size if profile and 14 + profile + size <= claimed else 0)
    if not stored:
        end = claimed
    if end > len(data):
        found.problems.append("the BMP file is shorter than its header says")
        end = len(data)
    # rows may be padded by a few bytes that only the file size in the header accounts for
    found.end = claimed if end < claimed <= min(end + 4, len(data)) else end
    found.parts.append(Part("pixels", offset, offset, max(offset, end)))


def _boxes(data: bytes, found: Layout) -> None:
    position = 0
    while position + 8 <= len(data) and len(found.parts) < MAX_PARTS[""]:
        size, name = struct.unpack_from(">I4s", data, position)
        body = position + 8
        if size == 1 and position + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, position + 8)
            body += 8
        elif size == 0:
            size = len(data) - position
        if (
            size < body - position
            or position + size > len(data)
            or not name.isascii()
            or not name.decode().isprintable()
        ):
            if found.parts and found.parts[-1].name in ("mdat", "meta") and name in (b"mdat", b"meta", b"moov"):
                found.problems.append(f"the {name.decode()} box is longer than the file")
                position = len(data)
            break
        found.parts.append(Part(name.decode(), position, body, position + size))
        position += size
    if not found.parts:
        found.problems.append("the file has no readable box")
    found.end = position


def _tiff(data: bytes, found: Layout) -> None:
    tree = tiff_directories(data)
    found.problems += tree.problems
    end = 8
    for directory in tree.items:
        found.parts.append(Part(directory.name, directory.start, directory.start, directory.end))
        end = max(end, directory.end, *(e.offset + e.size for e in directory.entries.values()), 0)
        for offsets, sizes in ((273, 279), (324, 325), (513, 514)):
            at, by = directory.entries.get(offsets), directory.entries.get(sizes)
            if at is None:
                continue
            if by is None or at.count != by.count or at.kind not in (3, 4, 16) or by.kind not in (3, 4, 16):
                found.problems.append("the TIFF does not say where its samples end")
                return
            end = max(end, int((integers(tree, at) + integers(tree, by)).max(initial=0)))
    if end > len(data):
        found.problems.append("the TIFF points to samples beyond its end")
    found.end = min(end, len(data))
