"""EXIF blocks: names, comments in every charset, positions however they are written, previews.

Source: Exif 3.0, CIPA DC-008 (2023).
"""

from __future__ import annotations

import math
import re
from typing import Any

from vestige.core.pictures.tiff import Directories, Directory, Entry, tiff_directories
from vestige.core.records.text import MAX_TEXT, MAX_TEXTS, Embedded, Text, decode_text, decode_wide
from vestige.core.records.xmp import MAX_XMP

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
_COMMENT_CODES = {b"ASCII": "", b"JIS": "jis", b"UNICODE": "wide"}


def read_exif(block: bytes, out: Embedded, *, file: bool, number: int = 1) -> list[tuple[str, bytes]]:
    """Add what an EXIF block says to ``out``; ``file`` where the block is a whole TIFF file.

    number: which block of the file this is. Returns the XMP, Photoshop and IPTC blocks a TIFF file keeps in its
    directories, as ("xmp" | "irb" | "iptc", bytes).
    """
    if not block.strip(b"\x00"):
        return []
    tree = tiff_directories(block)
    for problem in tree.problems[:4]:
        out.say(f"EXIF block is damaged: {problem}")
    inner: list[tuple[str, bytes]] = []
    where = "EXIF" if number == 1 else f"EXIF block {number}"
    for directory in tree.items:
        page = directory.name.startswith("IFD") and (file or directory.name == "IFD0")
        if directory.name == "GPS":
            _read_gps(tree, directory, out)
        elif directory.name == "Exif" or page:
            for tag, entry in directory.entries.items():
                if tag in EXIF_NAMES:
                    _keep(out, where, EXIF_NAMES[tag], _exif_value(tree, tag, entry))
        elif directory.name == "IFD1":
            _read_preview(tree, directory, block, out)
        if page and file:
            for tag, name in ((700, "xmp"), (34377, "irb"), (33723, "iptc")):
                if (found := directory.entries.get(tag)) is not None:
                    inner.append((name, block[found.offset : found.offset + min(found.size, MAX_XMP)]))
    return inner


def _keep(out: Embedded, where: str, name: str, value: Any) -> None:
    """The first value of a name speaks for it; another text that a later block or page gives it is kept beside it."""
    if name not in out.exif:
        out.exif[name] = value
    elif isinstance(value, str) and value != out.exif[name] and len(out.texts) < MAX_TEXTS:
        out.texts.append(Text(where, name, value))


def _read_preview(tree: Directories, directory: Directory, block: bytes, out: Embedded) -> None:
    at, by = directory.entries.get(513), directory.entries.get(514)
    if at is not None and by is not None and at.kind in (3, 4) and by.kind in (3, 4):
        start, size = tree.value(at)[:1], tree.value(by)[:1]
        if start and size:
            out.thumbnails.append(("EXIF", block[start[0] : start[0] + size[0]]))


def _exif_value(tree: Directories, tag: int, entry: Entry) -> Any:
    value = tree.value(entry, MAX_TEXT)
    if not isinstance(value, bytes):
        if 0x9C9B <= tag <= 0x9C9F and entry.kind == 3:
            return "".join(chr(v) for v in value if not 0xD800 <= v < 0xE000).rstrip("\x00")
        return value[0] if len(value) == 1 else value[:16]
    if 0x9C9B <= tag <= 0x9C9F:
        return decode_wide(value, False)
    if tag == 0x9286:
        return decode_comment(value, tree.order == ">")
    return decode_text(value.split(b"\x00\x00")[0] if tag != 0x010E else value)


def decode_comment(value: bytes, big: bool) -> str:
    """An EXIF comment: eight bytes name its charset, which many writers leave out or get wrong.

    >>> decode_comment(b"UNICODE\\x00" + "bon".encode("utf-16-be"), False), decode_comment(b"bare text", False)
    ('bon', 'bare text')
    """
    code = value[:8].rstrip(b"\x00 ").upper()
    if code not in _COMMENT_CODES and code:
        return decode_wide(value, big) if value[:2] in (b"\xff\xfe", b"\xfe\xff") else decode_text(value)
    text = value[8:]
    kind = _COMMENT_CODES.get(code, "")
    if kind == "jis":
        for name in ("iso2022_jp", "euc_jp", "shift_jis"):
            try:
                return text.rstrip(b"\x00").decode(name)
            except UnicodeDecodeError:
                continue
    # zero bytes between the letters: UTF-16 under whatever name
    if kind == "wide" or text.rstrip(b"\x00")[:400].count(0) > len(text[:400]) // 4:
        return decode_wide(text, big)
    return decode_text(text.lstrip(b"\x00"))


def _angle(value: Any) -> float | None:
    """Degrees from up to three numbers; minutes and seconds that are missing or 0/0 count as nought."""
    if isinstance(value, bytes):  # written as text
        value = tuple(map(float, re.findall(rb"\d{1,9}(?:\.\d{1,9})?", value[:60])))
    if not isinstance(value, tuple) or not value or not math.isfinite(value[0]):
        return None
    parts = [v if math.isfinite(v) else 0.0 for v in value[:3]]
    return float(sum(v / 60**n for n, v in enumerate(parts)))


def _read_gps(tree: Directories, directory: Directory, out: Embedded) -> None:
    fields = {t: tree.value(e, 256) for t, e in directory.entries.items() if t in (1, 2, 3, 4, 20, 22, 29)}
    if isinstance(fields.get(29), bytes) and not out.gps_date:
        out.gps_date = decode_text(fields[29])
    degrees = []
    for tag, reference in ((2, 1), (4, 3)):
        angle, sign = _angle(fields.get(tag)), fields.get(reference, b"")
        if angle is not None:
            degrees.append(-angle if isinstance(sign, bytes) and sign[:1] in (b"S", b"W") else angle)
    out.has_gps |= bool(degrees) or _angle(fields.get(20)) is not None or _angle(fields.get(22)) is not None
    if len(degrees) == 2 and out.gps is None:
        out.gps = (round(degrees[0], 6), round(degrees[1], 6))


_XMP_ANGLE = re.compile(r"^\s*([+-]?\d{1,3}(?:\.\d+)?)(?:[,°]\s?(\d{1,2}(?:\.\d+)?))?(?:[,']\s?(\d{1,2}(?:\.\d+)?))?"
                        r"[\"”]?\s*([NSEW]?)\s*$")  # fmt: skip
_ISO6709 = re.compile(r"^\s*([+-]\d{1,6}(?:\.\d+)?)([+-]\d{1,7}(?:\.\d+)?)")
_PLACES = re.compile(r"(^|[/:])(City|Location|LocationName|Sub-location|SubLocation|Sublocation|ProvinceState)$")


def read_positions(out: Embedded) -> None:
    """Positions and names of places that stand outside EXIF: in XMP, in texts of PNG files, in a clip's user data."""
    angles: dict[str, float] = {}
    for text in out.every_text():
        name = re.split(r"[/:]", text.key)[-1].lower()
        if name in ("gpslatitude", "gpslongitude", "gpsdestlatitude", "gpsdestlongitude"):
            match = _XMP_ANGLE.match(text.value[:60])
            if match or re.match(r"\s*\d+/\d+", text.value[:60]):
                out.has_gps = True
            if match:
                value = sum(float(g or 0) / 60**n for n, g in enumerate(match.groups()[:3]))
                angles.setdefault(name[3:], -value if match[4] in ("S", "W") else value)
        elif name in ("©xyz", "xyz", "location.iso6709", "com.apple.quicktime.location.iso6709", "gpscoordinates"):
            match = _ISO6709.match(text.value[:60])
            out.has_gps |= match is not None
            if match and len(match[1].split(".")[0]) <= 3 and out.gps is None:
                out.gps = (float(match[1]), float(match[2]))
        if _PLACES.search(text.key) and text.value.strip() and len(out.places) < 8:
            out.places.append(text.value.strip())
    if out.gps is None and {"latitude", "longitude"} <= angles.keys():
        out.gps = (round(angles["latitude"], 6), round(angles["longitude"], 6))
