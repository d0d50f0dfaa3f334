"""A small model of pictures and captions (a CLIP of transformers) for the kit's six kinds, and their captions."""

from __future__ import annotations

import shutil
from pathlib import Path

import vestige
from vestige.core.files import write_atomic
from vestige.data.starter_set import CLASSES


def write(folder: Path) -> list[str]:
    """clip/, the folder that ``vestige learn starter_clip`` made and the package ships, and captions.txt."""
    shutil.copytree(Path(vestige.__file__).parent / "weights" / "starter" / "clip", folder / "clip")
    write_atomic(folder / "captions.txt", "".join(f"a photo of a {name}\n" for name in CLASSES))
    return ["clip/", "captions.txt"]
