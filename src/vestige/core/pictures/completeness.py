"""Whether a picture file holds all the samples that its header promises.

Libraries fill what is missing with black or grey and say nothing, or say it once and forget. Nothing here decodes by
itself: PNG rows are counted as they inflate, and a JPEG is decoded a second time with other bytes where a scan ends,
which changes the picture exactly where the first decoding ran past the end of its data.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from vestige.core.containers import Layout, Part, layout
from vestige.core.pictures.tiff import Directories, Directory, integers, tiff_directories

#: PNG: samples a pixel by colour type; where the passes of an interlaced picture start and how far they step (x, y).
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
_CRITICAL = ("IHDR", "PLTE", "IDAT", "tRNS")
_KEPT = ("IHDR", "PLTE", "tRNS", "iCCP", "eXIf")
_STEP = 1 << 20
#: Bytes without a marker in them that no encoder puts where a scan ends.
_PROBE = bytes.fromhex("5ac3963ca5690f1e7187d22d4bb41ee1")
_RESTART = re.compile(rb"(\xff+[\xd0-\xd7])")
_STRAY = re.compile(rb"\xff[\x01-\xbf]")
_MOST_SCANS = 500
_SCAN_PIXELS = 4_000_000_000
END_OF_IMAGE = b"\xff\xd9"


@dataclass
class Complete:
    """What a file lacks.

    damage: why not all samples can be trusted, empty where they can. notes: what is wrong beside them. rows: how many
    rows are there from the top, None where it is not known.
    """

    damage: str = ""
    notes: list[str] = field(default_factory=list)
    rows: int | None = None


@dataclass
class PngRows:
    """What inflating a PNG gives: how many bytes of how many, and the bytes themselves where they were kept."""

    stated: Complete
    expected: int
    held: int
    kept: bytearray


def png_rows(data: bytes, keep: bool = False) -> PngRows:
    """Inflate the samples of a PNG's default image without unpacking them; keep: hold on to the bytes."""
    found = layout(data, "PNG")
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    pixel = bits * _CHANNELS.get(colour, 1)
    line = (width * pixel + 7) // 8 + 1
    expected = _interlaced_size(width, height, pixel) if interlaced else line * height
    out = PngRows(Complete(), expected, 0, bytearray())
    stated = out.stated
    try:
        for chunk in _inflate(data, found, expected, keep):
            out.held += len(chunk)
            if keep:
                out.kept += chunk
    except zlib.error as error:
        wrong = "checksum" if "check" in str(error) else "compressed data"
        stated.damage = f"the {wrong} of its samples is wrong"
    if not interlaced:
        stated.rows = min(height, out.held // line)
    if out.held < expected and not stated.damage:
        stated.damage = f"{out.held} of the {expected} bytes of its samples are there"
    broken = [n for n in _CRITICAL if f"the checksum of a {n} chunk is wrong" in found.problems]
    if broken and not stated.damage:
        stated.damage = f"the checksum of its {broken[0]} chunk is wrong"
    if not any(p.name == "IEND" for p in found.parts):
        stated.notes.append("It has no IEND chunk, the mark of a PNG's end.")
    return out


def _inflate(data: bytes, found: Layout, expected: int, careful: bool) -> Iterator[bytes]:
    """The inflated bytes in pieces, no more than a little over what is expected.

    careful: where the stream is damaged, give what inflates up to the very byte before the error is raised.
    """
    stream, held = zlib.decompressobj(), 0
    view = memoryview(data)
    parts = [(p.body, p.end) for p in found.parts if p.name == "IDAT"]
    after = found.parts[-1].end + 4 if found.parts else 8
    if not any(p.name == "IEND" for p in found.parts) and data[after + 4 : after + 8] == b"IDAT":
        parts.append((after + 8, len(data)))  # a chunk that the file breaks off in
    for start, end in parts:
        for at in range(start, end, _STEP):
            pending = bytes(view[at : min(at + _STEP, end)])
            while pending:
                before = stream.copy() if careful else None
                try:
                    chunk = stream.decompress(pending, _STEP)
                except zlib.error:
                    if before is not None:
                        yield from _bytewise(before, pending)
                    raise
                pending = stream.unconsumed_tail
                held += len(chunk)
                if chunk:
                    yield chunk
                if stream.eof or held > expected + _STEP:
                    return


def _bytewise(stream: zlib._Decompress, pending: bytes) -> Iterator[bytes]:
    for byte in pending:
        try:
            chunk = stream.decompress(bytes((byte,)))
        except zlib.error:
            return
        if chunk:
            yield chunk


def _interlaced_size(width: int, height: int, pixel: int) -> int:
    total = 0
    for x, dx, y, dy in _ADAM7:
        across, down = max(0, -(-(width - x) // dx)), max(0, -(-(height - y) // dy))
        total += (((across * pixel + 7) // 8) + 1) * down if across else 0
    return total


def whole_png(data: bytes) -> bytes:
    """The PNG with its missing samples as zeros, packed anew, so that a strict reader takes it."""
    rows = png_rows(data, keep=True)
    samples = bytes(rows.kept[: rows.expected]) + bytes(max(0, rows.expected - rows.held))
    out = bytearray(data[:8])
    for part in layout(data, "PNG").parts:
        if part.name in _KEPT:
            out += png_chunk(part.name.encode("ascii"), data[part.body : part.end])
    out += png_chunk(b"IDAT", zlib.compress(samples, 1)) + png_chunk(b"IEND", b"")
    return bytes(out)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@dataclass
class JpegScans:
    """The scans of a JPEG file.

    ended: it has an end-of-image marker. probed: the file with other bytes where each scan and restart interval ends,
    without what does not bear on its samples; empty where decoding again tells nothing (arithmetic coding).
    """

    stated: Complete
    ended: bool
    probed: bytes


def jpeg_scans(data: bytes) -> JpegScans:
    """Walk a JPEG's segments up to the end of its first picture; nothing is decoded."""
    found = layout(data, "JPEG")
    ended = "the JPEG has no end-of-image marker" not in found.problems
    stated = Complete()
    if not ended:
        stated.notes.append("It has no end-of-image marker.")
    frame = next((p for p in found.parts if re.fullmatch(r"SOF\d+", p.name)), None)
    scans = found.named("SOS")
    if frame is None or not scans:
        stated.damage = "it has no scan"
        return JpegScans(stated, ended, b"")
    process = int(frame.name[3:])
    height, width, count = struct.unpack_from(">HHB", data, frame.body + 1)
    if len(scans) > _MOST_SCANS or (len(scans) * width * height > _SCAN_PIXELS and len(scans) > 30):
        stated.damage = f"its {len(scans)} scans are more than any encoder writes"
        return JpegScans(stated, ended, b"")
    missing = _missing(data, frame.body, count, [s.body for s in scans], process)
    if missing:
        stated.damage = missing
    if process >= 9:
        stated.notes.append("It is coded arithmetically: whether all of its samples are there cannot be told.")
        return JpegScans(stated, ended, b"")
    out, interval = [data[:2]], 0
    for part in found.parts:
        if part.name == "DRI":
            (interval,) = struct.unpack_from(">H", data, part.body)
        if part.name == "SOS":
            (length,) = struct.unpack_from(">H", data, part.start + 2)
            start = min(part.start + 2 + length, part.end)
            if _STRAY.search(data, start, part.end) and not stated.damage:
                stated.damage = "its compressed data is interrupted"
            if interval and not stated.damage and not _restarts_in_order(data, frame.body, part, start, interval):
                stated.damage = "restart markers are missing from its compressed data"
            samples = _RESTART.sub(lambda m: _PROBE + m.group(1), data[start : part.end].rstrip(b"\xff"))
            out += [data[part.start : start], samples, _PROBE]
        elif part.name in ("APP0", "APP14") or not part.name.startswith(("APP", "COM")):
            out.append(data[part.start : part.end])
    return JpegScans(stated, ended, b"".join([*out, END_OF_IMAGE]))


def _restarts_in_order(data: bytes, frame: int, scan: Part, start: int, interval: int) -> bool:
    """Whether a scan has as many restart markers as its units ask for, one after the other."""
    height, width, count = struct.unpack_from(">HHB", data, frame + 1)
    factors = {data[frame + 6 + 3 * k]: divmod(data[frame + 7 + 3 * k], 16) for k in range(count)}
    across, down = max(h for h, _ in factors.values()) or 1, max(v for _, v in factors.values()) or 1
    if data[scan.body] == 1:  # a component by itself: its units are its own blocks
        h, v = factors.get(data[scan.body + 1], (1, 1))
        units = _up(_up(width * h, across), 8) * _up(_up(height * v, down), 8)
    else:
        units = _up(width, 8 * across) * _up(height, 8 * down)
    marks = [m.group(1)[-1] & 7 for m in _RESTART.finditer(data, start, scan.end)]
    return len(marks) >= _up(units, interval) - 1 and marks == [k % 8 for k in range(len(marks))]


def _up(n: int, by: int) -> int:
    return -(-n // by)


def _missing(data: bytes, frame: int, count: int, scans: list[int], process: int) -> str:
    """Which of the components or their coefficients no scan holds."""
    identifiers = [data[frame + 6 + 3 * k] for k in range(count)]
    # the lowest bit sent of each coefficient, by component; 14 stands for none
    sent = {k: [14] * 64 for k in identifiers}
    for at in scans:
        n = data[at]
        first, last, bits = data[at + 1 + 2 * n : at + 4 + 2 * n]
        low = bits & 15
        if process not in (2, 6):
            first, last, low = 0, 63, 0
        for k in range(n):
            known = sent.get(data[at + 1 + 2 * k])
            if known is not None:
                for z in range(first, min(last, 63) + 1):
                    known[z] = min(known[z], low)
    lacking = [k for k, levels in sent.items() if max(levels) > 0]
    if not lacking:
        return ""
    if any(min(sent[k]) == 14 for k in lacking):
        return "a colour component has no scan"
    return "the last of its progressive scans are missing"


_STRIPS = ((273, 279), (324, 325))
_COMPRESSION, _JPEG_TABLES = 259, 347
_DEFLATE, _JPEG = (8, 32946), 7


def tiff_strips(data: bytes) -> tuple[str, list[bytes]]:
    """What is wrong with a TIFF's strips or tiles, and those that are JPEG streams, each whole with its tables.

    libtiff passes over a wrong checksum of a deflated strip, and fills a JPEG strip that breaks off.
    """
    tree = tiff_directories(data)
    first = tree.find("IFD0")
    packed = None if first is None else first.entries.get(_COMPRESSION)
    if first is None or packed is None or packed.kind != 3:
        return "", []
    kind = int(tree.value(packed)[0])
    if kind == 1:
        return _unpacked(tree, first), []
    if kind not in (*_DEFLATE, _JPEG):
        return "", []
    tables = first.entries.get(_JPEG_TABLES)
    head = b"" if tables is None else data[tables.offset : tables.offset + tables.size].removesuffix(END_OF_IMAGE)
    streams = []
    for start, size in _extents(tree, first):
        strip = data[start : start + size]
        if kind == _JPEG:
            streams.append(head + strip[2:] if head else strip)
        elif wrong := _deflated(strip):
            return wrong, []
    return "", streams


def _extents(tree: Directories, directory: Directory) -> list[tuple[int, int]]:
    for offsets, sizes in _STRIPS:
        at, by = directory.entries.get(offsets), directory.entries.get(sizes)
        if at is not None and by is not None and at.kind in (3, 4, 16) and by.kind in (3, 4, 16):
            return list(zip(integers(tree, at).tolist(), integers(tree, by).tolist(), strict=False))
    return []


def _unpacked(tree: Directories, directory: Directory) -> str:
    """Whether strips that are not compressed hold as many bytes as the picture takes."""
    width, height, planar = (_first(tree, directory, tag, d) for tag, d in ((256, 0), (257, 0), (284, 1)))
    entry = directory.entries.get(258)
    bits = [1] if entry is None or entry.kind != 3 else [int(b) for b in tree.value(entry, 16)]
    if 322 in directory.entries or not directory.entries.get(279):
        return ""  # tiles are padded, and some writers leave the lengths of strips out
    line = sum(_up(width * b, 8) for b in bits) if planar == 2 else _up(width * sum(bits), 8)
    held = sum(size for _, size in _extents(tree, directory))
    return f"{held} of the {line * height} bytes of its samples are there" if held < line * height else ""


def _first(tree: Directories, directory: Directory, tag: int, default: int) -> int:
    entry = directory.entries.get(tag)
    return default if entry is None or entry.kind not in (3, 4, 16) or not entry.count else int(tree.value(entry, 8)[0])


def _deflated(strip: bytes) -> str:
    stream, pending = zlib.decompressobj(), strip
    try:
        while pending and not stream.eof:
            stream.decompress(pending, _STEP)
            pending = stream.unconsumed_tail
    except zlib.error:
        return "the compressed data or the checksum of its samples is wrong"
    return "" if stream.eof else "its compressed data breaks off"
