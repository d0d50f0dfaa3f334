"""Protocol buffers read field by field without a library: bounded, and nothing is copied that was not asked for.

Source: Protocol Buffers encoding, protobuf.dev.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from vestige.core.bounded import LimitReached, Window

_PAGE = 2**16
_MAX_TEXT = 2**16


class Source:
    """Random access to a window, read in pages."""

    def __init__(self, window: Window) -> None:
        self.size, self._window, self._begin, self._page = window.size, window, 0, b""

    def take(self, at: int, count: int) -> bytes:
        """``count`` bytes from ``at``; raises ValueError where the file has fewer."""
        if at < 0 or count < 0 or at + count > self.size:
            raise ValueError("it points outside of itself")
        if not self._begin <= at <= at + count <= self._begin + len(self._page):
            self._window.seek(at)
            page = self._window.read(max(count, _PAGE))
            if count > _PAGE:
                return page
            self._begin, self._page = at, page
        return self._page[at - self._begin : at - self._begin + count]

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.take(at, size), "little")


class Fields:
    """The fields of messages in a source; at most ``limit`` of them in all."""

    def __init__(self, source: Source, limit: int = 2_000_000) -> None:
        self.source, self.left = source, limit

    def __call__(self, begin: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
        """(number, value) of each field: an integer, or (begin, end) of text, bytes or a message.

        Raises ValueError for what is no message, LimitReached beyond the limit.
        """
        at = begin
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise LimitReached("it has more fields than the limit")
            tag, at = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            value: int | tuple[int, int]
            if kind == 0:
                value, at = self._varint(at, end)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
                value, at = self.source.number(at, size), at + size
            elif kind == 2:
                size, at = self._varint(at, end)
                value, at = (at, at + size), at + size
            else:
                raise ValueError(f"a field is of the unknown kind {kind}")
            if at > end or number == 0:
                raise ValueError("a field does not end where its message does")
            yield number, value

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        data = self.source.take(at, min(10, end - at))
        value = 0
        for n, byte in enumerate(data):
            value |= (byte & 0x7F) << (7 * n)
            if byte < 0x80:
                return value, at + n + 1
        raise ValueError("a number has no end")

    def text(self, span: Any) -> str:
        """Text of a field; longer than 64 KiB it is cut."""
        if not isinstance(span, tuple):
            raise ValueError("a number stands where text belongs")
        return self.source.take(span[0], min(span[1] - span[0], _MAX_TEXT)).decode("utf-8", "replace")


Schema = Mapping[str, Mapping[int, str]]


class Walker:
    """Follows messages by a schema, {message: {field: kind}}, and calls ``on_MESSAGE(texts, numbers)`` at their ends.

    Kinds: the name of a message, "text", "number", or "data" for what is not looked at. ``unknown``: fields that the
    schema lacks, as "message.number".
    """

    max_depth = 40

    def __init__(self, window: Window, schema: Schema) -> None:
        self.fields, self.schema, self.unknown = Fields(Source(window)), schema, set[str]()
        self.size = window.size

    def walk(self, message: str, begin: int, end: int, depth: int = 0) -> None:
        if depth > self.max_depth:
            raise LimitReached(f"it is nested deeper than the limit of {self.max_depth} levels")
        kinds = self.schema[message]
        texts: dict[int, str] = {}
        numbers: dict[int, int] = {}
        for number, value in self.fields(begin, end):
            kind = kinds.get(number)
            if kind is None:
                if len(self.unknown) < 20:
                    self.unknown.add(f"{message}.{number}")
            elif kind == "text":
                texts[number] = self.fields.text(value)
            elif kind == "number":
                if isinstance(value, int):
                    numbers[number] = value
            elif kind != "data":
                if not isinstance(value, tuple):
                    raise ValueError("a number stands where a message belongs")
                self.walk(kind, *value, depth + 1)
        handler = getattr(self, f"on_{message.lower()}", None)
        if handler is not None:
            handler(texts, numbers)


def unpack(source: Source, form: str, at: int) -> tuple[Any, ...]:
    """As `struct.unpack`, from a place in a source."""
    return struct.unpack(form, source.take(at, struct.calcsize(form)))
