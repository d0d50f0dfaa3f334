"""Many scenes at once, as arrays for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.data.packs import Pack
from vestige.data.scenes.model import BACKGROUNDS, CLASSES, COLOURS, STYLES, TEXTURES, Scene, sample_scene
from vestige.data.scenes.render import render

_LABELS: dict[str, tuple[tuple[str, ...], Callable[[Scene], str]]] = {
    "class": (CLASSES, lambda s: s.objects[0].kind),
    "colour": (tuple(COLOURS), lambda s: s.objects[0].colour),
    "texture": (TEXTURES, lambda s: s.objects[0].texture),
    "style": (STYLES, lambda s: s.style),
    "background": (tuple(BACKGROUNDS), lambda s: s.background),
    "count": (tuple(str(n) for n in range(9)), lambda s: str(len(s.objects))),
}


def render_pack(
    count: int, size: int = 64, seed: int = 0, *, first: int = 0, label: str = "class",
    masks: bool = False, depth: bool = False, **options: Any,
) -> Pack:  # fmt: skip
    """Draw and render scenes number ``first`` to ``first + count - 1`` of the series ``seed``.

    Scenes are independent, so a long series can be made in parts. label: "class", "colour" or "texture" (of the first
    object), "style", "background" or "count"; ``class_names`` lists all values, in the order of the constants.
    fields: "caption", "scene", and where asked for "masks" (bool K×H×W) and "depth" (float32 H×W). options: as in
    `sample_scene`. Raises UsageError for an unknown label or a count below 1.

    >>> render_pack(2, 32, n_objects=1, styles=["photo"], label="style").labels.tolist()
    [0, 0]
    """
    if label not in _LABELS:
        raise UsageError(f"label is {label!r}; choose one of {', '.join(_LABELS)}.")
    if count < 1:
        raise UsageError(f"count is {count}; it must be at least 1.")
    words, value = _LABELS[label]
    scenes = [sample_scene(seed * 1_000_003 + first + i, **options) for i in range(count)]
    if label in ("class", "colour", "texture") and not all(s.objects for s in scenes):
        raise UsageError(f"A scene without objects has no {label}; raise n_objects.")
    images = np.empty((count, 3, size, size), np.uint8)
    fields: dict[str, list[Any]] = {"caption": [s.caption for s in scenes], "scene": list(scenes)}
    kept: dict[str, list[Any]] = {name: [] for name, wanted in (("masks", masks), ("depth", depth)) if wanted}
    for i, scene in enumerate(scenes):
        drawn = render(scene, size)
        images[i] = drawn.image * np.float32(255) + np.float32(0.5)
        for name, values in kept.items():
            values.append(getattr(drawn, name))
    labels = np.array([words.index(value(s)) for s in scenes], np.int64)
    names = tuple(f"scene-{seed}-{first + i:06d}" for i in range(count))
    return Pack(images, labels, names, words, {**fields, **kept})
