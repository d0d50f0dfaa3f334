"""What files are that vestige does not examine, in words: nothing that was put in goes without a reason."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from vestige.core.models.formats import foreign_format

_PICTURE = "which vestige does not read; save it as PNG or TIFF"
_ARCHIVE = "archive; unpack it to have its content examined"
_STARTS = {
    b"\x00\x00\x00\x0cjP  \r\n": f"a JPEG 2000 picture, {_PICTURE}",
    b"\xff\x4f\xff\x51": f"a JPEG 2000 picture, {_PICTURE}",
    b"\xff\x0a": f"a JPEG XL picture, {_PICTURE}",
    b"\x00\x00\x00\x0cJXL \r\n": f"a JPEG XL picture, {_PICTURE}",
    b"8BPS": f"a Photoshop document, {_PICTURE}",
    b"gimp xcf": f"a GIMP document, {_PICTURE}",
    b"\x00\x00\x01\x00": f"an icon, {_PICTURE}",
    b"\x76\x2f\x31\x01": f"an OpenEXR picture, {_PICTURE}",
    b"#?RADIANCE": f"a Radiance picture, {_PICTURE}",
    b"SIMPLE  =": f"a FITS picture, {_PICTURE}",
    b"FUJIFILMCCD-RAW": f"a camera's raw picture, {_PICTURE}",
    b"AT&TFORM": f"a DjVu document, {_PICTURE}",
    b"%!PS": "a PostScript document, which has no pixels of its own",
    b"ID3": "sound",
    b"fLaC": "sound",
    b"OggS": "sound",
    b"\x1f\x8b": f"a gzip {_ARCHIVE}",
    b"BZh": f"a bzip2 {_ARCHIVE}",
    b"\xfd7zXZ\x00": f"an xz {_ARCHIVE}",
    b"7z\xbc\xaf\x27\x1c": f"a 7z {_ARCHIVE}",
    b"Rar!\x1a\x07": f"a RAR {_ARCHIVE}",
    b"\x28\xb5\x2f\xfd": f"a Zstandard {_ARCHIVE}",
    b"\x04\x22\x4d\x18": f"an LZ4 {_ARCHIVE}",
    b"\x00\x05\x16\x07": "what macOS keeps beside a file",
    b"SQLite format 3\x00": "a database",
}
_OFFICE = {"word/": "a Word document", "xl/": "an Excel document", "ppt/": "a PowerPoint document"}
_TEXTS = (".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".log", ".ini", ".toml", ".srt")


def why_left_out(head: bytes, path: Path) -> str:
    """Why a file that is no picture, clip, document, data set or model is not examined; head: its first 4 KiB.

    >>> why_left_out(b"<svg xmlns='http://www.w3.org/2000/svg'/>", Path("a.svg"))
    'an SVG drawing, which has no pixels of its own'
    """
    if not head:
        return "an empty file"
    for start, words in _STARTS.items():
        if head.startswith(start):
            return words
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "sound"
    if head[128:132] == b"DICM":
        return f"a DICOM picture, {_PICTURE}"
    if re.match(rb"P[1-7]\s", head):
        return f"a portable pixmap, {_PICTURE}"
    if head[:2] == b"PK":
        return _archive(path)
    if re.search(rb"<svg[\s>/]", head[:1024], re.I):
        return "an SVG drawing, which has no pixels of its own"
    foreign = foreign_format(head, path.name)
    if foreign is not None:
        return foreign if foreign[:2] in ("a ", "an", "co", "Py") else f"a file of {foreign}"
    if re.search(rb"<html|<!doctype html", head[:512], re.I):
        return "a web page"
    return "text" if _is_text(head) else "of a format that vestige does not know"


def is_text_name(path: Path) -> bool:
    """Whether a file is called like a text or a table, which nothing loads as a model."""
    return path.suffix.lower() in _TEXTS


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:1000]
    except Exception:  # zipfile raises many types on damaged directories
        return f"a damaged zip {_ARCHIVE}"
    if "[Content_Types].xml" in names:
        for folder, words in _OFFICE.items():
            if any(name.startswith(folder) for name in names):
                return f"{words}, whose pictures are not examined; save it as PDF"
    if names and names[0] == "mimetype":
        return "an office document or a book, whose pictures are not examined; save it as PDF"
    return f"a zip {_ARCHIVE}"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return head[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = head[: error.start].decode("utf-8")
    return not re.search(r"[\x00-\x08\x0e-\x1a]", text)
