"""The object classes of the synthetic world, each a list of simple parts drawn from back to front.

Coordinates: the object stands on y = 0, is about 1 high (or wide), and x = 0 is its middle; y points up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RGB = tuple[float, float, float]

WOOD: RGB = (0.50, 0.33, 0.20)
LEAF: RGB = (0.26, 0.52, 0.22)
CREAM: RGB = (0.95, 0.90, 0.80)
WHITE: RGB = (0.97, 0.97, 0.97)
INK: RGB = (0.10, 0.10, 0.12)
GLASS: RGB = (0.62, 0.80, 0.90)
METAL: RGB = (0.68, 0.70, 0.74)
SKIN: RGB = (0.90, 0.70, 0.56)
BEAK: RGB = (0.96, 0.62, 0.12)
ROOF: RGB = (0.42, 0.30, 0.28)
DENIM: RGB = (0.22, 0.28, 0.42)


@dataclass(frozen=True)
class Part:
    """One closed outline with a material.

    contours: outer outline and holes (even-odd), each N×2. fill: "main" (the object's colour), "dark" or "light"
    (shades of it) or a fixed colour. form: how the surface bends, which decides its shading: "round" (ellipsoid),
    "column" (upright cylinder), "cone", "puff" (pillow of any outline) or "flat" with ``normal``. textured: whether
    the object's texture covers it. gloss: strength of the highlight.
    """

    contours: tuple[np.ndarray, ...]
    fill: str | RGB = "main"
    form: str = "puff"
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)
    textured: bool = False
    gloss: float = 0.25
    outlined: bool = True


def ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> np.ndarray:
    """Points on an ellipse (a sector's arc when start and stop are given, in degrees, anticlockwise)."""
    count = max(8, round(40 * abs(stop - start) / 360))
    t = np.radians(np.linspace(start, stop, count, endpoint=abs(stop - start) < 360))
    return np.stack([cx + rx * np.cos(t), cy + ry * np.sin(t)], axis=1)


def polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def curve(*points: tuple[float, float], steps: int = 6) -> np.ndarray:
    """A smooth closed outline through the points (Catmull-Rom)."""
    p1 = np.array(points, np.float64)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (p[:, None] for p in (p0, p1, p2, p3))
    spline = b + t * (c - a) / 2 + t**2 * (a - 2.5 * b + 2 * c - d / 2) + t**3 * (1.5 * (b - c) + (d - a) / 2)
    return spline.reshape(-1, 2)


def part(*contours: np.ndarray, **material: object) -> Part:
    return Part(contours, **material)  # type: ignore[arg-type]


def main(*contours: np.ndarray, **material: object) -> Part:
    """A part in the object's colour that carries its texture."""
    return part(*contours, **{"textured": True, **material})


def _ball() -> list[Part]:
    return [main(ellipse(0, 0.5, 0.5, 0.5), form="round", gloss=0.7)]


def _cube() -> list[Part]:
    top = polygon((-0.5, 0.74), (0.22, 0.74), (0.5, 0.98), (-0.22, 0.98))
    side = polygon((0.22, 0.0), (0.5, 0.24), (0.5, 0.98), (0.22, 0.74))
    return [
        main(side, form="flat", normal=(0.85, 0.1, 0.5)),
        main(top, form="flat", normal=(0.0, 0.95, 0.3)),
        main(box(-0.5, 0, 0.22, 0.74), form="flat", normal=(-0.25, 0.1, 0.95)),
    ]


def _cone() -> list[Part]:
    outline = np.concatenate([ellipse(0, 0.12, 0.46, 0.12, 180, 360), polygon((0.0, 1.05))])
    return [main(outline, form="cone", gloss=0.5)]


def _cylinder() -> list[Part]:
    body = np.concatenate([ellipse(0, 0.1, 0.36, 0.1, 180, 360), ellipse(0, 0.88, 0.36, 0.1, 0, -180)])
    return [
        main(body, form="column", gloss=0.5),
        part(ellipse(0, 0.88, 0.36, 0.1), fill="light", form="flat", normal=(0, 0.95, 0.3)),
    ]


def _tree() -> list[Part]:
    trunk = curve((-0.1, 0.0), (0.1, 0.0), (0.055, 0.2), (0.06, 0.5), (-0.06, 0.5), (-0.055, 0.2))
    blobs = (
        (-0.22, 0.52, 0.23, 0.2), (0.22, 0.52, 0.23, 0.2), (0.0, 0.5, 0.25, 0.2),
        (-0.12, 0.72, 0.24, 0.22), (0.14, 0.73, 0.22, 0.21), (0.0, 0.86, 0.2, 0.17),
    )  # fmt: skip
    # wider blobs behind carry the outline, so that no line runs through the crown
    behind = [main(ellipse(x, y, rx + 0.02, ry + 0.02), form="round", gloss=0.1) for x, y, rx, ry in blobs]
    crown = [main(ellipse(*blob), form="round", gloss=0.1, outlined=False) for blob in blobs]
    return [part(trunk, fill=WOOD, form="column", gloss=0), *behind, *crown]


def _house() -> list[Part]:
    return [
        part(box(0.2, 0.72, 0.32, 1.0), fill=ROOF, form="flat", normal=(-0.3, 0, 1)),
        main(box(-0.42, 0, 0.42, 0.56), form="flat", normal=(-0.15, 0, 1), gloss=0),
        part(polygon((-0.54, 0.54), (0.54, 0.54), (0.0, 1.0)), fill=ROOF, form="flat", normal=(0, 0.5, 0.8)),
        part(box(-0.09, 0, 0.13, 0.36), fill=WOOD, form="flat"),
        part(box(-0.34, 0.2, -0.16, 0.4), fill=GLASS, form="flat", gloss=0.6),
        part(box(0.2, 0.2, 0.36, 0.4), fill=GLASS, form="flat", gloss=0.6),
    ]


def _car() -> list[Part]:
    cabin = polygon((-0.34, 0.33), (-0.22, 0.58), (0.16, 0.58), (0.32, 0.33))
    body = curve(
        (-0.56, 0.14), (-0.56, 0.3), (-0.4, 0.36), (0.3, 0.36), (0.52, 0.31), (0.58, 0.2), (0.56, 0.12), (0.0, 0.11)
    )
    wheels = [
        part(ellipse(x, 0.12, r, r), fill=fill, form="round", gloss=0.2)
        for x in (-0.32, 0.32)
        for r, fill in ((0.13, INK), (0.06, METAL))
    ]
    return [
        main(cabin, gloss=0.5),
        part(polygon((-0.28, 0.35), (-0.19, 0.53), (-0.05, 0.53), (-0.05, 0.35)), fill=GLASS, form="flat"),
        part(polygon((0.0, 0.35), (0.0, 0.53), (0.13, 0.53), (0.24, 0.35)), fill=GLASS, form="flat"),
        main(body, gloss=0.6),
        part(ellipse(0.53, 0.26, 0.035, 0.035), fill=(1.0, 0.95, 0.6), form="round", outlined=False),
        *wheels,
    ]


def _fish() -> list[Part]:
    tail = curve((0.24, 0.42), (0.56, 0.68), (0.5, 0.42), (0.56, 0.14))
    body = curve((-0.5, 0.4), (-0.3, 0.6), (0.0, 0.66), (0.32, 0.42), (0.0, 0.16), (-0.3, 0.22))
    fin = curve((-0.12, 0.6), (0.02, 0.82), (0.2, 0.56), (0.04, 0.58))
    return [
        part(tail, fill="dark", gloss=0.2),
        part(fin, fill="dark", gloss=0.2),
        main(body, gloss=0.6),
        part(curve((-0.06, 0.4), (0.12, 0.46), (0.14, 0.28), (0.0, 0.32)), fill="dark"),
        part(ellipse(-0.31, 0.46, 0.065, 0.065), fill=WHITE, form="round"),
        part(ellipse(-0.325, 0.46, 0.032, 0.032), fill=INK, form="flat", outlined=False),
    ]


def _star() -> list[Part]:
    t = np.radians(90 + 36 * np.arange(10))
    r = np.where(np.arange(10) % 2 == 0, 0.56, 0.25)
    return [main(np.stack([r * np.cos(t), 0.46 + r * np.sin(t)], axis=1), gloss=0.5)]


def _flower() -> list[Part]:
    angles = np.radians(np.arange(0, 360, 60) + 30)
    petals = [
        main(ellipse(0.2 * np.cos(a), 0.72 + 0.2 * np.sin(a), 0.14, 0.14), form="round", gloss=0.1) for a in angles
    ]
    stem = curve((-0.03, 0.0), (0.03, 0.0), (0.045, 0.35), (0.03, 0.7), (-0.03, 0.7), (-0.015, 0.35))
    return [
        part(stem, fill=LEAF, form="column", gloss=0),
        part(curve((0.02, 0.12), (0.16, 0.32), (0.34, 0.34), (0.22, 0.16)), fill=LEAF, gloss=0.1),
        part(curve((-0.02, 0.08), (-0.22, 0.12), (-0.34, 0.3), (-0.14, 0.26)), fill=LEAF, gloss=0.1),
        *petals,
        part(ellipse(0, 0.72, 0.12, 0.12), fill=(0.97, 0.80, 0.22), form="round", gloss=0.1),
    ]


def _cup() -> list[Part]:
    body = np.concatenate([ellipse(-0.08, 0.1, 0.3, 0.09, 180, 360), ellipse(-0.08, 0.78, 0.38, 0.1, 0, -180)])
    handle = ellipse(0.3, 0.45, 0.24, 0.24)
    return [
        part(handle, ellipse(0.3, 0.45, 0.14, 0.14), fill="main", gloss=0.4),
        main(body, form="column", gloss=0.6),
        part(ellipse(-0.08, 0.78, 0.38, 0.1), fill="light", form="flat", normal=(0, 0.9, 0.4)),
        part(ellipse(-0.08, 0.765, 0.32, 0.07), fill=(0.30, 0.18, 0.10), form="flat", normal=(0, 0.5, 0.8)),
    ]


def _mushroom() -> list[Part]:
    stem = curve((-0.15, 0.02), (0.15, 0.02), (0.12, 0.3), (0.12, 0.55), (-0.12, 0.55), (-0.12, 0.3))
    cap = np.concatenate([ellipse(0, 0.5, 0.5, 0.46, 0, 180), ellipse(0, 0.5, 0.5, 0.09, 180, 360)])
    spots = [
        part(ellipse(x, y, r, r * 0.85), fill=WHITE, form="flat", normal=(0, 0.4, 0.9), outlined=False)
        for x, y, r in ((-0.26, 0.62, 0.08), (0.02, 0.8, 0.09), (0.26, 0.64, 0.08), (0.01, 0.55, 0.055))
    ]
    return [part(stem, fill=CREAM, form="column", gloss=0), main(cap, gloss=0.4), *spots]


def _boat() -> list[Part]:
    return [
        part(box(-0.025, 0.2, 0.025, 0.98), fill=WOOD, form="column"),
        part(polygon((0.05, 0.3), (0.46, 0.3), (0.05, 0.94)), fill=WHITE, gloss=0),
        part(polygon((-0.05, 0.3), (-0.34, 0.3), (-0.05, 0.82)), fill=CREAM, gloss=0),
        main(curve((-0.5, 0.27), (0.0, 0.24), (0.54, 0.28), (0.32, 0.0), (0.0, -0.01), (-0.34, 0.0)), gloss=0.4),
    ]


def _apple() -> list[Part]:
    fruit = curve(
        (0.0, 0.78), (0.2, 0.86), (0.44, 0.72), (0.46, 0.42), (0.28, 0.06),
        (0.0, 0.04), (-0.28, 0.06), (-0.46, 0.42), (-0.44, 0.72), (-0.2, 0.86),
    )  # fmt: skip
    return [
        main(fruit, gloss=0.7),
        part(curve((-0.025, 0.7), (0.025, 0.7), (0.07, 1.0), (0.02, 1.0)), fill=WOOD, form="flat"),
        part(curve((0.05, 0.88), (0.22, 1.04), (0.42, 0.98), (0.24, 0.86)), fill=LEAF, gloss=0.2),
    ]


def _duck() -> list[Part]:
    body = curve(
        (-0.5, 0.52), (-0.34, 0.44), (-0.06, 0.42), (0.12, 0.5), (0.36, 0.34), (0.28, 0.08), (-0.06, 0.0), (-0.38, 0.14)
    )
    wing = curve((-0.34, 0.34), (0.0, 0.36), (0.1, 0.24), (-0.1, 0.14))
    return [
        part(curve((0.38, 0.72), (0.6, 0.68), (0.58, 0.6), (0.38, 0.6)), fill=BEAK, gloss=0.3),
        main(body, gloss=0.3),
        main(ellipse(0.22, 0.69, 0.225, 0.225), form="round", gloss=0.3),
        part(wing, fill="dark", gloss=0.1),
        part(ellipse(0.28, 0.75, 0.04, 0.045), fill=INK, form="round", gloss=0.8, outlined=False),
    ]


def _umbrella() -> list[Part]:
    scallops = [ellipse(x, 0.5, 0.26 / 2, 0.05, 180, 0) for x in (0.39, 0.13, -0.13, -0.39)]
    canopy = np.concatenate([ellipse(0, 0.5, 0.52, 0.44, 180, 0)[:-1], *(s[::-1] for s in scallops)])
    hook = np.concatenate([ellipse(0.07, 0.1, 0.1, 0.1, 180, 360), ellipse(0.07, 0.1, 0.05, 0.05, 360, 180)])
    return [
        part(box(-0.025, 0.1, 0.022, 0.99), fill=METAL, form="column"),
        part(hook, fill=WOOD, gloss=0.3),
        main(canopy, gloss=0.3),
    ]


def _rocket() -> list[Part]:
    body = curve((-0.17, 0.18), (0.17, 0.18), (0.2, 0.5), (0.12, 0.84), (0.0, 1.06), (-0.12, 0.84), (-0.2, 0.5))
    flame = curve((-0.1, 0.16), (0.1, 0.16), (0.05, 0.0), (0.0, -0.06), (-0.05, 0.0))
    return [
        part(flame, fill=(1.0, 0.62, 0.1), gloss=0, form="flat"),
        part(polygon((-0.16, 0.46), (-0.4, 0.02), (-0.13, 0.18)), fill="dark", form="flat", normal=(-0.4, 0.2, 0.8)),
        part(polygon((0.16, 0.46), (0.4, 0.02), (0.13, 0.18)), fill="dark", form="flat", normal=(0.4, 0.2, 0.8)),
        main(body, form="column", gloss=0.5),
        part(ellipse(0, 0.62, 0.1, 0.1), fill=METAL, form="round"),
        part(ellipse(0, 0.62, 0.065, 0.065), fill=GLASS, form="round", gloss=0.8),
    ]


def _cat() -> list[Part]:
    body = curve((-0.3, 0.0), (0.3, 0.0), (0.3, 0.2), (0.16, 0.5), (-0.16, 0.5), (-0.3, 0.2))
    tail = curve((0.22, 0.03), (0.48, 0.02), (0.54, 0.3), (0.44, 0.5), (0.38, 0.46), (0.44, 0.28), (0.36, 0.13))
    return [
        main(tail, gloss=0.05),
        main(body, gloss=0.05),
        main(polygon((-0.3, 0.66), (-0.27, 1.04), (-0.05, 0.86)), gloss=0, form="flat"),
        main(polygon((0.3, 0.66), (0.27, 1.04), (0.05, 0.86)), gloss=0, form="flat"),
        main(ellipse(0, 0.66, 0.32, 0.25), form="round", gloss=0.1),
        *[part(ellipse(x, 0.69, 0.055, 0.07), fill=(0.75, 0.9, 0.4), form="flat") for x in (-0.13, 0.13)],
        *[part(ellipse(x, 0.69, 0.022, 0.06), fill=INK, form="flat", outlined=False) for x in (-0.13, 0.13)],
        part(polygon((-0.045, 0.6), (0.045, 0.6), (0.0, 0.55)), fill=(0.92, 0.55, 0.58), form="flat"),
        *[part(ellipse(x, 0.05, 0.11, 0.06), fill="light", form="round") for x in (-0.13, 0.13)],
    ]


def _person() -> list[Part]:
    shirt = curve((-0.2, 0.38), (0.2, 0.38), (0.21, 0.66), (0.1, 0.73), (-0.1, 0.73), (-0.21, 0.66), steps=4)
    return [
        part(polygon((-0.17, 0.02), (-0.03, 0.02), (0.0, 0.4), (-0.18, 0.42)), fill=DENIM, form="column", gloss=0),
        part(polygon((0.17, 0.02), (0.03, 0.02), (0.0, 0.4), (0.18, 0.42)), fill=DENIM, form="column", gloss=0),
        *[part(ellipse(x, 0.025, 0.1, 0.04), fill=INK, form="round") for x in (-0.12, 0.12)],
        *[main(curve((s * 0.16, 0.7), (s * 0.24, 0.68), (s * 0.34, 0.42), (s * 0.26, 0.4)), gloss=0) for s in (-1, 1)],
        *[part(ellipse(s * 0.3, 0.38, 0.05, 0.05), fill=SKIN, form="round") for s in (-1, 1)],
        main(shirt, form="column", gloss=0),
        part(box(-0.05, 0.7, 0.05, 0.8), fill=SKIN, form="column", outlined=False),
        part(ellipse(0, 0.91, 0.14, 0.125), fill=(0.22, 0.14, 0.10), form="round", gloss=0.1),
        part(ellipse(0, 0.855, 0.125, 0.125), fill=SKIN, form="round", gloss=0.1, outlined=False),
        *[part(ellipse(x, 0.87, 0.018, 0.022), fill=INK, form="flat", outlined=False) for x in (-0.05, 0.05)],
    ]


def _heart() -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [main(np.stack([16 * np.sin(t) ** 3 / 32, (y + 17) / 31], axis=1), gloss=0.7)]


def _lamp() -> list[Part]:
    shade = polygon((-0.38, 0.54), (0.38, 0.54), (0.22, 0.98), (-0.22, 0.98))
    return [
        part(box(-0.035, 0.06, 0.035, 0.6), fill=METAL, form="column", gloss=0.6),
        part(ellipse(0, 0.05, 0.22, 0.065), fill=METAL, form="round", gloss=0.6),
        main(shade, form="column", gloss=0.1),
    ]


SHAPES: dict[str, list[Part]] = {
    "ball": _ball(), "cube": _cube(), "cone": _cone(), "cylinder": _cylinder(), "tree": _tree(), "house": _house(),
    "car": _car(), "fish": _fish(), "star": _star(), "flower": _flower(), "cup": _cup(), "mushroom": _mushroom(),
    "boat": _boat(), "apple": _apple(), "duck": _duck(), "umbrella": _umbrella(), "rocket": _rocket(), "cat": _cat(),
    "person": _person(), "heart": _heart(), "lamp": _lamp(),
}  # fmt: skip


def extent(kind: str) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the class's outline in its own coordinates."""
    points = np.concatenate([c for p in SHAPES[kind] for c in p.contours])
    return (*points.min(axis=0), *points.max(axis=0))
