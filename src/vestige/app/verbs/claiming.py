"""``vestige claims`` and ``vestige calibrate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vestige.bench.store import ClaimResult, record, results_root
from vestige.claims import ClaimContext, claims_of, missing_runs, needs_of, runs_needed
from vestige.core.catalogue import System, system, systems
from vestige.core.errors import INTERNAL, OK, Interrupted, UsageError
from vestige.core.printing import say
from vestige.data.packs import find_data_root

if TYPE_CHECKING:
    from vestige.engines.runs import Run


def run(
    slugs: Sequence[str], data: Path | None, results: Path | None, as_json: bool, limit: int, jobs: int, seed: int,
    quiet: bool,
) -> int:  # fmt: skip
    """Run claims and record them; exit code 1 when one does not hold.

    Only whole runs on the declared data are records: runs on other data (``data``) are printed, and recorded where
    ``results`` says; trial runs on fewer pictures (``limit``) are never recorded.
    """
    from vestige.app.jobs.batch import default_jobs

    entries = [system(s) for s in slugs] if slugs else [s for s in systems() if claims_of(s)]
    empty = [s.slug for s in entries if not claims_of(s)]
    if empty:
        raise UsageError(f"{empty[0]} has no claims to run yet; 'vestige systems' lists what is built.")
    if data is not None and not data.is_dir():
        raise UsageError(f"--data {data} is not a folder of data packs.")
    root, default = results_root(results), find_data_root()
    if data is not None and default is not None and data.resolve() == default.resolve():
        data = None  # naming the default folder changes nothing
    if limit and results is not None:
        raise UsageError("A run with --limit is a trial and is never a record; leave --results or --limit out.")
    keep = not limit and (results is not None or data is None)
    context = ClaimContext(data or default, seed, jobs or default_jobs(), limit)
    if not keep and not quiet:
        why = "a trial run with --limit" if limit else "other data; give --results FOLDER to keep it"
        print(f"Not recorded ({why}).", file=sys.stderr)
    outcomes: dict[str, list[ClaimResult]] = {}
    absent = {entry.slug: missing_runs(entry.slug) for entry in entries}
    if slugs and any(absent.values()):
        slug, lack = next((s, m) for s, m in absent.items() if m)
        raise UsageError(
            f"The claims of {slug} lack {len(lack)} finished runs ({'/'.join(map(str, lack[0]))} for one); "
            f"'vestige learn {slug} --for-claims' makes them."
        )
    for entry in entries:
        if absent[entry.slug]:
            print(f"{entry.slug}: left out, {len(absent[entry.slug])} of its runs are missing.", file=sys.stderr)
            continue
        outcomes[entry.slug] = []
        used = _behind(entry, context)
        for claim in claims_of(entry):
            try:
                result = claim.run(context)
            except KeyboardInterrupt:
                raise Interrupted(f"Interrupted; the record of {entry.slug} is as it was.") from None
            _not_before_its_time(result, used)
            outcomes[entry.slug].append(result)
            if not quiet and not as_json:
                _print(entry.slug, result)
        if keep:
            described = "packs of the data folder" if context.data else "none"
            record(root, entry.slug, outcomes[entry.slug], seed=seed, data=described, runs=_behind(entry, context))
        context.used.clear()
    if as_json:
        print(json.dumps({s: [asdict(r) for r in rs] for s, rs in outcomes.items()}, indent=2))
    return OK if all(r.holds for rs in outcomes.values() for r in rs) else INTERNAL


def _behind(entry: System, context: ClaimContext) -> list[Run]:
    """The runs that a system's claims rest on: those that were loaded, and all that it declares."""
    for run in runs_needed(needs_of(entry)):
        context.run(*run)
    return list(context.used.values())


def _not_before_its_time(result: ClaimResult, runs: Sequence[Run]) -> None:
    """No claim is judged on a run whose curve still rises and that had less than half an hour."""
    early = [run for run in runs if not run.fair()[0]]
    if early:
        run = early[0]
        why = f"{run.recipe}/{run.variant}/{run.seed}: {run.fair()[1]}"
        result.holds, result.outcome = False, "trained too briefly"
        result.note = "; ".join(filter(None, (result.note, why)))


def _print(slug: str, result: ClaimResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width to fit
    verdict = ("headline " if result.headline else "") + result.outcome.upper()
    console.print(f"{slug}: {result.text}: {verdict} ({result.seconds:.0f} s)", markup=False, highlight=False)
    if result.table:
        table = Table(box=None, header_style="bold")
        columns = list(dict.fromkeys(k for row in result.table for k in row))
        for column in columns:
            table.add_column(column)
        for row in result.table:
            table.add_row(*(_cell(row.get(c, "")) for c in columns))
        console.print(table)
    if result.note:
        console.print(f"  {result.note}", markup=False, highlight=False)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def calibrate(data: Path | None, out: Path | None, limit: int, jobs: int, seed: int, only: Sequence[str] = ()) -> int:
    """Fit the panel's calibration on the validation halves of the photo packs and write it."""
    from vestige.app.jobs.batch import default_jobs
    from vestige.bench.forensics.panel import fit_panel
    from vestige.core.panel import calibration_file

    root = data or find_data_root()
    if root is None:
        raise UsageError("Calibration needs photographs; give --data FOLDER or set VESTIGE_DATA.")
    target = out or calibration_file()
    try:
        lines = list(fit_panel(root, target, limit=limit, jobs=jobs or default_jobs(), seed=seed, only=only))
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; {target} is as it was.") from None
    print("\n".join(lines))
    say(f"Written: {target}")
    return OK
