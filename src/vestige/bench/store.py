"""Recorded results: one JSON file per system under ``results/claims``, written only by commands."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vestige.core.catalogue import System
from vestige.core.errors import InputError
from vestige.core.files import read_json, write_json
from vestige.core.runtime import hardware, versions

SCHEMA_VERSION = 1


@dataclass
class ClaimResult:
    """The outcome of one claim: whether it holds, the table it rests on, and how long it took."""

    text: str
    holds: bool
    table: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0


def results_root(path: Path | None = None) -> Path:
    """The folder of recorded results: the given one, the checkout's, else ``./results``."""
    if path is not None:
        return path
    checkout = Path(__file__).resolve().parents[3] / "results"
    return checkout if (checkout.parent / "pyproject.toml").is_file() else Path("results")


def record(root: Path, slug: str, results: Sequence[ClaimResult], *, seed: int, data: str) -> Path:
    """Write a system's claim results with seed, versions, hardware and date."""
    target = root / "claims" / f"{slug}.json"
    write_json(
        target,
        {
            "schema": SCHEMA_VERSION,
            "system": slug,
            "date": datetime.date.today().isoformat(),
            "seed": seed,
            "data": data,
            "versions": versions(),
            "hardware": hardware(),
            "claims": [asdict(r) for r in results],
        },
    )
    return target


def recorded(root: Path, slug: str) -> list[ClaimResult] | None:
    """A system's recorded claim results, None when its claims were never run."""
    path = root / "claims" / f"{slug}.json"
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        return [ClaimResult(**claim) for claim in content["claims"]]
    except (KeyError, TypeError):
        raise InputError(f"{path} is not a results file of this version; run 'vestige claims {slug}'.") from None


def status(entry: System, root: Path) -> str:
    """Planned without code, working when every claim is recorded and holds, implemented otherwise."""
    if entry.target is None:
        return "planned"
    results = recorded(root, entry.slug)
    return "working" if results and all(r.holds for r in results) else "implemented"


def missing(entry: System, root: Path) -> str:
    """What keeps a system from being "working", in one line; empty when nothing does."""
    if entry.target is None:
        return "not built"
    results = recorded(root, entry.slug)
    if results is None:
        return "claims not run"
    failed = [r for r in results if not r.holds]
    return "; ".join(f"claim not shown: {r.text}" + (f" ({r.note})" if r.note else "") for r in failed)
