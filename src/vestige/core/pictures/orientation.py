"""Which way up a picture is stored, and what the libraries that read it have already done about it.

What a library does while it decodes differs from format to format; `READERS` says it for each, as data, and the tests
hold every row of it against files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from vestige.core.pictures.tiff import tiff_directories

#: How a picture stored with EXIF orientation k is made upright, as (transpose, flip rows, flip columns).
_UPRIGHT = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Reader:
    """What reading a format leaves to us.

    turned: the library gives the samples upright, so that ``stored`` is upright too. says: where the orientation
    stands. short: how a file that does not hold all its samples shows: "raises" (the library refuses it), "samples"
    (they are counted here), "probe" (decoded twice, with other bytes where the file breaks off), "canvas" (decoded
    onto two canvases: what differs was not decoded). partial: what is there can be read on request. deep: sixteen bits
    a channel can be read. Profiles are applied by none of the libraries.
    """

    turned: bool
    says: str
    short: str
    partial: bool = False
    deep: bool = False


READERS = {
    "JPEG": Reader(False, "EXIF", "probe", partial=True),
    "PNG": Reader(False, "EXIF", "samples", partial=True, deep=True),
    "WEBP": Reader(False, "EXIF", "raises"),
    "TIFF": Reader(False, "TIFF", "canvas", partial=True, deep=True),  # Pillow would turn it: the field is blanked
    "GIF": Reader(False, "", "canvas", partial=True),
    "BMP": Reader(False, "", "canvas", partial=True),
    "AVIF": Reader(False, "irot/imir", "raises"),  # Pillow hands the boxes on as an EXIF orientation
    "HEIF": Reader(True, "irot/imir", "raises"),  # libheif turns, and sets the EXIF orientation to 1
}


def orient(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an h×w(×c) array from stored to display orientation (EXIF orientation 1 to 8)."""
    if orientation not in _UPRIGHT:
        return array
    transpose, rows, columns = _UPRIGHT[orientation]
    if transpose:
        array = array.swapaxes(0, 1)
    if rows:
        array = array[::-1]
    if columns:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def turns_sides(orientation: int) -> bool:
    """Whether width and height change places when the picture is made upright."""
    return orientation in (5, 6, 7, 8)


def blank_tiff(data: bytes, page: int = 0) -> tuple[bytes, int]:
    """A TIFF file whose orientation field says "as stored", and the orientation it stated.

    Libraries turn some TIFF files and not others; without the field none does.
    """
    tree = tiff_directories(data)
    directory = tree.find(f"IFD{page}")
    entry = None if directory is None else directory.entries.get(ORIENTATION)
    if entry is None or entry.kind not in (3, 4) or entry.count != 1:
        return data, 1
    value = int(tree.value(entry)[0])
    if value not in _UPRIGHT:
        return data, 1
    one = (1).to_bytes(entry.size, "little" if tree.order == "<" else "big")
    return b"".join((data[: entry.offset], one, data[entry.offset + entry.size :])), value


def orientation_of(image: Any, format: str) -> int:
    """The orientation that is left to apply to the samples of a loaded Pillow image, 1 to 8.

    Asked before loading, Pillow would load the samples of a PNG here and hide what is wrong with them.
    """
    reader = READERS[format]
    if reader.turned or not reader.says or type(image).__module__.startswith("pillow_heif"):
        return 1
    try:
        if format == "AVIF":
            return _known(_from_exif(image.info.get("exif")))
        value = _known(image.getexif().get(ORIENTATION, 1))
        return value
    except Exception:  # damaged EXIF must not keep the picture from being read
        return 1


def _known(value: Any) -> int:
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _from_exif(block: bytes | None) -> Any:
    if not block:
        return 1
    tree = tiff_directories(re.sub(rb"\AExif\0\0", b"", block))
    first = tree.find("IFD0")
    entry = None if first is None else first.entries.get(ORIENTATION)
    return 1 if entry is None or entry.kind not in (3, 4) or entry.count != 1 else int(tree.value(entry)[0])
