"""Local statistics of noise, interpolation, compression and colour: what an edit breaks, whatever the edit was.

Each is measured in small windows all over the picture. An edited region need not look odd by any absolute measure; it
differs from the rest of its own picture in some of them. Those at half and a quarter of the resolution survive scaling
and compression, which take the finest detail.

Sources: Rich Models for Steganalysis of Digital Images, IEEE TIFS 2012 (residual filters); Exposing Digital Forgeries
by Detecting Traces of Resampling, IEEE TSP 2005 (neighbour correlation); ZERO: a Local JPEG Grid Origin Detector, IPOL
2021 (grid phase as evidence).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vestige.core.errors import UsageError

#: Pixels from one measurement to the next.
STRIDE = 4
#: Luma filters of the rich model: first order in four directions, second in four, third in two, the four edges of
#: 3×3, both squares.
_CHOSEN = (0, 1, 2, 3, 8, 9, 10, 11, 12, 14, 20, 21, 22, 23, 28, 29)
_ACROSS, _UP, _SQUARE = 0, 2, 28  # among the filters of the rich model
_HALF, _QUARTER = (0, 2, 8, 10, 28, 29), (8, 10, 28)
_LAGS = ((0, 1), (1, 0), (1, 1), (0, 2))
#: Channels of `trace_maps`.
CHANNELS = len(_CHOSEN) + 4 + len(_LAGS) + 2 + 3 + 2 + 6 + (len(_HALF) + 4) + len(_QUARTER) + 4
_HALO = 32  # pixels that a measurement may look beyond its place: the windows of the grid, 20, reach farthest


def trace_maps(pixels: np.ndarray, *, strip: int = 512) -> np.ndarray:
    """uint8 H×W×3 -> float32 CHANNELS×⌈H/4⌉×⌈W/4⌉; in strips, so that memory stays bounded.

    Raises UsageError for other arrays and for pictures below 32 pixels a side.

    >>> trace_maps(np.zeros((40, 50, 3), np.uint8)).shape == (CHANNELS, 10, 13)
    True
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or min(pixels.shape[:2]) < 32:
        raise UsageError(f"Traces are measured in uint8 H×W×3 of 32 pixels or more, got {pixels.dtype} {pixels.shape}.")
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % 8), (0, -width % 8), (0, 0)), "symmetric")
    profile = _global_profile(padded)
    out = np.empty((CHANNELS, len(padded) // STRIDE, padded.shape[1] // STRIDE), np.float32)
    for top in range(0, len(padded), strip):
        first, last = max(0, top - _HALO), min(len(padded), top + strip + _HALO)
        found = _measure(padded[first:last].astype(np.float32), profile)
        begin, rows = (top - first) // STRIDE, min(strip, len(padded) - top) // STRIDE
        out[:, top // STRIDE : top // STRIDE + rows] = found[:, begin : begin + rows]
    return out[:, : -(-height // STRIDE), : -(-width // STRIDE)]


def _measure(x: np.ndarray, profile: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """H×W×3 in [0, 255], sides multiples of 8, rows starting at one -> CHANNELS×H/4×W/4."""
    luma, blue, red = _ycc(x)
    maps = []
    kept = {}
    for number in _CHOSEN:
        residual = _filtered(luma, number)
        maps.append(_log_mean(np.abs(residual)))
        if number in (_ACROSS, _UP, _SQUARE):
            kept[number] = residual
    square, across = kept[_SQUARE], kept[_ACROSS]
    maps += [_log_mean(np.abs(_filtered(c, _SQUARE))) for c in (blue, red)]
    maps += [_log_mean(np.abs(c - _beside(c, 0, 1)) + np.abs(c - _beside(c, 1, 0))) for c in (blue, red)]
    energy = _mean(square * square)
    maps += [_mean(square * _beside(square, *lag)) / (energy + 0.05) for lag in _LAGS]
    for residual, second in ((square, energy), (across, _mean(across * across))):
        maps.append(np.log((second + 0.05) / (_mean(np.abs(residual)) ** 2 + 0.05)))
    maps += [_mean((np.abs(residual) < 0.75).astype(np.float32)) for residual in (across, kept[_UP], square)]
    maps += _colour_correlations(x)
    maps += _levels(luma, blue, red)
    halves = [_reduced(plane, 2) for plane in (luma, blue, red)]
    maps += _coarse(halves[0], _HALF, 2)
    maps += [_log_mean(np.abs(_filtered(c, _SQUARE)), 2) for c in halves[1:]]
    quarter = _reduced(luma, 4)
    maps += [_log_mean(np.abs(_filtered(quarter, number)), 1) for number in _QUARTER]
    return np.stack([*maps, *_grid(luma, profile)])


def _ycc(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    luma = x @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma, (x[..., 2] - luma) * np.float32(0.564), (x[..., 0] - luma) * np.float32(0.713)


def _filtered(plane: np.ndarray, number: int) -> np.ndarray:
    from vestige.nn.residual import srm_kernels  # brings torch along, which a start without pictures does not need

    kernel = srm_kernels(30)[number]
    inner = kernel[1:4, 1:4]
    if np.abs(kernel).sum() == np.abs(inner).sum():
        kernel = inner
    return cv2.filter2D(plane, -1, np.ascontiguousarray(kernel), borderType=cv2.BORDER_REFLECT_101)


def _reduced(plane: np.ndarray, factor: int) -> np.ndarray:
    if factor == 1:
        return plane
    size = (plane.shape[1] // factor, plane.shape[0] // factor)
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def _mean(plane: np.ndarray, factor: int = STRIDE) -> np.ndarray:
    """Means of blocks of ``factor`` pixels, each with its neighbours at weights 1 2 1."""
    weights = np.array([0.25, 0.5, 0.25], np.float32)
    return cv2.sepFilter2D(_reduced(plane, factor), -1, weights, weights, borderType=cv2.BORDER_REPLICATE)


def _log_mean(plane: np.ndarray, factor: int = STRIDE) -> np.ndarray:
    return np.log(_mean(plane, factor) + np.float32(0.1))


def _beside(plane: np.ndarray, down: int, right: int) -> np.ndarray:
    """The plane that far on, its border repeated."""
    edges = ((max(-down, 0), max(down, 0)), (max(-right, 0), max(right, 0)))
    height, width = plane.shape
    top, left = max(down, 0), max(right, 0)
    return np.pad(plane, edges, "edge")[top : top + height, left : left + width]


def _colour_correlations(x: np.ndarray) -> list[np.ndarray]:
    """Correlation of the fine detail of red and green, and of green and blue: one light makes both."""
    red, green, blue = (_filtered(np.ascontiguousarray(x[..., c]), _SQUARE) for c in range(3))
    energy = [_mean(c * c) + 0.1 for c in (red, green, blue)]
    return [
        _mean(red * green) / np.sqrt(energy[0] * energy[1]),
        _mean(green * blue) / np.sqrt(energy[1] * energy[2]),
    ]


def _levels(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> list[np.ndarray]:
    """Brightness and colour of a place, and how much they vary in it."""
    means = [_mean(plane) for plane in (luma, blue, red)]
    variances = [_mean(p * p) - m * m for p, m in zip((luma, blue, red), means, strict=True)]
    scaled = [m / np.float32(unit) for m, unit in zip(means, (64, 16, 16), strict=True)]
    return [*scaled, *(np.log1p(np.sqrt(v.clip(min=0))) for v in variances)]


def _coarse(plane: np.ndarray, filters: Sequence[int], factor: int) -> list[np.ndarray]:
    """The same kind of statistics of a picture that is reduced already, which tell texture from noise."""
    residuals = {number: _filtered(plane, number) for number in filters}
    square = residuals[_SQUARE]
    energy = _mean(square * square, factor) + 0.05
    correlations = [_mean(square * _beside(square, *lag), factor) / energy for lag in ((0, 1), (1, 0))]
    return [*(_log_mean(np.abs(r), factor) for r in residuals.values()), *correlations]


def _second(luma: np.ndarray, axis: int) -> np.ndarray:
    """|2 Y(k) − Y(k−1) − Y(k+1)| along an axis, capped so that edges of the content weigh little."""
    down, right = (1, 0) if axis == 0 else (0, 1)
    around = _beside(luma, down, right) + _beside(luma, -down, -right)
    return np.minimum(np.abs(2 * luma - around), 12.0)


def _global_profile(pixels: np.ndarray, strip: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Mean second difference at the eight phases across and down, over their mean, of the whole picture."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    across, down = np.zeros(pixels.shape[1]), np.zeros(len(pixels))
    for top in range(0, len(pixels), strip):
        bottom = min(top + strip, len(pixels))
        first = max(top - 1, 0)
        luma = pixels[first : bottom + 1] @ weights
        inside = slice(top - first, bottom - first)
        across += _second(luma[inside], 1).sum(0, dtype=np.float64)
        down[top:bottom] = _second(luma, 0)[inside].mean(1)
    phases = [(sums / n).reshape(-1, 8).mean(0).astype(np.float32) for sums, n in ((across, len(pixels)), (down, 1))]
    return phases[0] / (phases[0].mean() + 0.05), phases[1] / (phases[1].mean() + 0.05)


def _grid(luma: np.ndarray, profile: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """For both directions: correlation of a window's phases with the picture's, and how uneven they are (log).

    The windows have some forty pixels.
    """
    found = []
    for axis, reference in ((1, profile[0]), (0, profile[1])):
        second = _second(luma, axis)
        second = second if axis == 1 else second.T
        height, width = second.shape
        phases = second.reshape(height // STRIDE, STRIDE, width // 8, 8).mean(1)
        local = cv2.blur(phases, (5, 9), borderType=cv2.BORDER_REPLICATE)
        uneven = local / (local.mean(2, keepdims=True) + 0.05) - 1
        usual = (reference - 1).astype(np.float32)
        spread = (uneven * uneven).mean(2)
        agreement = (uneven * usual).mean(2) / (np.sqrt(spread) * np.sqrt((usual * usual).mean()) + 1e-3)
        for one in (agreement, np.log(spread + 1e-3)):
            wide = np.repeat(one, 2, axis=1)
            found.append(wide if axis == 1 else wide.T)
    return found
