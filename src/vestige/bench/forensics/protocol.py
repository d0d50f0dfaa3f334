"""The forensics benchmark: examiners × a ladder of post-processing on one set, cached cell by cell.

Every picture goes through a step of the ladder and to an examiner; its map is compared with the mask, its score and its
flag with the label. Where there are masks two floors run along: every pixel marked, and a prior for the centre.

One cell is one examiner after one step. Its record is a JSON file named by a hash of everything the result depends on
(pictures and masks, seed, code, weights and calibration of the examiner, the step), and is made of parts of a few
pictures each, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vestige.bench.forensics.cells import Cell, Grid, Step, part_unit, record_of
from vestige.bench.forensics.methods import FLOORS, load
from vestige.bench.methods import Method
from vestige.bench.workers import spread, stored
from vestige.core.errors import UsageError, VestigeError
from vestige.core.files import read_json, write_json
from vestige.core.progress import track
from vestige.core.subjects import ImageSubject


def run(
    grid: Grid, methods: Sequence[Method], steps: Sequence[Step], *, jobs: int = 1, fresh: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compute the cells that have no record yet and return all records, in order, and a sentence for each problem.

    Examiners that cannot be loaded or fail on the first picture are left out. fresh: compute everything again. jobs:
    worker processes. Raises UsageError when no examiner is left.
    """
    problems: list[str] = []
    floors = [Method(slug) for slug in FLOORS] if any(picture.mask for picture in grid.pictures) else []
    every = grid.cells([*methods, *floors], list(steps))
    lacking = {cell.method for cell in every if fresh or stored(grid.records, cell.key) is None}
    unusable = {}
    for method in methods:
        why = _trouble(grid, method) if method in lacking else ""
        if why:
            unusable[method] = f"{method.label} was left out: {why}"
    problems += unusable.values()
    if len(unusable) == len(methods):
        raise UsageError(problems[0] if problems else "Give at least one examiner.")
    cells = [cell for cell in every if cell.method not in unusable]
    pending = {cell.key: cell for cell in cells if fresh or stored(grid.records, cell.key) is None}
    if fresh:
        for cell in pending.values():
            for start in grid.starts():
                grid.part_path(cell, start).unlink(missing_ok=True)
    # Step by step, some pictures at a time, so that every examiner finds them processed already.
    units = [
        (grid, cell, start)
        for step in steps
        for start in grid.starts()
        for cell in pending.values()
        if cell.step == step
    ]
    left = dict.fromkeys(pending, len(grid.starts()))
    for key in track(spread(part_unit, units, jobs), "examining", len(units)):
        left[key] -= 1
        if not left[key]:
            _join(grid, pending[key])
    records = [found for cell in cells if (found := stored(grid.records, cell.key)) is not None]
    for record in records:
        errors = [row["error"] for row in record["pictures"] if "error" in row]
        if errors:
            problems.append(f"{record['method']} failed on {len(errors)} pictures after {record['step']}: {errors[0]}")
    return records, problems


def _join(grid: Grid, cell: Cell) -> None:
    """The record of a cell from its parts, which are deleted."""
    paths = [grid.part_path(cell, start) for start in grid.starts()]
    rows = [row for path in paths for row in read_json(path)["pictures"]]
    write_json(grid.records / f"{cell.key}.json", record_of(grid, cell, rows))
    for path in paths:
        path.unlink()


def _trouble(grid: Grid, method: Method) -> str:
    """Why an examiner cannot be used, as the first picture shows it; empty where it can."""
    first = grid.pictures[0]
    try:
        load(method).find(ImageSubject(first.read()[0], first.name))
    except VestigeError as error:
        return str(error)
    except Exception as error:  # a defect of one examiner must not keep the others from being measured
        return f"it fails ({type(error).__name__}: {error})"[:300]
    return ""
