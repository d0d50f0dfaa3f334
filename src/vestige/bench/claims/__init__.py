"""Claims: a sentence and a check for each, in one module per system, found by the system's slug.

A claim function takes a `ClaimContext` and returns `Evidence`; `vestige claims SLUG` runs it and records the outcome.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vestige.bench.store import ClaimResult
from vestige.core.catalogue import System
from vestige.core.errors import InputError


@dataclass(frozen=True)
class ClaimContext:
    """What a claim may use: data packs, seed, workers, and a limit on pictures for trial runs (0: none)."""

    data: Path | None
    seed: int = 0
    jobs: int = 1
    limit: int = 0

    def pack(self, name: str) -> Path:
        """The folder of a data pack; raises InputError when it is not there."""
        if self.data is None:
            raise InputError(f"This claim needs the data pack {name!r}; give --data FOLDER or set VESTIGE_DATA.")
        folder = self.data / name
        if not folder.is_dir():
            raise InputError(f"{self.data} has no folder {name!r}, which this claim needs.")
        return folder


@dataclass(frozen=True)
class Evidence:
    """What a claim's check saw: whether it holds, the rows it rests on (baselines included) and a note."""

    holds: bool
    table: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Claim:
    text: str
    check: Callable[[ClaimContext], Evidence]

    def run(self, context: ClaimContext) -> ClaimResult:
        """Run the check; errors of the data or code propagate, a claim that does not hold is a result."""
        start = time.perf_counter()
        evidence = self.check(context)
        return ClaimResult(
            self.text, bool(evidence.holds), evidence.table, evidence.note, round(time.perf_counter() - start, 1)
        )


def claim(text: str) -> Callable[[Callable[[ClaimContext], Evidence]], Claim]:
    """Decorator that turns a check into a `Claim`."""
    return lambda check: Claim(text, check)


def claims_of(entry: System) -> list[Claim]:
    """The claims of a system, in the order they are written; empty when it has none yet."""
    name = f"vestige.bench.claims.{entry.wing}.{entry.slug}"
    try:
        if importlib.util.find_spec(name) is None:
            return []
    except ModuleNotFoundError:
        return []
    return [value for value in vars(importlib.import_module(name)).values() if isinstance(value, Claim)]
