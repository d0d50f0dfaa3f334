"""Characters of invented alphabets: each class a few strokes, each sample its own hand. Made in code, any number."""

from __future__ import annotations

import cv2
import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng


def glyphs(classes: int, samples: int, *, size: int = 16, wobble: float = 0.06, seed: int = 0) -> np.ndarray:
    """uint8 classes×samples×size×size, white strokes on black. wobble: spread of the control points, as a share of the
    side. Class c of a seed is the same whatever ``classes`` is. Raises UsageError for counts below 1.

    >>> glyphs(2, 3).shape
    (2, 3, 16, 16)
    """
    if min(classes, samples, size) < 1:
        raise UsageError("Classes, samples and size must be at least 1.")
    made = np.zeros((classes, samples, size, size), np.uint8)
    for c in range(classes):
        g = rng(seed, "glyph", c)
        strokes = [g.uniform(0.12, 0.88, (int(g.integers(2, 5)), 2)) for _ in range(int(g.integers(2, 4)))]
        for i in range(samples):
            shift = g.normal(0, wobble / 2, 2)
            for stroke in strokes:
                points = (stroke + shift + g.normal(0, wobble, stroke.shape)) * (size - 1)
                cv2.polylines(made[c, i], [np.round(points * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, shift=4)
    return made
