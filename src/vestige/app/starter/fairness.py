"""Material for auditing a detector of forged faces by group: a table of scores, faces by group, and a small detector.

The groups are tones of skin of drawn faces. The detector learnt for a moment, from faces of mostly one tone.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import torch

from vestige.core.files import write_atomic
from vestige.core.image_io import save_image
from vestige.core.runtime import rng
from vestige.data.drawn_faces import drawn_faces
from vestige.data.face_forgeries import forge_face
from vestige.forensics.fairfd import biased_answers
from vestige.forensics.learned import save_network
from vestige.forensics.ucf import UCFNet, ucf_loss

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
    save_network(folder / "detector.safetensors", _detector(images), "ucf", {"side": SIDE})
    return ["scores.csv", "groups", "detector.safetensors"]


def _detector(images: np.ndarray) -> UCFNet:
    """A very small network after a few updates."""
    faces = np.ascontiguousarray(images[:16], np.float32) / 255
    made = [np.stack([forge_face(f, kind, seed=9)[0] for f in faces]) for kind in KINDS]
    x = torch.from_numpy(np.concatenate([faces, np.concatenate([made[0][:8], made[1][8:]])]))
    methods = torch.tensor([0] * 16 + [1] * 8 + [2] * 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, generator = UCFNet(n_methods=2, width=4, features=16), torch.Generator().manual_seed(0)
        for part in net.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = 0.5  # so that what it uses later follows within a few updates
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(5):
            optimizer.zero_grad()
            ucf_loss(net, x, methods, generator)["loss"].backward()
            optimizer.step()
    return net.eval()
