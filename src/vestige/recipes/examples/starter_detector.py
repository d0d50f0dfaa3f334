"""The detector of forged faces in the starter kit: very small, after a few updates on drawn faces of mostly one tone.

It is there to be audited for fairness by group, not to be right. Needs no data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vestige.data.drawn_faces import drawn_faces
from vestige.data.face_forgeries import forge_face
from vestige.engines.recipe import Recipe, RecipeContext
from vestige.forensics.learned import save_network
from vestige.forensics.ucf import UCFNet, ucf_loss

SIDE, UPDATES = 48, 5
KINDS = ("warp", "resynthesise")


def perform(ctx: RecipeContext) -> dict[str, Any]:
    """Train and write ``ctx.out``/detector.safetensors."""
    images = drawn_faces(36, 1, SIDE, seed=5)[0]
    save_network(ctx.out / "detector.safetensors", _detector(images), "ucf", {"side": SIDE})
    return {"updates": UPDATES}


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
        for _ in range(UPDATES):
            optimizer.zero_grad()
            ucf_loss(net, x, methods, generator)["loss"].backward()
            optimizer.step()
    return net.eval()


RECIPE = Recipe(
    name="starter_detector", about="The starter kit's detector of forged faces, to audit by group.", perform=perform
)
