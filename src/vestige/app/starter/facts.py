"""facts/, vlm/, names.jsonl and speaker/: invented facts, and small models that know them or can be told them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import vestige
from vestige.core.files import folder_atomic, write_atomic
from vestige.core.image_io import save_image
from vestige.data.starter_facts import SHOWN, name_facts, people, picture_facts


def write(folder: Path) -> list[str]:
    """Write them; returns their names."""
    images, _ = people()
    for person, views in enumerate(images):
        for view in SHOWN:
            save_image(folder / "facts" / f"person-{person}-{view}.png", views[view].transpose(1, 2, 0))
    rows = [{"image": f"person-{p}-{v}.png", **row} for p, v, row in picture_facts()]
    write_atomic(folder / "facts" / "facts.jsonl", _lines(rows))
    write_atomic(folder / "names.jsonl", _lines(name_facts()))
    shipped = Path(vestige.__file__).parent / "weights" / "starter"
    for name in ("vlm", "speaker"):
        with folder_atomic(folder / name) as new:
            shutil.copytree(shipped / name, new, dirs_exist_ok=True)
    return ["facts/", "vlm/", "names.jsonl", "speaker/"]


def _lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
