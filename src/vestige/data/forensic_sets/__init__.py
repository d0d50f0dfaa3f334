"""Public collections of edited and generated pictures that users own, read by the layouts they are published in.

>>> sorted(LAYOUTS)[:3]
['casia', 'columbia', 'coverage']
"""

from __future__ import annotations

from pathlib import Path

from vestige.core.errors import InputError
from vestige.data.forensic_sets.edits import casia, columbia, coverage, imd2020, nist16
from vestige.data.forensic_sets.fakes import dfdc, faceforensics, genimage
from vestige.data.forensic_sets.items import REAL, ForensicItem, ForensicSet, Layout, Listing
from vestige.data.forensic_sets.table import labels_table

__all__ = ["LAYOUTS", "REAL", "ForensicItem", "ForensicSet", "open_set"]

#: Name -> (what the folder holds, its reader).
LAYOUTS: dict[str, tuple[str, Layout]] = {
    "casia": ("Au_* beside Tp_* or Sp_* pictures, masks *_gt.png", casia),
    "columbia": ("4cam_auth and 4cam_splc with edgemask", columbia),
    "coverage": ("image with 1.tif and 1t.tif, mask with 1forged.tif", coverage),
    "nist16": ("reference/manipulation with a *-manipulation-ref.csv", nist16),
    "imd2020": ("a folder for each picture with NAME_orig and NAME_mask.png", imd2020),
    "genimage": ("GENERATOR/train or val with ai and nature", genimage),
    "faceforensics": ("original_sequences and manipulated_sequences", faceforensics),
    "dfdc": ("clips with a metadata.json that says FAKE or REAL", dfdc),
}


def open_set(path: str | Path, *, frames: int = 4) -> ForensicSet:
    """The set at a folder; what is in the folder decides which layout it has.

    A labels.csv in the folder (see `labels_table`) comes before every layout. frames: taken from each clip, evenly
    spaced. Raises InputError, naming the layouts, when the folder has none of them, more than one, or a broken one.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder of a forensic set.")
    if frames < 1:
        raise InputError(f"At least one frame is taken from a clip; got {frames}.")
    listing = Listing.of(root, frames)
    table = labels_table(listing)
    found = {"labels.csv": table} if table else {}
    if not found:
        read = {name: reader(listing) for name, (_, reader) in LAYOUTS.items()}
        found = {name: items for name, items in read.items() if items}
    if len(found) > 1:
        raise InputError(f"{root} holds more than one set ({', '.join(found)}); give the folder of one of them.")
    if not found:
        known = "; ".join(f"{name}: {what}" for name, (what, _) in LAYOUTS.items())
        raise InputError(
            f"{root} has the layout of no set that is known here ({known}); give it as it was published, or write a "
            "labels.csv with the columns file and label into it."
        )
    ((name, items),) = found.items()
    return ForensicSet(name, root, tuple(items))
