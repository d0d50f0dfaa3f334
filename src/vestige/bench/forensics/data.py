"""Pictures of the forensics benchmark: a set, read once, with what is true of every picture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vestige.bench.digests import digest
from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.image_io import decode, encode
from vestige.core.progress import track
from vestige.data.forensic_sets import REAL, ForensicItem, ForensicSet
from vestige.data.forensic_sets.table import read_table

#: Sentences about pictures that were left out, before they are only counted.
_SAID = 5


@dataclass(frozen=True)
class Picture:
    """One picture: its file, a digest of file and mask, what is true of it, and its mask (a PNG, "" for none)."""

    name: str
    path: str
    digest: str
    label: bool
    approach: str
    groups: tuple[tuple[str, str], ...] = ()
    mask: str = ""

    def read(self) -> tuple[bytes, np.ndarray | None]:
        """(file, bool H×W of the upright picture or None)."""
        mask = decode(Path(self.mask).read_bytes()).pixels[..., 0] > 127 if self.mask else None
        return Path(self.path).read_bytes(), mask


def prepare(chosen: ForensicSet, work: Path) -> tuple[tuple[Picture, ...], list[str]]:
    """The readable pictures of a set, and sentences about the others; frames and masks are stored in ``work``.

    Raises InputError when there is none.
    """
    found, skipped = [], []
    for item in track(chosen.items, "reading pictures"):
        try:
            data = item.data()
            mask = item.edited(decode(data, item.name))
        except InputError as error:
            skipped.append(f"{item.name} was skipped: {error}")
            continue
        found.append(_stored(item, data, mask, work))
    if not found:
        raise InputError(f"There is no readable picture in {chosen.root} ({skipped[0] if skipped else 'it is empty'}).")
    if len(skipped) > _SAID:
        skipped = [*skipped[:_SAID], f"{len(skipped) - _SAID} more pictures were skipped."]
    return tuple(found), skipped


def _stored(item: ForensicItem, data: bytes, mask: np.ndarray | None, work: Path) -> Picture:
    drawn = b"" if mask is None else encode(np.repeat(mask[..., None] * np.uint8(255), 3, 2), "PNG")
    seen = digest([hashlib.sha256(part).hexdigest() for part in (data, drawn)])
    path, place = item.path, ""
    if item.frame is not None:
        path = work / f"frame-{seen}.png"
        _write_new(path, data)
    if drawn:
        place = str(work / f"mask-{seen}.png")
        _write_new(Path(place), drawn)
    return Picture(item.name, str(path), seen, item.label, item.approach, tuple(sorted(item.groups.items())), place)


def _write_new(path: Path, data: bytes) -> None:
    if not path.is_file():
        write_atomic(path, data)


def with_groups(pictures: tuple[Picture, ...], table: Path, root: Path) -> tuple[tuple[Picture, ...], int]:
    """The pictures with the labels of a groups.csv, and how many are not in it.

    table: column file (as in the set's folder, or with the folder's name before it; a clip stands for its frames), and
    one column for each kind of group; a column approach overrides how fakes were made. Raises InputError for a table
    without these, UsageError when it names none of the pictures.
    """
    rows = read_table(table)
    if not rows or "file" not in rows[0] or len(rows[0]) < 2:
        raise InputError(f"{table} needs a column file, a column of groups, and at least one row.")
    by_name: Mapping[str, dict[str, str]] = {row["file"]: row for row in rows}
    found, lacking = [], 0
    for picture in pictures:
        clip = picture.name.partition("#")[0]
        names = (picture.name, clip, f"{root.name}/{picture.name}", f"{root.name}/{clip}")
        row = next((by_name[n] for n in names if n in by_name), None)
        if row is None:
            lacking += 1
            found.append(picture)
            continue
        groups = {k: v for k, v in row.items() if k not in ("file", "approach") and v}
        approach = row.get("approach") or picture.approach if picture.label else REAL
        together = tuple(sorted({**dict(picture.groups), **groups}.items()))
        found.append(replace(picture, approach=approach, groups=together))
    if lacking == len(pictures):
        raise UsageError(
            f"{table} names none of the {len(pictures)} pictures; file is the path inside the set's folder."
        )
    return tuple(found), lacking
