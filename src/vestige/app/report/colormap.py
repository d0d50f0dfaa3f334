"""Colours for maps: a perceptually uniform ramp, as RGBA pixels and as small PNG overlays."""

from __future__ import annotations

import io
from functools import cache

import numpy as np

#: Seventeen stops of the magma colour table (N. Smith and S. van der Walt, CC0); straight lines between them stay
#: within 3/255 of the full table.
_STOPS = [
    "000004",
    "0a0822",
    "1d1147",
    "36106b",
    "51127c",
    "6a1c81",
    "832681",
    "9c2e7f",
    "b73779",
    "d0416f",
    "e75263",
    "f56b5c",
    "fc8961",
    "fea772",
    "fec488",
    "fde2a3",
    "fcfdbf",
]


@cache
def palette() -> np.ndarray:
    """uint8 256×4: the colour of every map level, dark and transparent at 0, light and mostly opaque at 255.

    Lightness rises evenly with the level, so the order of values survives greyscale print and colour blindness.
    """
    stops = np.array([[int(s[i : i + 2], 16) for i in (0, 2, 4)] for s in _STOPS], np.float64)
    level = np.linspace(0, 1, 256)
    colours = [np.interp(level, np.linspace(0, 1, len(stops)), stops[:, c]) for c in range(3)]
    table = np.stack([*colours, 205 * level**0.8], axis=1)
    table = (table + 0.5).astype(np.uint8)
    table.setflags(write=False)
    return table


def css_ramp() -> str:
    """The ramp as a CSS gradient, for legends."""
    return f"linear-gradient(90deg, {', '.join('#' + s for s in _STOPS)})"


def _levels(map: np.ndarray) -> np.ndarray:
    """uint8 levels of a map; values outside [0, 1] are clipped and nan counts as 0."""
    if map.ndim != 2 or 0 in map.shape:
        raise ValueError(f"a map is h×w and not empty, got shape {map.shape}")
    bounded = np.nan_to_num(np.asarray(map, np.float32), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    return (bounded * 255 + 0.5).astype(np.uint8)


def colorize(map: np.ndarray) -> np.ndarray:
    """Map float32 h×w in [0, 1] -> uint8 h×w×4 RGBA (straight alpha) to lay over a picture.

    Raises ValueError when the map is empty or not two-dimensional.

    >>> colorize(np.zeros((2, 3), np.float32)).shape
    (2, 3, 4)
    """
    return palette()[_levels(map)]


def overlay_png(map: np.ndarray, side: int = 512) -> bytes:
    """PNG of the coloured map, averaged down to ``side`` pixels on its longer edge; one byte a pixel and a palette.

    Raises ValueError when the map is empty or not two-dimensional.
    """
    from PIL import Image

    levels = Image.fromarray(_levels(map))
    scale = side / max(levels.size)
    if scale < 1:
        size = (max(1, round(levels.width * scale)), max(1, round(levels.height * scale)))
        levels = levels.resize(size, Image.Resampling.BOX)
    # 64 levels look the same as 256 and compress to about two thirds.
    levels = levels.point([min(255, round(v / 4) * 4 + (v > 253) * 3) for v in range(256)])
    table = palette()
    image = Image.fromarray(np.asarray(levels)).convert("P")
    image.putpalette(table[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=table[:, 3].tobytes(), compress_level=7)
    return buffer.getvalue()
