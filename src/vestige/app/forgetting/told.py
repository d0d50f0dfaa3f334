"""What ``vestige erase MODEL`` says on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vestige.core.printing import say

if TYPE_CHECKING:
    from rich.console import Console

    from vestige.unlearning.audit import Audit


def tell(
    out: Path,
    report: Mapping[str, Any],
    tried: Sequence[Mapping[str, Any]],
    result: Audit,
    written: Mapping[str, Path],
) -> None:
    """Print what was tried, the figures of the audit and its findings, and where everything was written."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=120)
    if len(tried) > 1:
        table = Table(box=None, header_style="bold", title="Tried, best first", title_justify="left")
        for name in ("method", "distance to the aim", "seconds", "what it did"):
            table.add_column(name)
        for one in tried:
            table.add_row(one["method"], f"{one['distance']:.3f}", f"{one['cost']['seconds']:.1f}", one["why"])
        console.print(table)
    _figures(console, result)
    say(
        f"{out}: {report['forgotten']} pictures to forget, treated with {report['method']} in "
        f"{report['cost']['seconds']:.1f} s; see {', '.join(str(p) for p in written.values())}."
    )


def tell_audit(result: Audit, written: Mapping[str, Path]) -> None:
    """Print an audit, its verdict first, and where it was written."""
    from rich.console import Console

    console = Console()
    _figures(console if console.is_terminal else Console(width=120), result)
    say(f"See {', '.join(str(p) for p in written.values())}.")


def _figures(console: Console, result: Audit) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", title="Audit", title_justify="left")
    table.add_column("")
    for name in result.rows:
        table.add_column(name, justify="right")
    for figure in dict.fromkeys(name for row in result.rows.values() for name in row):
        table.add_row(figure, *(f"{row[figure]:.3f}" if figure in row else "" for row in result.rows.values()))
    console.print(table)
    for finding in result.findings:
        say(finding)
    if names := [str(one["name"]) for one in result.worst.get("pictures", ()) if "name" in one]:
        say(f"Remembered best: {', '.join(names[:5])}.")
