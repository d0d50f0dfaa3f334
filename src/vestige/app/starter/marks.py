"""Sets of pictures for measures of marks and cloaks: marked/ and unmarked/, cloaked/ and uncloaked/.

marked/: drawn scenes of 128 pixels that carry the default mark of kit.key; unmarked/: others without one. cloaked/:
small scenes pulled towards stripes by up to 16 grey levels, as cloaks against imitation do; uncloaked/: the same
before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vestige import mark
from vestige.app.starter.core import KEY, SEED
from vestige.core.image_io import save_image, to_uint8
from vestige.data.scenes import render, sample_scene

MARKED, CLOAKED, SIDE, SMALL = 3, 6, 128, 32


def write(folder: Path) -> list[str]:
    """Write the four folders."""
    stripes = (np.arange(SMALL) // 2 % 2 * 255).astype(np.int16)[None, :, None]
    for i in range(MARKED):
        first, second = (
            to_uint8(render(sample_scene(SEED + 100 + 2 * i + k, n_objects=2), SIDE).image) for k in (0, 1)
        )
        save_image(folder / "marked" / f"{i}.png", mark(first, message="vestige", key=KEY))
        save_image(folder / "unmarked" / f"{i}.png", second)
    for i in range(CLOAKED):
        small = to_uint8(render(sample_scene(SEED + 200 + i, n_objects=1, object_size="large"), SMALL).image)
        pulled = small + np.clip(stripes - small.astype(np.int16), -16, 16)
        save_image(folder / "uncloaked" / f"{i}.png", small)
        save_image(folder / "cloaked" / f"{i}.png", pulled.clip(0, 255).astype(np.uint8))
    return ["cloaked/", "marked/", "uncloaked/", "unmarked/"]
