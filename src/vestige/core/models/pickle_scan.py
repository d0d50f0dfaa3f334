"""What a pickle would import and call, read opcode by opcode and never executed.

A pickle is a program: GLOBAL, STACK_GLOBAL and INST import any attribute of any module, REDUCE calls it. The scan
follows it on a symbolic stack (`vestige.core.models.pickle_machine`), so that import names hidden behind memo tricks
are still seen; a name that is computed at load time counts as dangerous. Containers are walked in place, members are
judged by content, and all work is bounded. A file is harmless only when all of it is known. Sources: Python's
``pickletools`` documentation; Slaviero, Sour Pickles, Black Hat USA 2011; Sultanik, Never a Dill Moment: Exploiting
Machine Learning Pickle Files, Trail of Bits 2021.
"""

from __future__ import annotations

import ast
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

from vestige.core.bounded import LimitReached, Window, escapes, printable, zip_members
from vestige.core.errors import InputError
from vestige.core.models import rules, torchscript
from vestige.core.models.formats import COMPRESSED, foreign_format, foreign_member, inflate
from vestige.core.models.pickle_imports import COMPUTED
from vestige.core.models.pickle_machine import Bounds, Machine
from vestige.core.models.pickle_report import DEFAULT_LIMITS, UNVOUCHED, PickleReport, ScanLimits

__all__ = ["DEFAULT_LIMITS", "UNVOUCHED", "PickleReport", "ScanLimits", "scan", "scan_anything", "scan_bytes"]

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_IN_MEMORY = 16 * 2**20
_MAX_ARRAY_HEADER = 64 * 2**10
_MAX_TAR_HEADER = 2**20
_ANY_RATIO = 8 * 2**20
_SUFFIXES = (".pkl", ".pickle", ".p", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".dill")


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
            return _run(file, size, Path(path).name, limits, Path(path).parent)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None


def scan_bytes(data: bytes, limits: ScanLimits = DEFAULT_LIMITS) -> PickleReport:
    """As `scan`, for bytes in memory."""
    return _run(io.BytesIO(data), len(data), "data", limits)


def _run(file: Any, size: int, place: str, limits: ScanLimits, folder: Path | None = None) -> PickleReport:
    scanner = Scanner(PickleReport(), limits)
    scanner.folder = folder
    try:
        scanner.content(Window(file, 0, size, limits.max_item), printable(place), 0)
    except LimitReached as reached:
        scanner.report.add_damage(str(reached))
    return scanner.finish()


def scan_anything(path: str | Path, weights: bool = False, limits: ScanLimits = DEFAULT_LIMITS) -> PickleReport:
    """As `scan`, for a file that need be no pickle: it tells of what a reader of pickles would import from it.

    weights: it is a file of raw weights, whose bytes are tried as a pickle only.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        scanner, window = Scanner(PickleReport(), limits), Window(file, 0, size, limits.max_item)
        try:
            if weights:
                scanner.possible_opcodes(window, 0, printable(Path(path).name), 0)
            else:
                scanner.possible(window, printable(Path(path).name), 0)
        except LimitReached as reached:
            if not weights:  # raw weights that look like an item longer than any pickle's
                scanner.report.add_damage(str(reached))
    return scanner.finish()


class Scanner:
    """One scan in progress: where its findings go, and its bounds."""

    def __init__(self, report: PickleReport, limits: ScanLimits, bounds: Bounds | None = None) -> None:
        self.report, self.limits = report, limits
        self.bounds = bounds or Bounds(limits.max_opcodes, limits.max_stack, limits.max_kept)
        self.inflated = 0
        self.folder: Path | None = None
        self.torchscript = False

    def finish(self) -> PickleReport:
        self.report.opcodes, self.report.calls = self.bounds.opcodes, self.bounds.calls
        return self.report

    def _trial(self) -> Scanner:
        """A scan whose findings do not count yet, within the same bounds."""
        trial = Scanner(PickleReport(), self.limits, self.bounds)
        trial.torchscript, trial.inflated = self.torchscript, self.inflated
        return trial

    def content(self, window: Window, place: str, depth: int) -> None:
        """Scan whatever a stretch of bytes is."""
        if depth > self.limits.max_depth:
            raise LimitReached(f"{place} is nested deeper than the limit of {self.limits.max_depth} levels")
        head = window.read(300)
        window.seek(0)
        packing = next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None)
        foreign = foreign_format(head, place)
        if head[:2] == b"PK" and head[2:4] in (b"\x03\x04", b"\x05\x06"):
            self.zip(window, place, depth)
        elif head[257:262] == b"ustar":
            self.tar(window, place, depth)
        elif head[:6] == b"\x93NUMPY":
            self.npy(window, place)
        elif packing is not None:
            self.packed(window, packing, place, depth)
        elif foreign is not None:
            if not rules.apply(foreign, window, place, self.report, self.folder if depth == 0 else None):
                self.report.add_problem(f"{place} is {foreign}, which is not examined")
            window.seek(0)
            self.possible(window, place, depth)
        else:
            if depth == 0 and zipfile.is_zipfile(cast(Any, window)):
                self.report.add_problem(f"{place} is also a zip archive, behind other bytes")
            window.seek(0)
            self.stream(window, place, depth)

    def packed(self, window: Window, packing: str, place: str, depth: int) -> None:
        """A compressed stream, as joblib writes and reads it."""
        try:
            data = inflate(window, packing, self.limits.max_inflated - self.inflated)
        except LimitReached as reached:
            raise LimitReached(f"{place}: {reached}") from None
        except Exception as error:  # the libraries raise many types on damaged streams
            self.report.add_damage(f"{place} cannot be inflated ({packing}: {str(error)[:100]})")
            return
        self.inflated += data.size
        self.content(data, f"{place} ({packing})", depth + 1)

    def possible(self, window: Window, place: str, depth: int) -> None:
        """Scan what may only look like a pickle, and report it when it names something dangerous or reads to a STOP."""
        trial = self._trial()
        foreign = foreign_format(window.read(300), place)
        window.seek(0)
        if foreign is not None:
            trial.one(window, window.size, place, depth + 1)
        else:
            trial.content(window, place, depth + 1)
        named = [name for name in trial.report.dangerous if COMPUTED not in name]
        if named or (trial.report.imports and not trial.report.damaged):
            self.report.pickles += max(trial.report.pickles, 1)
            for module, name in trial.report.imports:
                self.report.add_import(module, name, trial.report.places[f"{module}.{name}"])

    def one(self, window: Window, size: int, place: str, depth: int) -> None:
        """One pickle from where the reader stands; what is no pickle counts as damage."""
        try:
            self.pickle(window, size, place, depth)
            self.report.pickles += 1
        except LimitReached:
            raise
        except Exception as error:  # readers raise many types on bytes that are no pickle
            self.report.add_damage(f"{place} breaks off ({_reason(error)})")

    def stream(self, window: Window, place: str, depth: int) -> None:
        """Pickles that follow each other; torch's legacy format has five, then raw storages."""
        torch_legacy, count = False, 0
        # in memory where it fits, because one-byte reads through a window are slow
        reader = io.BytesIO(window.read()) if window.size <= _IN_MEMORY else window
        while reader.tell() < window.size and not (torch_legacy and count == 5):
            begin = reader.tell()
            try:
                result = self.pickle(reader, window.size, place, depth)
            except LimitReached:
                raise
            except Exception as error:  # readers raise many types on bytes that are no pickle
                if count and not torch_legacy:
                    self.report.add_problem(f"{place} holds {window.size - begin} bytes after its last pickle")
                else:
                    self.report.add_damage(f"{place} breaks off at byte {reader.tell()} ({_reason(error)})")
                return
            count += 1
            self.report.pickles += 1
            torch_legacy = torch_legacy or (count == 1 and result == _TORCH_MAGIC)

    def pickle(self, reader: io.BytesIO | Window, size: int, place: str, depth: int) -> Any:
        """Follow one pickle to STOP; returns the value on top of the stack where it is known."""
        if depth > self.limits.max_depth + 1:
            raise LimitReached(f"{place} is nested deeper than the limit of {self.limits.max_depth} levels")

        def nested(begin: int, count: int) -> None:
            # bytes may be a pickle or a torch archive again, which torch.storage._load_from_bytes would load
            head = reader.read(4)
            if head == b"PK\x03\x04" or (head[0] == 0x80 and head[1] <= 5):
                self.possible(Window(reader, begin, count, self.limits.max_item), f"{place} (bytes inside)", depth)

        def array(begin: int, count: int) -> None:
            end = reader.tell()
            head = reader.seek(begin) and reader.read(min(count, 2**20))
            inner = Window(io.BytesIO(head or b""), 0, len(head or b""), self.limits.max_item)
            for at in {0, 1} if count else ():  # with and without the byte that counts the padding
                self.possible_opcodes(inner, at, f"{place} (array)", depth)
            reader.seek(end)

        def imported(module: str, name: str) -> None:
            if self.torchscript and torchscript.own_class(f"{module}.{name}"):
                return
            if len(self.report.imports) >= self.limits.max_imports:
                raise LimitReached(f"{place} has more imports than the limit of {self.limits.max_imports}")
            self.report.add_import(module, name, place)

        machine = Machine(
            reader, size, self.bounds, place, imported, nested, self.report.add_problem,
            lambda inner: self.pickle(inner, size, place, depth + 1), array,
        )  # fmt: skip
        return machine.run()

    def possible_opcodes(self, window: Window, begin: int, place: str, depth: int) -> None:
        """The bytes of an array, as a reader would take them that does not know joblib's arrays."""
        trial = self._trial()
        window.seek(begin)
        trial.one(window, window.size, place, depth + 1)
        for module, name in trial.report.imports:
            named = f"{module}.{name}" in trial.report.dangerous and COMPUTED not in (module, name)
            if named or trial.report.pickles:
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
        names = [member.filename for member in members]
        torch = any(name.lower().split("/")[-1] == "data.pkl" for name in names)
        known = torch or all(name.lower().endswith(".npy") for name in names)
        kind, done = rules.archive_kind(names), set[str]()
        self.torchscript = self.torchscript or kind == "TorchScript"
        if kind is not None:
            last = {member.filename: member for member in members}
            done = rules.apply_archive(
                kind,
                names,
                lambda name: self.member(window, last[name], f"{place}/{printable(name)}", True),
                place,
                report,
            )
            known = True
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
            if member.filename in done or member.is_dir():
                continue
            if (foreign := foreign_member(name)) is not None:
                report.add_problem(f"{place} holds {foreign}, which is not examined: {name}")
                known = True
            elif kind is not None and not torch and not rules.expected(kind, member.filename):
                report.add_problem(f"{place} holds {name!r}, which does not belong into {kind}")
        if depth == 0 and not known:
            report.add_problem(f"{place} is an archive of no kind that is known here")

    def member(self, window: Window, member: zipfile.ZipInfo, place: str, always: bool = False) -> Window | None:
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
        if member.file_size > max(_ANY_RATIO, limits.max_ratio * member.compress_size):
            report.add_problem(f"{place} claims {member.file_size} bytes from {member.compress_size}, like a zip bomb")
            return None
        try:
            packed = window.part(start, member.compress_size)
            head = zlib.decompressobj(-15).decompress(packed.part(0, 4096).read(), 300)
            if not always and not _likely(member.filename, head):
                return None
            content = inflate(packed, "deflate", limits.max_inflated - self.inflated)
        except (zlib.error, ValueError):
            report.add_problem(f"{place} cannot be read: its compressed data is damaged")
            return None
        except LimitReached as reached:
            raise LimitReached(f"{place}: {reached}") from None
        self.inflated += content.size
        return content

    def tar(self, window: Window, place: str, depth: int) -> None:
        members: list[tarfile.TarInfo] = []
        try:
            headers = window.part(0, window.size)
            headers.max_item = _MAX_TAR_HEADER
            with tarfile.open(fileobj=cast(Any, headers), mode="r:") as archive:
                for info in archive:
                    members.append(info)
                    if len(members) > self.limits.max_members:
                        raise LimitReached(f"{place} has more members than the limit of {self.limits.max_members}")
        except LimitReached:
            raise
        except Exception as error:  # tarfile raises many types on damaged headers
            self.report.add_damage(f"{place} is a damaged tar archive ({str(error)[:100]})")
        known = False
        for info in members:
            name = printable(info.name[:200])
            if escapes(name) or info.issym() or info.islnk():
                self.report.add_problem(f"{place} has a member that leaves its folder or is a link: {name!r}")
            if info.isfile():
                known = known or _likely(name, b"?") or name.split("/")[-1] in ("pickle", "storages", "tensors")
                # the three members of torch's first format have no ending
                ending = ".pkl" if name.split("/")[-1] in ("pickle", "storages", "tensors") else ""
                self.if_pickle(window.part(info.offset_data, info.size), name + ending, f"{place}/{name}", depth)
        if not known:
            self.report.add_problem(f"{place} is an archive of no kind that is known here")

    def if_pickle(self, window: Window, name: str, place: str, depth: int) -> None:
        """Scan a member that starts like a pickle, or is named like one (the first protocols have no signature)."""
        head = window.read(300)
        window.seek(0)
        if not _likely(name, head):
            return
        certain = head[:6] == b"\x93NUMPY" or name.lower().endswith(_SUFFIXES)
        if certain:
            self.content(window, place, depth + 1)
        else:
            self.possible(window, place, depth)

    def npy(self, window: Window, place: str) -> None:
        """A numpy file: arrays of objects carry a pickle after the header."""
        head = window.read(12).ljust(12, b"\0")
        begin, form = (12, "<L") if head[6] >= 2 else (10, "<H")
        length = struct.unpack_from(form, head, 8)[0]
        try:
            text = window.part(begin, length).read().decode("latin-1").strip()
            if len(text) > _MAX_ARRAY_HEADER:
                raise ValueError("it is longer than 64 kB")
            objects = _holds_objects(ast.literal_eval(text)["descr"])
        except LimitReached:
            raise
        except Exception as error:  # the parser raises many types on what is no table
            self.report.add_damage(f"{place} has a header that cannot be read ({_reason(error)})")
            objects = True
        if objects:
            self.stream(window.part(begin + length, window.size), place, self.limits.max_depth)


def _holds_objects(descr: Any) -> bool:
    """Whether the ``descr`` of a numpy file names Python objects, in any field."""
    if isinstance(descr, str):
        return "O" in descr or "object" in descr.lower()
    if isinstance(descr, tuple):  # (dtype, shape)
        return _holds_objects(descr[0]) if descr else True
    if isinstance(descr, list):  # (name, dtype) or (name, dtype, shape)
        return any(len(field) < 2 or _holds_objects(field[1]) for field in descr)
    return True


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split())[:100]) or type(error).__name__


def _likely(name: str, head: bytes) -> bool:
    binary = len(head) > 1 and head[0] == 0x80 and head[1] <= 5
    return binary or head[:6] == b"\x93NUMPY" or (bool(head) and name.lower().endswith(_SUFFIXES))
