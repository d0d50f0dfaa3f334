"""HDF5 files walked from their superblock: Keras models, links, filters and data kept elsewhere.

Only the structure is read: groups, attributes and how data is laid out; arrays are passed over. What this reader does
not know (dense groups, shared messages) is not vouched for.

Source: HDF5 File Format Specification, version 3.0, The HDF Group.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vestige.core.bounded import LimitReached, Window, printable
from vestige.core.models import keras_config
from vestige.core.models.pickle_report import PickleReport
from vestige.core.models.wire import Source

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_OBJECTS = 100_000
_MAX_MESSAGES = 1_000_000
#: Filters that come with the library; others are programs that it looks for.
_FILTERS = frozenset({1, 2, 3, 4, 5, 6})
_DESCRIPTIONS = ("model_config", "training_config")
_LAYER = re.compile(rb'"class_name"\s*:\s*"(Lambda|__lambda__)"')


@dataclass
class _Message:
    kind: int
    flags: int
    at: int
    size: int


class _Walk:
    """One file: its widths of addresses (``wide``) and lengths (``long``), and what was visited."""

    def __init__(self, window: Window, place: str, report: PickleReport) -> None:
        self.source, self.place, self.report = Source(window), place, report
        self.seen: set[int] = set()
        self.messages = 0
        self.links = 0
        self.descriptions: list[bytes] = []

    def run(self) -> None:
        version = self.source.number(8, 1)
        if version in (0, 1):
            self.wide, self.long = self.source.number(13, 1), self.source.number(14, 1)
            base = 24 + (4 if version else 0)
            root = base + 4 * self.wide + self.wide
        elif version in (2, 3):
            self.wide, self.long = self.source.number(9, 1), self.source.number(10, 1)
            base = 12
            root = base + 3 * self.wide
        else:
            raise ValueError(f"the version {version} of its superblock is unknown")
        if self.wide not in (4, 8) or self.long not in (4, 8):
            raise ValueError("its addresses have an unknown width")
        self.base = self.address(base)
        if self.base:
            raise ValueError("it begins after other bytes")
        if self.address(base + 2 * self.wide) > self.source.size:
            raise ValueError("it is cut short")
        more = self.address(base + self.wide if version > 1 else base + 3 * self.wide)
        if not self.undefined(more):  # data in several files, or a second header
            self.unknown("more than its first header")
        queue = [self.address(root)]
        while queue:
            at = queue.pop()
            if at in self.seen:
                continue
            self.seen.add(at)
            if len(self.seen) > _MAX_OBJECTS:
                raise LimitReached(f"it has more objects than the limit of {_MAX_OBJECTS}")
            queue += self.object(at)

    def address(self, at: int) -> int:
        return self.source.number(at, self.wide)

    def length(self, at: int) -> int:
        return self.source.number(at, self.long)

    def undefined(self, address: int) -> bool:
        return address == (1 << (8 * self.wide)) - 1

    # objects and their messages

    def object(self, at: int) -> list[int]:
        """Read the messages of an object; the addresses of the objects it links to."""
        children: list[int] = []
        for message in self._messages(at):
            self.messages += 1
            if self.messages > _MAX_MESSAGES:
                raise LimitReached(f"it has more messages than the limit of {_MAX_MESSAGES}")
            children += self._message(message)
        return children

    def _messages(self, at: int) -> list[_Message]:
        first = self.source.number(at, 1)
        if self.source.take(at, 4) == b"OHDR":
            flags = self.source.number(at + 5, 1)
            begin = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            blocks = [(begin + width, self.source.number(begin, width))]
            head, second = (6 if flags & 4 else 4), True
        elif first == 1:
            blocks, head, second = [(at + 16, self.source.number(at + 8, 4))], 8, False
        else:
            raise ValueError("an object has no header")
        found: list[_Message] = []
        visited: set[int] = set()
        while blocks:
            begin, size = blocks.pop()
            if begin in visited or size > self.source.size:
                raise ValueError("the parts of an object's header run in a circle")
            visited.add(begin)
            end = begin + size
            while begin + head <= end:
                if second:
                    kind, length = self.source.number(begin, 1), self.source.number(begin + 1, 2)
                    flags = self.source.number(begin + 3, 1)
                else:
                    kind, length = self.source.number(begin, 2), self.source.number(begin + 2, 2)
                    flags = self.source.number(begin + 4, 1)
                begin += head
                if begin + length > end:
                    raise ValueError("a message is longer than its header")
                if kind == 0x10:
                    where, extent = self.address(begin), self.length(begin + self.wide)
                    if second and self.source.take(where, 4) != b"OCHK":
                        raise ValueError("a part of a header is missing")
                    blocks.append((where + 4, extent - 8) if second else (where, extent))
                found.append(_Message(kind, flags, begin, length))
                if len(found) > _MAX_MESSAGES:
                    raise LimitReached(f"it has more messages than the limit of {_MAX_MESSAGES}")
                begin += length
        return found

    def _message(self, message: _Message) -> list[int]:
        kind, at = message.kind, message.at
        shared = bool(message.flags & 2)
        if kind == 0x02:
            self._dense(at + 2 + (8 if self.source.number(at + 1, 1) & 1 else 0), "links")
        elif kind == 0x06:
            return self._link(at)
        elif kind == 0x07:
            self.report.add_hazard(f"{self.place} takes data from other files, which it names")
        elif kind == 0x08:
            version = self.source.number(at, 1)
            if version in (3, 4, 5) and self.source.number(at + 1, 1) == 3:
                self.report.add_hazard(f"{self.place} takes data from other files, which it names")
            elif version not in (1, 2, 3, 4, 5):
                self.unknown("data laid out in an unknown way")
        elif kind == 0x0B and not shared:
            self._filters(at)
        elif kind == 0x0C:
            self._attribute(at, shared)
        elif kind == 0x11:
            return self._symbols(self.address(at), self.address(at + self.wide))
        elif kind == 0x15:
            self._dense(at + 2 + (2 if self.source.number(at + 1, 1) & 1 else 0), "attributes")
        elif kind > 0x18 or kind == 0x09:
            self.unknown(f"a message of the unknown kind {kind}")
        elif shared and kind not in (0x03, 0x01, 0x05):
            self.unknown("messages that are shared")
        return []

    def unknown(self, what: str) -> None:
        self.report.add_problem(f"{self.place} holds {what}, which was not examined")

    def _dense(self, at: int, what: str) -> None:
        if not self.undefined(self.address(at)):
            self.unknown(f"{what} in dense storage")

    def _link(self, at: int) -> list[int]:
        flags = self.source.number(at + 1, 1)
        at += 2
        kind = 0
        if flags & 8:
            kind, at = self.source.number(at, 1), at + 1
        at += (8 if flags & 4 else 0) + (1 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        at += width + self.source.number(at, width)
        if kind == 0:
            return [self.address(at)]
        if kind == 64:
            name = self.source.take(at + 3, max(self.source.number(at, 2) - 1, 0)).split(b"\0")[0]
            shown = printable(name[:100].decode("utf-8", "replace"))
            self.report.add_hazard(f"{self.place} holds a link into the file {shown!r}")
        elif kind != 1:
            self.unknown(f"a link of the unknown kind {kind}")
        return []

    def _symbols(self, tree: int, heap: int) -> list[int]:
        """The objects of an old group, through its tree of symbol tables."""
        if self.source.take(heap, 4) != b"HEAP":
            raise ValueError("a group has no heap of names")
        nodes, children = [tree], []
        while nodes:
            at = nodes.pop()
            if at in self.seen:
                raise ValueError("the tree of a group runs in a circle")
            self.seen.add(at)
            sign, count = self.source.take(at, 4), self.source.number(at + 6, 2)
            self.links += count
            if self.links > _MAX_MESSAGES:
                raise LimitReached(f"it has more links than the limit of {_MAX_MESSAGES}")
            if sign == b"TREE" and self.source.number(at + 4, 1) == 0:
                first = at + 8 + 2 * self.wide + self.long
                nodes += [self.address(first + n * (self.long + self.wide)) for n in range(count)]
            elif sign == b"SNOD":
                for n in range(count):
                    entry = at + 8 + n * (2 * self.wide + 24)
                    if self.source.number(entry + 2 * self.wide, 4) != 2:  # 2: a name inside the file instead
                        children.append(self.address(entry + self.wide))
            else:
                raise ValueError("the tree of a group is damaged")
        return children

    def _filters(self, at: int) -> None:
        version, count = self.source.number(at, 1), self.source.number(at + 1, 1)
        at += 8 if version == 1 else 2
        for _ in range(count):
            kind, name = self.source.number(at, 2), 0
            at += 2
            if version == 1 or kind >= 256:
                name, at = self.source.number(at, 2), at + 2
            values = self.source.number(at + 2, 2)
            at += 4 + (-(-name // 8) * 8 if version == 1 else name) + 4 * values
            at += 4 if version == 1 and values % 2 else 0
            if kind not in _FILTERS:
                self.unknown(f"data packed by the filter {kind}, a program of its own")

    # attributes

    def _attribute(self, at: int, shared: bool) -> None:
        version, flags = self.source.number(at, 1), self.source.number(at + 1, 1)
        if shared or version not in (1, 2, 3):
            self.unknown("an attribute that is kept elsewhere")
            return
        sizes = [self.source.number(at + 2 + 2 * n, 2) for n in range(3)]
        at += 9 if version == 3 else 8
        padded = [-(-size // 8) * 8 for size in sizes] if version == 1 else sizes
        name = self.source.take(at, sizes[0]).split(b"\0")[0].decode("utf-8", "replace")
        kind, space = at + padded[0], at + padded[0] + padded[1]
        if name in _DESCRIPTIONS:
            if version > 1 and flags & 3:
                self.unknown(f"a {name} of a shared type")
            else:
                self._description(name, kind, space, space + padded[2])

    def _description(self, name: str, kind: int, space: int, data: int) -> None:
        if self.source.number(space + 1, 1) != 0:
            self.unknown(f"a {name} in several parts")
            return
        first, size = self.source.number(kind, 1) & 15, self.source.number(kind + 4, 4)
        if first == 3:
            text = self.source.take(data, min(size, keras_config.MAX_CONFIG + 1))
        elif first == 9:
            text = self._heap(self.address(data + 4), self.source.number(data + 4 + self.wide, 4))
            text = text[: self.source.number(data, 4)]
        else:
            self.unknown(f"a {name} that is no text")
            return
        self.descriptions.append(text.rstrip(b"\0"))

    def _heap(self, at: int, index: int) -> bytes:
        """An object of a global heap."""
        if self.source.take(at, 4) != b"GCOL":
            raise ValueError("the heap of an attribute is missing")
        end = at + self.length(at + 8)
        at += 8 + self.long
        while at + 8 + self.long <= end:
            number, size = self.source.number(at, 2), self.length(at + 8)
            if number == index:
                return self.source.take(at + 8 + self.long, min(size, keras_config.MAX_CONFIG + 1))
            if number == 0:
                break
            at += 8 + self.long + -(-size // 8) * 8
        raise ValueError("the text of an attribute is missing")


def check(window: Window, place: str, report: PickleReport) -> None:
    """Put into the report what an HDF5 file holds beyond arrays. Raises ValueError where it is damaged."""
    walk = _Walk(window, place, report)
    try:
        if walk.source.take(0, 8) != _SIGNATURE:
            raise ValueError("it has no signature")
        walk.run()
        for text in walk.descriptions:
            if text not in (b"null", b"None"):
                keras_config.check(text, place, report)
    except ValueError:
        _raw(window, place, report)
        raise


def _raw(window: Window, place: str, report: PickleReport) -> None:
    """Look for the layers that run code in the bytes of a file whose structure is damaged."""
    window.seek(0)
    rest = b""
    while block := window.read(2**22):
        if found := _LAYER.search(rest + block):
            report.add_hazard(f"{place} names a layer {found[1].decode()}, which runs Python code from the file")
            return
        rest = block[-100:]
