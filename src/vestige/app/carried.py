"""What of a picture's file is carried into the changed one, and what of it cannot be.

Metadata is kept on request only, and without anything in it that could show the picture as it was: previews lie in
EXIF, in maker notes, in Photoshop's resources and, in base64, in XMP.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from vestige.core.errors import InputError
from vestige.core.image_io import open_image
from vestige.core.pictures.orientation import ORIENTATION
from vestige.core.subjects import ImageSubject

#: Formats that hold transparency, sixteen bits a channel, metadata.
ALPHA, DEEP = ("PNG", "WEBP", "TIFF", "AVIF", "HEIF"), ("PNG", "TIFF")
_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")
_XMP = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")
#: Fields with a file of their own inside: maker notes, DNG's private data, Photoshop's resources and layers, XMP,
#: IPTC, profile, further directories.
_OPAQUE = {
    0x927C: "the maker note",
    0xC634: "DNG private data",
    34377: "Photoshop resources",
    37724: "Photoshop layers",
}
_LEFT_OUT = {700, 33723, 34675, 330, 513, 514, ORIENTATION}
#: Fields that lay out a TIFF's samples; those of the new file are written by its encoder.
_LAYOUT = {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347}
_LONGEST = 4096
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"ftypheic", b"ftypavif", b"WEBPVP8", b"II*\0", b"MM\0*")
_ENCODED = re.compile(
    rb"(?:/9j/|iVBORw0KGg|UklGR|SUkqA|TU0AK|AAAA[A-Za-z0-9+/]{2}Z0eX)(?:[A-Za-z0-9+/=]|\s|&#x?[0-9A-Fa-f]+;){100,}"
)
_TURNED = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[2-8]""")


def metadata(subject: ImageSubject) -> tuple[bytes | None, bytes | None, tuple[str, ...]]:
    """EXIF and XMP to carry over, and sentences on what was left out of them.

    Raises InputError where the EXIF is too damaged to be written again.
    """
    image, _ = open_image(subject.data, subject.source, subject.limits)
    dropped: dict[str, None] = {}
    try:
        exif = image.getexif()
        _clean(exif, dropped)
        for pointer in (0x8769, 0x8825):
            _clean(exif.get_ifd(pointer), dropped)
        content = exif.tobytes() if len(exif) else None
    except Exception as error:  # damaged EXIF cannot be kept; say so instead of writing half of it
        raise InputError(f"The metadata of {subject.source} is damaged and cannot be kept ({error}).") from None
    xmp = image.info.get("xmp")
    xmp = _clean_xmp(xmp, dropped) if isinstance(xmp, bytes) else None
    said = f"left out of the metadata, since it may show the old picture: {', '.join(dropped)}"
    return content, xmp, (said,) if dropped else ()


def _clean(fields: Any, dropped: dict[str, None]) -> None:
    for tag in list(fields):
        value = fields.get(tag)
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "replace") if isinstance(value, str) else b""
        if tag in _LEFT_OUT or tag in _LAYOUT:
            fields.pop(tag, None)
        elif tag in _OPAQUE:
            fields.pop(tag, None)
            dropped[_OPAQUE[tag]] = None
        elif len(raw) > _LONGEST or any(p in raw for p in _PICTURES) or _ENCODED.search(raw):
            fields.pop(tag, None)
            dropped[f"field 0x{tag:04X}"] = None


def _clean_xmp(xmp: bytes, dropped: dict[str, None]) -> bytes | None:
    if b"\0" in xmp[:400]:
        try:
            xmp = xmp.decode("utf-16").encode()
        except UnicodeError:
            dropped["the XMP"] = None
            return None
    cleaned, found = _ENCODED.subn(b"", xmp)
    if found:
        dropped["previews in the XMP"] = None
    return _TURNED.sub(rb"\g<1>1", cleaned)


def losses(pixels: np.ndarray, subject: ImageSubject, format: str, keep_metadata: bool = False) -> tuple[str, ...]:
    """What the changed picture's file does not have of the original, as parts of a sentence."""
    decoded, lost = subject.decoded, []
    if decoded.frames > 1:
        lost.append(f"only the first of {decoded.frames} frames or pages is kept")
    if subject.alpha is not None and (format not in ALPHA or subject.alpha.shape != pixels.shape[:2]):
        lost.append("the transparency is not kept")
    if decoded.bit_depth == 16 and (pixels.dtype != np.uint16 or format not in DEEP):
        lost.append("sixteen bits a channel became eight")
    if keep_metadata:
        exif, xmp, said = metadata(subject)
        if (exif and format not in _EXIF) or (xmp and format not in _XMP):
            lost.append(f"{format} does not hold all of the metadata")
        lost += said
    return tuple(lost)
