"""``vestige index`` and ``vestige find --in``: build an index of pictures, and look for copies in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestige.app.jobs.batch import default_jobs
from vestige.core.calibration import PRIOR
from vestige.core.errors import (
    BAD_INPUT,
    OK,
    PARTIAL,
    TRACE_FOUND,
    InputError,
    Interrupted,
    UsageError,
    VestigeError,
)
from vestige.core.files import folder_atomic, write_atomic, write_json
from vestige.core.guard import protect
from vestige.core.intake import take_in
from vestige.core.printing import complain, say
from vestige.core.progress import track

#: Pictures of pairs that are written at most.
_DRAWN = 100


def build(
    paths: Sequence[Path], out: Path | None, remove: Sequence[Path], prune: bool, descriptor: str, exact: int,
    jobs: int, *, as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Make or change an index; returns the exit code, PARTIAL where some pictures could not be read."""
    from vestige.copies.index import CopyIndex, is_index
    from vestige.core.dataset import DatasetSubject
    from vestige.core.runtime import one_thread

    if out is None:
        raise UsageError("Say where the index is with -o FOLDER, such as my.index.")
    if not (paths or remove or prune):
        raise UsageError("Give a folder of pictures to index, --remove or --prune.")
    there = is_index(out)
    if there and descriptor:
        raise UsageError(f"{out} exists and keeps its descriptor; leave out --descriptor, or name a new index.")
    if not there and (remove or prune):
        raise InputError(f"{out} is no index; there is nothing to remove from.")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path.")
        if path.resolve() == out.resolve():
            raise UsageError(f"{path} is the index; give the folder of pictures.")
        if path.is_dir():
            DatasetSubject.open(path)  # refused before a new index appears
        elif not there:
            _readable(path)
    one_thread()
    index = CopyIndex.open(out, write=True) if there else CopyIndex.create(out, descriptor, exact_up_to=exact)
    with index:
        total: dict[str, Any] = {"new": 0, "changed": 0, "unchanged": 0, "plain": 0, "removed": 0}
        failed: list[tuple[str, str]] = []
        try:
            for path in paths:
                done = index.add(path, jobs or default_jobs(), lambda items: track(items, "describing"))
                for name in ("new", "changed", "unchanged", "plain"):
                    total[name] += getattr(done, name)
                failed += done.failed
            for path in remove:
                ids = index.find_source(path)
                if not ids:
                    raise InputError(f"{path} is not in {out}.")
                total["removed"] += index.remove(ids)
            if prune:
                total["removed"] += index.remove(index.gone())
        except KeyboardInterrupt:
            raise Interrupted("Interrupted; the same command goes on where this one stopped.") from None
        count = len(index)
        per = index.vectors.bytes / max(1, len(index.vectors))
        total |= {
            "pictures": count, "descriptor": index.descriptor.name, "bytes per vector": round(per, 1),
            "search": "exact" if index.vectors.exact else "inverted lists of product codes",
        }  # fmt: skip
    for name, why in failed:
        complain(why if name in why else f"{name}: {why}")
    if not there and not count and failed:
        shutil.rmtree(out)
        raise InputError(f"None of the pictures could be read; {out} was not made.")
    if as_json:
        print(json.dumps({**total, "failed": [{"source": n, "why": w} for n, w in failed]}, indent=2))
    elif not quiet:
        words = [f"{total[n]:,} {n}" for n in ("new", "changed", "unchanged", "removed") if total[n]]
        say(f"{out}: {count:,} pictures ({', '.join(words) or 'nothing changed'}).")
        if total["plain"]:
            say(f"  {total['plain']:,} are too plain for anything but exact copies.")
        say(f"  descriptor {total['descriptor']}, {total['search']}, {per:.0f} bytes a vector.")
    if not count and failed:
        return BAD_INPUT
    return PARTIAL if failed else OK


def _readable(path: Path) -> None:
    """Raises InputError for a file that is neither a picture nor a data set."""
    from vestige.copies.index import _is_picture
    from vestige.core.dataset import DatasetSubject

    if not _is_picture(path):
        DatasetSubject.open(path)


@dataclass(frozen=True)
class Wanted:
    """What ``find --in`` is asked. top: candidates compared for each picture. everything: also show what is not
    claimed."""

    index: Path
    out: Path | None = None
    as_json: bool = False
    top: int = 10
    threshold: float | None = None
    prior: float | None = None
    everything: bool = False
    exit_code: bool = False
    quiet: bool = False


def look(paths: Sequence[Path], wanted: Wanted) -> int:
    """Look for copies of pictures in an index, print and write them; returns the exit code.

    Raises UsageError for a folder of results that is not empty, InputError where nothing can be read.
    """
    from vestige.copies.index import CopyIndex
    from vestige.copies.search import calibration_of, find_copies
    from vestige.core.subjects import ImageSubject

    if wanted.out is not None and wanted.out.exists() and (not wanted.out.is_dir() or any(wanted.out.iterdir())):
        raise UsageError(f"{wanted.out} exists already; choose another name for the results.")
    with CopyIndex.open(wanted.index) as index:
        if not len(index):
            raise InputError(
                f"{wanted.index} holds no pictures yet; 'vestige index FOLDER -o {wanted.index}' adds them."
            )
        entries = [e for e in take_in(paths) if e.kind == "picture" or e.named]
        protect([e.path for e in entries])
        results: list[tuple[str, list[Any]]] = []
        failures: list[tuple[str, str]] = []
        for entry in track(entries, "searching"):
            if entry.kind != "picture":
                failures.append((entry.source, f"{entry.source} is no picture{f' ({entry.why})' * bool(entry.why)}."))
                continue
            try:
                subject = ImageSubject.open(entry.path)
                prior = PRIOR if wanted.prior is None else wanted.prior
                copies = find_copies(index, subject, shortlist=wanted.top, prior=prior, threshold=wanted.threshold)
                results.append((entry.source, copies))
            except InputError as error:
                failures.append((entry.source, str(error)))
            except KeyboardInterrupt:
                raise Interrupted("Interrupted; nothing was written.") from None
        if not results:
            for _, why in failures or [("", f"There is no picture in {', '.join(map(str, paths))}.")]:
                complain(why)
            return BAD_INPUT
        calibration = calibration_of(index.descriptor.name)
        report = _report(index, results, failures, calibration)
        if wanted.out is not None:
            _write(wanted.out, report, results)
        for _, why in failures:
            complain(why)
        if wanted.as_json:
            print(json.dumps(report, indent=2))
        elif not wanted.quiet:
            _show(results, report, wanted)
    if failures:
        return PARTIAL
    return TRACE_FOUND if wanted.exit_code and any(c.claimed for _, found in results for c in found) else OK


def _report(
    index: Any, results: Sequence[Any], failures: Iterable[tuple[str, str]], calibration: Any
) -> dict[str, Any]:
    rate = (
        "not counted for this descriptor; a copy is claimed from 20 agreeing points on"
        if calibration is None
        else calibration.per_million
    )
    return {
        "index": str(index.path), "pictures": len(index), "descriptor": index.descriptor.name, "false_claims": rate,
        "queries": [{"source": s, "copies": [c.to_dict() for c in found]} for s, found in results],
        "failed": [{"source": s, "why": w} for s, w in failures],
    }  # fmt: skip


def _write(out: Path, report: dict[str, Any], results: Sequence[Any]) -> None:
    """report.json, and a picture of every pair that is claimed with its matched region."""
    import numpy as np

    from vestige.copies.local import drawn
    from vestige.core.image_io import encode
    from vestige.core.subjects import ImageSubject

    with folder_atomic(out) as folder:
        number = 0
        for (source, found), row in zip(results, report["queries"], strict=True):
            for copy, line in zip(found, row["copies"], strict=True):
                if not copy.claimed or copy.match is None or number >= _DRAWN:
                    continue
                try:
                    page = drawn(ImageSubject.open(source).pixels, copy.entry.subject().pixels, copy.match)
                except VestigeError:  # gone since it was compared
                    continue
                number += 1
                line["drawn"] = f"match-{number:03d}.png"
                write_atomic(folder / line["drawn"], encode(np.ascontiguousarray(page), "PNG"))
        write_json(folder / "report.json", report)


def _show(results: Sequence[Any], report: dict[str, Any], wanted: Wanted) -> None:
    for source, found in results:
        shown = [c for c in found if c.claimed or wanted.everything]
        if not any(c.claimed for c in found):
            say(f"{source}: no copy found among {report['pictures']:,} pictures.")
        for copy in shown:
            sure = "" if copy.probability is None else f"probability {_percent(copy.probability)}, "
            verb = "is a copy of" if copy.claimed else "looks like, but is not claimed to be a copy of,"
            say(f"{source} {verb} {copy.entry.source}")
            say(f"  {sure}score {copy.score:.3f}; {copy.words}")
    say(f"False claims: {report['false_claims']}.")
    if wanted.out is not None:
        say(f"Written: {wanted.out / 'report.json'}")


def _percent(value: float) -> str:
    return ">99.9%" if value > 0.999 else "<0.1%" if value < 0.001 else f"{value:.1%}"
