"""Layouts of sets of edited pictures with masks: CASIA, Columbia, Coverage, NIST16, IMD2020.

Sources: CASIA Image Tampering Detection Evaluation Database, ChinaSIP 2013; Detecting Image Splicing Using Geometry
Invariants and Camera Characteristics Consistency, ICME 2006 (Columbia); COVERAGE - A Novel Database for Copy-Move
Forgery Detection, ICIP 2016; Nimble Challenge 2016, NIST; IMD2020: A Large-Scale Annotated Dataset Tailored for
Detecting Manipulated Images, WACV Workshops 2020.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from vestige.core.errors import InputError
from vestige.data.forensic_sets.items import ForensicItem, Listing

_CASIA = re.compile(r"(Tp|Sp)_([DS])_")
_COVERAGE = re.compile(r"(\d+)(t?)")
#: Columns of the reference table of NIST16 that say how a picture was edited.
_NIST_WAYS = {
    "IsManipulationTypeSplice": "splice",
    "IsManipulationTypeCopyClone": "copy_move",
    "IsManipulationTypeRemoval": "removal",
}


def casia(listing: Listing) -> list[ForensicItem] | None:
    """Au_*: authentic. Tp_D_*, Tp_S_* (v2) and Sp_D_*, Sp_S_* (v1): a part of another or of the same picture; the mask
    is NAME_gt.png in any folder, bright where edited."""
    pictures = listing.pictures
    masks = {f.stem.removesuffix("_gt"): f for f in pictures if f.stem.endswith("_gt")}
    items = []
    for file in pictures:
        edited = _CASIA.match(file.name)
        if file.stem.endswith("_gt"):
            continue
        if edited:
            approach = "splice" if edited[2] == "D" else "copy_move"
            items.append(listing.item(file, True, mask=masks.get(file.stem), approach=approach))
        elif file.name.startswith("Au_"):
            items.append(listing.item(file, False))
    return items if any(item.label for item in items) else None


def columbia(listing: Listing) -> list[ForensicItem] | None:
    """4cam_auth: authentic. 4cam_splc: spliced; edgemask/NAME_edgemask.jpg is green where the second camera took it."""
    pictures = listing.pictures
    masks = {
        f.stem.removesuffix("_edgemask"): f for f in pictures if "4cam_splc" in f.parts and f.stem.endswith("_edgemask")
    }
    items = []
    for file in pictures:
        if file.parent.name == "4cam_auth":
            items.append(listing.item(file, False))
        elif file.parent.name == "4cam_splc":
            items.append(listing.item(file, True, mask=masks.get(file.stem), rule="green", approach="splice"))
    return items or None


def coverage(listing: Listing) -> list[ForensicItem] | None:
    """image/N.tif: authentic. image/Nt.tif: a part of it covers another place, bright in mask/Nforged.tif."""
    pictures = listing.pictures
    masks = {f.stem.removesuffix("forged"): f for f in pictures if f.parent.name == "mask" and "forged" in f.stem}
    if not masks:
        return None
    items = []
    for file in pictures:
        number = _COVERAGE.fullmatch(file.stem) if file.parent.name == "image" else None
        if number and number[2]:
            items.append(listing.item(file, True, mask=masks.get(number[1]), approach="copy_move"))
        elif number:
            items.append(listing.item(file, False))
    return items or None


def nist16(listing: Listing) -> list[ForensicItem] | None:
    """reference/manipulation/NC2016-manipulation-ref.csv names probes, whether they were edited (IsTarget), and their
    masks, which are dark where edited."""
    tables = [f for f in listing.files if f.name.endswith("-manipulation-ref.csv")]
    if not tables:
        return None
    if len(tables) > 1:
        raise InputError(f"{listing.root} holds {len(tables)} reference tables of NIST16; give the folder of one.")
    table = tables[0]
    base = table.parent.parent.parent
    present = set(listing.files)
    items: dict[PurePosixPath, ForensicItem] = {}
    for row in _rows(listing, table, ("ProbeFileName", "ProbeMaskFileName", "IsTarget")):
        probe, edited = base / row["ProbeFileName"], row["IsTarget"] == "Y"
        if probe not in present or probe in items:
            continue
        ways = [way for column, way in _NIST_WAYS.items() if row.get(column) == "Y"]
        mask = base / row["ProbeMaskFileName"] if edited and row["ProbeMaskFileName"] else None
        if edited:
            approach = "+".join(ways) or "edit"
            items[probe] = listing.item(probe, True, mask=mask, rule="dark", approach=approach)
        else:
            items[probe] = listing.item(probe, False)
    if not items:
        raise InputError(f"None of the pictures that {listing.root / table} names is there; unpack them beside it.")
    return [items[probe] for probe in sorted(items)]


def _rows(listing: Listing, table: PurePosixPath, columns: Iterable[str]) -> list[dict[str, str]]:
    path = listing.root / table
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(file, delimiter="|")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}).") from None
    lacking = [c for c in columns if rows and c not in rows[0]]
    if lacking or not rows:
        raise InputError(f"{path} lacks the column {lacking[0]}." if lacking else f"{path} has no rows.")
    return rows


def imd2020(listing: Listing) -> list[ForensicItem] | None:
    """One folder for each original: NAME_orig.jpg, and edits of it X.png, each with X_mask.png, bright where edited."""
    folders: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for file in listing.pictures:
        folders[file.parent].append(file)
    items = []
    for files in folders.values():
        if not any(f.stem.endswith("_orig") for f in files):
            continue
        masks = {f.stem.removesuffix("_mask"): f for f in files if f.stem.endswith("_mask")}
        for file in files:
            if file.stem.endswith("_orig"):
                items.append(listing.item(file, False))
            elif file.stem in masks:
                items.append(listing.item(file, True, mask=masks[file.stem], approach="edit"))
    return items if any(item.label for item in items) else None
