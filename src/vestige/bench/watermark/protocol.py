"""The watermark benchmark: methods × attacks × strengths, cached cell by cell.

For every picture a method hides a random payload under a random key. The marked picture and the unmarked one go
through the same attack; the reader's -log10 p is the score, and the threshold for a false-positive rate comes from
the attacked unmarked pictures (the null). Forging attacks start from the unmarked picture; their null is the same
attack with a service that marks nothing.

One cell is one method under one attack at one strength. Its record is a JSON file named by a hash of everything the
result depends on (pictures, options, seed, model files, the code of the method and of the attack), so a run that was
killed goes on where it stopped, and a cell is computed again only when something it depends on has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vestige.bench.methods import Method
from vestige.bench.watermark.cells import (
    Grid,
    Settings,
    cell_unit,
    described,
    mark_name,
    mark_unit,
    pixel_digest,
    promised,
)
from vestige.bench.workers import spread, stored
from vestige.core.errors import InputError, UsageError, VestigeError
from vestige.core.files import write_atomic
from vestige.core.image_io import decode, encode
from vestige.core.progress import track
from vestige.watermark.attacks import Trial

Source = tuple[str, Callable[[], bytes]]


def prepare(
    sources: Iterable[Source], settings: Settings, work: Path, records: Path, limit: int = 0
) -> tuple[Grid, list[str]]:
    """Decode the pictures into ``work`` and return the grid, with one sentence for each that was skipped.

    limit: take only so many readable pictures (0: all). Raises InputError when none can be read.
    """
    from vestige.bench.forensics.corpus import resized

    pictures: list[tuple[str, str]] = []
    skipped: list[str] = []
    for name, load in track(sources, "reading pictures"):
        if limit and len(pictures) >= limit:
            break
        try:
            pixels = decode(load(), name).pixels
        except InputError as error:
            skipped.append(f"{name} was skipped: {error}")
            continue
        if settings.side and max(pixels.shape[:2]) > settings.side:
            pixels = resized(pixels, settings.side / max(pixels.shape[:2]))
        seen = pixel_digest(pixels)
        path = work / f"{seen}.png"
        if not path.is_file():
            write_atomic(path, encode(pixels, "PNG"))
        pictures.append((name, seen))
    if not pictures:
        reason = f" ({skipped[0]})" if skipped else ""
        raise InputError(f"There is no readable picture to mark{reason}.")
    return Grid(tuple(pictures), settings, work, records), skipped


def run(
    grid: Grid, methods: Sequence[Method], trials: Sequence[Trial], *, jobs: int = 1, fresh: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compute the cells that have no record yet and return all records, in order, and a sentence for each problem.

    Attacks whose models are not there give a record with the reason and no figures, which is not stored. Methods that
    cannot be loaded are left out. fresh: compute everything again. jobs: worker processes.
    """
    problems: list[str] = []
    usable = []
    for method in methods:
        try:
            method.load()
        except VestigeError as error:
            problems.append(f"{method.label} was left out: {error}")
        else:
            usable.append(method)
    if not usable:
        raise UsageError(problems[0] if problems else "Give at least one method.")
    cells = grid.cells(usable, trials)
    lacking = {trial: trial.missing(promised(grid)) for trial in trials}
    runnable = [cell for cell in cells if cell.trial is None or not lacking[cell.trial]]
    pending = [cell for cell in runnable if fresh or stored(grid.records, cell.key) is None]
    owners = list(dict.fromkeys(cell.method for cell in pending))
    if fresh:
        for method in owners:
            for index in range(len(grid.pictures)):
                (grid.work / f"{mark_name(grid, method, index)}.json").unlink(missing_ok=True)
    marks = [(grid, method, index) for method in owners for index in range(len(grid.pictures))]
    for _ in track(spread(mark_unit, marks, jobs), "marking", len(marks)):
        pass
    for _ in track(spread(cell_unit, [(grid, cell) for cell in pending], jobs), "attacking", len(pending)):
        pass
    records = []
    for cell in cells:
        found = stored(grid.records, cell.key)
        if found is None:
            assert cell.trial is not None
            found = described(cell) | {"skipped": f"needs {lacking[cell.trial]}"}
        records.append(found)
    for method in usable:
        errors = next(r["errors"] for r in records if r["method"] == method.label and r["attack"] is None)
        if errors:
            problems.append(f"{method.label} could not mark {len(errors)} of {len(grid.pictures)}: {errors[0]}")
    return records, problems
