"""Fractal pictures from iterated function systems (IFS), for pre-training without photographs.

Source: Improving Fractal Pre-training, WACV 2022 (sampling of the systems, rendering, colours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng


@dataclass(frozen=True)
class IFS:
    """n affine maps of the plane x -> A_i x + b_i, whose attractor is the fractal.

    maps: float64 n×2×3, each [A_i | b_i]. All singular values are below 1, so that the attractor exists.
    """

    maps: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """p_i proportional to |det A_i|, so that points fall evenly; never exactly 0."""
        a = self.maps[:, :, :2]
        area = np.abs(a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] * a[:, 1, 0])
        area = np.maximum(area, 1e-3 * max(area.max(), 1e-9))
        return area / area.sum()

    @property
    def singular_values(self) -> np.ndarray:
        """float64 n×2, larger one first."""
        return np.linalg.svd(self.maps[:, :, :2], compute_uv=False)

    def jitter(self, seed: int) -> IFS:
        """The system with one random map scaled by U(0.8, 1.1), still contractive: a variation within a class."""
        g = rng(seed, "ifs jitter")
        maps = self.maps.copy()
        chosen = g.integers(len(maps))
        largest = self.singular_values[chosen, 0]
        maps[chosen] *= min(g.uniform(0.8, 1.1), 0.995 / largest)
        return IFS(maps)


def sample_ifs(seed: int, n: int | None = None) -> IFS:
    """Draw an IFS of n maps (2 to 4 at random when None; up to 8).

    A_i = U_i diag(s_i1, s_i2) V_i with random rotations U, V, random reflections and b_i ~ U(-1, 1)^2. The singular
    values, 1 > s_i1 >= s_i2 >= 0, are drawn under the constraint on the sigma-factor

        sum_i (s_i1 + 2 s_i2) = alpha,   alpha ~ U((5 + n) / 2, (6 + n) / 2),

    which gives attractors that fill their picture well, without a search. Raises UsageError for n out of range.

    >>> sample_ifs(0, n=3).maps.shape
    (3, 2, 3)
    """
    g = rng(seed, "ifs")
    count = int(g.integers(2, 5)) if n is None else n
    if not 2 <= count <= 8:
        raise UsageError(f"An IFS of {count} maps is not offered; choose n from 2 to 8.")
    values = _sample_singular_values(g, count)
    left, right = _rotations(g.uniform(0, 2 * np.pi, count)), _rotations(g.uniform(0, 2 * np.pi, count))
    reflection = g.choice([-1.0, 1.0], (count, 1, 2))
    linear = (left * values[:, None, :]) @ right * reflection
    return IFS(np.concatenate([linear, g.uniform(-1, 1, (count, 2, 1))], axis=2))


def _sample_singular_values(g: np.random.Generator, n: int) -> np.ndarray:
    """Sequential draw with budgets: p is what is left of alpha, q what the remaining pairs cannot take up."""
    alpha = g.uniform((5 + n) / 2, (6 + n) / 2)
    values = np.empty((n, 2))
    p, q = alpha, alpha - 3 * n + 3
    for i in range(n - 1):
        first = g.uniform(max(0.0, q / 3), min(1.0, p))
        p, q = p - first, q - first
        second = g.uniform(max(0.0, q / 2), min(first, p / 2))
        p, q = p - 2 * second, q - 2 * second + 3
        values[i] = first, second
    last = g.uniform(max(0.0, (p - 1) / 2), p / 3)
    values[-1] = p - 2 * last, last
    return values.clip(0, 1 - 1e-6)


def _rotations(angles: np.ndarray) -> np.ndarray:
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def orbit(ifs: IFS, points: int, seed: int = 0) -> np.ndarray:
    """float32 P×2 points of the attractor by the chaos game, P >= points.

    Many short orbits run side by side. All start in the fixed point of the first map, which lies on the attractor,
    and the first 20 steps are dropped because the orbits still crowd there.
    """
    g = rng(seed, "chaos game")
    parallel = int(np.clip(points // 16, 64, 4096))
    keep = -(-points // parallel)
    a, b = ifs.maps[:, :, :2].astype(np.float32), ifs.maps[:, :, 2].astype(np.float32)
    start = np.linalg.solve(np.eye(2) - ifs.maps[0, :, :2], ifs.maps[0, :, 2])
    edges = np.cumsum(ifs.probabilities)[:-1].astype(np.float32)
    x = np.full(parallel, start[0], np.float32)
    y = np.full(parallel, start[1], np.float32)
    # one flat table of coefficients per entry makes a step four lookups and six multiplications
    xx, xy, yx, yy = (np.ascontiguousarray(a[:, i, j]) for i in (0, 1) for j in (0, 1))
    bx, by = np.ascontiguousarray(b[:, 0]), np.ascontiguousarray(b[:, 1])
    found = np.empty((keep, 2, parallel), np.float32)
    steps = 20 + keep
    choices = np.searchsorted(edges, g.random((steps, parallel), np.float32), side="right")
    for step in range(steps):
        k = choices[step]
        x, y = xx[k] * x + xy[k] * y + bx[k], yx[k] * x + yy[k] * y + by[k]
        if step >= 20:
            found[step - 20] = x, y
    return found.transpose(0, 2, 1).reshape(-1, 2)


def density(ifs: IFS, size: int, seed: int = 0, *, points: int | None = None) -> np.ndarray:
    """float32 size×size in [0, 1]: how often each pixel is hit, relative to the most hit one.

    The attractor's bounding box is stretched to the picture; every point stamps one 3×3 binary patch, drawn once per
    picture. points: default 2 per pixel, as 100,000 at 224 × 224.
    """
    if size < 8:
        raise UsageError(f"size is {size}; a fractal needs at least 8 pixels.")
    found = orbit(ifs, points or max(4096, 2 * size * size), seed)
    low, high = found.min(axis=0), found.max(axis=0)
    cells = ((found - low) * ((size - 1) / np.maximum(high - low, 1e-6))).astype(np.int64)
    hits = np.bincount(cells[:, 1] * size + cells[:, 0], minlength=size * size)
    grey: np.ndarray = hits.reshape(size, size).astype(np.float32)
    patch = rng(seed, "patch").integers(0, 2, (3, 3)).astype(np.float32)
    patch[1, 1] = 1
    grey = cv2.filter2D(grey, -1, patch, borderType=cv2.BORDER_CONSTANT)
    return grey / max(float(grey.max()), 1.0)


def render_fractal(
    ifs: IFS, size: int, seed: int = 0, *, colour: bool = True, background: bool = True, augment: bool = True
) -> np.ndarray:
    """float32 3×size×size in [0, 1]: one picture of the fractal; other seeds give other pictures of the same class.

    colour: hue = density + random shift, one saturation and value per picture; otherwise grey. background: a
    diamond-square plasma coloured in the same way; otherwise black. augment: random flips and transposition, a
    window of random scale and place, light blur.

    >>> render_fractal(sample_ifs(1), 32, seed=5).shape
    (3, 32, 32)
    """
    g = rng(seed, "fractal")
    grey = density(ifs, size, seed)
    if augment:
        grey = _augment(grey, g)
    picture = _colourise(grey, g) if colour else np.repeat(grey[..., None], 3, axis=2)
    if background:
        texture = plasma(size, seed)
        behind = _colourise(texture, g) if colour else np.repeat(texture[..., None] * 0.5, 3, axis=2)
        picture = np.where((grey > 0)[..., None], picture, behind)
    else:
        picture = picture * (grey > 0)[..., None]
    if augment and g.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (3, 3), g.uniform(0.5, 1.0))
    return np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32)


def render_several(systems: Sequence[IFS], size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Several fractals in one picture, the multi-instance task: (3×size×size in [0, 1], int boxes K×4 x0 y0 x1 y1).

    Each takes 0.15 to 0.6 of the side, at a random place, over a plasma background; later ones cover earlier ones.
    """
    if size < 16:
        raise UsageError(f"size is {size}; several fractals need at least 16 pixels.")
    g = rng(seed, "several")
    canvas = _colourise(plasma(size, seed), g)
    boxes = []
    for ifs in systems:
        side = max(8, round(size * g.uniform(0.15, 0.6)))
        x, y = (int(v) for v in g.integers(0, size - side + 1, 2))
        grey = density(ifs, side, int(g.integers(2**31)))
        window = canvas[y : y + side, x : x + side]
        np.copyto(window, _colourise(grey, g), where=(grey > 0)[..., None])
        boxes.append((x, y, x + side, y + side))
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)), np.array(boxes, np.int64).reshape(-1, 4)


def plasma(size: int, seed: int = 0, roughness: float = 0.6) -> np.ndarray:
    """float32 size×size in [0, 1]: diamond-square plasma; ``roughness`` is the factor of amplitude per halving."""
    g = rng(seed, "plasma")
    field: np.ndarray = g.random((3, 3), np.float32)
    amplitude = 1.0
    while field.shape[0] < size:
        amplitude *= roughness
        n = field.shape[0]
        noise = (g.random((2 * n - 1, 2 * n - 1), np.float32) - 0.5) * np.float32(amplitude)
        finer = np.empty_like(noise)
        finer[::2, ::2] = field
        centres = (field[:-1, :-1] + field[1:, :-1] + field[:-1, 1:] + field[1:, 1:]) / 4 + noise[1::2, 1::2]
        finer[1::2, 1::2] = centres
        # edge points: mean of the two corners and of the one or two centres beside them
        beside = np.pad(centres, 1, mode="edge")
        finer[::2, 1::2] = (field[:, :-1] + field[:, 1:] + beside[:-1, 1:-1] + beside[1:, 1:-1]) / 4
        finer[1::2, ::2] = (field[:-1] + field[1:] + beside[1:-1, :-1] + beside[1:-1, 1:]) / 4
        finer[::2, 1::2] += noise[::2, 1::2]
        finer[1::2, ::2] += noise[1::2, ::2]
        field = finer
    field = field[:size, :size]
    low, high = float(field.min()), float(field.max())
    return (field - low) / max(high - low, 1e-6)


def _colourise(grey: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """Density -> RGB float32 H×W×3: hue turns with density, from a random start."""
    hsv = np.empty((*grey.shape, 3), np.float32)
    hsv[..., 0] = (grey * 360 + g.uniform(0, 360)) % 360
    hsv[..., 1] = g.uniform(0.3, 1.0)
    hsv[..., 2] = g.uniform(0.5, 1.0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _augment(grey: np.ndarray, g: np.random.Generator) -> np.ndarray:
    transpose, rows, columns = g.random(3) < 0.5
    grey = grey.T if transpose else grey
    grey = grey[:: -1 if rows else 1, :: -1 if columns else 1]
    size = grey.shape[0]
    scale = g.uniform(0.8, 1.25)
    shift = (1 - scale) * size / 2 + g.uniform(-0.1, 0.1, 2) * size
    window = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    return cv2.warpAffine(np.ascontiguousarray(grey), window, (size, size), flags=cv2.INTER_LINEAR)
