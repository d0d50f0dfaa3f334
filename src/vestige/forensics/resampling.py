"""Resampling: the whole picture was scaled or rotated after it was taken.

Interpolated samples are sums of their neighbours, and how well they are predicted by them repeats with the period of
the interpolation. With e the residual of a fixed linear predictor, the map p = exp(-|e|) shows that period as narrow
peaks in its spectrum, at frequencies set by the scale. Frequencies k/8 belong to JPEG's coding grid and are left out,
so scales that show only there (8/7, 4/3, 8/5, 4) are missed; doubling with centred samples leaves no period at all.

Two views are taken: the plane spectrum of p, averaged over overlapping tiles (scaling and rotation), and the spectra
of the mean of |e| over columns and over rows (scaling; more sensitive, because a whole line is averaged).

Sources: Exposing Digital Forgeries by Detecting Traces of Resampling, IEEE Trans. Signal Processing 2005 (p-maps);
Fast and Reliable Resampling Detection by Spectral Analysis of Fixed Linear Predictor Residue, ACM MM&Sec 2008;
Detection of Linear and Cubic Interpolation in JPEG Compressed Images, CRV 2005 (line averages).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy.fft import rfft, rfft2
from scipy.ndimage import median_filter
from scipy.stats import gamma

from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject

_SMALLEST = 96
_STRIP = 512


class Resampling:
    """Looks for the spectral peaks that interpolation leaves in a picture.

    tile: side of the tiles of the plane spectrum. largest: at most this central part of a picture (side in pixels) is
    read. The score is the logarithm of how far the strongest peak stands above its neighbourhood, in units that
    follow one distribution whatever the size.

    >>> from vestige.core.image_io import encode
    >>> g = np.random.default_rng(0)
    >>> small = cv2.GaussianBlur(g.normal(128, 60, (200, 200, 3)), (0, 0), 0.7).clip(0, 255).astype(np.uint8)
    >>> large = cv2.resize(small, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_LINEAR)
    >>> scores = [Resampling().find(ImageSubject(encode(p, "PNG"))).score for p in (small, large)]
    >>> scores[1] > scores[0] + 1
    True
    """

    slug = "resampling"
    photographs = True
    kind = "history"

    def __init__(self, *, tile: int = 256, largest: int = 3072) -> None:
        self.tile = tile
        self.largest = largest

    def find(self, subject: ImageSubject) -> Finding:
        """Score and the peak frequencies; does not apply to tiny, flat and mostly clipped pictures."""
        luma = subject.luma
        if min(luma.shape) < _SMALLEST:
            return Finding.not_applicable(
                self.slug, self.kind, f"the picture is smaller than {_SMALLEST} pixels on a side."
            )
        top, left = (max(0, (n - self.largest) // 2) for n in luma.shape)
        luma = luma[top : top + self.largest, left : left + self.largest]
        residual, usable = _residual(luma)
        if usable.mean() < 0.2:
            return Finding.not_applicable(
                self.slug, self.kind, "most of the picture is flat or clipped, so interpolation leaves no trace in it."
            )
        columns = _line_peak(residual, usable, axis=0)
        rows = _line_peak(residual, usable, axis=1)
        plane = _plane_peak(np.where(usable, np.exp(-residual), np.float32(0.5)), self.tile)
        names = ("columns", "rows", "the plane spectrum")
        peaks = dict(zip(names, (columns, rows, plane), strict=True))
        # scaling shows in both directions, which patterns of the scene seldom do; scores of lines reach about three
        # times as far by chance as those of the plane
        excess = max(columns[0], rows[0], 3.0 * plane[0]) + 2.0 * min(columns[0], rows[0])
        evidence = tuple(
            f"{name}: strongest peak {value:.1f} above its neighbourhood at frequency {where} cycles per pixel"
            for name, (value, where) in peaks.items()
        )
        return Finding(
            self.slug,
            self.kind,
            math.log1p(max(excess, 0.0)),
            "The prediction residual is periodic, as after scaling or rotating the whole picture; regular patterns in "
            "the scene can imitate this, and scaling alone is no sign of deception.",
            "No period of interpolation stands out; reduction in size and later strong compression leave little of it.",
            evidence=evidence,
            details={name: round(value, 3) for name, (value, _) in peaks.items()},
        )


def _residual(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|e| of the fixed linear predictor (float32 h×w) and where it is usable (neither clipped nor perfectly flat)."""
    kernel = np.array([[0.25, -0.5, 0.25], [-0.5, 1.0, -0.5], [0.25, -0.5, 0.25]], np.float32)
    residual = np.empty(luma.shape, np.float32)
    usable = np.empty(luma.shape, bool)
    for start in range(0, len(luma), _STRIP):
        first = max(start - 2, 0)
        strip = luma[first : start + _STRIP + 2]
        keep = slice(start - first, start - first + min(_STRIP, len(luma) - start))
        error = np.abs(cv2.filter2D(strip, -1, kernel))
        active = cv2.blur(error, (5, 5)) > 0.05
        residual[start : start + _STRIP] = error[keep]
        usable[start : start + _STRIP] = (active & (strip > 1) & (strip < 254))[keep]
    return residual, usable


def _line_peak(residual: np.ndarray, usable: np.ndarray, axis: int) -> tuple[float, str]:
    """Strongest peak in the spectrum of the line means of log|e|, as excess of its log power, and its frequency."""
    level = np.where(usable, np.log(residual + np.float32(0.3)), 0)
    count = np.maximum(usable.sum(axis), 1)
    line = level.sum(axis, dtype=np.float64) / count
    line = np.where(count > 0.05 * usable.shape[axis], line, np.median(line))
    line = line - cv2.blur(line[None], (9, 1), borderType=cv2.BORDER_REFLECT)[0]
    spread = 1.4826 * np.median(np.abs(line)) + 1e-6
    line = np.clip(line, -4 * spread, 4 * spread) * np.hanning(len(line))
    power = np.abs(rfft(line)) ** 2
    frequency = np.arange(len(power)) / len(line)
    allowed = (frequency > 0.06) & ~_grid(frequency, 3.0 / len(line))
    return _highest(power, allowed, frequency, 41)


def _highest(power: np.ndarray, allowed: np.ndarray, frequency: np.ndarray, width: int) -> tuple[float, str]:
    if allowed.sum() < 8:
        return 0.0, "none"
    filled = np.where(allowed, power, np.median(power[allowed]))
    background = median_filter(filled, width, mode="reflect") + 1e-3 * np.median(filled) + 1e-12
    ratio = np.where(allowed, filled / background, 0)
    best = int(ratio.argmax())
    # the power of noise is exponential: its largest of n lies near log(n) / log(2) medians
    return max(float(ratio[best]) * math.log(2) - math.log(allowed.sum()), 0.0), f"{frequency[best]:.3f}"


def _plane_peak(p: np.ndarray, tile: int) -> tuple[float, str]:
    """Strongest peak of the tile-averaged power spectrum of the p-map, as excess over its neighbourhood."""
    side = min(tile, *p.shape)
    window = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    starts = [np.unique(np.linspace(0, n - side, max(1, round(2 * n / side) - 1)).astype(int)) for n in p.shape]
    power = np.zeros((side, side // 2 + 1), np.float64)
    for y in starts[0]:
        for x in starts[1]:
            part = p[y : y + side, x : x + side]
            power += np.abs(rfft2((part - part.mean()) * window, workers=1)) ** 2
    tiles = len(starts[0]) * len(starts[1])
    power /= tiles
    fy = np.abs(np.fft.fftfreq(side))[:, None]
    fx = np.fft.rfftfreq(side)[None]
    radius = np.hypot(fy, fx)
    near = 2.5 / side
    allowed = (radius > 0.1) & ~((_grid(fy, near) | (fy < near)) & (_grid(fx, near) | (fx < near)))
    # single lines through the origin come from straight edges of the scene and of the picture's border
    floor = cv2.medianBlur(np.pad(power.astype(np.float32), 8, mode="wrap"), 5)
    background = cv2.blur(floor, (9, 9))[8:-8, 8:-8] / math.log(2)
    # overlapping tiles are half independent; their averaged power follows a gamma distribution
    shape = max(1.0, 0.5 * tiles)
    ratio = np.where(allowed, power / (background + 1e-12), 0)
    best = np.unravel_index(int(ratio.argmax()), ratio.shape)
    value = -float(gamma.logsf(shape * ratio[best], shape)) - math.log(max(int(allowed.sum()), 1))
    return float(np.clip(value, 0.0, 1e4)), f"({fx[0, best[1]]:.3f}, {np.fft.fftfreq(side)[best[0]]:.3f})"


def _grid(frequency: np.ndarray, near: float) -> np.ndarray:
    """Frequencies within ``near`` of a multiple of 1/8."""
    return np.abs(frequency * 8 - np.round(frequency * 8)) / 8 < near
