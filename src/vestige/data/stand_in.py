"""Photographs for recipes, and rendered scenes in their place where there is no data."""

from __future__ import annotations

import numpy as np

from vestige.data.packs import has_pack, named_pack
from vestige.data.scenes import render_pack


def photographs_or_scenes(part: str, size: int, *, limit: int = 0, seed: int = 0, scene_size: int = 0) -> np.ndarray:
    """uint8 N×3×S×S of a part ("train", "val" or "test") of the photos pack; rendered scenes where it is missing.

    limit: photographs before parts are cut, 0 all; of scenes 200 in training where it is 0, and an eighth of them in
    the other parts. scene_size: side of the scenes, by default ``size``. Scenes of parts differ. Raises InputError for
    a pack that is damaged, and when VESTIGE_DATA names a folder that is not there.

    >>> photographs_or_scenes("val", 32, limit=64).shape[1:]
    (3, 32, 32)
    """
    if has_pack("photos"):
        return named_pack("photos", part, size=size, limit=limit or None).images
    count = max(4, (limit or 200) // (1 if part == "train" else 8))
    return render_pack(count, scene_size or size, seed + len(part)).images
