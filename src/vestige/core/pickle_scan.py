"""What a pickle would import and call, read opcode by opcode and never executed.

A pickle is a program: GLOBAL, STACK_GLOBAL and INST import any attribute of any module, REDUCE calls it. The scan
walks the opcodes with a small symbolic stack and memo (strings and numbers keep their value, everything else is
opaque), so that import names hidden behind memo tricks are still seen; a name that is computed at load time counts as
dangerous. Zip and tar containers are walked in place, members are judged by content, and all work is bounded.

Sources: Python's ``pickletools`` documentation; Slaviero, Sour Pickles, Black Hat USA 2011; Sultanik, Never a Dill
Moment: Exploiting Machine Learning Pickle Files, Trail of Bits 2021.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
import tarfile
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from vestige.core.bounded import LimitReached, Window, escapes, printable, zip_members
from vestige.core.errors import InputError
from vestige.core.pickle_imports import COMPUTED, classify

_CALLS = frozenset({"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_INTEGERS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"})
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_MARK = object()
_IN_MEMORY = 64 * 2**20
_SUFFIXES = (".pkl", ".pickle", ".p", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".dill")


@dataclass(frozen=True)
class ScanLimits:
    """Bounds of one scan; reaching one ends it with ``damaged`` set, so the file is never called clean.

    max_item: bytes of one string or bytes object. max_kept: characters of strings the symbolic stack remembers.
    max_inflated: bytes the pickles in compressed zip members may inflate to, all together. max_ratio: largest
    compression ratio of one.
    """

    max_opcodes: int = 2_000_000
    max_stack: int = 1_000_000
    max_item: int = 128 * 2**20
    max_kept: int = 64 * 2**20
    max_imports: int = 10_000
    max_members: int = 200_000
    max_inflated: int = 512 * 2**20
    max_ratio: float = 200.0
    max_depth: int = 3


DEFAULT_LIMITS = ScanLimits()


@dataclass
class PickleReport:
    """What was found in the pickles of one file.

    imports: every (module, name), once, in order. dangerous, unknown: "module.name" of those that run code or reach
    files, processes or the network, and of those outside the allow-list of weights. places: the member each one was
    first seen in. damaged: why the scan could not read to the end, or None. problems: oddities of the container (names
    that leave the folder, repeated names, unreadable members). pickles, calls, opcodes: how many were read.
    """

    imports: list[tuple[str, str]] = field(default_factory=list)
    dangerous: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    damaged: str | None = None
    pickles: int = 0
    calls: int = 0
    opcodes: int = 0

    @property
    def clean(self) -> bool:
        """Every import is on the allow-list, and everything could be read."""
        return not (self.dangerous or self.unknown or self.damaged or self.problems)

    def add_import(self, module: str, name: str, place: str) -> None:
        verdict = classify(module, name)
        module, name = printable(module[:200]), printable(name[:200])
        full = f"{module}.{name}"
        if full in self.places and (verdict != "dangerous" or full in self.dangerous):
            return
        self.places[full] = place
        self.imports.append((module, name))
        if verdict != "safe":
            (self.dangerous if verdict == "dangerous" else self.unknown).append(full)

    def add_problem(self, text: str) -> None:
        if text not in self.problems and len(self.problems) < 100:
            self.problems.append(text)

    def add_damage(self, text: str) -> None:
        self.damaged = self.damaged or text


def scan(path: str | Path, limits: ScanLimits = DEFAULT_LIMITS) -> PickleReport:
    """Scan every pickle in a file: bare, legacy torch, in a zip (torch, npz), a tar, or a numpy array of objects.

    Raises InputError when the file is missing or cannot be read; damage inside it is part of the report.

    >>> import pickle, tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(pickle.dumps(print)), file.flush()
    ...     scan(file.name).unknown
    ['builtins.print']
    """
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            return _run(file, size, Path(path).name, limits)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None


def scan_bytes(data: bytes, limits: ScanLimits = DEFAULT_LIMITS) -> PickleReport:
    """As `scan`, for bytes in memory."""
    return _run(io.BytesIO(data), len(data), "data", limits)


def _run(file: Any, size: int, place: str, limits: ScanLimits) -> PickleReport:
    scanner = _Scanner(PickleReport(), limits)
    try:
        scanner.content(Window(file, 0, size, limits.max_item), place, 0)
    except LimitReached as reached:
        scanner.report.add_damage(str(reached))
    return scanner.report


class _Scanner:
    """One scan in progress: where its findings go, and its bounds."""

    def __init__(self, report: PickleReport, limits: ScanLimits) -> None:
        self.report, self.limits = report, limits
        self.inflated = 0

    def content(self, window: Window, place: str, depth: int) -> None:
        """Scan whatever a stretch of bytes is."""
        if depth > self.limits.max_depth:
            raise LimitReached(f"{place} is nested deeper than the limit of {self.limits.max_depth} levels")
        head = window.read(300)
        window.seek(0)
        if head[:4] == b"PK\x03\x04":
            self.zip(window, place, depth)
        elif head[257:262] == b"ustar":
            self.tar(window, place, depth)
        elif head[:6] == b"\x93NUMPY":
            self.npy(window, place)
        else:
            self.stream(window, place, depth)

    def possible(self, window: Window, place: str, depth: int) -> None:
        """Scan what may only look like a pickle, and report it when it imports something."""
        trial = _Scanner(PickleReport(opcodes=self.report.opcodes), self.limits)
        trial.content(window, place, depth + 1)
        self.report.opcodes = trial.report.opcodes
        if trial.report.dangerous or (trial.report.imports and not trial.report.damaged):
            self.report.pickles += trial.report.pickles
            self.report.calls += trial.report.calls
            for module, name in trial.report.imports:
                self.report.add_import(module, name, trial.report.places[f"{module}.{name}"])

    def stream(self, window: Window, place: str, depth: int) -> None:
        """Pickles that follow each other; torch's legacy format has five, then raw storages."""
        torch_legacy, count = False, 0
        # in memory where it fits, because one-byte reads through a window are slow
        reader = io.BytesIO(window.read()) if window.size <= _IN_MEMORY else window
        while reader.tell() < window.size and not (torch_legacy and count == 5):
            begin = reader.tell()
            try:
                result = self.pickle(reader, place, depth)
            except LimitReached:
                raise
            except Exception as error:  # pickletools raises many types on bytes that are no pickle
                if count and not torch_legacy:
                    self.report.add_problem(f"{place} holds {window.size - begin} bytes after its last pickle")
                else:
                    reason = " ".join(str(error).split())[:100] or type(error).__name__
                    self.report.add_damage(f"{place} breaks off at byte {reader.tell()} ({reason})")
                return
            count += 1
            self.report.pickles += 1
            torch_legacy = torch_legacy or (count == 1 and result == _TORCH_MAGIC)

    def pickle(self, reader: io.BytesIO | Window, place: str, depth: int) -> Any:
        """Follow one pickle to STOP; returns the value on top of the stack where it is a number or a string."""
        report, limits = self.report, self.limits
        stack: list[Any] = []
        memo: dict[Any, Any] = {}
        kept, protocol = 0, 0
        for op, argument, _ in pickletools.genops(cast(Any, reader)):
            arg: Any = argument
            code = op.name
            report.opcodes += 1
            report.calls += code in _CALLS
            if report.opcodes > limits.max_opcodes:
                raise LimitReached(f"{place} has more opcodes than the limit of {limits.max_opcodes}")
            if max(len(stack), len(memo)) > limits.max_stack:
                raise LimitReached(f"{place} needs a stack or memo above the limit of {limits.max_stack}")
            value: Any = None
            if code == "STOP":
                return stack[-1] if stack else None
            if code == "PROTO":
                protocol = max(protocol, arg)
            elif code in ("GLOBAL", "INST"):
                self.imported(arg.split(" ", 1), protocol, place)
            elif code == "STACK_GLOBAL":
                self.imported(stack[-2:], protocol, place)
            elif code in ("EXT1", "EXT2", "EXT4"):
                self.imported(["copyreg", f"extension code {arg}"], protocol, place)
            elif code in ("GET", "BINGET", "LONG_BINGET"):
                value = memo.get(arg)
            elif code in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if arg is None else arg] = stack[-1] if stack else None
                continue
            elif code == "DUP":
                stack.append(stack[-1] if stack else None)
                continue
            elif isinstance(arg, bytes | bytearray):
                # bytes may be a pickle or a torch archive again, which torch.storage._load_from_bytes would load
                if arg[:4] == b"PK\x03\x04" or (len(arg) > 4 and arg[0] == 0x80 and 2 <= arg[1] <= 5):
                    inner = Window(io.BytesIO(arg), 0, len(arg), limits.max_item)
                    self.possible(inner, f"{place} (bytes inside)", depth)
            elif isinstance(arg, str) and code != "PERSID":
                kept += len(arg)
                value = arg if len(arg) <= 4096 and kept <= limits.max_kept else None
            elif code in _INTEGERS:
                value = arg
            _pop(stack, op)
            stack.extend(_MARK if x is pickletools.markobject else value for x in op.stack_after)
        return None

    def imported(self, names: list[Any], protocol: int, place: str) -> None:
        """Record an import; anything but two strings read from the file is a name computed at load time."""
        module, name = [COMPUTED] * (2 - len(names)) + [x if isinstance(x, str) else COMPUTED for x in names]
        if protocol < 3:  # these protocols spell Python 2's names, which Python 3 translates
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if len(self.report.imports) >= self.limits.max_imports:
            raise LimitReached(f"{place} has more imports than the limit of {self.limits.max_imports}")
        self.report.add_import(module, name, place)

    def zip(self, window: Window, place: str, depth: int) -> None:
        report = self.report
        try:
            members = zip_members(window, self.limits.max_members)
        except LimitReached as reached:
            raise LimitReached(f"{place}: {reached}") from None
        except Exception as error:  # zipfile raises many types on damaged directories
            report.add_damage(f"{place} is a damaged zip archive ({str(error)[:100]})")
            return
        if sum(member.compress_size for member in members) > window.size:
            raise LimitReached(f"{place} has members that overlap, which would be read above the limit of once each")
        seen: set[str] = set()
        for member in members:
            name = printable(member.filename[:200])
            if name.lower() in seen:  # torch looks members up without regard to case
                report.add_problem(f"{place} holds {name!r} more than once")
            seen.add(name.lower())
            if escapes(name) or "\0" in member.orig_filename:
                report.add_problem(f"{place} has a member whose name leaves its folder: {name!r}")
            content = self.member(window, member, f"{place}/{name}")
            if content is not None:
                self.if_pickle(content, name, f"{place}/{name}", depth)

    def member(self, window: Window, member: zipfile.ZipInfo, place: str) -> Window | None:
        """The content of a zip member from its raw bytes: flags and checksums a loader may ignore hide nothing."""
        report, limits = self.report, self.limits
        local = window.part(member.header_offset, 30).read() if member.header_offset >= 0 else b""
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            report.add_problem(f"{place} cannot be read: its local header is missing")
            return None
        name_size, extra_size = struct.unpack_from("<HH", local, 26)
        name = window.part(member.header_offset + 30, name_size).read()
        encoding = "utf-8" if member.flag_bits & 0x800 else "cp437"
        if name != member.orig_filename.encode(encoding, "replace"):
            report.add_problem(f"{place} has another name in its local header")
        if member.flag_bits & 1:
            report.add_problem(f"{place} is marked as encrypted")
        start = member.header_offset + 30 + name_size + extra_size
        if member.compress_type == zipfile.ZIP_STORED:
            content = window.part(start, max(member.file_size, member.compress_size))
            if content.size < member.file_size:
                report.add_problem(f"{place} is cut short")
            return content
        if member.compress_type != zipfile.ZIP_DEFLATED:
            report.add_problem(f"{place} cannot be read: its compression method {member.compress_type} is unusual")
            return None
        if member.file_size > max(2**20, limits.max_ratio * member.compress_size):
            report.add_problem(f"{place} claims {member.file_size} bytes from {member.compress_size}, like a zip bomb")
            return None
        try:
            packed = window.part(start, member.compress_size).read()
            head = zlib.decompressobj(-15).decompress(packed, 300)
            if not _likely(member.filename, head):
                return None
            left = limits.max_inflated - self.inflated
            data = zlib.decompressobj(-15).decompress(packed, left)
        except zlib.error:
            report.add_problem(f"{place} cannot be read: its compressed data is damaged")
            return None
        self.inflated += len(data)
        if len(data) >= left:
            raise LimitReached(f"{place} inflates above the limit of {limits.max_inflated / 2**20:.0f} MiB")
        return Window(io.BytesIO(data), 0, len(data), limits.max_item)

    def tar(self, window: Window, place: str, depth: int) -> None:
        members: list[tarfile.TarInfo] = []
        try:
            with tarfile.open(fileobj=cast(Any, window), mode="r:") as archive:
                for info in archive:
                    members.append(info)
                    if len(members) > self.limits.max_members:
                        raise LimitReached(f"{place} has more members than the limit of {self.limits.max_members}")
        except LimitReached:
            raise
        except Exception as error:  # tarfile raises many types on damaged headers
            self.report.add_damage(f"{place} is a damaged tar archive ({str(error)[:100]})")
        for info in members:
            name = printable(info.name[:200])
            if escapes(name) or info.issym() or info.islnk():
                self.report.add_problem(f"{place} has a member that leaves its folder or is a link: {name!r}")
            if info.isfile():
                # the three members of torch's first format have no ending
                ending = ".pkl" if name.split("/")[-1] in ("pickle", "storages", "tensors") else ""
                self.if_pickle(window.part(info.offset_data, info.size), name + ending, f"{place}/{name}", depth)

    def if_pickle(self, window: Window, name: str, place: str, depth: int) -> None:
        """Scan a member that starts like a pickle, or is named like one (the first protocols have no signature)."""
        head = window.read(300)
        window.seek(0)
        if not _likely(name, head):
            return
        certain = head[:6] == b"\x93NUMPY" or (head[0] == 0x80 and name.lower().endswith(_SUFFIXES))
        if certain:
            self.content(window, place, depth + 1)
        else:
            self.possible(window, place, depth)

    def npy(self, window: Window, place: str) -> None:
        """A numpy file: arrays of objects carry a pickle after the header."""
        head = window.read(12).ljust(12, b"\0")
        begin, form = (12, "<L") if head[6] >= 2 else (10, "<H")
        length = min(struct.unpack_from(form, head, 8)[0], 2**16)
        if re.search(rb"['\"][|<>=]?O['\"]", window.part(begin, length).read()):
            self.stream(window.part(begin + length, window.size), place, self.limits.max_depth)


def _likely(name: str, head: bytes) -> bool:
    binary = len(head) > 1 and head[0] == 0x80 and head[1] <= 5
    return binary or head[:6] == b"\x93NUMPY" or (bool(head) and name.lower().endswith(_SUFFIXES))


def _pop(stack: list[Any], op: pickletools.OpcodeInfo) -> None:
    """Take from the stack what an opcode consumes, up to the last mark where it says so."""
    count = len(op.stack_before)
    if pickletools.markobject in op.stack_before or (op.name == "POP" and stack and stack[-1] is _MARK):
        while stack and stack.pop() is not _MARK:
            pass
        count = op.stack_before.index(pickletools.markobject) if op.name != "POP" else 0
    if count:
        del stack[-count:]
