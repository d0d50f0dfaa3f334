"""lm/: a language model small enough to try the marks of texts on; it writes nonsense."""

from __future__ import annotations

import shutil
from pathlib import Path

import vestige


def write(folder: Path) -> list[str]:
    """The folder that ``vestige learn starter_lm`` made and the package ships."""
    shutil.copytree(Path(vestige.__file__).parent / "weights" / "starter" / "lm", folder / "lm")
    return ["lm/"]
