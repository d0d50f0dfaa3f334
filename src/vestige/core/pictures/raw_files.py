"""Raw files of cameras, which are TIFF files whose first picture is a preview.

Source: Adobe, Digital Negative Specification 1.7.1, 2023 (photometric interpretations, subfile types).
"""

from __future__ import annotations

from vestige.core.pictures.tiff import Directories, Directory, tiff_directories

_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _DNG = 254, 256, 257, 262, 50706
_SENSOR = (32803, 34892)  # colour filter array, linear raw


def raw_file(data: bytes) -> str:
    """A sentence where a TIFF is a camera's raw file, of which only the preview is read; empty for other files."""
    tree = tiff_directories(data)
    first = tree.find("IFD0")
    if first is None:
        return ""
    sensors = [d for d in tree.items if _number(tree, d, _PHOTOMETRIC) in _SENSOR]
    dng = _DNG in first.entries
    if not (sensors or dng or data[8:10] == b"CR"):
        return ""
    reduced = [d for d in tree.items if d is not first and d.name == "SubIFD"]
    largest = max(sensors or reduced or [first], key=lambda d: _number(tree, d, _WIDTH) * _number(tree, d, _HEIGHT))
    size, seen = (_size(tree, largest), _size(tree, first))
    kind = "DNG" if dng else "raw"
    if largest is first and not sensors and not _number(tree, first, _SUBFILE) & 1 and data[8:10] != b"CR":
        return ""
    whole = f", of {size[0]}×{size[1]} pixels," if size != seen else ""
    return (
        f"It is a camera's raw file ({kind}): only the preview of {seen[0]}×{seen[1]} pixels in it was decoded, its "
        f"raw samples{whole} were not."
    )


def _size(tree: Directories, directory: Directory) -> tuple[int, int]:
    return _number(tree, directory, _WIDTH), _number(tree, directory, _HEIGHT)


def _number(tree: Directories, directory: Directory, tag: int) -> int:
    entry = directory.entries.get(tag)
    if entry is None or entry.kind not in (3, 4, 16) or not entry.count:
        return 0
    return int(tree.value(entry, 8)[0])
