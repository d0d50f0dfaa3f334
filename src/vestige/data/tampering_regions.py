"""Regions to tamper with: varied outlines whose average over many seeds favours no place in the picture."""

from __future__ import annotations

import math

import numpy as np

#: Share of the picture that a region covers.
SMALLEST, LARGEST = 0.03, 0.25
SHAPES = ("ellipse", "rectangle", "polygon", "blob")

# Centres may lie outside the picture by this factor times the region's share of the picture, in diameters. Regions
# that the border cuts are enlarged to keep their area; with 2.2, found by simulation, that enlargement balances the
# missing overhang at every size: a centre prior reaches a pixel AUC of 0.50 for small and for large regions.
_OVERHANG = 2.2


def draw_region(
    generator: np.random.Generator,
    height: int,
    width: int,
    *,
    placement: str = "uniform",
    shapes: tuple[str, ...] = SHAPES,
    area: tuple[float, float] = (SMALLEST, LARGEST),
    upright: bool = False,
) -> tuple[np.ndarray, str]:
    """A connected region: bool H×W and the name of its shape.

    placement "uniform": centres are uniform over a domain a little larger than the picture, and the outline is scaled
    until the visible part has the area that was drawn, so that neither position nor area tells where the centre is.
    placement "inside": the whole outline lies in the picture, which favours the centre. upright: no rotation.
    """
    low, high = area
    for _ in range(50):
        shape = shapes[int(generator.integers(len(shapes)))]
        target = generator.uniform(low + 0.05 * (high - low), high - 0.05 * (high - low))
        points = _outline(generator, shape, upright) * math.sqrt(target * height * width)
        if placement == "inside":
            spans = np.ptp(points, axis=0)
            points = points * min(1.0, 0.98 * width / spans[0], 0.98 * height / spans[1])
            spare = np.maximum((width, height) - np.ptp(points, axis=0), 0)
            centre = generator.uniform(0, 1, 2) * spare - points.min(0)
            mask = _fill(points, centre, height, width, 1.0)
        else:
            overhang = _OVERHANG * target * math.sqrt(target * height * width)
            size = np.array((width, height))
            centre = generator.uniform(0, 1, 2) * (size + 2 * overhang) - overhang
            mask = _fill(points * _enlargement(points, centre, height, width, target), centre, height, width, 1.0)
        if low <= mask.mean() <= high or (placement == "inside" and mask.any()):
            return mask, shape
    rows = max(1, round(height * (low + high) / 2))  # pictures so long and thin that outlines do not fit them
    top = int(generator.integers(height - rows + 1))
    mask = np.zeros((height, width), bool)
    mask[top : top + rows] = True
    return mask, "band"


def _outline(generator: np.random.Generator, shape: str, upright: bool) -> np.ndarray:
    """Points×2 (x, y) around the origin, unit area."""
    if shape == "rectangle":
        angles, radii = np.array([1, 3, 5, 7]) * math.pi / 4, np.ones(4)
    elif shape == "polygon":
        count = int(generator.integers(5, 10))
        angles = (np.arange(count) + generator.uniform(-0.35, 0.35, count)) * 2 * math.pi / count
        radii = generator.uniform(0.55, 1, count)
    else:
        angles, radii = np.linspace(0, 2 * math.pi, 96, endpoint=False), np.ones(96)
        if shape == "blob":
            for order in range(2, 9):
                phase = generator.uniform(0, 2 * math.pi)
                radii = radii + generator.normal(0, 0.35 / order) * np.cos(order * angles + phase)
            radii = np.maximum(radii, 0.25)
    stretch = math.exp(generator.uniform(-0.6, 0.6))
    points = np.stack([radii * np.cos(angles) * stretch, radii * np.sin(angles) / stretch], 1)
    turn = 0.0 if upright else generator.uniform(0, math.pi)
    points = points @ np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    x, y = points.T
    return points / math.sqrt(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _fill(points: np.ndarray, centre: np.ndarray, height: int, width: int, scale: float) -> np.ndarray:
    """Rasterise an outline, on a grid reduced by ``scale``."""
    import cv2

    mask = np.zeros((max(1, round(height * scale)), max(1, round(width * scale))), np.uint8)
    fixed = np.round(((points + centre) * scale - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 1, shift=4)
    return mask.astype(bool)


def _enlargement(points: np.ndarray, centre: np.ndarray, height: int, width: int, target: float) -> float:
    """The factor at which the visible part covers the target share, searched on a small grid."""
    scale = min(1.0, 96 / min(height, width), 512 / max(height, width))
    factor = 1.0
    for _ in range(12):
        share = _fill(points * factor, centre, height, width, scale).mean()
        if abs(share - target) < 0.02 * target:
            break
        factor *= float(np.clip(math.sqrt(target / max(share, target / 50)), 0.5, 1.6))
    return factor
