"""Scenes with and without a thing: what removals are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.data.scenes import Scene, render, sample_scene


def pairs(count: int, size: int, series: int, **options: Any) -> tuple[list[Scene], np.ndarray, np.ndarray, np.ndarray]:
    """(scenes, pictures, masks of the first thing, pictures without it) on textured grounds; the thing is visible."""
    scenes: list[Scene] = []
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    number = series * 1_000_003
    while len(scenes) < count:
        scene = sample_scene(number, **options)
        number += 1
        drawn = render(scene, size)
        if scene.background != "studio" and drawn.masks[0].mean() > 0.01:
            scenes.append(scene)
            found.append((drawn.image, drawn.masks[:1], render(scene.without(0), size).image))
    images, masks, gone = (np.stack(column) for column in zip(*found, strict=True))
    return scenes, images, masks, gone
