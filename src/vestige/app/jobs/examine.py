"""One file, whatever it is: opened, examined within its time, and everything said about it gathered."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from vestige.app.report.examined import Examined
from vestige.app.report.items import ReportItem
from vestige.core.calibration import PRIOR
from vestige.core.errors import InputError, NothingInsideError, VestigeError
from vestige.core.findings import Finding, Findings, Verdict
from vestige.core.image_io import EXAMINE_LIMITS, Limits
from vestige.core.intake import Entry
from vestige.core.panel import Panel, shared_panel
from vestige.core.parts import MadeSubject, Parts, items_of, pages_of
from vestige.core.picture import ImageSubject
from vestige.core.video import VideoSubject, is_clip, shrink

#: Longest side of the previews kept for the report.
PREVIEW_SIDE = 1024
_HASHED = 16 * 2**30
_MADE = "it reads a file, and this picture's samples were taken out of a larger one."
#: Examiners that read a picture's file instead of its pixels.
_FILE_READERS = ("metadata", "generator_tags", "c2pa", "container", "thumbnail")
_LEVELS = {"dangerous": "found", "harmless": "nothing found"}


class LeftOut(VestigeError):  # noqa: N818 - a reason, not a fault
    """The file is skipped; the message says why."""


@dataclass(frozen=True)
class FindOptions:
    """What one examination depends on, apart from the file."""

    keys: tuple[bytes, ...] = ()
    only: tuple[str, ...] = ()
    limits: Limits = EXAMINE_LIMITS
    timeout: int = 120
    every: float | None = None
    model: str = ""
    prior: float = PRIOR
    fast: bool = False


@contextmanager
def time_limit(seconds: int, source: str) -> Iterator[Callable[[], object]]:
    """Give the file up after so many seconds; calling what the block gets starts them anew.

    Past them the alarm comes every second: a reader that takes any error for damage of the file may swallow the first.
    """

    def stop(signum: int, frame: Any) -> None:
        raise InputError(f"{source} took more than {seconds} s and was given up (--timeout raises the limit).")

    if not seconds or not hasattr(signal, "SIGALRM"):
        yield lambda: None
        return
    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # where one more alarm came just before
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def examine(entry: Entry, options: FindOptions) -> Examined:
    """Examine one file within the time limit, of which every frame, page and picture in it has as much.

    Raises LeftOut for a file that is skipped, InputError for one that cannot be examined.
    """
    with time_limit(options.timeout, entry.source) as restart:
        return examine_here(entry, options, restart)


def examine_here(entry: Entry, options: FindOptions, restart: Callable[[], object] = lambda: None) -> Examined:
    """`examine` without a time limit of its own."""
    if entry.kind == "model":
        return _model(entry)
    panel = shared_panel(options.keys, options.only, options.model, options.prior, options.fast)
    if entry.kind == "document":
        return _parts(entry, _document(entry, options), panel, "PDF", _sha256(entry), restart)
    if entry.kind == "data set":
        parts, format = _dataset(entry, options)
        return _parts(entry, parts, panel, format, _sha256(entry), restart)
    if entry.kind == "clip" or is_clip(entry.path):
        return _clip(entry, panel, options, restart)
    subject = ImageSubject.open(entry.path, options.limits)
    pages = pages_of(subject)
    if pages is None:
        item = ReportItem(panel.examine(subject), shrink(subject.pixels, PREVIEW_SIDE))
        return Examined(entry.source, "picture", subject.format, subject.sha256, (item,))
    return _parts(entry, pages, panel, subject.format, subject.sha256, restart)


def _clip(entry: Entry, panel: Panel, options: FindOptions, restart: Callable[[], object]) -> Examined:
    from vestige.core.clips import examine_clip

    clip = VideoSubject.open(entry.path, options.limits)
    found, frames = examine_clip(clip, panel, options.every, restart)
    return Examined(entry.source, "clip", found.format, found.sha256, (ReportItem(found, frames[0], frames),))


def _document(entry: Entry, options: FindOptions) -> Parts:
    from vestige.core import pdf

    if not pdf.can_read():
        raise LeftOut(pdf.EXTRA)
    parts = pdf.pictures_of(entry.path, options.limits)
    if not parts.met:
        raise LeftOut("a PDF document without pictures in it; the text is not examined")
    return parts


def _dataset(entry: Entry, options: FindOptions) -> tuple[Parts, str]:
    from vestige.core.dataset import DatasetSubject

    try:
        found = DatasetSubject.open(entry.path, options.limits)
    except NothingInsideError as error:
        raise LeftOut(str(error)) from None
    return items_of(found), found.kind


def _sha256(entry: Entry) -> str:
    from vestige.core.models.checkpoint import _file_sha256

    return "" if entry.path.stat().st_size > _HASHED else _file_sha256(entry.path)


def _parts(
    entry: Entry, parts: Parts, panel: Panel, format: str, sha256: str, restart: Callable[[], object]
) -> Examined:
    """Every part by itself; one that fails is told among the others."""
    items, failed = [], []
    for part in parts:
        restart()
        try:
            items.append(_part(panel, part.open(), f"{entry.source}, {part.name}", parts.unit, format, sha256))
        except MemoryError:
            failed.append((part.name, "it needs more memory than there is."))
        except VestigeError as error:
            failed.append((part.name, str(error)))
    if not items:
        name, why = failed[0] if failed else ("", "nothing in it can be examined.")
        raise InputError(f"{entry.source}{f', {name}' if name else ''}: {why}")
    done = Examined(
        entry.source, entry.kind, format, sha256, tuple(items), parts.unit, parts.met, tuple(parts.left_out),
        tuple(failed), tuple(parts.notes),
    )  # fmt: skip
    if done.between:
        said = f"{len(items) + len(failed)} of {done.met:,} {parts.unit}s were examined, spread evenly over them."
        done = dataclasses.replace(done, notes=(*done.notes, said))
    return done


def _part(panel: Panel, subject: ImageSubject, source: str, unit: str, format: str, sha256: str) -> ReportItem:
    away: list[Finding] = []
    if isinstance(subject, MadeSubject):
        readers = [f for f in panel.finders if f.slug in _FILE_READERS]
        away = [Finding.not_applicable(f.slug, getattr(f, "kind", "container"), _MADE) for f in readers]
        panel = dataclasses.replace(panel, finders=[f for f in panel.finders if f not in readers])
    found = panel.examine(subject)
    found = dataclasses.replace(found, source=source, findings=(*found.findings, *away))
    if unit == "page":  # of a document or a data set the picture's own bytes are named
        found = dataclasses.replace(found, sha256=sha256)
    if isinstance(subject, MadeSubject):
        found = dataclasses.replace(found, format=format)
    return ReportItem(found, shrink(subject.pixels, PREVIEW_SIDE))


def _model(entry: Entry) -> Examined:
    from vestige.core.catalogue import system
    from vestige.core.models.checkpoint import ModelSubject

    subject = ModelSubject.open(entry.path)
    finding: Finding = system("pickle_scan").load()().find(subject)
    size = sum(file.stat().st_size for file in subject.files)
    sha256 = subject.sha256 if size <= _HASHED else ""
    level = _LEVELS.get(finding.details.get("answer", ""), "a place to look at")
    kinds, facts = (("code",), (finding.summary,)) if level != "nothing found" else ((), ())
    verdict = Verdict(level, None, (finding.summary,), kinds, facts)
    found = Findings(entry.source, sha256, subject.format, 0, 0, (finding,), verdict)
    notes = () if sha256 else ("It is too large to be hashed here.",)
    return Examined(entry.source, "model", subject.format, sha256, (ReportItem(found, _tile()),), notes=notes)


@cache
def _tile() -> np.ndarray:
    """What stands for the preview of a model, which has no picture."""
    from PIL import Image, ImageDraw

    tile = Image.new("RGB", (96, 96), (226, 229, 233))
    draw = ImageDraw.Draw(tile)
    for row, width in enumerate((52, 60, 40, 56, 34)):
        draw.rectangle((18, 22 + 11 * row, 18 + width, 26 + 11 * row), fill=(120, 130, 142))
    return np.asarray(tile)
