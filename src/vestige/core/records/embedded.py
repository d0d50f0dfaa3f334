"""What a picture file says about itself: EXIF, XMP, IPTC, Photoshop resources, text chunks, comments, thumbnails.

Every block of every kind is read, each for itself: damage in one, or a second one that most programs overlook, never
hides the others. Everything read here is untrusted. Lengths, counts, nesting and inflated sizes are bounded, XML is
parsed without entities, and damage becomes a sentence in ``problems`` instead of an exception.
"""

from __future__ import annotations

import base64
import contextlib
import struct
import zlib
from dataclasses import dataclass, field

from vestige.core.containers import Layout, gif_blocks, layout
from vestige.core.picture import ImageSubject
from vestige.core.records.exif import read_exif, read_positions
from vestige.core.records.iptc import read_iptc, read_resources
from vestige.core.records.text import MAX_TEXT, MAX_TEXTS, Embedded, Text, clean, decode_text
from vestige.core.records.trailers import sef_entries
from vestige.core.records.xmp import MAX_XMP, read_xmp

__all__ = ["Embedded", "Text", "clean", "decode_text", "picture_layout", "read_embedded"]

#: Blocks of one kind that are read, and bytes of them all together.
MAX_BLOCKS, MAX_BLOCK_BYTES = 16, 32 * 2**20
_XMP = b"http://ns.adobe.com/xap/1.0/"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\x00"
_TIFF_HEADS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


@dataclass
class _Blocks:
    """Encoded blocks by kind ("exif", "xmp", "irb", "iptc"), in file order."""

    found: dict[str, list[bytes]] = field(default_factory=dict)
    left: int = MAX_BLOCK_BYTES

    def add(self, kind: str, block: bytes) -> None:
        blocks = self.found.setdefault(kind, [])
        if block and len(blocks) < MAX_BLOCKS and len(block) <= self.left and block not in blocks:
            blocks.append(block)
            self.left -= len(block)


def read_embedded(subject: ImageSubject) -> Embedded:
    """Read every metadata block of a picture, once for all who ask; damage is reported in ``problems``.

    Raises only what `ImageSubject.format` raises for files that are no picture.
    """
    return subject.shared("embedded", lambda: _read(subject))


def picture_layout(subject: ImageSubject) -> Layout:
    """The parts of a picture's file, walked once for all who ask; raises what `ImageSubject.format` raises."""
    return subject.shared("layout", lambda: layout(subject.data, subject.format))


def _read(subject: ImageSubject) -> Embedded:
    data, out, blocks = subject.data, Embedded(), _Blocks()
    parts = picture_layout(subject)
    if subject.format == "JPEG":
        _read_jpeg(data, parts, out, blocks)
    elif subject.format == "PNG":
        _read_png(data, parts, out, blocks)
    elif subject.format == "WEBP":
        for part in parts.named("EXIF", "XMP ", "XMP\x00"):
            blocks.add("exif" if part.name == "EXIF" else "xmp", data[part.body : part.end])
    elif subject.format == "GIF":
        _read_gif(data, parts, out, blocks)
    elif subject.format == "TIFF":
        blocks.found["exif"] = [data]  # the file itself, whatever its size
    else:
        for key in ("exif", "xmp"):
            blocks.add(key, _as_bytes(subject.info.get(key)))
    boxes = [part.end for part in parts.named("sefd")]  # where HEIF files keep what JPEG files have at their end
    for entry in [e for end in (len(data), *boxes[:4]) for e in sef_entries(data, end)][:MAX_BLOCKS]:
        if data[entry.start : entry.start + 1] == b"{" and entry.end - entry.start <= MAX_TEXT:
            value = decode_text(data[entry.start : entry.end])
            out.texts.append(Text("Samsung trailer", clean(entry.name, 60), value))
    _read_blocks(blocks, out, file=subject.format == "TIFF")
    return out


def _read_blocks(blocks: _Blocks, out: Embedded, file: bool) -> None:
    exif = [b.removeprefix(b"Exif\x00\x00") for b in blocks.found.get("exif", [])]
    for number, block in enumerate(exif, 1):
        for kind, inner in read_exif(block, out, file=file, number=number):
            blocks.add(kind, inner)
    for block in blocks.found.get("irb", []):
        for inner in read_resources(block, out):
            blocks.add("iptc", inner)
    for block in blocks.found.get("iptc", []):
        read_iptc(block, out)
    for block in blocks.found.get("xmp", []):
        read_xmp(block, out)
    read_positions(out)
    for path, value in out.xmp:
        if path.endswith(":image") and value.lstrip().startswith("/9j/") and len(out.thumbnails) < MAX_BLOCKS:
            with contextlib.suppress(ValueError):
                out.thumbnails.append(("XMP", base64.b64decode("".join(value.split()))))
    for name, kind in (("EXIF", "exif"), ("XMP", "xmp"), ("Photoshop", "irb"), ("IPTC", "iptc")):
        of_kind = [] if file and kind == "exif" else blocks.found.get(kind, [])
        if of_kind and not (kind == "iptc" and "irb" in blocks.found):
            out.raw[name] = sum(map(len, of_kind))
        if len(of_kind) > 1 and kind in ("exif", "xmp") and not file:
            out.say(f"the file holds {len(of_kind)} {name} blocks; most programs read one")


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else b""


def _read_jpeg(data: bytes, parts: Layout, out: Embedded, blocks: _Blocks) -> None:
    exif: list[bytearray] = []
    irb = bytearray()
    extensions: dict[bytes, list[tuple[int, int, bytes]]] = {}
    budget = MAX_BLOCK_BYTES
    for part in parts.parts:
        if not part.name.startswith(("APP", "COM")) or len(part) > budget:
            continue
        body = data[part.body : part.end]
        budget -= len(body)
        if part.name == "COM":
            if len(out.texts) < MAX_TEXTS:
                out.texts.append(Text("comment", "comment", decode_text(body)))
        elif body.startswith(b"Exif\x00"):
            # a block above 64 KiB goes on in further segments, which have the prefix and no header
            if exif and not body.startswith(_TIFF_HEADS, 6):
                exif[-1] += body[6:]
            else:
                exif.append(bytearray(body[6:]))
        elif body.startswith(_XMP):
            blocks.add("xmp", body[len(_XMP) :].removeprefix(b"\x00"))
        elif body.startswith(_EXTENSION) and len(body) >= 75:
            size, offset = struct.unpack_from(">II", body, 67)
            extensions.setdefault(body[35:67], []).append((offset, size, body[75:]))
        elif body.startswith(b"Photoshop 3.0\x00"):
            irb += body[14:]
        elif body.startswith(b"Ducky") and part.name == "APP12":
            out.texts.append(Text("segment", "APP12", "Ducky"))
        elif body.startswith(b"JFXX\x00\x10") and len(out.thumbnails) < MAX_BLOCKS:
            out.thumbnails.append(("JFIF extension", body[6:]))
    for block in exif:
        blocks.add("exif", bytes(block))
    blocks.add("irb", bytes(irb))
    for pieces in list(extensions.values())[:MAX_BLOCKS]:
        blocks.add("xmp", _extended(pieces, out))


def _extended(pieces: list[tuple[int, int, bytes]], out: Embedded) -> bytes:
    """Extended XMP put together from its segments (offset, whole size, bytes) in the order of the offsets."""
    whole = bytearray()
    for offset, _, piece in sorted(pieces, key=lambda p: p[0]):
        if offset != len(whole):
            out.say("segments of the extended XMP are missing or overlap")
        if len(whole) + len(piece) > MAX_XMP:
            break
        whole += piece
    if len(whole) != pieces[0][1]:
        out.say("the extended XMP is not as long as it says")
    return bytes(whole)


def _read_png(data: bytes, parts: Layout, out: Embedded, blocks: _Blocks) -> None:
    budget = 4 * MAX_TEXT
    for part in parts.named("tEXt", "zTXt", "iTXt", "eXIf", "exIf", "zxIf", "tXMP")[:MAX_TEXTS]:
        body = data[part.body : part.end]
        if part.name in ("eXIf", "exIf", "tXMP"):
            blocks.add("xmp" if part.name == "tXMP" else "exif", body)
            continue
        if part.name == "zxIf":
            blocks.add("exif", _inflate(body[5:], min(budget, MAX_TEXT))[0])
            continue
        key, value, whole = _png_text(part.name, body, min(budget, MAX_TEXT))
        if not whole:
            out.say(f"a PNG {part.name} chunk is damaged")
            if not value:
                continue
        budget -= len(value)
        kind = key.removeprefix("Raw profile type ").lower()
        if key == "XML:com.adobe.xmp":
            blocks.add("xmp", value)
        elif kind in ("exif", "app1", "xmp", "iptc", "8bim") and kind != key.lower():
            profile = _raw_profile(value)
            name = kind if kind != "app1" else ("exif" if profile.startswith(b"Exif") else "xmp")
            profile = profile.removeprefix(b"Exif\x00\x00").removeprefix(_XMP + b"\x00")
            name = "8bim" if name == "iptc" and profile.startswith(b"8BIM") else name
            blocks.add({"8bim": "irb"}.get(name, name), profile)
        else:
            out.texts.append(Text("PNG text", clean(key, 80), decode_text(value)))


def _png_text(name: str, body: bytes, limit: int) -> tuple[str, bytes, bool]:
    """Key and value of a text chunk, and whether it is whole: a damaged one gives what can be read."""
    key, _, rest = body.partition(b"\x00")
    if len(key) == len(body):
        return "", b"", False
    packed = name == "zTXt"
    if name == "iTXt":
        packed = rest[:1] == b"\x01"
        fields = rest[2:].split(b"\x00", 2)
        if len(fields) < 3:
            return key.decode("latin-1"), fields[-1][: max(limit, 0)], False
        rest = fields[2]
    elif packed:
        rest = rest[1:]
    whole = True
    if packed:
        rest, whole = _inflate(rest, limit)
    return key.decode("latin-1"), rest[: max(limit, 0)], whole


def _inflate(packed: bytes, limit: int) -> tuple[bytes, bool]:
    """At most ``limit`` bytes of zlib data, read piece by piece so that damage costs only what follows it."""
    reader, out = zlib.decompressobj(), bytearray()
    try:
        for at in range(0, len(packed), 4096):
            piece = packed[at : at + 4096]
            while piece and len(out) < limit:
                out += reader.decompress(piece, limit - len(out))
                piece = reader.unconsumed_tail
            if len(out) >= limit or reader.eof:
                return bytes(out), True
    except zlib.error:
        return bytes(out), False
    return bytes(out), reader.eof


def _raw_profile(value: bytes) -> bytes:
    """A profile in ImageMagick's text form: name, length and hexadecimal digits on lines of their own."""
    fields = value.split(None, 2)
    try:
        return bytes.fromhex(fields[2].decode("ascii")) if len(fields) == 3 else b""
    except ValueError:
        return b""


def _read_gif(data: bytes, parts: Layout, out: Embedded, blocks: _Blocks) -> None:
    for part in parts.named("comment", "application")[:MAX_TEXTS]:
        if part.name == "comment":
            out.texts.append(Text("comment", "comment", decode_text(gif_blocks(data, part))))
        elif data[part.body + 1 : part.body + 12] == b"XMP DataXMP":
            # XMP is stored unblocked in a GIF, followed by a 258-byte trailer that ends any block walk
            block = data[part.body + 12 : part.end]
            blocks.add("xmp", block[: block.rfind(b">") + 1])
