"""Reading containers without trusting them: a window on part of a file, and a zip directory of bounded size."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from typing import Any, cast

_MAX_BRACKETS = 500_000
_MAX_COMMAS = 1_000_000


class LimitReached(Exception):  # noqa: N818 - an answer about the file, not a fault
    """A bound of the scan was reached; the message names it."""


class Window:
    """Part of an open file as a reader of its own, which refuses over-long items."""

    def __init__(self, file: Any, start: int, size: int, max_item: int) -> None:
        self._file, self._start, self.max_item, self._at = file, start, max_item, 0
        self.size = max(size, 0)
        file.seek(start)

    def part(self, start: int, size: int) -> Window:
        return Window(self._file, self._start + start, min(size, max(self.size - start, 0)), self.max_item)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        self._file.seek(self._start + self._at)
        return self._at

    def read(self, n: int = -1) -> bytes:
        left = max(self.size - self._at, 0)
        n = left if n < 0 or n > left else n
        if n > self.max_item:
            raise LimitReached(f"an item of {n / 2**20:.0f} MiB is above the limit of {self.max_item / 2**20:.0f} MiB")
        data = cast(bytes, self._file.read(n))
        self._at += len(data)
        return data

    def readline(self, n: int = 2**20) -> bytes:
        line = cast(bytes, self._file.readline(min(max(self.size - self._at, 0), n)))
        self._at += len(line)
        return line


def zip_members(window: Window, max_members: int) -> list[zipfile.ZipInfo]:
    """The members of a zip archive.

    Raises LimitReached before a directory of more than ``max_members`` is read, and whatever zipfile raises (many
    types) when the directory is damaged.
    """
    if _directory_size(window) <= 200 * max_members:
        with zipfile.ZipFile(cast(Any, window)) as archive:
            members = archive.infolist()
        if len(members) <= max_members:
            return members
    raise LimitReached(f"it has more members than the limit of {max_members}")


def printable(name: str) -> str:
    """A name from an untrusted file without characters that steer a terminal or cannot be written."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)


def escapes(name: str) -> bool:
    """Whether a member's name would leave the folder it is unpacked into."""
    return name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or name[1:2] == ":"


def _directory_size(window: Window) -> int:
    """Bytes of a zip's central directory as its end record states them, to bound it before it is read."""
    tail = window.part(max(0, window.size - 65_557), 65_557).read()
    at, at64 = tail.rfind(b"PK\x05\x06"), tail.rfind(b"PK\x06\x06")
    stated = struct.unpack_from("<L", tail, at + 12)[0] if 0 <= at <= len(tail) - 22 else 0
    if stated == 0xFFFFFFFF:
        stated = struct.unpack_from("<Q", tail, at64 + 40)[0] if 0 <= at64 <= len(tail) - 56 else 0
    window.seek(0)
    return stated


def parse_json(data: bytes, unique: bool = False) -> Any:
    """JSON from an untrusted file; unique: a name that appears twice in a table is refused.

    Raises ValueError for what is no JSON, LimitReached where it would take much more memory than its text.
    """
    if data.count(b"{") + data.count(b"[") > _MAX_BRACKETS or data.count(b",") > _MAX_COMMAS:
        raise LimitReached("it has more entries than the limit")
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once if unique else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice in it")
    return table
