"""``vestige bench forensics``: from folders to table, figures and page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vestige.app.jobs.batch import default_jobs
from vestige.app.verbs.benching import interruptible, publish, say, show
from vestige.bench.forensics.cells import LADDER, Grid, ladder
from vestige.bench.forensics.data import Picture, prepare, with_groups
from vestige.bench.forensics.made import made_edits, made_fakes
from vestige.bench.forensics.methods import KINDS, kind_of
from vestige.bench.forensics.methods import methods as read_methods
from vestige.bench.forensics.page import FILES, TITLE, figures, page, sections
from vestige.bench.forensics.protocol import run
from vestige.bench.forensics.table import by_approach, fairness, group_columns, rows, summary
from vestige.bench.store import results_root
from vestige.core import printing
from vestige.core.errors import OK, PARTIAL
from vestige.data.forensic_sets import ForensicSet, open_set

#: Sets whose fakes are generated, or may be edited as well as generated.
_SEEKS = {"genimage": "generated", "faceforensics": ",".join(KINDS), "dfdc": ",".join(KINDS)}


def forensics(
    folders: Sequence[Path], *, methods: str, steps: str | None, groups: Path | None, limit: int, out: Path,
    results: Path | None, frames: int, jobs: int, fresh: bool, quiet: bool, seed: int,
) -> int:  # fmt: skip
    """Run the forensics benchmark on every folder and write tables, figures and page to ``out``.

    Without folders edits are made of photographs; fakes, where all examiners look for generated pictures. Returns
    PARTIAL when pictures or examiners had to be left out. Raises UsageError for unknown names, InputError for folders
    of no known layout; Interrupted on Ctrl-C.
    """
    plan = ladder(steps or LADDER)
    wanted = [] if methods == "auto" else read_methods(methods)
    sets = [open_set(folder, frames=frames).take(limit, seed) for folder in folders]
    if not sets:
        only_generated = bool(wanted) and all(kind_of(m.slug) == "generated" for m in wanted)
        sets = [(made_fakes if only_generated else made_edits)(out / "work", limit=limit, seed=seed)]
    records_folder = results_root(results) / "bench" / "forensics"
    table: list[dict[str, Any]] = []
    approaches: list[dict[str, Any]] = []
    fair: list[dict[str, Any]] = []
    about, problems = [], []
    for chosen in sets:
        pictures, skipped = prepare(chosen, out / "work")
        if groups is not None:
            pictures, lacking = with_groups(pictures, groups, chosen.root)
            skipped += [f"{lacking} pictures of {chosen.root} are not in {groups}."] if lacking else []
        say(skipped)
        name = chosen.layout if len(sets) == 1 else f"{chosen.layout} ({chosen.root.name})"
        grid = Grid(name, pictures, seed, out / "work", records_folder)
        examiners = wanted or read_methods(_fitting(chosen))
        work = partial(run, grid, examiners, plan, jobs=jobs or default_jobs(), fresh=fresh)
        found, failed = interruptible(work)
        say(failed)
        problems += skipped + failed
        table += rows(found, pictures)
        approaches += by_approach(found, pictures)
        named = groups is not None or chosen.layout == "labels.csv"
        fair += fairness(found, pictures, group_columns(pictures) if named else [])
        about.append(_described(name, pictures, limit, seed))
    about += [
        "A picture that an examiner does not apply to counts as not suspected and, where it has a mask, as one without "
        "a marked pixel. F1 and IoU are at the fixed threshold of the map; the best threshold is chosen on the very "
        "pictures it is judged on and is stated apart.",
        f"Steps: {', '.join(step.name for step in plan)}.",
    ]
    tables = sections(table, approaches, fair)
    images = figures(table, approaches)
    for name in FILES - tables.keys() - images.keys():
        (out / name).unlink(missing_ok=True)  # of an earlier run with other sets or groups
    publish(out, TITLE, about, tables, images, page(tables, images, about))
    if not quiet:
        show("Mean over the steps", summary(table))
        printing.say(f"Open {out / 'index.html'}; the table is {out / 'table.csv'}.")
    return PARTIAL if problems else OK


def _fitting(chosen: ForensicSet) -> str:
    """What the examiners should look for, as the set's layout or its masks tell."""
    if chosen.layout == "labels.csv":
        return "edit" if any(item.mask for item in chosen.items) else ",".join(KINDS)
    return _SEEKS.get(chosen.layout, "edit")


def _described(name: str, pictures: Sequence[Picture], limit: int, seed: int) -> str:
    fakes, masks = sum(p.label for p in pictures), sum(bool(p.mask) for p in pictures)
    part = f", a part of {limit} drawn with seed {seed}" if limit else ""
    return f"{name}: {len(pictures)} pictures, {fakes} of them edited or generated, {masks} with a mask{part}."
