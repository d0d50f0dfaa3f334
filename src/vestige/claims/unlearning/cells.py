"""Rows of the unlearning benchmark for claims: the same cells, networks and parameters, computed where they lack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vestige.bench.store import results_root
from vestige.bench.unlearning.protocol import Grid, methods, run
from vestige.bench.unlearning.table import rows
from vestige.bench.unlearning.world import FOLDER, Settings, World, world
from vestige.claims import ClaimContext
from vestige.core.errors import InputError

SEEDS = 3
SHOWN = ("problem", "method", "seeds", "UA", "RA", "TA", "MIA", "gap", "mia_entropy", "s", "of retraining", "note")


def settings_of(context: ClaimContext) -> Settings:
    """The benchmark's settings; ``--limit`` means so many training pictures."""
    return Settings(images=context.limit) if context.limit else Settings()


def world_of(context: ClaimContext, kind: str, seed: int) -> World:
    """The benchmark's problem and reference of that seed (counted from the claim's own)."""
    return world(kind, context.seed + seed, settings_of(context), data=context.data, folder=FOLDER)


def cells(
    context: ClaimContext, kinds: Sequence[str], selection: str, seeds: int = SEEDS
) -> dict[tuple[str, str], dict[str, Any]]:
    """{(problem, method): row} with means over the seeds; "original" and "retrain" are among the methods.

    A seed on which an eraser failed (its weights diverged, say) is left out, and the column "seeds" tells. Raises
    InputError when one failed on all.
    """
    # Trial runs leave no records among the results.
    records_folder = FOLDER / "trials" if context.limit else results_root() / "bench" / "unlearning"
    grid = Grid(settings_of(context), str(context.data or ""), FOLDER, records_folder)
    numbers = range(context.seed, context.seed + seeds)
    records, failed = run(grid, methods(selection), kinds, numbers, jobs=context.jobs)
    found = {(row["problem"], row["method"]): row for row in rows(records)}
    if any(row["gap"] is None for row in found.values()):
        raise InputError(failed[0])
    return found


def shown(found: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the columns that claims print, rounded."""
    return [
        {name: round(row[name], 4) if isinstance(row[name], float) else row[name] for name in SHOWN}
        for row in found.values()
    ]
