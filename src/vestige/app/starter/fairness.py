"""Material for auditing a detector of forged faces by group: a table of scores, faces by group, and a small detector.

The groups are tones of skin of drawn faces. The detector learnt for a moment, from faces of mostly one tone.
"""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np

import vestige
from vestige.core.files import write_atomic
from vestige.core.image_io import save_image
from vestige.core.runtime import rng
from vestige.data.drawn_faces import drawn_faces
from vestige.data.face_forgeries import forge_face
from vestige.forensics.fairfd import biased_answers

SIDE, EACH, TONES = 48, 3, 4
KINDS = ("warp", "resynthesise")


def write(folder: Path) -> list[str]:
    """scores.csv, groups/tone-N/real|warp|resynthesise/*.png and detector.safetensors."""
    scores, approach, group = biased_answers(0.2, 3, 4, 40, rng(0, "starter scores"))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["score", "approach", "group"])
    writer.writerows(zip((f"{s:.4f}" for s in scores), approach, group, strict=True))
    write_atomic(folder / "scores.csv", text.getvalue())
    images, _, tones = drawn_faces(36, 1, SIDE, seed=5)
    taken: dict[int, int] = {}
    for number, (image, tone) in enumerate(zip(images, tones, strict=True)):
        place = taken.get(int(tone), 0)
        taken[int(tone)] = place + 1
        if tone >= TONES or place >= EACH:
            continue
        face = image.astype(np.float32) / 255
        versions = {"real": face} | {kind: forge_face(face, kind, seed=number)[0] for kind in KINDS}
        for kind, picture in versions.items():
            path = folder / "groups" / f"tone-{tone + 1}" / kind / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(path, np.round(picture * 255).astype(np.uint8).transpose(1, 2, 0))
    shipped = Path(vestige.__file__).parent / "weights" / "starter" / "detector.safetensors"
    shutil.copyfile(shipped, folder / "detector.safetensors")
    return ["scores.csv", "groups", "detector.safetensors"]
