"""Pictures of a generator with and without its parts, for the share of each part: coalitions/ and protected/.

coalitions/: six small pictures for every subset of three parts: "base" draws scenes where there would be noise, "style"
gives them the colours of the protected pictures, "frame" a border that they do not have. protected/: scenes in those
colours. elsewhere.jpg: a part of pictures/untouched-china.jpg, mirrored, smaller and saved badly.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from vestige.app.starter.core import SEED, photograph
from vestige.core.image_io import decode, save_image, to_uint8
from vestige.core.runtime import rng
from vestige.data.scenes import render, sample_scene

PARTS, COUNT, SIDE = ("base", "frame", "style"), 6, 32


def write(folder: Path) -> list[str]:
    """Write both folders."""
    scenes = [
        to_uint8(render(sample_scene(SEED + 400 + i, n_objects=1, object_size="large"), SIDE).image)
        for i in range(2 * COUNT)
    ]
    for i in range(COUNT):
        noise = rng(SEED, "coalitions", i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        for k in range(len(PARTS) + 1):
            for parts in combinations(PARTS, k):
                picture = (scenes[i] if "base" in parts else noise).copy()
                if "style" in parts:
                    picture = _coloured(picture)
                if "frame" in parts:
                    picture[[0, 1, -2, -1]] = picture[:, [0, 1, -2, -1]] = 255
                save_image(folder / "coalitions" / ("+".join(parts) or "none") / f"{i}.png", picture)
        save_image(folder / "protected" / f"{i}.png", _coloured(scenes[COUNT + i]))
    part = np.ascontiguousarray(decode(photograph("china")).pixels[60:360, 100:500][:, ::-1])
    small = cv2.resize(part, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    save_image(folder / "elsewhere.jpg", small, quality=40)
    return ["coalitions/", "elsewhere.jpg", "protected/"]


def _coloured(picture: np.ndarray) -> np.ndarray:
    """The brightness of a picture from dark violet to light orange."""
    light = picture.mean(axis=2, keepdims=True) / 255
    return (np.array([60, 0, 90]) * (1 - light) + np.array([255, 190, 80]) * light).round().astype(np.uint8)
