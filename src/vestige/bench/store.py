"""Recorded results: one JSON file per system under ``results/claims``, written only by commands.

A record names the runs it rests on; their logs lie under ``results/runs/RECIPE/VARIANT-SEED.jsonl``. Status says
whether a system can be used, evidence whether its claims stood up: two things.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vestige.core.catalogue import System
from vestige.core.errors import InputError
from vestige.core.files import read_json, write_atomic, write_json
from vestige.core.runtime import hardware, versions

if TYPE_CHECKING:
    from vestige.engines.runs import Run

SCHEMA_VERSION = 2
STATUSES = ("works", "built", "planned")
OUTCOMES = ("shown", "not shown", "test bed too weak", "cannot be shown at this size", "trained too briefly")


@dataclass
class ClaimResult:
    """The outcome of one claim: whether it holds, the table it rests on, and how long it took."""

    text: str
    holds: bool
    table: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0
    headline: bool = False
    outcome: str = ""

    def __post_init__(self) -> None:
        self.outcome = self.outcome or ("shown" if self.holds else "not shown")


def results_root(path: Path | None = None) -> Path:
    """The folder that results are recorded in: the given one, the checkout's, else ``./results``."""
    if path is not None:
        return path
    checkout = Path(__file__).resolve().parents[3] / "results"
    return checkout if (checkout.parent / "pyproject.toml").is_file() else Path("results")


def records_root(path: Path | None = None) -> Path:
    """The folder that records are read from: that of `results_root`, else the copy that came with the package."""
    root = results_root(path)
    shipped = Path(__file__).resolve().parents[1] / "records"
    return shipped if path is None and not (root / "claims").is_dir() and shipped.is_dir() else root


def record(
    root: Path, slug: str, results: Sequence[ClaimResult], *, seed: int, data: str, runs: Sequence[Run] = ()
) -> Path:
    """Write a system's claim results with seed, versions, hardware, date and the runs they rest on, and keep the logs
    of those runs."""
    for run in runs:
        keep_logs(root, run)
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
            "runs": [run.row() for run in runs],
            "claims": [asdict(r) for r in results],
        },
    )
    return target


def keep_logs(root: Path, run: Run, lines: int = 200) -> None:
    """Copy what a run logged to ``root``/runs: every line with a validation, and of the others about ``lines``."""
    for part, log in run.logs().items():
        step = max(1, len(log) // lines)
        kept = [line for i, line in enumerate(log) if line.get("validation") or i % step == 0 or i == len(log) - 1]
        name = f"{run.variant}-{run.seed}" + (f"-{part.replace('/', '-')}" if part else "")
        text = "".join(json.dumps(_rounded(line)) + "\n" for line in kept)
        write_atomic(root / "runs" / run.recipe / f"{name}.jsonl", text)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _content(root: Path, slug: str) -> dict[str, Any] | None:
    path = root / "claims" / f"{slug}.json"
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise InputError(f"{path} is not a results file of this version; run 'vestige claims {slug}'.")
    return content


def recorded(root: Path, slug: str) -> list[ClaimResult] | None:
    """A system's recorded claim results, None when its claims were never run."""
    content = _content(root, slug)
    if content is None:
        return None
    try:
        return [ClaimResult(**claim) for claim in content["claims"]]
    except TypeError:
        raise InputError(f"{root}/claims/{slug}.json is not a results file of this version.") from None


def recorded_runs(root: Path, slug: str) -> list[dict[str, Any]]:
    """The runs that a system's record rests on, as `vestige.engines.runs.Run.row` gives them."""
    content = _content(root, slug)
    return [] if content is None else list(content.get("runs", []))


def trained(entry: System, root: Path) -> bool:
    """Whether the network behind a system was trained fairly: a kept run of its recipe has a flat curve or enough time.

    True for systems without a network.
    """
    if not entry.network:
        return True
    path = root / "runs" / (entry.recipe or entry.slug) / "trained.json"
    return path.is_file() and bool(read_json(path).get("fair"))


def keep_trained(root: Path, run: Run) -> None:
    """Record that the network behind a recipe was trained, from a finished run: what `trained` reads."""
    keep_logs(root, run)
    write_json(root / "runs" / run.recipe / "trained.json", run.row())


def status(entry: System, root: Path) -> str:
    """ "planned" without code; "works" when its commands run on a user's files (the contract test runs them) and its
    network, where it has one, is really trained; "built" otherwise."""
    if entry.target is None:
        return "planned"
    return "works" if entry.commands and trained(entry, root) else "built"


def lacking(entry: System, root: Path) -> str:
    """What keeps a system from working, in one line; empty when nothing does."""
    if entry.target is None:
        return "not built"
    reasons = [] if entry.commands else ["no command"]
    if not trained(entry, root):
        reasons.append("its network has not been trained to a flat curve yet")
    return "; ".join(reasons)


def evidence(entry: System, root: Path) -> str:
    """What the claims of a system came to: the headline first, then how many of all claims are shown."""
    results = recorded(root, entry.slug)
    if not results:
        return "not judged yet"
    main = next((r for r in results if r.headline), None)
    count = f"{sum(r.holds for r in results)} of {len(results)} claims"
    return count if main is None else f"headline {main.outcome}, {count}"
