"""What a clip's file says about itself: its boxes or elements, XMP, user data, tags; read in place and bounded.

Films are long: nothing of them is read but headers of boxes and the blocks that hold records. MP4 and QuickTime are
walked box by box, Matroska and WebM element by element, AVI chunk by chunk.

Source: ISO/IEC 14496-12, QuickTime File Format (2016), XMP specification part 3, RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from vestige.core.containers import KNOWN_BOXES, Part
from vestige.core.records.exif import read_positions
from vestige.core.records.text import MAX_TEXTS, Embedded, Text, decode_text
from vestige.core.records.xmp import MAX_XMP, read_xmp

XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
MAX_BOXES, MAX_DEPTH, MAX_VALUE = 20_000, 8, 1 << 20

_DESCEND = frozenset({"moov", "udta", "meta", "ilst", "trak"})
_TEXT_BOXES = ("titl", "auth", "cprt", "dscp", "perf", "gnre", "albm", "yrrc", "loci", "AIGC", "manu", "modl")

_EBML_MASTERS = {0x18538067: "Segment", 0x1549A966: "Info", 0x1254C367: "Tags", 0x7373: "Tag", 0x67C8: "SimpleTag",
                 0x1941A469: "Attachments", 0x61A7: "AttachedFile"}  # fmt: skip
_EBML_TEXTS = {0x4D80: "MuxingApp", 0x5741: "WritingApp", 0x7BA9: "Title", 0x45A3: "TagName", 0x4487: "TagString",
               0x466E: "FileName", 0x467E: "FileDescription"}  # fmt: skip
_INFO = {b"ISFT": "Software", b"ICMT": "comment", b"INAM": "Title", b"IART": "Artist", b"ICRD": "DateCreated",
         b"ICOP": "Copyright", b"ISRC": "Source", b"IPRD": "Product"}  # fmt: skip


@dataclass
class ClipFile:
    """How a clip's file is laid out and what its records say.

    parts: the boxes, elements or chunks at the top level. end: first byte after the last of them. credentials: whether
    a box holds a C2PA manifest. attached: names of files kept inside.
    """

    size: int
    parts: list[Part] = field(default_factory=list)
    end: int = 0
    embedded: Embedded = field(default_factory=Embedded)
    credentials: bool = False
    attached: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_clip(path: str | Path, format: str) -> ClipFile:
    """Lay out a clip's file and read its records; damage becomes a problem.

    format: MP4, MOV, WEBM, MKV or AVI. Raises OSError where the file cannot be read.
    """
    found = ClipFile(os.path.getsize(path))
    with open(path, "rb") as file:
        try:
            if format in ("MP4", "MOV"):
                _boxes(file, found)
            elif format in ("WEBM", "MKV"):
                _elements(file, found)
            elif format == "AVI":
                _chunks(file, found)
        except (struct.error, ValueError, IndexError):
            found.problems.append("the file ends inside its own structure")
            found.end = found.size
    read_positions(found.embedded)
    return found


def _at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(max(size, 0))


def _box(file: BinaryIO, position: int, end: int, numbered: bool = False) -> Part | None:
    """The box that starts there, None where none fits; ``numbered`` where names may be numbers."""
    head = _at(file, position, 16)
    if len(head) < 8:
        return None
    size, name = struct.unpack_from(">I4s", head)
    body = position + 8
    if size == 1 and len(head) == 16:
        (size,) = struct.unpack_from(">Q", head, 8)
        body += 8
    elif size == 0:
        size = end - position
    printable = all(32 <= c < 127 or c == 0xA9 for c in name) or (numbered and name[0] == 0)
    if size < body - position or position + size > end or not printable:
        return None
    return Part(name.decode("latin-1"), position, body, position + size)


def _boxes(file: BinaryIO, found: ClipFile) -> None:
    position, count = 0, 0
    while position + 8 <= found.size and len(found.parts) < MAX_BOXES:
        part = _box(file, position, found.size)
        if part is None:
            name = _at(file, position + 4, 4)
            if name in (b"mdat", b"moov", b"moof"):
                found.problems.append(f"the {name.decode()} box is longer than the file")
                position = found.size
            break
        if found.parts and part.name not in KNOWN_BOXES and part.name not in ("udta", "mfra", "styp", "emsg"):
            break
        found.parts.append(part)
        position = part.end
    found.end = position
    stack = [(part, 0) for part in reversed(found.parts)]
    keys: list[str] = []
    while stack and count < MAX_BOXES:
        part, depth = stack.pop()
        count += 1
        if part.name == "uuid":
            _uuid(file, part, found)
        elif part.name == "XMP_":
            _xmp(_at(file, part.body, min(part.end - part.body, MAX_XMP)), found)
        elif part.name == "keys":
            keys = _keys(_at(file, part.body, min(part.end - part.body, MAX_VALUE)))
        elif part.name in _DESCEND and depth < MAX_DEPTH:
            stack += [(p, depth + 1) for p in reversed(list(_children(file, part)))]
        elif part.name == "----" or (len(part.name) == 4 and depth >= 2 and _has_data(file, part)):
            _item(file, part, keys, found)
        elif part.name[:1] == "\xa9" or part.name in _TEXT_BOXES:
            _user_text(file, part, found)


def _children(file: BinaryIO, part: Part) -> Iterator[Part]:
    position = part.body
    if part.name == "meta" and _at(file, part.body + 4, 4) not in (b"hdlr", b"keys", b"ilst"):
        position += 4  # ISO's meta box has version and flags, QuickTime's has not
    for _ in range(MAX_BOXES):
        child = _box(file, position, part.end, part.name == "ilst")
        if child is None:
            return
        yield child
        position = child.end


def _has_data(file: BinaryIO, part: Part) -> bool:
    return part.end - part.body >= 16 and _at(file, part.body + 4, 4) == b"data"


def _uuid(file: BinaryIO, part: Part, found: ClipFile) -> None:
    kind = _at(file, part.body, 16)
    if kind == C2PA_BOX:
        found.credentials = True
    elif kind == XMP_BOX:
        _xmp(_at(file, part.body + 16, min(part.end - part.body - 16, MAX_XMP)), found)


def _xmp(packet: bytes, found: ClipFile) -> None:
    embedded = found.embedded
    embedded.raw["XMP"] = embedded.raw.get("XMP", 0) + len(packet)
    if embedded.raw["XMP"] <= 4 * MAX_XMP:
        read_xmp(packet, embedded)


def _keys(body: bytes) -> list[str]:
    """Names of the items of a QuickTime metadata list."""
    names: list[str] = []
    position = 8
    while position + 8 <= len(body) and len(names) < MAX_TEXTS:
        size = int.from_bytes(body[position : position + 4], "big")
        if size < 8:
            break
        names.append(decode_text(body[position + 8 : position + size]))
        position += size
    return names


def _item(file: BinaryIO, part: Part, keys: list[str], found: ClipFile) -> None:
    """A metadata item: its name from its box, from the list of keys, or from the boxes mean and name inside."""
    name, value = part.name, b""
    for child in _children(file, part):
        body = _at(file, child.body, min(child.end - child.body, MAX_VALUE))
        if child.name == "name":
            name = decode_text(body[4:])
        elif child.name == "data" and body[:4] in (b"\0\0\0\0", b"\0\0\0\1", b"\0\0\0\2"):
            value = body[8:]
    if name.startswith("\0"):
        number = int.from_bytes(name.encode("latin-1"), "big")
        name = keys[number - 1] if 0 < number <= len(keys) else ""
    if value and len(found.embedded.texts) < MAX_TEXTS:
        found.embedded.texts.append(Text("clip", _NAMES.get(name, name), decode_text(value)))


_NAMES = {"\xa9too": "Software", "\xa9swr": "Software", "\xa9cmt": "comment", "\xa9nam": "Title", "\xa9ART": "Artist",
          "\xa9des": "Description", "\xa9day": "DateCreated", "\xa9mak": "Make", "\xa9mod": "Model",
          "desc": "Description",
          "com.apple.quicktime.software": "Software", "com.apple.quicktime.make": "Make",
          "com.apple.quicktime.model": "Model", "com.apple.quicktime.comment": "comment"}  # fmt: skip


def _user_text(file: BinaryIO, part: Part, found: ClipFile) -> None:
    body = _at(file, part.body, min(part.end - part.body, MAX_VALUE))
    if part.name[:1] == "\xa9" and len(body) >= 4:
        size = int.from_bytes(body[:2], "big")
        body = body[4 : 4 + size]
    elif body[:4] == bytes(4):
        body = body[6:]
    if body and len(found.embedded.texts) < MAX_TEXTS:
        found.embedded.texts.append(Text("clip", _NAMES.get(part.name, part.name), decode_text(body)))


def _varint(file: BinaryIO, position: int, keep: bool) -> tuple[int, int]:
    """An EBML number and its width; -1 for a size that is unknown."""
    raw = _at(file, position, 8)
    if not raw or not raw[0]:
        raise ValueError("no EBML number")
    width = 9 - raw[0].bit_length()
    value = int.from_bytes(raw[:width], "big")
    if keep:
        return value, width
    value &= (1 << 7 * width) - 1
    return (-1 if value == (1 << 7 * width) - 1 else value), width


def _elements(file: BinaryIO, found: ClipFile) -> None:
    position, count = 0, 0
    stack: list[tuple[int, int, int]] = []
    end = found.size
    name = ""
    while count < 10 * MAX_BOXES:
        count += 1
        while stack and position >= stack[-1][1]:
            stack.pop()
        end = stack[-1][1] if stack else found.size
        if position >= end or position + 2 > found.size:
            break
        if not stack and found.parts and _at(file, position, 4) not in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
            break
        element, width = _varint(file, position, True)
        size, more = _varint(file, position + width, False)
        body = position + width + more
        stop = end if size < 0 else body + size
        if stop > found.size:
            found.problems.append("an element is longer than the file")
            stop = found.size
        if not stack:
            found.parts.append(Part(_EBML_MASTERS.get(element, f"0x{element:X}"), position, body, stop))
        if element in _EBML_MASTERS and len(stack) < MAX_DEPTH:
            stack.append((element, stop, body))
            position = body
            continue
        if element in _EBML_TEXTS and stop - body <= MAX_VALUE:
            value = decode_text(_at(file, body, stop - body))
            name = _element_text(_EBML_TEXTS[element], value, name, found)
        if size < 0:  # a cluster without a size: its blocks follow and no records
            position = end
            continue
        position = stop
    found.end = max((p.end for p in found.parts), default=0)


def _element_text(kind: str, value: str, name: str, found: ClipFile) -> str:
    """Keep a text of a Matroska file; returns the name that the next tag's value goes by."""
    if kind == "TagName":
        return value
    if kind == "FileName":
        found.attached.append(value)
        return name
    key = name if kind == "TagString" else {"WritingApp": "Software", "MuxingApp": "Software"}.get(kind, kind)
    if len(found.embedded.texts) < MAX_TEXTS:
        found.embedded.texts.append(Text("clip", {"ENCODER": "Software", "COMMENT": "comment"}.get(key, key), value))
    return name


def _chunks(file: BinaryIO, found: ClipFile) -> None:
    position = 0
    while position + 12 <= found.size and len(found.parts) < MAX_BOXES:
        name, size, kind = struct.unpack("<4sI4s", _at(file, position, 12))
        if name != b"RIFF" or kind not in (b"AVI ", b"AVIX"):
            break
        end = min(position + 8 + size + size % 2, found.size)
        found.parts.append(Part(kind.decode(), position, position + 12, end))
        inner = position + 12
        for _ in range(MAX_BOXES):
            if inner + 8 > end:
                break
            name, size = struct.unpack("<4sI", _at(file, inner, 8))
            if name == b"LIST" and _at(file, inner + 8, 4) == b"INFO":
                _info(_at(file, inner + 12, min(size - 4, MAX_VALUE)), found)
            elif name == b"_PMX":
                _xmp(_at(file, inner + 8, min(size, MAX_XMP)), found)
            inner += 8 + size + size % 2
        position = end
    found.end = position


def _info(body: bytes, found: ClipFile) -> None:
    position = 0
    while position + 8 <= len(body) and len(found.embedded.texts) < MAX_TEXTS:
        name, size = struct.unpack_from("<4sI", body, position)
        key = _INFO.get(name, decode_text(name))
        found.embedded.texts.append(Text("clip", key, decode_text(body[position + 8 : position + 8 + size])))
        position += 8 + size + size % 2
