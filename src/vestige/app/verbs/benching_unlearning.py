"""``vestige bench unlearning``: erasers of knowledge compared with retraining."""

from __future__ import annotations

from pathlib import Path

from vestige.app.jobs.batch import default_jobs
from vestige.app.verbs.benching import interruptible, publish, say, show
from vestige.bench.pages import Section
from vestige.bench.store import results_root
from vestige.bench.unlearning.protocol import METRICS, Grid, parameters_in_words, run
from vestige.bench.unlearning.protocol import methods as read_methods
from vestige.bench.unlearning.table import COLUMNS, TITLE, figures, page, rows
from vestige.bench.unlearning.world import KINDS, TUNING_SEED, Settings
from vestige.core import printing
from vestige.core.errors import OK, PARTIAL, InputError, UsageError


def unlearning(
    *, methods: str, kinds: str, seeds: int, out: Path, results: Path | None, data: Path | None, folder: Path,
    settings: Settings, jobs: int, fresh: bool, quiet: bool,
) -> int:  # fmt: skip
    """Run the unlearning benchmark and write its table, figures and page to ``out``.

    Returns PARTIAL when an eraser failed. Raises UsageError for unknown names or a seed that is kept for tuning,
    InputError for a data folder that is not there; Interrupted on Ctrl-C.
    """
    chosen = read_methods(methods)
    problems = [word.strip() for word in kinds.split(",") if word.strip()] if kinds != "all" else list(KINDS)
    if not problems:
        raise UsageError(f"Give at least one problem: {' or '.join(KINDS)}.")
    if not 0 < seeds < TUNING_SEED:
        raise UsageError(f"seeds is {seeds}; it must lie in 1…{TUNING_SEED - 1}.")
    if data is not None and not data.is_dir():  # stored cells would hide that it is not there
        raise InputError(f"There is no folder {data}; give a folder of data packs, or scenes.")
    grid = Grid(settings, str(data or ""), folder, results_root(results) / "bench" / "unlearning")
    found, failed = interruptible(
        lambda: run(grid, chosen, problems, range(seeds), jobs=jobs or default_jobs(), fresh=fresh)
    )
    say(failed)
    table = rows(found)
    about = [
        f"{settings.images} training pictures of {settings.data}, a ResNet-18 of {settings.width:g} times the width, "
        f"{settings.epochs} epochs, {seeds} seeds. The aim of every figure is the retrained model's, not an extreme.",
        f"{parameters_in_words(chosen)} Statistics that an eraser stores beforehand (importance of all data) are not "
        "in its time.",
    ]
    images = figures(table)
    publish(out, TITLE, about, {"table.csv": Section("Every row", COLUMNS, table)}, images, page(table, images, about))
    if not quiet:
        columns = ("problem", "method", *METRICS, "gap", "gap ±", "s", "of retraining")
        show(TITLE, [{name: row[name] for name in columns} for row in table])
        printing.say(f"Open {out / 'index.html'}; the table is {out / 'table.csv'}.")
    return PARTIAL if failed else OK
