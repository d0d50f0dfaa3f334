"""A set of one's own: a labels.csv beside the pictures."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from vestige.core.errors import InputError
from vestige.data.forensic_sets.items import REAL, ForensicItem, Listing

_LABELS = {"1": True, "fake": True, "edited": True, "0": False, "real": False, "authentic": False}
_OWN = ("file", "label", "mask", "approach")


def labels_table(listing: Listing) -> list[ForensicItem] | None:
    """labels.csv: file and label (1, fake, edited; 0, real, authentic), and where wanted mask (a file, bright where
    edited) and approach; all other columns are groups. None where there is no such file.

    Raises InputError for columns that are missing, other labels, and files that are not there.
    """
    if PurePosixPath("labels.csv") not in listing.files:
        return None
    path, items, present = listing.root / "labels.csv", [], set(listing.files)
    rows = read_table(path)
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise InputError(f"{path} needs the columns file and label, and at least one row.")
    for line, row in enumerate(rows, 2):
        label = _LABELS.get(row["label"].lower())
        if label is None:
            raise InputError(f"{path}, line {line}: the label is one of {', '.join(_LABELS)}, not {row['label']!r}.")
        for column in ("file", "mask"):
            if row.get(column) and PurePosixPath(row[column]) not in present:
                raise InputError(f"{path}, line {line}: there is no file {row[column]!r} in the folder.")
        approach = (row.get("approach") or "fake") if label else REAL
        groups = {column: value for column, value in row.items() if column not in _OWN and value}
        mask = PurePosixPath(row["mask"]) if row.get("mask") and label else None
        items.append(listing.item(PurePosixPath(row["file"]), label, mask=mask, approach=approach, groups=groups))
    return items


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a comma-separated file with a header, values stripped; raises InputError when it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}).") from None
    return [{k.strip(): (v or "").strip() for k, v in row.items() if k} for row in rows]
