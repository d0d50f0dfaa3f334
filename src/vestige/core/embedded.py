"""What a picture file says about itself: EXIF, XMP, IPTC, Photoshop resources, text chunks, comments, thumbnails.

Everything read here is untrusted. Lengths, counts, nesting and inflated sizes are bounded, XML is parsed without
entities, and damage becomes a sentence in ``problems`` instead of an exception.
"""

from __future__ import annotations

import math
import struct
import unicodedata
import zlib
from dataclasses import dataclass, field
from typing import Any

from vestige.core.containers import Layout, gif_blocks, layout
from vestige.core.subjects import ImageSubject
from vestige.core.tiff import Directories, Directory, Entry, tiff_directories

MAX_TEXT = 4 * 2**20
MAX_TEXTS = 1000
MAX_XMP = 8 * 2**20
MAX_XMP_NODES = 20_000
MAX_XMP_DEPTH = 64

#: Prefixes reports use for the XMP namespaces they name; others get the last word of their address.
PREFIXES = {
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xap/1.0/mm/": "xmpMM",
    "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#": "stEvt",
    "http://ns.adobe.com/xap/1.0/sType/ResourceRef#": "stRef",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/camera-raw-settings/1.0/": "crs",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://purl.org/dc/terms/": "dcterms",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": "Iptc4xmpCore",
    "http://ns.google.com/photos/1.0/camera/": "GCamera",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
    "adobe:ns:meta/": "x",
    "http://www.w3.org/XML/1998/namespace": "xml",
}

EXIF_NAMES = {
    0x000B: "ProcessingSoftware", 0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0112: "Orientation",
    0x0131: "Software", 0x0132: "DateTime", 0x013B: "Artist", 0x013C: "HostComputer", 0x8298: "Copyright",
    0x9003: "DateTimeOriginal", 0x9004: "DateTimeDigitized", 0x9010: "OffsetTime", 0x9011: "OffsetTimeOriginal",
    0x9286: "UserComment", 0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x9C9D: "XPAuthor", 0x9C9E: "XPKeywords",
    0x9C9F: "XPSubject", 0xA002: "PixelXDimension", 0xA003: "PixelYDimension", 0xA430: "CameraOwnerName",
    0xA431: "BodySerialNumber", 0xA433: "LensMake", 0xA434: "LensModel", 0xA436: "ImageTitle", 0xA437: "Photographer",
    0xA43A: "CameraFirmware", 0xA43B: "RAWDevelopingSoftware", 0xA43C: "ImageEditingSoftware",
    0xA43D: "MetadataEditingSoftware",
}  # fmt: skip

IPTC_NAMES = {
    5: "ObjectName", 25: "Keywords", 40: "SpecialInstructions", 55: "DateCreated", 60: "TimeCreated",
    62: "DigitalCreationDate", 65: "OriginatingProgram", 70: "ProgramVersion", 80: "By-line", 105: "Headline",
    110: "Credit", 115: "Source", 116: "CopyrightNotice", 120: "Caption", 122: "Writer-Editor", 103: "Transmission",
}  # fmt: skip


@dataclass(frozen=True)
class Text:
    """One text in the file: ``where`` ("PNG text", "EXIF", "XMP", "IPTC", "comment"), its key and its value."""

    where: str
    key: str
    value: str


@dataclass
class Embedded:
    """Everything `read_embedded` found.

    exif: texts and numbers by name; gps: latitude and longitude in degrees, or None; has_gps: a position is given.
    xmp: (path, value) in document order, such as ("xmpMM:History/stEvt:action", "saved"). iptc: (name, value).
    resources: Photoshop resource blocks by number. thumbnails: (where, encoded JPEG). raw: size of each block.
    """

    texts: list[Text] = field(default_factory=list)
    exif: dict[str, Any] = field(default_factory=dict)
    gps: tuple[float, float] | None = None
    has_gps: bool = False
    gps_date: str = ""
    xmp: list[tuple[str, str]] = field(default_factory=list)
    iptc: list[tuple[str, str]] = field(default_factory=list)
    resources: dict[int, bytes] = field(default_factory=dict)
    thumbnails: list[tuple[str, bytes]] = field(default_factory=list)
    raw: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def every_text(self) -> list[Text]:
        """All texts, whatever block they come from."""
        exif = [Text("EXIF", k, v) for k, v in self.exif.items() if isinstance(v, str)]
        xmp = [Text("XMP", k, v) for k, v in self.xmp]
        return [*self.texts, *exif, *xmp, *(Text("IPTC", k, v) for k, v in self.iptc)]


def clean(text: object, limit: int = 120) -> str:
    """Text fit for a report: no control or direction characters, single spaces, at most ``limit`` characters.

    >>> clean("a\\x00b\\n c")
    'a b c'
    """
    kept = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(text)[: 8 * limit])
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def read_embedded(subject: ImageSubject, found: Layout | None = None) -> Embedded:
    """Read every metadata block of a picture; damage is reported in ``problems``.

    Raises only what `ImageSubject.format` raises for files that are no picture.
    """
    data, out = subject.data, Embedded()
    parts = found or layout(data, subject.format)
    exif, xmp, irb, iptc = b"", b"", b"", b""
    if subject.format == "JPEG":
        exif, xmp, irb = _read_jpeg(data, parts, out)
    elif subject.format == "PNG":
        exif, xmp, irb, iptc = _read_png(data, parts, out)
    elif subject.format == "WEBP":
        exif, xmp = (next((data[p.body : p.end] for p in parts.named(n)), b"") for n in ("EXIF", "XMP "))
    elif subject.format == "GIF":
        xmp = _read_gif(data, parts, out)
    elif subject.format == "TIFF":
        exif = data
    else:
        exif, xmp = (_as_bytes(subject.info.get(k)) for k in ("exif", "xmp"))
    _read_exif(exif.removeprefix(b"Exif\x00\x00"), out, file=subject.format == "TIFF")
    if subject.format == "TIFF":
        xmp, irb, iptc = (out.exif.pop(k, b"") for k in ("_xmp", "_irb", "_iptc"))
    _read_resources(irb, out)
    for block in (iptc, out.resources.get(0x0404, b"")):
        _read_iptc(block, out)
    _read_xmp(xmp, out)
    for name, block in (("EXIF", exif if subject.format != "TIFF" else b""), ("XMP", xmp), ("Photoshop", irb)):
        if block:
            out.raw[name] = len(block)
    return out


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else b""


def _read_jpeg(data: bytes, parts: Layout, out: Embedded) -> tuple[bytes, bytes, bytes]:
    exif = xmp = b""
    irb, extension = bytearray(), bytearray()
    for part in parts.parts:
        body = data[part.body : part.end] if part.name.startswith(("APP", "COM")) else b""
        if part.name == "COM":
            out.texts.append(Text("comment", "comment", decode_text(body)))
        elif body.startswith(b"Exif\x00") and not exif:
            exif = body[6:]
        elif body.startswith(b"http://ns.adobe.com/xap/1.0/\x00") and not xmp:
            xmp = body[29:]
        elif body.startswith(b"http://ns.adobe.com/xmp/extension/\x00") and len(extension) < MAX_XMP:
            extension += body[35 + 40 :]
        elif body.startswith(b"Photoshop 3.0\x00") and len(irb) < MAX_XMP:
            irb += body[14:]
        elif body.startswith(b"Ducky") and part.name == "APP12":
            out.texts.append(Text("segment", "APP12", "Ducky"))
        elif body.startswith(b"JFXX\x00\x10"):
            out.thumbnails.append(("JFIF extension", body[6:]))
        if len(out.texts) >= MAX_TEXTS:
            break
    if extension:
        _read_xmp(bytes(extension), out)
    return exif, xmp, bytes(irb)


def _read_png(data: bytes, parts: Layout, out: Embedded) -> tuple[bytes, bytes, bytes, bytes]:
    blocks = {"exif": b"", "xmp": b"", "8bim": b"", "iptc": b""}
    budget = 4 * MAX_TEXT
    for part in parts.named("tEXt", "zTXt", "iTXt", "eXIf")[:MAX_TEXTS]:
        body = data[part.body : part.end]
        if part.name == "eXIf":
            blocks["exif"] = blocks["exif"] or body
            continue
        try:
            key, value = _png_text(part.name, body, min(budget, MAX_TEXT))
        except (ValueError, zlib.error):
            out.problems.append(f"a PNG {part.name} chunk is damaged")
            continue
        budget -= len(value)
        kind = key.removeprefix("Raw profile type ").lower()
        if key == "XML:com.adobe.xmp":
            blocks["xmp"] = blocks["xmp"] or value
        elif kind in ("exif", "app1", "xmp", "iptc", "8bim") and kind != key.lower():
            profile = _raw_profile(value)
            name = kind if kind != "app1" else ("exif" if profile.startswith(b"Exif") else "xmp")
            profile = profile.removeprefix(b"Exif\x00\x00").removeprefix(b"http://ns.adobe.com/xap/1.0/\x00")
            name = "8bim" if name == "iptc" and profile.startswith(b"8BIM") else name
            blocks[name] = blocks[name] or profile
        else:
            out.texts.append(Text("PNG text", clean(key, 80), decode_text(value)))
    return blocks["exif"], blocks["xmp"], blocks["8bim"], blocks["iptc"]


def _png_text(name: str, body: bytes, limit: int) -> tuple[str, bytes]:
    key, rest = body.split(b"\x00", 1)
    packed = name == "zTXt"
    if name == "iTXt":
        packed = rest[:1] == b"\x01"
        rest = rest[2:].split(b"\x00", 2)[2]
    elif packed:
        rest = rest[1:]
    if packed:
        rest = zlib.decompressobj().decompress(rest, max(limit, 1))
    return key.decode("latin-1"), rest[: max(limit, 0)]


def _raw_profile(value: bytes) -> bytes:
    """A profile in ImageMagick's text form: name, length and hexadecimal digits on lines of their own."""
    fields = value.split(None, 2)
    try:
        return bytes.fromhex(fields[2].decode("ascii")) if len(fields) == 3 else b""
    except ValueError:
        return b""


def _read_gif(data: bytes, parts: Layout, out: Embedded) -> bytes:
    xmp = b""
    for part in parts.named("comment", "application")[:MAX_TEXTS]:
        if part.name == "comment":
            out.texts.append(Text("comment", "comment", decode_text(gif_blocks(data, part))))
        elif data[part.body + 1 : part.body + 12] == b"XMP DataXMP":
            # XMP is stored unblocked in a GIF, followed by a 258-byte trailer that ends any block walk
            block = data[part.body + 12 : part.end]
            xmp = block[: block.rfind(b">") + 1]
    return xmp


def decode_text(raw: bytes) -> str:
    """Bytes as text: UTF-8 where valid, Latin-1 otherwise, at most ``MAX_TEXT`` bytes."""
    raw = raw[:MAX_TEXT].rstrip(b"\x00")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _read_exif(block: bytes, out: Embedded, file: bool) -> None:
    if not block:
        return
    tree = tiff_directories(block)
    out.problems += [f"EXIF block is damaged: {p}" for p in tree.problems[:4]]
    for directory in tree.items:
        if directory.name == "GPS":
            _read_gps(tree, directory, out)
        elif directory.name in ("IFD0", "Exif"):
            for tag, entry in directory.entries.items():
                if tag in EXIF_NAMES:
                    out.exif.setdefault(EXIF_NAMES[tag], _exif_value(tree, tag, entry))
        elif directory.name == "IFD1" and not file:
            at, by = directory.entries.get(513), directory.entries.get(514)
            if at is not None and by is not None and at.kind in (3, 4) and by.kind in (3, 4):
                start, size = tree.value(at)[:1], tree.value(by)[:1]
                if start and size:
                    out.thumbnails.append(("EXIF", block[start[0] : start[0] + size[0]]))
    first = tree.find("IFD0") if file else None
    for tag, name in ((700, "_xmp"), (34377, "_irb"), (33723, "_iptc")):
        if first is not None and tag in first.entries:
            entry = first.entries[tag]
            out.exif[name] = block[entry.offset : entry.offset + min(entry.size, MAX_XMP)]


def _exif_value(tree: Directories, tag: int, entry: Entry) -> Any:
    value = tree.value(entry, MAX_TEXT)
    if not isinstance(value, bytes):
        if 0x9C9B <= tag <= 0x9C9F and entry.kind == 3:
            return "".join(map(chr, value)).rstrip("\x00")
        return value[0] if len(value) == 1 else value[:16]
    if 0x9C9B <= tag <= 0x9C9F:
        return value.decode("utf-16-le", "replace").rstrip("\x00")
    if tag == 0x9286:
        code, text = value[:8], value[8:]
        if code == b"UNICODE\x00":
            # writers disagree about the byte order; Latin text shows it by where its zero bytes are
            big = text[0:400:2].count(0) >= text[1:400:2].count(0) if text.count(0) else tree.order == ">"
            return text.decode("utf-16-be" if big else "utf-16-le", "replace").rstrip("\x00")
        return decode_text(text if code in (b"ASCII\x00\x00\x00", bytes(8), b"JIS\x00\x00\x00\x00\x00") else value)
    return decode_text(value.split(b"\x00\x00")[0] if tag != 0x010E else value)


def _read_gps(tree: Directories, directory: Directory, out: Embedded) -> None:
    fields = {t: tree.value(e, 256) for t, e in directory.entries.items() if t in (1, 2, 3, 4, 29)}
    out.gps_date = decode_text(fields[29]) if isinstance(fields.get(29), bytes) else ""
    degrees = []
    for tag, reference in ((2, 1), (4, 3)):
        value, sign = fields.get(tag), fields.get(reference, b"")
        if not isinstance(value, tuple) or len(value) != 3 or not all(map(math.isfinite, value)):
            return
        angle = value[0] + value[1] / 60 + value[2] / 3600
        degrees.append(-angle if isinstance(sign, bytes) and sign[:1] in (b"S", b"W") else angle)
    out.has_gps = True
    out.gps = (round(degrees[0], 6), round(degrees[1], 6))


def _read_resources(block: bytes, out: Embedded) -> None:
    position = 0
    while position + 12 <= len(block) and len(out.resources) < MAX_TEXTS:
        if block[position : position + 4] not in (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR"):
            out.problems.append("the Photoshop resource block is damaged")
            return
        number, name = struct.unpack_from(">HB", block, position + 4)
        size_at = position + 6 + (name + 2) // 2 * 2
        if size_at + 4 > len(block):
            return
        (size,) = struct.unpack_from(">I", block, size_at)
        content = block[size_at + 4 : size_at + 4 + size]
        out.resources.setdefault(number, content)
        if number == 0x040C and content[28:30] == b"\xff\xd8":
            out.thumbnails.append(("Photoshop", content[28:]))
        position = size_at + 4 + size + size % 2


def _read_iptc(block: bytes, out: Embedded) -> None:
    position = 0
    while position + 5 <= len(block) and block[position] == 0x1C and len(out.iptc) < MAX_TEXTS:
        record, number, size = struct.unpack_from(">BBH", block, position + 1)
        if size & 0x8000:
            out.problems.append("an IPTC field has an extended length and was not read")
            return
        if record == 2 and number in IPTC_NAMES:
            out.iptc.append((IPTC_NAMES[number], decode_text(block[position + 5 : position + 5 + size])))
        position += 5 + size


def _read_xmp(packet: bytes, out: Embedded) -> None:
    packet = packet[:MAX_XMP].strip(b"\x00 \r\n\t")
    if not packet:
        return
    from defusedxml import ElementTree

    try:
        root = ElementTree.fromstring(packet, forbid_dtd=True)
    except Exception:  # expat, defusedxml and codecs raise many types on damaged or hostile packets
        out.problems.append("the XMP packet is damaged or not allowed XML")
        return
    stack: list[tuple[Any, str, int]] = [(root, "", 0)]
    nodes = 0
    while stack:
        node, path, depth = stack.pop()
        nodes += 1
        if nodes > MAX_XMP_NODES or depth > MAX_XMP_DEPTH:
            out.problems.append("the XMP packet is too large to be read whole")
            return
        name = _qualified(node.tag)
        if not name.startswith(("rdf:", "x:")) and node.tag != root.tag:
            path = f"{path}/{name}" if path else name
        for key, value in node.attrib.items():
            attribute = _qualified(key)
            if attribute == "rdf:resource" and path:
                out.xmp.append((path, value[:MAX_TEXT]))
            elif not attribute.startswith(("rdf:", "xml:", "x:", "xmlns")):
                out.xmp.append((f"{path}/{attribute}" if path else attribute, value[:MAX_TEXT]))
        text = (node.text or "").strip()
        if text and path and len(node) == 0:
            out.xmp.append((path, text[:MAX_TEXT]))
        stack += [(child, path, depth + 1) for child in reversed(node)]


def _qualified(tag: str) -> str:
    if not tag.startswith("{"):
        return tag
    space, _, name = tag[1:].partition("}")
    return f"{PREFIXES.get(space) or space.strip('/#').split('/')[-1][:40]}:{name}"
