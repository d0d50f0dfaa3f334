"""What the readers of embedded metadata share: the record they fill, and untrusted bytes as text."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any

MAX_TEXT = 4 * 2**20
MAX_TEXTS = 1000
#: Problems kept: a file with a thousand faults is no better told by a thousand sentences.
MAX_PROBLEMS = 40


@dataclass(frozen=True)
class Text:
    """One text in the file: ``where`` ("PNG text", "EXIF", "XMP", "IPTC", "comment"), its key and its value."""

    where: str
    key: str
    value: str


@dataclass
class Embedded:
    """Everything `vestige.core.records.embedded.read_embedded` found.

    exif: texts and numbers by name, of the first block that has them (further ones with another value stand in
    ``texts``); gps: latitude and longitude in degrees, or None; has_gps: a position is given, whoever wrote it and
    however. places: names of places. xmp: (path, value) in document order, such as ("xmpMM:History/stEvt:action",
    "saved"). iptc: (name, value). resources: Photoshop resource blocks by number. thumbnails: (where, encoded JPEG).
    raw: bytes of the blocks by kind. problems: what is damaged or odd, one sentence each.
    """

    texts: list[Text] = field(default_factory=list)
    exif: dict[str, Any] = field(default_factory=dict)
    gps: tuple[float, float] | None = None
    has_gps: bool = False
    gps_date: str = ""
    places: list[str] = field(default_factory=list)
    xmp: list[tuple[str, str]] = field(default_factory=list)
    iptc: list[tuple[str, str]] = field(default_factory=list)
    resources: dict[int, bytes] = field(default_factory=dict)
    thumbnails: list[tuple[str, bytes]] = field(default_factory=list)
    raw: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def every_text(self) -> list[Text]:
        """All texts, whatever block they come from."""
        exif = [Text("EXIF", k, v) for k, v in self.exif.items() if isinstance(v, str)]
        xmp = [Text("XMP", k, v) for k, v in self.xmp]
        return [*self.texts, *exif, *xmp, *(Text("IPTC", k, v) for k, v in self.iptc)]

    def say(self, problem: str) -> None:
        """Note a problem once."""
        if problem not in self.problems and len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def clean(text: object, limit: int = 120) -> str:
    """Text fit for a report: no control or direction characters, single spaces, at most ``limit`` characters.

    >>> clean("a\\x00b\\n c")
    'a b c'
    """
    kept = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(text)[: 8 * limit])
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def decode_text(raw: bytes) -> str:
    """Bytes as text: UTF-8 where valid, Latin-1 otherwise, at most ``MAX_TEXT`` bytes."""
    raw = raw[:MAX_TEXT].rstrip(b"\x00")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def decode_wide(raw: bytes, big: bool) -> str:
    """Bytes that should be UTF-16, in the byte order that gives text; ``big`` decides where both do.

    Writers disagree about the order, and some put UTF-8 there: a byte order mark decides, then UTF-8 without zero
    bytes that is mostly ASCII, then which order gives more letters of scripts in use. The first 8,000 characters are
    looked at.

    >>> decode_wide("Steps: 20".encode("utf-16-le"), True), decode_wide(b"Steps: 20", True)
    ('Steps: 20', 'Steps: 20')
    """
    raw = raw[:MAX_TEXT]
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if raw.startswith(mark):
            return raw[2:].decode(name, "replace").rstrip("\x00")
    bare = raw.rstrip(b"\x00")
    if b"\x00" not in bare and bare:
        ascii_share = sum(32 <= b < 127 or b in (9, 10, 13) for b in bare[:16_000]) / len(bare[:16_000])
        try:
            if ascii_share > 0.9:
                return bare.decode("utf-8")
        except UnicodeDecodeError:
            pass
    scores = {order: _likely(raw[:16_000].decode(f"utf-16-{order}", "replace")) for order in ("le", "be")}
    order = "be" if (scores["be"], big) > (scores["le"], not big) else "le"
    return raw.decode(f"utf-16-{order}", "replace").rstrip("\x00")


#: Ranges of scripts that people write in, and the points a character there is worth.
_SCRIPTS = ((0x20, 0x7E, 3), (0xA1, 0x52F, 2), (0x590, 0x6FF, 2), (0x900, 0xDFF, 1), (0xE00, 0xE7F, 2),
            (0x2010, 0x2026, 1), (0x3001, 0x30FF, 2), (0x4E00, 0x9FFF, 2), (0xAC00, 0xD7A3, 2),
            (0xFF01, 0xFF5E, 1))  # fmt: skip


def _likely(text: str) -> float:
    """How much a text looks like one somebody wrote, per character."""
    total = 0
    for c in text.rstrip("\x00"):
        n = ord(c)
        worth = next((points for low, high, points in _SCRIPTS if low <= n <= high), 0)
        if not worth:
            worth = 2 if c in "\n\r\t" else (-3 if unicodedata.category(c) in ("Cn", "Co", "Cc", "Cs") else -1)
        # CJK ideographs whose low byte is zero are Latin letters in the wrong order
        total += worth if n < 0x3400 or n & 0xFF else -2
    return total / max(len(text), 1)
