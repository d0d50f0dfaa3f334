"""Where a mark is put in training: everywhere, in boxes, strokes or segments, or around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vestige.core.errors import UsageError
from vestige.data.tampering_regions import draw_region

KINDS = ("full", "boxes", "strokes", "segments")


@dataclass(frozen=True)
class MaskSampler:
    """One kind of mask for each batch, drawn evenly from ``kinds``; masks that are not full are inverted by chance.

    boxes: the union of one to three rectangles. strokes: thick random walks. segments: outlines of objects, from
    ``segments`` (bool K×H×W) where they are given, otherwise drawn blobs and polygons. invert: probability.
    Raises UsageError for an unknown kind.

    >>> MaskSampler(("boxes",))(2, 32, np.random.default_rng(0)).shape
    (2, 1, 32, 32)
    """

    kinds: Sequence[str] = KINDS
    invert: float = 0.5
    segments: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise UsageError(f"Kinds of masks are {', '.join(KINDS)}; got {', '.join(self.kinds) or 'none'}.")

    def __call__(self, count: int, size: int, generator: np.random.Generator) -> np.ndarray:
        """bool count×1×size×size."""
        kind = self.kinds[int(generator.integers(len(self.kinds)))]
        if kind == "full":
            return np.ones((count, 1, size, size), bool)
        draw = {"boxes": _boxes, "strokes": _strokes, "segments": self._segment}[kind]
        masks = np.stack([draw(size, generator) for _ in range(count)])
        masks ^= generator.random((count, 1, 1)) < self.invert
        return masks[:, None]

    def _segment(self, size: int, generator: np.random.Generator) -> np.ndarray:
        import cv2

        if self.segments is None or len(self.segments) == 0:
            shapes = ("ellipse", "polygon", "blob")
            return draw_region(generator, size, size, shapes=shapes, area=(0.05, 0.5))[0]
        chosen = self.segments[int(generator.integers(len(self.segments)))]
        mask = cv2.resize(chosen.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) > 0.5
        return mask[:, ::-1] if generator.random() < 0.5 else mask


def box(size: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """One rectangle of that share of the area, bool size×size, aspect ratio 1:2 to 2:1, anywhere inside.

    >>> float(box(64, 0.25, np.random.default_rng(0)).mean().round(1))
    0.2
    """
    aspect = math.exp(generator.uniform(-math.log(2), math.log(2)) / 2)
    height = min(size, max(1, round(size * math.sqrt(share) * aspect)))
    width = min(size, max(1, round(share * size * size / height)))
    top, left = int(generator.integers(size - height + 1)), int(generator.integers(size - width + 1))
    mask = np.zeros((size, size), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _boxes(size: int, generator: np.random.Generator) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    for _ in range(int(generator.integers(1, 4))):
        mask |= box(size, float(generator.uniform(0.03, 0.4)), generator)
    return mask


def _strokes(size: int, generator: np.random.Generator) -> np.ndarray:
    import cv2

    canvas = np.zeros((size, size), np.uint8)
    for _ in range(int(generator.integers(1, 4))):
        points = [generator.uniform(0, size, 2)]
        for _ in range(int(generator.integers(3, 9))):
            angle, length = generator.uniform(0, 2 * math.pi), generator.uniform(0.15, 0.5) * size
            points.append((points[-1] + length * np.array([math.cos(angle), math.sin(angle)])).clip(0, size - 1))
        thickness = max(2, round(size * generator.uniform(0.06, 0.2)))
        cv2.polylines(canvas, [np.round(points).astype(np.int32)], False, 1, thickness)
    return canvas.astype(bool)
