"""GGUF files: every entry of the header read, every tensor inside the file, every chat template within its means.

Source: the GGUF description of the ggml project (versions 2 and 3) and ``ggml.h`` for the sizes of its types.
"""

from __future__ import annotations

import math
from typing import Any

from vestige.core.bounded import LimitReached, Window, printable
from vestige.core.models import templates
from vestige.core.models.pickle_report import PickleReport
from vestige.core.models.wire import Source

_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
#: Of each type of tensor, how many elements make a block and how many bytes a block has.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
_MAX_ENTRIES = 200_000
_MAX_STRINGS = 2_000_000
_MAX_NAME = 2**16


class _Reader:
    def __init__(self, window: Window) -> None:
        self.source, self.at, self.strings = Source(window), 4, 0

    def number(self, size: int) -> int:
        value = self.source.number(self.at, size)
        self.at += size
        return value

    def string(self, keep: int = 0) -> bytes:
        """Pass over a string; its bytes where it is no longer than ``keep``."""
        self.strings += 1
        if self.strings > _MAX_STRINGS:
            raise LimitReached(f"it has more strings than the limit of {_MAX_STRINGS}")
        size = self.number(8)
        if size > self.source.size - self.at:
            raise ValueError("a string is longer than the file")
        text = self.source.take(self.at, size) if size <= keep else b""
        self.at += size
        return text

    def value(self, kind: int, keep: int = 0, depth: int = 0) -> Any:
        """One value of the header: an integer, the bytes of a string, a list of those that are kept."""
        if kind == _STRING:
            return self.string(keep)
        if kind in _FIXED:
            return self.number(_FIXED[kind])
        if kind != _ARRAY or depth > 4:
            raise ValueError(f"a value has the unknown type {kind}")
        inner, count = self.number(4), self.number(8)
        if inner in _FIXED:
            size = count * _FIXED[inner]
            if size > self.source.size - self.at:
                raise ValueError("an array is longer than the file")
            self.at += size
            return None
        if count > self.source.size - self.at:
            raise ValueError("an array is longer than the file")
        kept = []
        for _ in range(count):
            value = self.value(inner, keep, depth + 1)
            if keep and value:
                kept.append(value)
        return kept


def check(window: Window, place: str, report: PickleReport) -> None:
    """Put into the report what a GGUF file holds beyond numbers. Raises ValueError where it is damaged."""
    reader = _Reader(window)
    version = reader.number(4)
    if version not in (2, 3):
        raise ValueError(f"its version {version} is unknown")
    tensors, entries = reader.number(8), reader.number(8)
    if max(tensors, entries) > _MAX_ENTRIES:
        raise LimitReached(f"it has more entries than the limit of {_MAX_ENTRIES}")
    alignment, keys, formatted = 32, set[bytes](), 0
    for _ in range(entries):
        key = reader.string(_MAX_NAME)
        if not key or key in keys:
            raise ValueError("an entry has no name, or one that appears twice")
        keys.add(key)
        kind = reader.number(4)
        template = b"template" in key.lower()
        value = reader.value(kind, templates.MAX_TEMPLATE if template else 0)
        if key == b"general.alignment" and kind == _UINT32:
            alignment = value
        for text in value if isinstance(value, list) else [value]:
            if template and isinstance(text, bytes):
                formatted += len(text)
                if formatted > templates.MAX_TEMPLATE:
                    raise LimitReached("its chat templates are longer than the limit of 1 MiB")
                if not text:
                    report.add_problem(f"{place} has a chat template that is too long, or empty")
                templates.check(
                    text.decode("utf-8", "replace"), f"{place} ({printable(key.decode('latin-1'))})", report
                )
    _check_tensors(reader, tensors, alignment, place, report)


def _check_tensors(reader: _Reader, count: int, alignment: int, place: str, report: PickleReport) -> None:
    if alignment < 1 or alignment > 2**20:
        raise ValueError("its alignment is out of range")
    ends, names = [0], set[bytes]()
    for _ in range(count):
        name = reader.string(_MAX_NAME)
        if name in names:
            raise ValueError("the name of a tensor appears twice")
        names.add(name)
        dimensions = reader.number(4)
        if dimensions > 8:
            raise ValueError("a tensor has more than 8 dimensions")
        shape = [reader.number(8) for _ in range(dimensions)]
        kind, offset = reader.number(4), reader.number(8)
        elements, size = _BLOCKS.get(kind, (0, 0))
        if not elements:
            report.add_problem(f"{place} holds a tensor of the unknown type {kind}")
            continue
        ends.append(offset + math.ceil(math.prod(shape) / elements) * size)
    begin = -(-reader.at // alignment) * alignment
    if count and begin + max(ends) > reader.source.size:
        raise ValueError("a tensor lies outside of the file")
