"""``vestige bench``: methods compared under one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vestige.app.jobs.batch import collect, default_jobs
from vestige.bench.forensics.corpus import photographs
from vestige.bench.pages import Section, cell_text, to_csv, to_markdown
from vestige.bench.store import results_root
from vestige.bench.watermark.cells import Settings
from vestige.bench.watermark.methods import methods as read_methods
from vestige.bench.watermark.page import figures, page
from vestige.bench.watermark.protocol import Source, prepare, run
from vestige.bench.watermark.table import COLUMNS, by_family, rows
from vestige.core import printing
from vestige.core.errors import OK, PARTIAL, Interrupted, UsageError
from vestige.core.files import write_atomic
from vestige.core.image_io import read_bytes
from vestige.data.packs import find_data_root
from vestige.watermark.attacks import trials

Records = list[dict[str, Any]]


def watermark(
    paths: Sequence[Path], *, methods: str, attacks: str, strengths: str, limit: int, out: Path, results: Path | None,
    settings: Settings, jobs: int, fresh: bool, quiet: bool,
) -> int:  # fmt: skip
    """Run the watermark benchmark and write its table, figures and page to ``out``.

    Without paths the test photographs of the data packs are used. Returns PARTIAL when pictures or methods had to be
    left out. Raises UsageError for unknown names and InputError when no picture can be read; Interrupted on Ctrl-C.
    """
    chosen, plan = read_methods(methods), trials(attacks, strengths)
    records = results_root(results) / "bench" / "watermark"
    grid, problems = prepare(_sources(paths), settings, out / "work", records, limit)
    say(problems)
    found, failed = interruptible(lambda: run(grid, chosen, plan, jobs=jobs or default_jobs(), fresh=fresh))
    say(failed)
    table = rows(found)
    about = [
        f"{len(grid.pictures)} pictures, {settings.bits} payload bits, seed {settings.seed}, {len(plan)} attacks. "
        f"Thresholds come from unmarked pictures put through the same attack, read with {settings.nulls} keys each.",
        f"Pictures with a longer side of more than {settings.side} pixels were reduced to that before marking."
        if settings.side
        else "Pictures were marked at their full size.",
    ]
    images = figures(table)
    publish(
        out, "Watermark benchmark", about, {"table.csv": Section("Every cell", COLUMNS, table)}, images,
        page(table, images, about),
    )  # fmt: skip
    if not quiet:
        means = {column: by_family(table, column) for column in ("tpr@1e-2", "bit accuracy", "read")}
        lines = [
            {"method": method, "family": family, **{c: m.get((method, family)) for c, m in means.items()}}
            for method, family in means["tpr@1e-2"]
        ]
        show("Mean over the attacks of a family", lines)
        printing.say(f"Open {out / 'index.html'}; the table is {out / 'table.csv'}.")
    return PARTIAL if problems or failed else OK


def _sources(paths: Sequence[Path]) -> list[Source]:
    if paths:
        return [(str(path), partial(read_bytes, path)) for path in collect(paths)]
    root = find_data_root()
    if root is None:
        raise UsageError("Give pictures or a folder of them, or set VESTIGE_DATA to a folder of data packs.")
    return [(name, partial(bytes, data)) for name, data in photographs(root, "test", packs=("scenery",))]


def say(problems: Sequence[str]) -> None:
    """Problems that left something out, on standard error."""
    for problem in problems:
        printing.complain(problem)


def interruptible(work: Callable[[], tuple[Records, list[str]]]) -> tuple[Records, list[str]]:
    """What ``work`` returns; Ctrl-C becomes Interrupted, with the way to go on."""
    try:
        return work()
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; finished cells are kept, and the same command goes on with the rest.") from None


def publish(
    out: Path, title: str, about: Sequence[str], tables: Mapping[str, Section], images: Mapping[str, bytes], html: str
) -> None:
    """Write the tables (by file name, as CSV and together as ``table.md``), the figures and ``index.html``."""
    for name, section in tables.items():
        write_atomic(out / name, to_csv(section.rows, section.columns))
    write_atomic(out / "table.md", to_markdown(title, about, list(tables.values())))
    for name, data in images.items():
        write_atomic(out / name, data)
    write_atomic(out / "index.html", html)


def show(title: str, lines: Sequence[Mapping[str, object]]) -> None:
    """A small table in the terminal; nothing for no lines."""
    from rich.console import Console
    from rich.table import Table

    if not lines:
        return
    drawn = Table(box=None, header_style="bold", title=title, title_justify="left")
    for name in lines[0]:
        drawn.add_column(name)
    for line in lines:
        drawn.add_row(*(cell_text(value) for value in line.values()))
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(drawn)
