"""Pictures of which a region is lost: covered by another picture, a colour, noise or graffiti, with exact masks."""

from __future__ import annotations

import cv2
import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng

KINDS = ("other", "constant", "noise", "graffiti")


def lost_region(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Brush strokes and rectangles, bool H×W, some 5 to 40 % of the picture."""
    drawn = np.zeros((height, width), np.uint8)
    side = min(height, width)
    for _ in range(int(generator.integers(1, 4))):
        if generator.random() < 0.5:
            points = generator.uniform(0, 1, (int(generator.integers(2, 6)), 2)) * (width, height)
            thick = max(2, round(side * generator.uniform(0.06, 0.18)))
            cv2.polylines(drawn, [np.round(points).astype(np.int32)], False, 1, thick)
        else:
            size = np.round(generator.uniform(0.15, 0.45, 2) * (width, height)).astype(int)
            x, y = (int(generator.integers(-s // 3, n - s // 2)) for s, n in zip(size, (width, height), strict=True))
            cv2.rectangle(drawn, (x, y), (x + int(size[0]), y + int(size[1])), 1, -1)
    return drawn.astype(bool)


def corrupt(
    image: np.ndarray, kind: str, *, other: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 3×H×W on eight bits, bool 1×H×W where something was lost) of a float picture 3×H×W in [0, 1].

    x' = (1 - m̃)·x + m̃·n with m̃ the region softened at its edge. kind: what n is: "other" (``other``, a picture of the
    same size), "constant" (one grey or colour), "noise" (uniform) or "graffiti" (strokes of bright colours, by
    themselves). The mask holds pixels that are covered by at least half. Raises UsageError for other kinds and shapes.

    >>> picture, mask = corrupt(np.full((3, 32, 32), 0.5, np.float32), "noise", seed=1)
    >>> picture.shape, mask.shape, bool((picture != np.float32(128 / 255)).any())
    ((3, 32, 32), (1, 32, 32), True)
    """
    if kind not in KINDS or image.ndim != 3 or len(image) != 3 or image.dtype.kind != "f":
        raise UsageError(f"A float picture 3×H×W is corrupted by {', '.join(KINDS)}; got {kind!r}, {image.shape}.")
    if kind == "other" and (other is None or other.shape != image.shape):
        raise UsageError("Covering with another picture needs one of the same size.")
    generator = rng(seed, "corruption", kind)
    height, width = image.shape[1:]
    mask = np.zeros((height, width), bool)
    while not 0.03 < mask.mean() < 0.5:
        mask = lost_region(height, width, generator)
    if kind == "other":
        assert other is not None
        content = other
    elif kind == "noise":
        content = generator.random(image.shape)
    elif kind == "constant":
        content = np.broadcast_to(generator.random((3, 1, 1)), image.shape)
    else:
        mask, content = _graffiti(height, width, generator)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), float(generator.uniform(0.3, 1.0)))
    mixed = (1 - soft) * image + soft * content
    return np.round(np.clip(mixed, 0, 1) * 255).astype(np.float32) / np.float32(255), (soft >= 0.5)[None]


def _graffiti(height: int, width: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Curved strokes in bright colours: (bool H×W, float 3×H×W)."""
    mask, paint = np.zeros((height, width), np.uint8), np.zeros((height, width, 3), np.float32)
    while mask.mean() < 0.06:
        colour = generator.random(3) ** np.array([0.5, 1.0, 2.0])[generator.permutation(3)]
        turns = np.cumsum(generator.normal(0, 0.5, 24)) + generator.uniform(0, 2 * np.pi)
        steps = np.stack([np.cos(turns), np.sin(turns)], 1) * min(height, width) / 20
        points = np.cumsum(steps, 0) + generator.uniform(0, 1, 2) * (width, height)
        line = [np.round(points).astype(np.int32)]
        thick = max(2, round(min(height, width) * generator.uniform(0.03, 0.09)))
        cv2.polylines(mask, line, False, 1, thick)
        cv2.polylines(paint, line, False, [float(c) for c in colour], thick)
    return mask.astype(bool), paint.transpose(2, 0, 1)
