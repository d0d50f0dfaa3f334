"""Examine many files: in parallel, resumable, and never losing what is done.

Every finished file is stored on its own under ``items/`` and entered in ``manifest.jsonl``; the report is always built
from those, so a run that was killed and started again gives the same report as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from vestige.app.jobs.examine import FindOptions, LeftOut, examine
from vestige.app.jobs.store import item_id, load, store
from vestige.app.report.examined import Examined, Line
from vestige.app.report.items import ReportItem
from vestige.core.errors import UsageError, VestigeError, WriteError
from vestige.core.files import cannot_write
from vestige.core.findings import SCHEMA_VERSION, Findings
from vestige.core.intake import JOURNAL, JOURNAL_SIGNS, Entry, kind_of, take_in
from vestige.core.progress import track
from vestige.core.runtime import start_worker

__all__ = ["Batch", "FindOptions", "Outcome", "collect", "default_jobs", "digest", "parallel"]

T = TypeVar("T")


def digest(options: FindOptions) -> str:
    """Changes when the result could: options, vestige's version, its calibration."""
    from vestige import __version__

    keys = [hashlib.sha256(b"resume" + bytes(k)).hexdigest() for k in options.keys]
    stated = [options.only, str(options.limits), options.every, _stamp(options.model), options.prior, options.fast]
    text = json.dumps([__version__, SCHEMA_VERSION, calibration_id(), keys, *stated])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def calibration_id() -> str:
    """The SHA-256 of the calibration that thresholds and probabilities come from; "" where there is none."""
    from vestige.core.panel import calibration_file

    path = calibration_file()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _stamp(model: str) -> list[str | int]:
    """What changes when another model is named or the same one is trained again."""
    if not model:
        return []
    stat = Path(model).stat()
    return [model, stat.st_size, stat.st_mtime_ns]


def collect(paths: Sequence[str | Path]) -> list[Path]:
    """The picture and clip files behind files, folders and globs, sorted, each once, for verbs that change pictures.

    In folders, files are taken by content or by a picture's or clip's ending (so that damaged ones are reported);
    hidden ones are left alone. Raises InputError for a path that does not exist and for a search that finds nothing.
    """
    from vestige.core.errors import InputError

    found = [e.path for e in take_in(paths) if e.named or (e.kind in ("picture", "clip") and not _hidden(e, paths))]
    if not found:
        raise InputError(f"No pictures in {', '.join(map(str, paths))}.")
    return found


def _hidden(entry: Entry, paths: Sequence[str | Path]) -> bool:
    for root in map(Path, paths):
        if root in entry.path.parents:
            return any(part.startswith(".") for part in entry.path.relative_to(root).parts)
    return False


@dataclass(frozen=True)
class Record:
    """What the journal says about an entry: its error, the reason it was skipped, or neither."""

    error: str | None = None
    skipped: str | None = None


@dataclass
class Outcome:
    """What became of every entry, in their order; what was examined is read from disk when it is asked for."""

    entries: Sequence[Entry]
    records: Sequence[Record]
    folder: Path

    @property
    def done(self) -> list[Entry]:
        """The entries that were examined."""
        return [e for e, r in zip(self.entries, self.records) if not (r.error or r.skipped or e.state)]

    @cached_property
    def briefs(self) -> list[Examined]:
        """Every examined file without pictures and, but for models, without the single findings: small enough to keep
        of thousands of files."""
        return [_brief(item) for item in self.examined()]

    @cached_property
    def lines(self) -> list[Line]:
        """The manifest: a line for every entry."""
        briefs = iter(self.briefs)
        return [self._line(entry, record, briefs) for entry, record in zip(self.entries, self.records)]

    def _line(self, entry: Entry, record: Record, briefs: Iterator[Examined]) -> Line:
        if not (entry.state or record.error or record.skipped):
            return Line.of(next(briefs), entry.files)
        why = entry.why or record.error or record.skipped or ""
        state = entry.state or ("failed" if record.error else "skipped")
        return Line(entry.source, state, entry.kind, why, entry.files)

    @property
    def failures(self) -> list[dict[str, str]]:
        """Files, and parts of files, that could not be examined."""
        found, briefs = [], iter(self.briefs)
        for line in self.lines:
            if line.state == "failed":
                found.append({"source": line.source, "error": line.why})
            elif line.state == "examined":
                failed = next(briefs).failed
                found += [{"source": f"{line.source}, {name}", "error": why} for name, why in failed]
        return found

    def examined(self) -> Iterator[Examined]:
        """Every examined file with all findings and without pictures, read from disk one at a time."""
        for entry in self.done:
            yield load(self.folder, item_id(entry.path), pictures=False)

    def findings(self) -> list[Findings]:
        """What was said about every examined part as a whole."""
        return [item.findings for file in self.briefs for item in file.parts]


def _brief(item: Examined) -> Examined:
    if item.kind == "model":
        return item
    parts = []
    for part in item.parts:
        clip = part.findings.clip
        clip = clip and replace(clip, frames=(), tracks=())
        parts.append(replace(part, findings=replace(part.findings, findings=(), clip=clip), frames=(), files={}))
    return replace(item, parts=tuple(parts))


class Shown(Sequence[ReportItem]):
    """Every examined part with previews and maps, read from disk when it is asked for: a folder need not fit in
    memory. linked: the page lies beside the folder of items, so that it can name their maps."""

    def __init__(self, outcome: Outcome, linked: bool = True) -> None:
        self.folder, self.linked = outcome.folder, linked
        sizes = [(e, line.parts[1] or 1) for e, line in zip(outcome.entries, outcome.lines) if line.state == "examined"]
        self.places = [(entry, n) for entry, size in sizes for n in range(size)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        entry, n = self.places[index]
        item = load(self.folder, item_id(entry.path), only=n).parts[0]
        return item if self.linked else replace(item, files={})


def _work(entry: Entry, folder: Path, options: FindOptions) -> Record:
    """Examine and store one file; the record of one that could not be examined has the reason.

    Raises WriteError where nothing can be stored: the others would meet the same disk.
    """
    try:
        store(examine(entry, options), folder, item_id(entry.path))
    except LeftOut as reason:
        return Record(skipped=str(reason))
    except WriteError:
        raise
    except VestigeError as error:
        return Record(error=str(error))
    except MemoryError:
        return Record(error=f"{entry.path} needs more memory than there is; lower --max-megapixels.")
    return Record()


@dataclass
class Batch:
    """A resumable run over files, stored in ``folder``."""

    folder: Path
    options: FindOptions
    jobs: int = 1

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"--jobs must be at least 1, got {self.jobs}.")
        self._torn = False
        self.items = self.folder / "items"
        self.manifest = self.folder / JOURNAL
        self._digest = digest(self.options)

    def check(self) -> None:
        """Raises UsageError where the folder holds somebody else's files of the names that are written."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"--out {self.folder} is a file; find writes a folder (use --html for a single file).")
        try:
            with self.manifest.open("rb") as file:
                own = not (head := file.read(64)) or head.startswith(JOURNAL_SIGNS)
        except FileNotFoundError:
            own = not self.items.exists()
        except OSError as error:
            raise UsageError(f"{self.manifest} cannot be read ({error.strerror or error}).") from None
        if not own:
            raise UsageError(f"{self.folder} holds files that vestige did not write; choose another --out.")

    def run(self, entries: Sequence[Entry | Path], *, fresh: bool = False) -> Outcome:
        """Examine what is not done yet.

        Raises WriteError when results cannot be stored; what was finished before is kept.
        """
        wanted = [e if isinstance(e, Entry) else _entry(e) for e in entries]
        self.check()
        try:
            self.items.mkdir(parents=True, exist_ok=True)
            if fresh:
                self.manifest.unlink(missing_ok=True)
            done = self._done()
            states = {e.source: self._state(e) for e in wanted if not e.state}
            pending = [e for e in wanted if not e.state and done.get(e.source, {}).get("state") != states[e.source]]
            open_ = {e.source for e in pending}
            records = {s: Record(done[s].get("error"), done[s].get("skipped")) for s in states if s not in open_}
            with self.manifest.open("a", encoding="utf-8") as log:
                if not log.tell():
                    from vestige import __version__

                    log.write(json.dumps({"vestige": __version__}) + "\n")
                for entry, record in track(self._results(pending), "examining", len(pending)):
                    records[entry.source] = record
                    line = {"source": entry.source, "state": states[entry.source], "error": record.error}
                    line |= {"skipped": record.skipped} if record.skipped else {}
                    log.write("\n" * self._torn + json.dumps(line) + "\n")
                    log.flush()
                    self._torn = False
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        return Outcome(wanted, [records.get(e.source, Record()) for e in wanted], self.items)

    def _state(self, entry: Entry) -> str:
        try:
            files = sorted(p for p in entry.path.rglob("*") if p.is_file()) if entry.path.is_dir() else [entry.path]
            stats = [(str(p), s.st_size, s.st_mtime_ns) for p in files for s in [p.stat()]]
        except OSError:
            stats = []
        if len(stats) == 1:
            described = f"{stats[0][1]} {stats[0][2]}"
        else:
            described = hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:16] if stats else "unreadable"
        return f"{described} {entry.kind} {self._digest}"

    def _done(self) -> dict[str, dict[str, Any]]:
        """Manifest entries by source; a line torn by a kill is ignored, and its file done again."""
        entries: dict[str, dict[str, Any]] = {}
        text = self.manifest.read_text(encoding="utf-8", errors="replace") if self.manifest.is_file() else ""
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                reason = entry["error"] or entry.get("skipped")
                complete = reason or (self.items / f"{item_id(entry['source'])}.json").is_file()
            except (ValueError, KeyError, TypeError):
                continue
            if complete:
                entries[entry["source"]] = entry
        return entries

    def _results(self, pending: Sequence[Entry]) -> Iterator[tuple[Entry, Record]]:
        work = partial(_work, folder=self.items, options=self.options)
        if min(self.jobs, len(pending)) <= 1:
            for entry in pending:
                yield entry, work(entry)
        else:
            for entry, result in parallel(work, pending, self.jobs):
                yield entry, result if isinstance(result, Record) else Record(error=result)


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        return Entry(path, kind_of(path, file.read(4096), named=True) or "picture", named=True)


def parallel(work: Callable[[T], Any], pending: Iterable[T], jobs: int) -> Iterator[tuple[T, Any]]:
    """Run ``work`` in worker processes; a file that kills its worker becomes a failure, the others go on."""
    left = list(pending)
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(jobs, len(left)), context, start_worker) as pool:
            futures: dict[Future[Any], T] = {pool.submit(work, item): item for item in left}
            try:
                for future in as_completed(futures):
                    result = future.result()
                    left.remove(futures[future])
                    yield futures[future], result
            except BaseException as error:
                if not isinstance(error, BrokenProcessPool):
                    pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        for item in left:  # one of these killed its worker: find out which, one at a time
            try:
                with ProcessPoolExecutor(1, context, start_worker) as pool:
                    result = pool.submit(work, item).result()
            except BrokenProcessPool:
                result = f"{getattr(item, 'path', item)} made its worker process stop (out of memory?); it was skipped."
            yield item, result


def default_jobs() -> int:
    """Workers used when ``--jobs`` is not given: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
