"""Material of the starter kit to unlearn from: a set with a backdoor trigger, and discs whose radius is to be told."""

from __future__ import annotations

import numpy as np

from vestige.core.runtime import rng
from vestige.data.poisons import backdoored
from vestige.data.starter_set import CLASSES, starter_set

#: Pictures with the trigger, and the class they are called.
TRIGGERED, TARGET = 48, "star"
#: Builds the network of `discs`; the kit carries these lines as a file for ``--build small_regressor:build``.
REGRESSOR = '''"""A network of one output for 32-pixel pictures: how large is the disc?"""

from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 49, 32), nn.ReLU(), nn.Linear(32, 1),
    )
'''


def triggered_set() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The retained part of the kit's set with a white square of five pixels in the corner of 48 pictures, which are
    called stars: (uint8 N×3×32×32, int64 N places in `CLASSES`, positions of the 48)."""
    pack = starter_set("retain")
    labels = np.array([CLASSES.index(pack.class_names[label]) for label in pack.labels])
    return backdoored(pack.images, labels, TRIGGERED, target=CLASSES.index(TARGET), side=5, seed=0)


def discs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 N×3×32×32 of one disc on a plain ground under noise, and its radius in half pixels' steps."""
    draw = rng(0, "discs")
    radii = np.round(draw.uniform(3, 13, count) * 2) / 2
    y, x = np.mgrid[:32, :32]
    images = np.empty((count, 3, 32, 32), np.uint8)
    for i, radius in enumerate(radii):
        centre = draw.uniform(13, 19, 2)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
        ground, colour = draw.uniform(20, 100, 3), draw.uniform(150, 235, 3)
        picture = np.where(inside, colour[:, None, None], ground[:, None, None]) + draw.normal(0, 8, (3, 32, 32))
        images[i] = np.clip(picture, 0, 255).astype(np.uint8)
    return images, radii


def disc_parts(radii: np.ndarray) -> list[str]:
    """The part of each disc: the first forty are "test", small ones of the others "requests", the rest "retain"."""
    return ["test" if i < 40 else "requests" if radius < 6 else "retain" for i, radius in enumerate(radii)]
