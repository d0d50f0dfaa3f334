"""``vestige claims`` and ``vestige calibrate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vestige.bench.store import ClaimResult, record, results_root
from vestige.claims import ClaimContext, claims_of
from vestige.core.catalogue import system, systems
from vestige.core.errors import INTERNAL, OK, Interrupted, UsageError
from vestige.data.packs import find_data_root


def run(
    slugs: Sequence[str], data: Path | None, results: Path | None, as_json: bool, limit: int, jobs: int, seed: int,
    quiet: bool,
) -> int:  # fmt: skip
    """Run claims and record them; exit code 1 when one does not hold.

    Runs on other data (``data``) or on fewer pictures (``limit``) are printed and recorded only under ``results``.
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
    keep = results is not None or (data is None and not limit)
    context = ClaimContext(data or default, seed, jobs or default_jobs(), limit)
    if not keep and not quiet:
        print("Not recorded (other data or --limit); give --results FOLDER to keep it.", file=sys.stderr)
    outcomes: dict[str, list[ClaimResult]] = {}
    for entry in entries:
        outcomes[entry.slug] = []
        for claim in claims_of(entry):
            try:
                result = claim.run(context)
            except KeyboardInterrupt:
                raise Interrupted(f"Interrupted; the record of {entry.slug} is as it was.") from None
            outcomes[entry.slug].append(result)
            if not quiet and not as_json:
                _print(entry.slug, result)
        if keep:
            described = f"first {limit} pictures" if limit else "packs of the data folder" if context.data else "none"
            record(root, entry.slug, outcomes[entry.slug], seed=seed, data=described)
    if as_json:
        print(json.dumps({s: [asdict(r) for r in rs] for s, rs in outcomes.items()}, indent=2))
    return OK if all(r.holds for rs in outcomes.values() for r in rs) else INTERNAL


def _print(slug: str, result: ClaimResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width to fit
    verdict = "holds" if result.holds else "DOES NOT HOLD"
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
    print(f"Written: {target}")
    return OK
