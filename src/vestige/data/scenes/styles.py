"""Rendering styles: each turns the same layers into another kind of picture, without touching the geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from vestige.core.runtime import rng
from vestige.data.scenes.backgrounds import Stage
from vestige.data.scenes.raster import BULGE, GLOSS, LIGHT, OUTLINE, Layers

_SHADE = np.array([0.40, 0.43, 0.50], np.float32)
_SUN = np.array([0.74, 0.70, 0.62], np.float32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass
class Drawing:
    """The layers a style works from, all at working resolution (side S)."""

    layers: Layers
    stage: Stage
    seed: int

    @property
    def side(self) -> int:
        return self.layers.cover.shape[0]

    @cached_property
    def behind(self) -> np.ndarray:
        """S×S×1: how much of the background shows."""
        return (1 - self.layers.cover)[..., None]

    @cached_property
    def colour(self) -> np.ndarray:
        """S×S×3 surface colour, textured background."""
        return self.layers.paint[..., :3] + self.behind * self.stage.colour

    @cached_property
    def flat(self) -> np.ndarray:
        """S×S×3 surface colour, plain background."""
        return self.layers.paint[..., :3] + self.behind * self.stage.plain

    @cached_property
    def light(self) -> np.ndarray:
        """S×S in [0, 1]: light that falls on the surface, shadows included."""
        shadow = 1 - 0.75 * self.layers.shadow * self.stage.ground
        return self.layers.paint[..., LIGHT] + self.behind[..., 0] * self.stage.light * shadow

    @cached_property
    def lit(self) -> np.ndarray:
        """S×S×3: the picture as a camera would see it."""
        return self._lit(self.colour)

    @cached_property
    def lit_flat(self) -> np.ndarray:
        return self._lit(self.flat)

    def _lit(self, colour: np.ndarray) -> np.ndarray:
        shaded = colour * (_SHADE + self.light[..., None] * _SUN)
        return np.clip(shaded + self.layers.paint[..., GLOSS : GLOSS + 1], 0, 1)

    @cached_property
    def outline(self) -> np.ndarray:
        """S×S in [0, 1]: the contours of the objects' parts and of the plain background."""
        grey = self.stage.plain @ _LUMA
        edge = np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3)) + np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3))
        edge = np.clip((edge - 0.12) * 4, 0, 0.55) * self.behind[..., 0]
        return np.maximum(self.layers.paint[..., OUTLINE], edge)

    @cached_property
    def owner(self) -> np.ndarray:
        """S×S int: 1 + index of the object that covers most of the pixel, 0 for the background."""
        if not len(self.layers.visible):
            return np.zeros(self.layers.cover.shape, np.int64)
        return np.where(self.layers.cover > 0.5, self.layers.visible.argmax(axis=0) + 1, 0)

    @property
    def bulge(self) -> np.ndarray:
        return self.layers.paint[..., BULGE]


def _photo(d: Drawing) -> np.ndarray:
    image = d.lit.copy()
    glow = cv2.GaussianBlur(np.clip(image - 0.72, 0, 1), (0, 0), d.side / 40)
    image += 0.3 * glow
    image = image * (1.06 - 0.35 * _radius(d.side)[..., None])
    grain = _grain(d.side, 0) * np.float32(0.007)
    return image + grain[..., None]


def _cartoon(d: Drawing) -> np.ndarray:
    tone: np.ndarray = np.where(d.light > 0.72, 1.08, np.where(d.light > 0.34, 0.9, 0.66)).astype(np.float32)
    tone = cv2.blur(tone, (3, 3))
    image = _saturate(d.flat, 1.25) * tone[..., None]
    image += np.clip(d.layers.paint[..., GLOSS : GLOSS + 1] * 4 - 0.9, 0, 0.8)
    ink = cv2.GaussianBlur(d.outline, (3, 3), 0)
    return image * (1 - np.clip(ink * 1.5, 0, 0.95))[..., None]


def _sketch(d: Drawing) -> np.ndarray:
    wobble = _wobbled(d, 0.004, "colour")
    lit, ink = wobble[..., :3], wobble[..., 3]
    dark = (1 - lit @ _LUMA) * (1 - 0.38 * d.behind[..., 0])
    first, second = _hatching(d.side, 45.0), _hatching(d.side, -30.0)
    strokes = np.clip((dark * 1.15 - first) * 4, 0, 1) * 0.55 + np.clip((dark * 1.3 - 0.45 - second) * 4, 0, 1) * 0.5
    strokes = np.clip(strokes + 0.12 + 0.22 * d.layers.cover, 0, 1)[..., None] * (
        0.8 + 0.2 * _grain(d.side, 1)[..., None]
    ).clip(0, 1)
    paper = np.float32(0.97) + 0.012 * _grain(d.side, 2)[..., None]
    pencil = _saturate(lit, 1.3) * 0.8
    image = paper * (1 - strokes * (1 - pencil))
    graphite = np.clip(cv2.blur(ink, (3, 3)) * 1.7, 0, 1) * (0.75 + 0.25 * _grain(d.side, 3)).clip(0, 1)
    return image * (1 - 0.85 * graphite[..., None])


def _watercolour(d: Drawing) -> np.ndarray:
    wash = _wobbled(d, 0.005, "colour")[..., :3]
    k = max(3, d.side // 36 | 1)
    soft = cv2.GaussianBlur(wash, (k, k), 0)
    edge = np.abs(wash - soft).sum(axis=2)
    pooled = cv2.GaussianBlur(np.clip(edge * 1.6, 0, 0.5), (3, 3), 0)
    pigment = 1 - (0.55 * soft + 0.45 * wash)
    blots = _cloud_noise(d.side, d.seed % 7)
    density = (0.90 + 0.13 * blots + 0.06 * _grain(d.side, 2))[..., None] * (1 + 0.9 * pooled[..., None])
    image = 1 - _saturate_pigment(pigment, 1.15) * density * 0.95
    margin = np.clip((_border(d.side) + 0.02 * blots - 0.012) * 40, 0, 1)[..., None]
    return 0.985 + margin * (image - 0.985)


def _oil(d: Drawing) -> np.ndarray:
    k = max(3, d.side // 64 | 1)
    image = _kuwahara(_displaced(d.lit, d.side, 0.0035), k)
    strokes = _strokes(d.side)
    relief = cv2.Sobel(strokes, cv2.CV_32F, 1, 1, ksize=3)
    image = _saturate(image, 1.3) * (1 + 0.10 * strokes + 0.12 * np.clip(relief, -1, 1))[..., None]
    return (image - 0.5) * 1.08 + 0.5


def _mosaic(d: Drawing) -> np.ndarray:
    cells, joint, tone = _tesserae(d.side)
    image = _saturate(_cell_mean(d.lit_flat, cells * 16 + d.owner), 1.3) * (1 + 0.07 * tone[cells])[..., None]
    contour = np.clip(d.layers.paint[..., OUTLINE] - 0.3, 0, 0.45)
    image = image * (1 - contour)[..., None]
    return image + joint[..., None] * (np.float32(0.86) - image)


def _stained_glass(d: Drawing) -> np.ndarray:
    cells = np.where(d.owner > 0, d.owner, 16 + _voronoi(d.side, d.seed % 5))
    colour = _saturate(d.lit_flat, 1.6)
    glass = 1.15 * (0.5 * _cell_mean(colour, cells) + 0.5 * colour)
    lead = np.zeros((d.side, d.side), np.float32)
    lead[:, 1:] = cells[:, 1:] != cells[:, :-1]
    lead[1:] = np.maximum(lead[1:], cells[1:] != cells[:-1])
    width = max(2, round(d.side / 90))
    wide = cv2.blur(cv2.dilate(lead, np.ones((width, width), np.uint8)), (3, 3))
    lead = np.clip(np.maximum(wide, 0.85 * d.layers.paint[..., OUTLINE]), 0, 1)[..., None]
    tone = rng(0, "glass").uniform(0.82, 1.15, int(cells.max()) + 1).astype(np.float32)
    tone[:16] = 1.1
    glass = glass * tone[cells][..., None] + 0.025 * _cloud_noise(d.side, 3)[..., None]
    return glass * (1 - lead) + 0.07 * lead


def _pixel(d: Drawing) -> np.ndarray:
    count = 32
    tone = np.where(d.light > 0.62, 1.05, np.where(d.light > 0.3, 0.86, 0.62)).astype(np.float32)
    image = _saturate(d.flat, 1.3) * tone[..., None]
    small = cv2.resize(image, (count, count), interpolation=cv2.INTER_AREA)
    ink = cv2.resize(d.layers.paint[..., OUTLINE], (count, count), interpolation=cv2.INTER_AREA)
    small = small * (1 - np.clip(ink * 1.1 - 0.25, 0, 0.3))[..., None]
    small = np.round(np.clip(small, 0, 1) * 6) / 6
    return cv2.resize(small, (d.side, d.side), interpolation=cv2.INTER_NEAREST)


def _halftone(d: Drawing) -> np.ndarray:
    image = np.clip(_saturate(d.lit_flat, 1.4) * 1.05, 0, 1)
    period = d.side / 38
    screens = _screens(d.side, period)
    soft = cv2.blur(image, (max(1, round(period / 2)),) * 2)
    ink = np.clip(((1 - soft) - screens) * (period * 0.5) + 0.5, 0, 1)
    page = 1 - 0.95 * (0.5 * ink + 0.5 * (1 - image))
    line = np.clip(d.layers.paint[..., OUTLINE] * 1.3, 0, 0.9)[..., None]
    return page * np.array([1.0, 0.985, 0.94], np.float32) * (1 - line)


def _neon(d: Drawing) -> np.ndarray:
    ink = d.outline
    vivid = _saturate(d.flat / np.maximum(d.flat.max(axis=2, keepdims=True), 0.05) ** 0.6, 1.5).clip(0.06, 1)
    tube = vivid * (ink * (1 - 0.6 * d.behind[..., 0] * (d.layers.paint[..., OUTLINE] < 0.1)))[..., None]
    near, far = cv2.GaussianBlur(tube, (0, 0), d.side / 110), cv2.GaussianBlur(tube, (0, 0), d.side / 26)
    night = np.array([0.05, 0.03, 0.12], np.float32) + 0.07 * d.lit
    inner = 0.20 * vivid * d.layers.cover[..., None] * (0.4 + d.light[..., None])
    return night + inner + 1.1 * near + 1.3 * far + 0.75 * tube + 0.45 * (d.layers.paint[..., OUTLINE] ** 2)[..., None]


def _woodcut(d: Drawing) -> np.ndarray:
    lines = _engraving(d.side)
    tone = cv2.blur(d.lit @ _LUMA, (3, 3))
    black = np.clip((lines - (tone * 1.25 + 0.06 * d.behind[..., 0])) * (d.side / 20), 0, 1)
    black = np.maximum(black, np.clip(d.outline * 1.7, 0, 1))
    paper = np.array([0.95, 0.91, 0.82], np.float32)
    press = paper * (0.42 + 0.58 * _saturate(d.flat, 1.2)) * (1 + 0.03 * _cloud_noise(d.side, 1))[..., None]
    return press + black[..., None] * (np.array([0.11, 0.09, 0.09], np.float32) - press)


def _chalk(d: Drawing) -> np.ndarray:
    wobble = _wobbled(d, 0.006, "flat")
    colour, ink = wobble[..., :3], wobble[..., 3]
    grain = _grain(d.side, 4)
    board = np.array([0.14, 0.19, 0.17], np.float32) * (1 + 0.10 * _cloud_noise(d.side, 2) + 0.05 * grain)[..., None]
    bright = 0.25 + 0.75 * _saturate(colour, 1.4)
    strokes = np.clip((0.95 - _hatching(d.side, 60.0)) * 2, 0.25, 1) * np.clip(0.85 + 0.35 * grain, 0, 1)
    amount = strokes * (0.08 + 0.95 * cv2.blur(d.layers.cover, (3, 3)) * (0.6 + 0.5 * d.light))
    line = np.clip(cv2.blur(ink, (3, 3)) * 1.8, 0, 1) * np.clip(0.95 + 0.3 * grain, 0, 1)
    bright = bright + 0.35 * line[..., None] * (1 - bright)
    amount = np.maximum(amount, line)[..., None]
    return board + amount * (bright - board)


STYLE_FUNCTIONS: dict[str, Callable[[Drawing], np.ndarray]] = {
    "photo": _photo, "cartoon": _cartoon, "sketch": _sketch, "watercolour": _watercolour, "oil painting": _oil,
    "mosaic": _mosaic, "stained glass": _stained_glass, "pixel art": _pixel, "halftone": _halftone, "neon": _neon,
    "woodcut": _woodcut, "chalk": _chalk,
}  # fmt: skip


# ---------------------------------------------------------------- shared by styles


def _saturate(image: np.ndarray, factor: float) -> np.ndarray:
    grey = (image @ _LUMA)[..., None]
    return np.clip(grey + (image - grey) * np.float32(factor), 0, 1)


def _saturate_pigment(pigment: np.ndarray, factor: float) -> np.ndarray:
    return 1 - _saturate(1 - pigment, factor)


def _wobbled(d: Drawing, strength: float, source: str) -> np.ndarray:
    """S×S×4: lit (or flat) picture and outline, moved a little as by an unsteady hand."""
    picture = d.lit if source == "colour" else d.flat
    return _displaced(np.dstack([picture, d.outline]), d.side, strength)


def _displaced(image: np.ndarray, side: int, strength: float) -> np.ndarray:
    map_x, map_y = _wobble_maps(side, strength)
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _kuwahara(image: np.ndarray, k: int) -> np.ndarray:
    """Mean of the least varied of the four corner windows of every pixel: flat patches with crisp borders."""
    mean = cv2.blur(image, (k, k))
    grey = image @ _LUMA
    mean_grey = cv2.blur(grey, (k, k))
    spread = cv2.blur(grey * grey, (k, k)) - mean_grey * mean_grey
    h = k // 2
    padded, varied = np.pad(mean, ((h, h), (h, h), (0, 0)), mode="edge"), np.pad(spread, h, mode="edge")
    rows, columns = image.shape[:2]
    best, least = None, None
    for dy in (0, 2 * h):
        for dx in (0, 2 * h):
            here = varied[dy : dy + rows, dx : dx + columns]
            window = padded[dy : dy + rows, dx : dx + columns]
            if best is None or least is None:
                best, least = window.copy(), here.copy()
                continue
            closer = here < least
            np.copyto(best, window, where=closer[..., None])
            np.copyto(least, here, where=closer)
    assert best is not None
    return best


def _cell_mean(image: np.ndarray, cells: np.ndarray) -> np.ndarray:
    flat = cells.ravel()
    size = np.maximum(np.bincount(flat), 1)
    means = np.stack([np.bincount(flat, image[..., c].ravel()) / size for c in range(3)], axis=1)
    return means.astype(np.float32)[cells]


# ---------------------------------------------------------------- fields that depend on the resolution only


@lru_cache(maxsize=8)
def _radius(side: int) -> np.ndarray:
    t = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    return np.clip((t[:, None] ** 2 + t[None, :] ** 2) * 2, 0, 1) ** 1.5


@lru_cache(maxsize=8)
def _border(side: int) -> np.ndarray:
    """Distance to the nearest border, as a fraction of the side."""
    t = (np.arange(side, dtype=np.float32) + 0.5) / side
    t = np.minimum(t, 1 - t)
    return np.minimum(t[:, None], t[None, :])


@lru_cache(maxsize=12)
def _grain(side: int, index: int) -> np.ndarray:
    """Fine noise, s.d. 1, of the grain size of paper at this resolution."""
    noise = rng(0, "grain", index).standard_normal((side, side)).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), max(0.6, side / 360))
    return field / field.std()


@lru_cache(maxsize=24)
def _cloud_noise(side: int, index: int) -> np.ndarray:
    field = np.zeros((side, side), np.float32)
    g = rng(0, "cloud", index)
    for cells, weight in ((5, 1.0), (11, 0.7), (23, 0.4)):
        coarse = g.standard_normal((cells, cells)).astype(np.float32)
        field += weight * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return field / field.std()


@lru_cache(maxsize=8)
def _hatching(side: int, angle: float) -> np.ndarray:
    """Parallel strokes: 0 in the middle of a line, 1 between lines, slightly irregular."""
    t = np.arange(side, dtype=np.float32) / side
    a = np.radians(angle)
    phase = (t[None, :] * np.cos(a) + t[:, None] * np.sin(a)) * 46 + 0.35 * _cloud_noise(side, 5)
    return (np.abs(phase % 1 - 0.5) * 2).astype(np.float32)


@lru_cache(maxsize=8)
def _engraving(side: int) -> np.ndarray:
    """Wavy lines: 1 in the middle of a line, 0 between lines."""
    t = np.arange(side, dtype=np.float32) / side
    phase = t[:, None] * 30 + 0.5 * np.sin(t[None, :] * 9) + 0.15 * _cloud_noise(side, 6)
    return (1 - np.abs(phase % 1 - 0.5) * 2).astype(np.float32)


@lru_cache(maxsize=8)
def _wobble_maps(side: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(side, dtype=np.float32)
    shift_x, shift_y = _cloud_noise(side, 8), _cloud_noise(side, 9)
    amount = np.float32(strength * side)
    return t[None, :] + amount * shift_x, t[:, None] + amount * shift_y


@lru_cache(maxsize=8)
def _strokes(side: int) -> np.ndarray:
    """Short brush marks in three directions, s.d. 1."""
    g = rng(0, "strokes")
    base = min(side, 256)  # larger pictures get wider marks, not finer ones
    noise = g.standard_normal((base, base)).astype(np.float32)
    length = max(3, base // 18)
    region = np.digitize(_cloud_noise(base, 4), (-0.5, 0.5))
    field = np.zeros((base, base), np.float32)
    for index, angle in enumerate((20, 75, 140)):
        kernel = np.zeros((length, length), np.float32)
        a, c = np.radians(angle), (length - 1) / 2
        tip = (c * np.cos(a), c * np.sin(a))
        ends = [tuple(round(c + s * v) for v in tip) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0, 1)
        marks = cv2.filter2D(noise, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
        field = np.where(region == index, marks, field)
    return cv2.resize(field / field.std(), (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)


@lru_cache(maxsize=8)
def _tesserae(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell of every pixel, strength of the joint there, and a random tone per cell of a mosaic."""
    count = 34
    t = (np.arange(side, dtype=np.float32) + 0.5) / side * count
    y = t[:, None] + 0.12 * _cloud_noise(side, 10)
    x = t[None, :] + 0.12 * _cloud_noise(side, 11) + 0.5 * (np.floor(y) % 2)
    column, row = np.floor(x).astype(int) + 2, np.floor(y).astype(int) + 2
    cells = row * (count + 6) + column
    near = np.minimum(0.5 - np.abs(x % 1 - 0.5), 0.5 - np.abs(y % 1 - 0.5))
    joint = np.clip((0.10 - near) * (side / count) * 0.9 + 0.2, 0, 0.6)
    tone = rng(0, "tesserae").standard_normal(int(cells.max()) + 1).astype(np.float32)
    return cells, joint.astype(np.float32), tone


@lru_cache(maxsize=10)
def _voronoi(side: int, index: int) -> np.ndarray:
    """Nearest of a jittered grid of seeds for every pixel."""
    from scipy.spatial import cKDTree

    count = 6
    g = rng(0, "voronoi", index)
    grid = np.stack(np.meshgrid(np.arange(count), np.arange(count)), -1).reshape(-1, 2)
    seeds = (grid + g.uniform(0.1, 0.9, grid.shape)) / count
    t = (np.arange(side) + 0.5) / side
    points = np.stack(np.meshgrid(t, t), -1).reshape(-1, 2)
    return cKDTree(seeds).query(points)[1].reshape(side, side)


@lru_cache(maxsize=4)
def _screens(side: int, period: float) -> np.ndarray:
    """S×S×3 thresholds in [0, 1] of three dot screens, turned against each other."""
    t = np.arange(side, dtype=np.float32)
    screens = []
    for angle in (15, 75, 45):
        a = np.radians(angle)
        u = (t[None, :] * np.cos(a) + t[:, None] * np.sin(a)) * (2 * np.pi / period)
        v = (t[:, None] * np.cos(a) - t[None, :] * np.sin(a)) * (2 * np.pi / period)
        screens.append((np.cos(u) + np.cos(v)) / 4 + 0.5)
    return np.dstack(screens).astype(np.float32)
