"""Examine many files: in parallel, resumable, and never losing what is done.

Every finished file is stored on its own under ``items/`` and entered in ``manifest.jsonl``; the report is always built
from those, so a run that was killed and started again gives the same report as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vestige.app.report.html import ReportItem
from vestige.app.report.json_report import plain
from vestige.core import video
from vestige.core.calibration import PRIOR
from vestige.core.errors import InputError, UsageError, VestigeError
from vestige.core.files import read_json, write_atomic, write_json
from vestige.core.findings import Finding, Findings
from vestige.core.image_io import DEFAULT_LIMITS, SUFFIXES, Limits, decode, encode
from vestige.core.progress import track
from vestige.core.runtime import one_thread
from vestige.core.sniff import IMAGE_FORMATS, VIDEO_FORMATS, sniff
from vestige.core.video import VideoSubject, is_clip, shrink

#: Longest side of the maps and previews kept for the report.
_MAP_SIDE, _PREVIEW_SIDE = 512, 1024


@dataclass(frozen=True)
class FindOptions:
    """What one examination depends on, apart from the file."""

    keys: tuple[bytes, ...] = ()
    only: tuple[str, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    timeout: int = 120
    every: float | None = None
    model: str = ""
    prior: float = PRIOR
    fast: bool = False

    def digest(self) -> str:
        """Changes when the result could: options, vestige's version, its calibration."""
        from vestige import __version__
        from vestige.core.panel import calibration_file

        path = calibration_file()
        calibration = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        keys = [hashlib.sha256(b"resume" + bytes(k)).hexdigest() for k in self.keys]
        stated = [self.only, str(self.limits), self.every, _stamp(self.model), self.prior, self.fast]
        text = json.dumps([__version__, calibration, keys, *stated])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stamp(model: str) -> list[str | int]:
    """What changes when another model is named or the same one is trained again."""
    if not model:
        return []
    stat = Path(model).stat()
    return [model, stat.st_size, stat.st_mtime_ns]


def collect(paths: Sequence[str | Path]) -> list[Path]:
    """The picture and clip files behind files, folders and globs, sorted, each once.

    In folders, files are taken by content or by a picture's or clip's ending (so that damaged ones are reported).
    Raises InputError for a path that does not exist and for a search that finds nothing.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                if not any(part.startswith(".") for part in file.relative_to(path).parts) and _looks_readable(file):
                    found[file] = None
        elif path.exists():
            found[path] = None
        else:
            matches = sorted(path.parent.glob(path.name)) if any(c in path.name for c in "*?[") else []
            if not matches:
                raise InputError(f"{path} does not exist; check the path.")
            found.update(dict.fromkeys(p for p in matches if p.is_file()))
    if not found:
        raise InputError(f"No pictures in {', '.join(map(str, paths))}.")
    return list(found)


def _looks_readable(path: Path) -> bool:
    if path.suffix.lower() in (*SUFFIXES, *video.SUFFIXES):
        return True
    try:
        with path.open("rb") as file:
            return sniff(file.read(300)) in (*IMAGE_FORMATS, *VIDEO_FORMATS)
    except OSError:
        return False


@contextmanager
def _time_limit(seconds: int, source: str) -> Iterator[Callable[[], object]]:
    """Give the file up after so many seconds; calling what the block gets starts them anew."""

    def stop(signum: int, frame: Any) -> None:
        raise InputError(f"{source} took more than {seconds} s and was given up (--timeout raises the limit).")

    if not seconds or not hasattr(signal, "SIGALRM"):
        yield lambda: None
        return
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield lambda: signal.alarm(seconds)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def examine_file(path: Path, options: FindOptions) -> ReportItem:
    """Examine one file, within the time limit (of a clip: every frame within it)."""
    from vestige.core.clips import examine_clip
    from vestige.core.panel import shared_panel
    from vestige.core.subjects import ImageSubject

    with _time_limit(options.timeout, str(path)) as restart:
        panel = shared_panel(options.keys, options.only, options.model, options.prior, options.fast)
        if is_clip(path):
            clip = VideoSubject.open(path, options.limits)
            found, frames = examine_clip(clip, panel, options.every, restart)
            return ReportItem(found, frames[0], frames)
        subject = ImageSubject.open(path, options.limits)
        return ReportItem(panel.examine(subject), shrink(subject.pixels, _PREVIEW_SIDE))


def _item_id(path: Path) -> str:
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _parts(name: str, findings: Findings) -> list[tuple[str, tuple[Finding, ...]]]:
    """File name stems and findings of what has a preview and maps: the file itself and a clip's frames."""
    frames = findings.clip.frames if findings.clip else ()
    return [(name, findings.findings), *((f"{name}.f{n}", f.findings) for n, f in enumerate(frames))]


def _store(item: ReportItem, folder: Path, name: str) -> None:
    """Write previews and maps first and the JSON last, so that an item with JSON is complete."""
    for (stem, findings), preview in zip(_parts(name, item.findings), (item.preview, *item.frames)):
        write_atomic(folder / f"{stem}.preview.jpg", encode(preview, "JPEG", quality=88))
        for finding in findings:
            if finding.map is not None:
                small = shrink(finding.map, _MAP_SIDE)
                pixels = (small.clip(0, 1) * 255 + 0.5).astype(np.uint8)
                write_atomic(folder / f"{stem}.{finding.examiner}.png", encode(pixels, "PNG"))
    write_json(folder / f"{name}.json", plain(item.findings.to_dict()))


def load_item(folder: Path, name: str) -> ReportItem:
    """Read a stored item back; its maps are named as a report beside ``folder`` does."""
    value = read_json(folder / f"{name}.json")
    frames = value.get("clip", {}).get("frames", [])
    stems = [f"{name}.f{n}" for n in range(len(frames))]
    maps = [_load_maps(folder, stem, frame["findings"]) for stem, frame in zip(stems, frames)]
    found = Findings.from_dict(value, _load_maps(folder, name, value["findings"]), maps)
    previews = [decode((folder / f"{stem}.preview.jpg").read_bytes()).pixels for stem in (name, *stems)]
    drawn = {f.examiner: f"{folder.name}/{name}.{f.examiner}.png" for f in found.findings if f.map is not None}
    return ReportItem(found, previews[0], tuple(previews[1:]), drawn)


def _load_maps(folder: Path, stem: str, findings: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    maps = {}
    for finding in findings:
        if finding["map_caption"] is not None:
            picture = decode((folder / f"{stem}.{finding['examiner']}.png").read_bytes())
            maps[finding["examiner"]] = picture.pixels[..., 0].astype(np.float32) / np.float32(255)
    return maps


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    one_thread()


def _work(path: Path, folder: Path, options: FindOptions) -> str | None:
    """Examine and store one file; returns the error sentence of a file that could not be examined."""
    try:
        _store(examine_file(path, options), folder, _item_id(path))
    except VestigeError as error:
        return str(error)
    except MemoryError:
        return f"{path} needs more memory than there is; examine it alone or lower --max-megapixels."
    return None


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
        self.manifest = self.folder / "manifest.jsonl"

    def run(self, files: Sequence[Path], *, fresh: bool = False) -> tuple[list[ReportItem], list[dict[str, str]]]:
        """Examine what is not done yet and return all items and failures, in the order of ``files``."""
        self.items.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.manifest.unlink(missing_ok=True)
        done = self._done()
        states = {path: self._state(path) for path in files}
        pending = [path for path in files if done.get(str(path), {}).get("state") != states[path]]
        errors = {str(p): done[str(p)].get("error") for p in files if p not in set(pending)}
        with self.manifest.open("a", encoding="utf-8") as log:
            for path, error in track(self._results(pending), "examining", len(pending)):
                errors[str(path)] = error
                entry = {"source": str(path), "state": states[path], "error": error}
                log.write("\n" * self._torn + json.dumps(entry) + "\n")
                log.flush()
                self._torn = False
        results = [load_item(self.items, _item_id(p)) for p in files if not errors[str(p)]]
        failures = [{"source": str(p), "error": str(errors[str(p)])} for p in files if errors[str(p)]]
        return results, failures

    def _state(self, path: Path) -> str:
        try:
            stat = path.stat()
            described = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            described = "unreadable"
        return f"{described} {self.options.digest()}"

    def _done(self) -> dict[str, dict[str, Any]]:
        """Manifest entries by source; a line torn by a kill is ignored, and its file done again."""
        entries: dict[str, dict[str, Any]] = {}
        text = self.manifest.read_text(encoding="utf-8", errors="replace") if self.manifest.is_file() else ""
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                complete = entry["error"] or (self.items / f"{_item_id(Path(entry['source']))}.json").is_file()
            except (ValueError, KeyError, TypeError):
                continue
            if complete:
                entries[entry["source"]] = entry
        return entries

    def _results(self, pending: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
        work = partial(_work, folder=self.items, options=self.options)
        if min(self.jobs, len(pending)) <= 1:
            for path in pending:
                yield path, work(path)
        else:
            yield from parallel(work, pending, self.jobs)


def parallel(
    work: Callable[[Path], str | None], pending: Iterable[Path], jobs: int
) -> Iterator[tuple[Path, str | None]]:
    """Run ``work`` in worker processes; a file that kills its worker becomes a failure, the others go on."""
    left = list(pending)
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(jobs, len(left)), context, _start_worker) as pool:
            futures: dict[Future[str | None], Path] = {pool.submit(work, path): path for path in left}
            try:
                for future in as_completed(futures):
                    result = future.result()
                    left.remove(futures[future])
                    yield futures[future], result
            except (KeyboardInterrupt, GeneratorExit):
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        for path in left:  # one of these killed its worker: find out which, one at a time
            try:
                with ProcessPoolExecutor(1, context, _start_worker) as pool:
                    result = pool.submit(work, path).result()
            except BrokenProcessPool:
                result = f"{path} made its worker process stop (out of memory?); it was skipped."
            yield path, result


def default_jobs() -> int:
    """Workers used when ``--jobs`` is not given: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
