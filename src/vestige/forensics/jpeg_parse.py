"""Structure of a JPEG file, read from its markers without decoding a sample.

The parser is made for untrusted files: it never follows a length beyond the data, reads a bounded number of segments,
and notes what is wrong instead of stopping.

Source: ITU-T Recommendation T.81, Information technology – Digital compression and coding of continuous-tone still
images, 1992, Annex B.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from vestige.core.errors import InputError
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import ZIGZAG

MAX_SEGMENTS = 4096

_NAMES = {0xC4: "DHT", 0xC8: "JPG", 0xCC: "DAC", 0xD8: "SOI", 0xD9: "EOI", 0xDA: "SOS", 0xDB: "DQT", 0xDC: "DNL",
          0xDD: "DRI", 0xDE: "DHP", 0xDF: "EXP", 0xFE: "COM", 0x01: "TEM"}  # fmt: skip
_PROCESSES = ("baseline", "extended", "progressive", "lossless")
#: A marker inside entropy-coded data: not a stuffed zero, a restart marker or fill.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


@dataclass(frozen=True)
class Segment:
    """One marker segment. offset: of the 0xFF byte; length: of the payload, in bytes; label: identifier of APPn."""

    marker: int
    name: str
    offset: int
    length: int
    label: str = ""


@dataclass(frozen=True)
class Component:
    """One colour component: its identifier, horizontal and vertical sampling factors and quantisation table."""

    identifier: int
    horizontal: int
    vertical: int
    table: int


@dataclass(frozen=True)
class JpegStructure:
    """What the markers of a JPEG file say.

    tables: quantisation tables in force at the first scan, int64 8×8 in natural (row-major) order, by identifier.
    process: "baseline", "extended", "progressive", "lossless" or "" without a frame header. restart_interval: in
    minimum coded units, 0 where unused. trailing: bytes after the end-of-image marker. problems: damage, in words.
    """

    segments: tuple[Segment, ...]
    tables: Mapping[int, np.ndarray]
    components: tuple[Component, ...]
    width: int
    height: int
    precision: int
    process: str
    arithmetic: bool
    scans: int
    restart_interval: int
    restart_markers: int
    adobe_transform: int | None
    ended: bool
    trailing: int
    problems: tuple[str, ...]

    @property
    def progressive(self) -> bool:
        return self.process == "progressive"

    @property
    def app_markers(self) -> tuple[str, ...]:
        """Application segments in file order, such as ``"APP1 Exif"``."""
        return tuple(f"{s.name} {s.label}".strip() for s in self.segments if s.name.startswith("APP"))

    @property
    def luma_table(self) -> np.ndarray | None:
        """Quantisation table of the first component, None where the file does not hold it."""
        return self.tables.get(self.components[0].table) if self.components else None

    @property
    def chroma_table(self) -> np.ndarray | None:
        """Quantisation table of the second component of a colour picture."""
        return self.tables.get(self.components[1].table) if len(self.components) >= 3 else None

    @property
    def subsampling(self) -> str:
        """Chroma subsampling in the usual J:a:b notation, "grey", or the raw factors where it has no such name."""
        if len(self.components) < 3:
            return "grey" if self.components else ""
        factors = [(c.horizontal, c.vertical) for c in self.components]
        (h, v), rest = factors[0], factors[1:3]
        if all(f == (1, 1) for f in rest) or all(f == rest[0] for f in rest):
            ratio = (h / max(rest[0][0], 1), v / max(rest[0][1], 1))
            names: dict[tuple[float, float], str] = {
                (1, 1): "4:4:4",
                (2, 1): "4:2:2",
                (2, 2): "4:2:0",
                (1, 2): "4:4:0",
                (4, 1): "4:1:1",
            }
            if ratio in names:
                return names[ratio]
        return ",".join(f"{a}x{b}" for a, b in factors)


def _name(marker: int) -> str:
    if marker in _NAMES:
        return _NAMES[marker]
    if 0xC0 <= marker <= 0xCF:
        return f"SOF{marker - 0xC0}"
    if 0xE0 <= marker <= 0xEF:
        return f"APP{marker - 0xE0}"
    if 0xD0 <= marker <= 0xD7:
        return f"RST{marker - 0xD0}"
    return f"0x{marker:02X}"


def _label(payload: bytes) -> str:
    """The identifier at the start of an APPn payload: printable characters up to the first other byte."""
    match = re.match(rb"[\x20-\x7e]{2,40}", payload[:40])
    return match.group().decode("ascii").rstrip() if match else ""


class _Reader:
    """Walks the markers of one file; the fields mirror those of `JpegStructure`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.segments: list[Segment] = []
        self.tables: dict[int, np.ndarray] = {}
        self.components: list[Component] = []
        self.width = self.height = self.precision = self.scans = self.interval = self.restarts = 0
        self.process, self.arithmetic, self.ended = "", False, False
        self.adobe: int | None = None
        self.problems: list[str] = []
        self.end = len(data)

    def note(self, problem: str) -> None:
        if problem not in self.problems and len(self.problems) < 20:
            self.problems.append(problem)

    def walk(self) -> None:
        data, at = self.data, 2
        self.segments.append(Segment(0xD8, "SOI", 0, 0))
        while at < len(data) - 1 and len(self.segments) < MAX_SEGMENTS:
            if data[at] != 0xFF:
                found = _MARKER.search(data, at)
                self.note(f"bytes between segments at offset {at}")
                if not found:
                    break
                at = found.start()
            while at < len(data) and data[at] == 0xFF:
                at += 1  # fill bytes may precede the marker code
            if at >= len(data):
                break
            marker, start = data[at], at - 1
            at += 1
            if marker == 0xD9:
                self.segments.append(Segment(marker, "EOI", start, 0))
                self.ended, self.end = True, at
                return
            if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
                self.note(f"stray marker {_name(marker)} at offset {start}")
                continue
            if at + 2 > len(data):
                break
            length = int.from_bytes(data[at : at + 2], "big")
            payload = data[at + 2 : at + max(length, 2)]
            if length < 2 or len(payload) < length - 2:
                self.note(f"segment {_name(marker)} at offset {start} has an impossible length")
            name = _name(marker)
            label = _label(payload) if name.startswith("APP") else ""
            self.segments.append(Segment(marker, name, start, len(payload), label))
            self._read(marker, name, payload)
            at += max(length, 2)
            if marker == 0xDA:
                at = self._skip_scan(at)
        self.note("the file ends before its end-of-image marker" if at >= len(data) - 1 else "too many segments")

    def _skip_scan(self, at: int) -> int:
        found = _MARKER.search(self.data, at)
        end = found.start() if found else len(self.data)
        if self.interval:
            self.restarts += sum(1 for _ in _RESTART.finditer(self.data, at, end))
        return end

    def _read(self, marker: int, name: str, payload: bytes) -> None:
        if name == "DQT":
            self._read_tables(payload)
        elif name.startswith("SOF"):
            self._read_frame(marker - 0xC0, payload)
        elif name == "SOS":
            self.scans += 1
        elif name == "DRI" and len(payload) >= 2:
            self.interval = int.from_bytes(payload[:2], "big")
        elif name == "APP14" and payload[:5] == b"Adobe" and len(payload) >= 12:
            self.adobe = payload[11]

    def _read_tables(self, payload: bytes) -> None:
        at = 0
        while at < len(payload):
            wide, identifier = payload[at] >> 4, payload[at] & 15
            size = 128 if wide else 64
            values = payload[at + 1 : at + 1 + size]
            if wide > 1 or identifier > 3 or len(values) < size:
                self.note("a quantisation table is damaged")
                return
            numbers = np.frombuffer(values, ">u2" if wide else np.uint8).astype(np.int64)
            if (numbers == 0).any():
                self.note("a quantisation table holds a zero step")
            elif not self.scans:  # later definitions serve later scans only
                table = np.empty(64, np.int64)
                table[ZIGZAG] = numbers
                self.tables[identifier] = table.reshape(8, 8)
            at += 1 + size

    def _read_frame(self, process: int, payload: bytes) -> None:
        if self.process:
            self.note("more than one frame header")
            return
        count = payload[5] if len(payload) >= 6 else 0
        if len(payload) < 6 + 3 * count or not 1 <= count <= 4:
            self.note("the frame header is damaged")
            return
        self.process, self.arithmetic = _PROCESSES[process % 4], process >= 8
        self.precision = payload[0]
        self.height, self.width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
        for i in range(count):
            identifier, factors, table = payload[6 + 3 * i : 9 + 3 * i]
            self.components.append(Component(identifier, factors >> 4, factors & 15, table))
            if table not in self.tables:
                self.note(f"component {i + 1} uses a quantisation table the header has not defined")


def parse_jpeg(data: bytes) -> JpegStructure:
    """Read the marker segments of a JPEG file.

    data: the whole file. Damage is reported in ``problems``; only data that does not start like a JPEG file raises
    InputError.

    >>> from vestige.core.image_io import encode
    >>> structure = parse_jpeg(encode(np.zeros((16, 24, 3), np.uint8), "JPEG", quality=75))
    >>> structure.width, structure.subsampling, int(structure.luma_table[0, 0])
    (24, '4:4:4', 8)
    """
    if data[:2] != b"\xff\xd8":
        raise InputError("The data does not start with a JPEG start-of-image marker; give the bytes of a JPEG file.")
    reader = _Reader(data)
    reader.walk()
    if not reader.process:
        reader.note("there is no frame header")
    return JpegStructure(
        segments=tuple(reader.segments),
        tables=MappingProxyType(reader.tables),
        components=tuple(reader.components),
        width=reader.width,
        height=reader.height,
        precision=reader.precision,
        process=reader.process,
        arithmetic=reader.arithmetic,
        scans=reader.scans,
        restart_interval=reader.interval,
        restart_markers=reader.restarts,
        adobe_transform=reader.adobe,
        ended=reader.ended,
        trailing=len(data) - reader.end if reader.ended else 0,
        problems=tuple(reader.problems),
    )


def luma_steps(subject: ImageSubject) -> np.ndarray | None:
    """The 8×8 steps that ``subject.luma`` was quantised with; None for pictures stored without a lossy transform.

    Raises InputError where the question has no answer: formats with other transforms, files that do not store luma.
    """
    if subject.format in ("AVIF", "HEIF"):
        raise InputError(f"{subject.format} has blocks of its own, which can pass for those of JPEG")
    if subject.format != "JPEG":
        return None
    structure = parse_jpeg(subject.data)
    components = structure.components
    if len(components) not in (1, 3) or (len(components) == 3 and structure.adobe_transform == 0):
        raise InputError("the file does not store luma and chroma")
    if any(c.horizontal > components[0].horizontal or c.vertical > components[0].vertical for c in components):
        raise InputError("the file stores luma at less than full resolution")
    if structure.luma_table is None or structure.precision != 8:
        raise InputError("the file holds no quantisation table for eight-bit samples")
    return structure.luma_table
