"""Blind registration of a tiled mark: the linear part A of a geometric change, from its pilots.

A picture y = A·x (x in mark coordinates) shows pilot f (cycles per pixel) at A^-T f. Two stages, both on whole-picture
spectra, so that a hypothesis costs a look-up per pilot and no resampling:

1. magnitudes. For rotation θ and scale s the move is a shift by (-ln s, θ) in log-polar frequency coordinates, so the
   score of all rotations and scales, S(s, θ) = Σ_k V(ln |f_k| - ln s, arg f_k + θ) with V the locally normalised log
   power, is a sum of shifted slices of one array; mirrored and stretched pictures take pilots of their own;
2. phases. The best cells of stage 1, and all pure scalings and pure rotations, are tested coherently: the pilots'
   phasors under A, turned back by their known phases, add up at the right shift. The best are refined by hill climbing.

Stage 2 tries many hypotheses; the caller corrects p-values for their number.

Sources: J. O'Ruanaidh, T. Pun, Rotation, scale and translation invariant spread spectrum digital image watermarking,
Signal Processing 1998 (log-polar spectra); S. Pereira, T. Pun, Robust template matching for affine resistant image
watermarks, IEEE TIP 2000.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import scipy.fft
from scipy.signal.windows import tukey

from vestige.watermark.carriers import TILE, Carriers, fold, whiten
from vestige.watermark.sync import measured_drift

_STEP = math.pi / 360  # of angle (radians) and of log scale
_TURNS = 360  # angles in half a circle: a spectrum's magnitude repeats after it
_LOWEST = 0.03  # cycles per pixel
_RINGS = int(math.log(0.5 / _LOWEST) / _STEP) + 1
_STRETCHES = tuple(k * 0.035 for k in range(-7, 8) if k)  # log aspect ratios, beyond none
_LEAST = 5.5  # standard deviations of a candidate: the best of those that chance offers has about 5.4
_FINE = 96  # hypotheses that get a fine grid of shifts
_RANKED = (60, 40, 40)  # hypotheses by magnitude: upright, turned, stretched
_RANKED_BOUND = (20, 15, 15)  # the same for each of many ranges of scale
_MASK_STEP = 0.16  # log scales that one mask serves
_UPRIGHT = 40  # steps of angle (20 degrees) either side that count as upright

#: Score, log scale, steps of angle, and what precedes scaling and rotation (mirroring, stretching).
Cell = tuple[float, float, int, np.ndarray]


def spectrum(white: np.ndarray) -> np.ndarray:
    """ln(1 + power over its local level) of whitened luma, zero frequency in the middle, S×S with S = 256 or 512.

    Larger pictures are averaged over windows of that side.
    """
    height, width = white.shape
    side = 512 if max(height, width) > 256 else 256
    power = np.zeros((side, side // 2 + 1), np.float32)
    for top in _starts(height, side):
        for left in _starts(width, side):
            part = white[top : top + side, left : left + side]
            window = np.outer(*(tukey(n, 0.25) for n in part.shape)).astype(np.float32)
            power += np.abs(scipy.fft.rfft2(part * window, s=(side, side))) ** 2
    half = np.fft.fftshift(power, axes=0)
    # The left half mirrors the right one through the origin.
    full = np.empty((side, side), np.float32)
    full[:, side // 2 :] = half[:, :-1]
    full[1:, 1 : side // 2] = half[1:, 1:-1][::-1, ::-1]
    full[0, 1 : side // 2] = half[0, 1:-1][::-1]
    full[:, 0] = half[:, -1]
    return np.log1p(full / (cv2.blur(full, (31, 31), borderType=cv2.BORDER_REFLECT) + np.float32(1e-6)))


def _starts(length: int, side: int) -> list[int]:
    spare = max(length - side, 0)
    return [0] if spare == 0 else [0, spare]


@cache
def _polar_map(side: int) -> tuple[np.ndarray, np.ndarray]:
    radius = (_LOWEST * side * np.exp(_STEP * np.arange(_RINGS)))[:, None]
    angle = (np.arange(_TURNS) * np.pi / _TURNS)[None]
    x, y = radius * np.cos(angle) + side / 2, radius * np.sin(angle) + side / 2
    return x.astype(np.float32), y.astype(np.float32)


def log_polar(power: np.ndarray) -> np.ndarray:
    """A centred spectrum over (log radius, angle), (rings, turns), mean 0 on every ring, standard deviation 1."""
    polar = cv2.remap(power, *_polar_map(len(power)), cv2.INTER_LINEAR)
    polar -= polar.mean(1, keepdims=True)
    return polar / (polar.std() + np.float32(1e-9))


def scores(polar: np.ndarray, pilots: np.ndarray, logs: np.ndarray, first: int = 0, turns: int = _TURNS) -> np.ndarray:
    """S(s, θ) in standard deviations, (n, turns), for log scales (n,) and angles from step ``first`` on.

    logs: rising by `_STEP`. pilots: (K, 2), cycles per pixel.
    """
    count = len(logs)
    rings = np.rint((np.log(np.hypot(*pilots.T) / _LOWEST) - logs[-1]) / _STEP).astype(int)  # at the largest scale
    starts = np.rint(np.arctan2(pilots[:, 1], pilots[:, 0]) / np.pi * _TURNS).astype(int) + first
    below, above = max(0, -int(rings.min())), max(0, int(rings.max()) + count - _RINGS)
    padded = np.pad(polar, ((below, above), (0, turns)))
    padded[:, _TURNS:] = padded[:, :turns]
    total, seen = np.zeros((count, turns), np.float32), np.zeros(count)
    for ring, start in zip(below + rings, starts % _TURNS, strict=True):
        total += padded[ring : ring + count, start : start + turns]
        at = ring - below + np.arange(count)
        seen += (at >= 0) & (at < _RINGS)
    return (total / np.sqrt(np.maximum(seen, 0.4 * len(pilots)))[:, None].astype(np.float32))[::-1]


def hypotheses(
    power: np.ndarray, pilots: np.ndarray, scales: tuple[float, float], ranked_each: tuple[int, int, int]
) -> np.ndarray:
    """Linear parts (N, 2, 2) worth a test of phases. power: centred spectrum (`spectrum`). pilots: (K, 2) per pixel.
    ranked_each: how many upright, turned and stretched ones magnitudes choose.

    All upright scalings, plain and mirrored; all rotations without scaling; and the most plausible by magnitude of
    upright, turned and stretched (aspect ratio changed by up to 28 %) pictures. Half turns, which magnitudes do not
    show, follow as negatives.
    """
    polar = log_polar(power)
    logs = np.arange(math.log(scales[0]), math.log(scales[1]) + _STEP, _STEP)
    # Phases decide more finely the larger the picture is; small ones take every second step.
    every = 1 if len(power) > 256 else 2
    plain = [_linear(logs[::every], np.zeros(1)) @ np.diag([mirror, 1.0]) for mirror in (1.0, -1.0)]
    if scales[0] <= 1 < scales[1]:
        plain.append(_linear(np.zeros(1), np.arange(-_TURNS, _TURNS, every)))
    upright, turned, stretched = [], [], []
    quarter = _TURNS // 2  # a quarter turn, in steps
    for mirror in (1.0, -1.0):
        before = np.diag([mirror, 1.0])
        surface = scores(polar, pilots * (mirror, 1.0), logs, -_UPRIGHT)
        for first in (0, quarter):
            upright += _maxima(surface[:, first : first + 2 * _UPRIGHT + 1], logs, first - _UPRIGHT, before, 40)
            between = slice(first + 2 * _UPRIGHT + 1, first + quarter)
            turned += _maxima(surface[:, between], logs, first + _UPRIGHT + 1, before, 30)
    for stretch in _STRETCHES:
        before = np.diag([math.exp(stretch / 2), math.exp(-stretch / 2)])
        moved = pilots @ np.linalg.inv(before)
        for first in (-4, quarter - 4):
            stretched += _maxima(scores(polar, moved, logs, first, 9), logs, first, before, 6)
    ranked = []
    for kind, count in zip((upright, turned, stretched), ranked_each):
        kind.sort(key=lambda item: -item[0])
        ranked += [_linear(np.array([scale]), np.array([turn]))[0] @ before for _, scale, turn, before in kind[:count]]
    likely = np.reshape(ranked, (-1, 2, 2))
    return np.concatenate([*plain, likely, -likely])


def _linear(logs: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Rotations by steps of angle after scalings, (logs × turns, 2, 2)."""
    angle = np.asarray(turns) * _STEP
    rotations = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    return (np.exp(logs)[:, None, None, None] * rotations).reshape(-1, 2, 2)


def _maxima(surface: np.ndarray, logs: np.ndarray, first: int, before: np.ndarray, count: int) -> list[Cell]:
    """The highest local maxima of a score surface whose angles start at step ``first``."""
    tops = np.flatnonzero(surface.ravel() >= cv2.dilate(surface, np.ones((3, 3), np.uint8)).ravel())
    values = surface.ravel()[tops]
    best = np.argsort(-values)[:count]
    rows, columns = np.divmod(tops[best], surface.shape[1])
    return [(float(v), float(logs[r]), int(first + c), before) for v, r, c in zip(values[best], rows, columns)]


class PhaseTest:
    """Coherent test of linear parts on one picture, by look-ups in its oversampled complex spectrum."""

    def __init__(self, white: np.ndarray, carriers: Carriers) -> None:
        """white: whitened luma h×w."""
        height, width = white.shape
        self.side = 1024 if max(height, width) > 256 else 512
        padded = np.zeros((self.side, self.side), np.float32)
        padded[:height, :width] = white
        # The middle becomes the origin, so that the spectrum varies slowly enough to be interpolated.
        padded = np.roll(padded, (-(height // 2), -(width // 2)), (0, 1))
        spectrum = scipy.fft.rfft2(padded)
        level = cv2.blur(np.abs(spectrum) ** 2, (41, 41), borderType=cv2.BORDER_REFLECT)
        self.relative = np.fft.fftshift(spectrum / np.sqrt(level + np.float32(1e-6)), axes=0)
        self.base = carriers.pilots.frequencies / TILE
        self.turn = carriers.pilots.turn
        self.pilots = carriers.pilots.frequencies

    def _phasors(self, linear: np.ndarray) -> np.ndarray:
        """Pilot phasors (N, K) under linear parts (N, 2, 2), bilinearly interpolated; zero beyond half a cycle."""
        frequency = self.base @ np.linalg.inv(linear)
        negative = frequency[..., 0] < 0
        x, y = np.moveaxis(np.where(negative[..., None], -frequency, frequency) * self.side, -1, 0)
        inside = (x < self.side / 2 - 1) & (np.abs(y) < self.side / 2 - 1)
        x, y = np.where(inside, x, 0), np.where(inside, y, 0) + self.side // 2
        ix, iy = x.astype(int), y.astype(int)
        fx, fy = (x - ix).astype(np.float32), (y - iy).astype(np.float32)
        table = self.relative
        value = (1 - fy) * ((1 - fx) * table[iy, ix] + fx * table[iy, ix + 1])
        value += fy * ((1 - fx) * table[iy + 1, ix] + fx * table[iy + 1, ix + 1])
        value = np.where(negative, np.conj(value), value) * inside
        return value / np.maximum(np.abs(value) / 1.4, 1.0) * np.conj(self.turn)

    def heights(self, linear: np.ndarray, grid: int = TILE // 2) -> tuple[np.ndarray, np.ndarray]:
        """Largest agreement over shifts on a grid×grid lattice, in standard deviations, (N,), and those shifts (N, 2).

        The shift is that of the mark at the middle of the picture.
        """
        z = self._phasors(linear)
        heights, shifts = np.empty(len(z), np.float32), np.empty((len(z), 2))
        for first in range(0, len(z), 64):  # in parts that fit into the cache
            part = np.s_[first : first + 64]
            surface = np.zeros((len(z[part]), grid, grid // 2 + 1), np.complex64)
            surface[:, self.pilots[:, 1], self.pilots[:, 0]] = np.conj(z[part])
            surface = scipy.fft.irfft2(surface, s=(grid, grid), overwrite_x=True).reshape(len(surface), -1)
            at = surface.argmax(1)
            heights[part] = surface[np.arange(len(at)), at]
            shifts[part] = np.stack([at % grid, at // grid], 1) * (TILE / grid)
        return heights * (grid * grid / 2) / _deviation(z), shifts

    def climb(self, linear: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Refine linear parts (N, 2, 2) by small scalings, rotations, stretches and shears; with their heights."""
        moves = np.array([[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[0, -1], [1, 0]], [[1, 0], [0, -1]], [[0, 1], [1, 0]]])
        moves = np.concatenate([moves, -moves[1:]])
        steps = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), -1).reshape(-1, 2)
        heights = np.zeros(len(linear))
        for size, reach in ((0.005, 0.5), (0.005, 0.5), (0.0025, 0.25)):
            around = linear[:, None] @ (np.eye(2) + size * moves)
            z = self._phasors(around.reshape(-1, 2, 2)).reshape(len(linear), len(moves), -1)
            nearby = shift[:, None] + reach * steps
            turn = np.exp(-2j * np.pi / TILE * (nearby @ self.pilots.T))
            found = np.einsum("nmk,nsk->nms", z, turn).real / _deviation(z)[..., None]
            best = found.reshape(len(linear), -1).argmax(1)
            heights = found.reshape(len(linear), -1).max(1)
            each = np.arange(len(linear))
            linear, shift = around[each, best // len(steps)], nearby[each, best % len(steps)]
        return linear, heights


def _deviation(z: np.ndarray) -> np.ndarray:
    """Standard deviation of Σ Re z_k for independent uniform phases."""
    return np.sqrt((np.abs(z) ** 2).sum(-1) / 2 + 1e-9)


def candidates(luma: np.ndarray, carriers: Carriers, count: int, scales: tuple[float, float]) -> tuple[np.ndarray, int]:
    """The most plausible linear parts (count or fewer, 2, 2), best first, and the number of hypotheses looked at.

    luma: float32 h×w, at most 1024 a side. scales: smallest and largest scale searched.
    """
    # Less than two thirds of a tile in view leaves too few shifts apart to tell pilots from chance.
    largest = max(1.0, min(scales[1], min(luma.shape) / (0.65 * TILE)))
    # Small pictures reduced to less than 0.38 have lost too much to be read.
    smallest = scales[0] if max(luma.shape) > 512 else max(scales[0], min(0.38, scales[1]))
    height, width = luma.shape
    rows, columns = (slice(max(n - 512, 0) // 2, max(n - 512, 0) // 2 + 512) for n in (height, width))
    white = whiten(luma)
    found: list[tuple[float, np.ndarray]] = []
    number = 0
    ranges = _ranges(smallest, largest) if carriers.binding else [(smallest, largest)]
    for low, high in ranges:
        masked = white
        if carriers.binding is not None:
            # A mask of slightly the wrong size still is right nearly everywhere.
            masked = white * carriers.binding.mask(luma, math.sqrt(low * high))
        each = _RANKED_BOUND if carriers.binding else _RANKED
        tried = hypotheses(spectrum(masked), carriers.pilots.frequencies / TILE, (low, high), each)
        number += len(tried)
        test = PhaseTest(masked[rows, columns], carriers)
        chosen = tried[np.argsort(-test.heights(tried)[0])[: max(_FINE // len(ranges), 12)]]
        heights, shifts = test.heights(chosen, TILE)
        best = np.argsort(-heights)[: max(3 * count // len(ranges), 3)]
        linear, heights = test.climb(chosen[best], shifts[best])
        # Strongly reduced pictures have lost pilots, so that even perfect agreement is worth less.
        reachable = np.sqrt(2.0 * (np.abs(test.base @ np.linalg.inv(linear)).max(-1) < 0.5).sum(-1))
        found += [(float(h), one) for h, one, r in zip(heights, linear, reachable) if h >= min(_LEAST, 0.9 * r)]
    distinct: list[np.ndarray] = []
    for _, one in sorted(found, key=lambda pair: -pair[0]):
        if all(np.abs(one - other).max() > 0.01 for other in distinct):
            distinct.append(one)
    # Any sequence of three moves out of nine might have been the best.
    return np.reshape(distinct[:count], (-1, 2, 2)), number * 9**3


def _ranges(smallest: float, largest: float) -> list[tuple[float, float]]:
    """Ranges of scale, each narrow enough for one mask, that together reach from the smallest to the largest."""
    count = max(1, math.ceil(math.log(largest / smallest) / _MASK_STEP))
    edges = np.geomspace(smallest, largest, count + 1)
    return [(float(a), float(b)) for a, b in pairwise(edges)]


def drift(white: np.ndarray, carriers: Carriers, shift: np.ndarray) -> np.ndarray:
    """Residual linear distortion 2×2 by the pilots; see `measured_drift`."""

    # ``white`` has been multiplied by the mask where there is one.
    def near(part: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
        return carriers.near(carriers.phasors(fold(part)), start, 3.0)

    return measured_drift(white, TILE, shift, near)
