"""Copies within data sets, across their splits, and labels that disagree."""

from __future__ import annotations

import csv
import io
from typing import Any

from vestige.copies.audit import SPLITS, audit
from vestige.core.dataset import DatasetSubject
from vestige.core.errors import PARTIAL, UsageError
from vestige.core.files import write_atomic
from vestige.core.printing import complain
from vestige.core.progress import track
from vestige.core.work import Result, Work, is_set

_SHOWN = 30


def find(work: Work) -> Result | None:
    """``find DATASET... --only duplicates [-o copies.csv]``: exact, near, cropped and edited copies.

    Folders, parquet files and tar shards. Within a folder, sub-folders called train, val or test are splits and the
    next folder is the label; of several data sets each is a split of its own. ``--set deep=false`` leaves out crops and
    edits, which take longest.
    """
    work.path(0, "a folder of pictures, a parquet file or a tar shard")
    if not work.options and all(p.exists() and not is_set(p) for p in work.paths):
        return None  # single pictures: the ordinary way says what it can of them
    out = work.out_file(".csv") if work.out is not None else None
    deep = work.option("deep", True)
    work.settled()
    several = len(work.paths) > 1
    sets: list[tuple[str, DatasetSubject]] = []
    for i, path in enumerate(work.paths):
        name = SPLITS.get(path.stem.split("-")[0].lower(), path.name)
        if several and name in [s for s, _ in sets]:
            raise UsageError(f"Two data sets are called {name}; rename one, so that the report can tell them apart.")
        sets.append((name if several else "", work.dataset(i)))
    found = audit(sets, deep=deep, watch=lambda items: track(items, "looking for copies"))
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(found.groups, 1):
        notes = ["leaks between splits"] * group.leaks + ["labels disagree"] * group.conflicts
        for member in group.members:
            rows.append({
                "group": number, "kind": group.kind, "picture": member.name, "split": member.split,
                "label": "" if member.label is None else member.label, "notes": ", ".join([*notes, group.words]),
            })  # fmt: skip
    if out is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["group", "kind", "picture", "split", "label", "notes"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(out, text.getvalue())
    for name, why in found.failed:
        complain(why if name in why else f"{name}: {why}")
    figures = {
        "pictures": found.count, "groups": len(found.groups), "leaking groups": sum(g.leaks for g in found.groups),
        "groups with conflicting labels": len(found.conflicts()),
    }  # fmt: skip
    said = found.sentences()
    if len(rows) > _SHOWN and out is not None:
        rows = rows[:_SHOWN]
        said.append(f"The first {_SHOWN} rows follow; all are in {out}.")
    return Result(figures, [out] if out else (), said, rows, PARTIAL if found.failed else 0)
