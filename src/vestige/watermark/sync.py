"""Keyed synchronisation template: finds scale, rotation, mirroring and shift of a tiled mark, with a valid p-value.

The template is a square tile T(x, y) = Σ_k cos(2π(u_k x + v_k y)/tile + φ_k) with keyed frequencies (u_k, v_k) and
keyed phases φ_k, repeated over the image. Its magnitude spectrum is a keyed constellation of peaks that moves with the
linear part of any geometric change; its phases give the shift. The two are used in turn:

1. linear part A (image = A · mark coordinates): the constellation is matched to a locally normalised periodogram over
   a grid of scales, angles and mirror images, then A is fitted to the sub-bin peak positions by least squares;
2. shift: C(o) = Σ_k w_k cos(arg F_k - φ_k - 2π(u_k o_x + v_k o_y)/tile), F the spectrum of the image folded to a tile.

Step 1 looks at magnitudes only, so in an unmarked image the φ_k stay independent of everything that step 2 uses; a
cosine of a uniform phase is sub-Gaussian with variance proxy 1/2, hence for n candidates tried

    P(max C >= c) <= n · (2 tile)² · exp(-c² / Σ_k w_k²)      on a grid of half pixels.

Sources: S. Pereira, T. Pun, Robust template matching for affine resistant image watermarks, IEEE TIP 2000 (template of
spectral peaks); M. Kutter, Watermarking resistant to translation, rotation and scaling, SPIE 1998 (periodic marks).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from scipy.ndimage import uniform_filter

from vestige.core.keys import derive
from vestige.core.runtime import rng


@dataclass(frozen=True)
class Lock:
    """A candidate alignment, in (x, y) order.

    linear: image offsets = linear · mark offsets. shift: tile point that the rectified image shows at its origin.
    log_p: natural logarithm of the p-value for one candidate tried (not yet corrected for others).
    """

    linear: np.ndarray
    shift: np.ndarray
    log_p: float

    @property
    def scale(self) -> float:
        return float(math.sqrt(abs(np.linalg.det(self.linear))))

    @property
    def flipped(self) -> bool:
        return bool(np.linalg.det(self.linear) < 0)

    @property
    def rotation(self) -> float:
        """Degrees, counted from the mirrored mark where it is mirrored."""
        return math.degrees(math.atan2(*(self.linear[::-1, 0] * (-1 if self.flipped else 1))))


def measured_drift(
    white: np.ndarray, tile: int, shift: np.ndarray, near: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]
) -> np.ndarray:
    """Residual linear distortion D (2×2): the shift measured in windows is shift + D (p - middle) + constant.

    white: whitened luma H×W. near: (window, expected shift) -> (measured shift, its height in standard deviations).
    Zero where fewer than four windows show the mark.
    """
    height, width = white.shape
    side = [max(min(tile, n), n // 3) for n in (width, height)]
    rows, found, weights = [], [], []
    for y in np.linspace(0, height - side[1], 3).astype(int):
        for x in np.linspace(0, width - side[0], 3).astype(int):
            corner = np.array([x, y])
            local, above = near(white[y : y + side[1], x : x + side[0]], shift + corner)
            rows.append((x + side[0] / 2 - width / 2, y + side[1] / 2 - height / 2, 1.0))
            found.append(local - corner - shift)
            weights.append(max(above - 2.5, 0.0))
    if np.count_nonzero(weights) < 4:
        return np.zeros((2, 2))
    weight = np.array(weights)[:, None]
    # The slight ridge keeps directions that no window measures (narrow images) at zero.
    design = np.vstack([np.array(rows) * weight, np.diag([20.0, 20.0, 0.1])])
    values = np.vstack([np.array(found) * weight, np.zeros((3, 2))])
    return np.linalg.lstsq(design, values, rcond=None)[0][:2].T


def whiten(luma: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """Residual of float32 luma h×w (0-255) after local mean and divided by local contrast, so edges do not dominate."""
    residual = luma - cv2.GaussianBlur(luma, (0, 0), sigma)
    spread = cv2.blur(residual * residual, (15, 15), borderType=cv2.BORDER_REFLECT)
    return residual / np.sqrt(np.maximum(spread, 0.0) + 1.0)


class Template:
    """The template of one key.

    key: bytes; tile: side in pixels; peaks: number of sinusoids; band: lowest and highest radial frequency in cycles
    per pixel.

    >>> Template(b"k" * 32).pattern().shape
    (128, 128)
    """

    def __init__(self, key: bytes, tile: int = 128, peaks: int = 64, band: tuple[float, float] = (0.11, 0.21)) -> None:
        self.tile = tile
        keyed = rng(int.from_bytes(derive(key, "mark template")[:8], "little"), "template")
        u, v = np.meshgrid(np.arange(-tile // 2, tile // 2), np.arange(0, tile // 2))
        radius = np.hypot(u, v) / tile
        # Axes carry the energy of straight edges, multiples of 1/8 cycle per pixel that of compression blocks.
        blocks = (u % (tile // 8) == 0) | (v % (tile // 8) == 0)
        usable = (radius >= band[0]) & (radius <= band[1]) & (np.abs(u) > 2) & (v > 2) & ~blocks
        pool = np.stack([u[usable], v[usable]], 1)
        self.frequencies = pool[keyed.choice(len(pool), peaks, replace=False)]  # (K, 2) cycles per tile, x then y
        self.phases = keyed.uniform(0, 2 * np.pi, peaks)

    def pattern(self) -> np.ndarray:
        """One tile, float32 tile×tile, root mean square 1."""
        spectrum = np.zeros((self.tile, self.tile), complex)
        spectrum[self.frequencies[:, 1], self.frequencies[:, 0]] = np.exp(1j * self.phases)
        tile = np.fft.ifft2(spectrum).real
        return (tile / tile.std()).astype(np.float32)

    # shift ------------------------------------------------------------------------------------------------------------

    def align(self, white: np.ndarray) -> tuple[np.ndarray, float]:
        """Best shift o (x, y; sub-pixel) such that pixel p shows tile point p + o, and the log p-value of one trial."""
        return self._best_shift(self._folded(white))

    def _test(self, white: np.ndarray, power: np.ndarray, linear: np.ndarray) -> float:
        """Log p-value of one linear part: correlation over all shifts, from Fourier sums at the moved frequencies."""
        moved = self.frequencies / self.tile @ np.linalg.inv(linear)
        height, width = white.shape
        turn_x = 2 * np.pi * np.outer(np.arange(width) - (width - 1) / 2, moved[:, 0])
        turn_y = 2 * np.pi * np.outer(np.arange(height) - (height - 1) / 2, moved[:, 1])
        rows = white @ np.hstack([np.cos(turn_x), np.sin(turn_x)]).astype(np.float32)
        across = rows[:, : len(moved)] - 1j * rows[:, len(moved) :]
        sums = (across * np.exp(-1j * turn_y)).sum(0)
        relative = np.sqrt(np.expm1(_look_up(power, moved * (width, height), height, width)))
        return self._best_shift(self._phasors(sums, np.where(np.abs(moved).max(1) < 0.49, relative, 0.0)))[1]

    def _best_shift(self, phasors: np.ndarray) -> tuple[np.ndarray, float]:
        tile = self.tile
        energy = float((np.abs(phasors) ** 2).sum())
        if energy == 0.0:
            return np.zeros(2), 0.0
        surface = np.zeros((2 * tile, 2 * tile), complex)  # twice the side: shifts in half pixels
        surface[self.frequencies[:, 1], self.frequencies[:, 0]] = phasors
        correlation = scipy.fft.fft2(surface).real
        y, x = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
        peak = max(float(correlation[y, x]), 0.0)
        log_p = min(0.0, 2 * math.log(2 * tile) - peak**2 / energy)
        return self._near(phasors, np.array([x, y]) / 2, 0.5)[0], log_p

    def _folded(self, white: np.ndarray) -> np.ndarray:
        """Phasors of the image folded to one tile."""
        tile = self.tile
        height, width = white.shape
        padded = np.pad(white, ((0, -height % tile), (0, -width % tile)))
        spectrum = scipy.fft.fft2(padded.reshape(-1, tile, padded.shape[1] // tile, tile).sum(axis=(0, 2)))
        level = np.maximum(uniform_filter(np.abs(spectrum), 9, mode="wrap"), 1e-12)
        at = self.frequencies[:, 1], self.frequencies[:, 0]
        return self._phasors(spectrum[at], np.abs(spectrum[at]) / level[at])

    def _phasors(self, peaks: np.ndarray, relative: np.ndarray) -> np.ndarray:
        """w_k exp(i(arg F_k - φ_k)), weights capped so that no single strong frequency of the host decides."""
        return np.minimum(relative, 1.4) * np.exp(1j * (np.angle(peaks) - self.phases))

    def _near(self, phasors: np.ndarray, start: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
        """Sub-pixel maximum of the correlation within ``reach`` of a shift, and its height in standard deviations."""
        fine = np.arange(-reach, reach + 0.01, 0.125)
        u, v = self.frequencies.T
        turn_x = np.exp(-2j * np.pi / self.tile * np.outer(start[0] + fine, u))
        turn_y = np.exp(-2j * np.pi / self.tile * np.outer(start[1] + fine, v))
        local = ((turn_y * phasors) @ turn_x.T).real
        iy, ix = np.unravel_index(int(np.argmax(local)), local.shape)
        deviation = math.sqrt(float((np.abs(phasors) ** 2).sum()) / 2) + 1e-12
        return start + fine[[ix, iy]], float(local[iy, ix]) / deviation

    def drift(self, white: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Residual linear distortion; see `measured_drift`."""
        return measured_drift(white, self.tile, shift, lambda part, at: self._near(self._folded(part), at, 3.0))

    # linear part ------------------------------------------------------------------------------------------------------

    def candidates(
        self, white: np.ndarray, count: int, scales: tuple[float, float], angle: float
    ) -> list[tuple[np.ndarray, float]]:
        """The most plausible linear parts (2×2), judged by magnitudes alone, each with its log p-value as one trial.

        scales: smallest and largest scale searched. angle: largest rotation, degrees.
        """
        power = _log_periodogram(white)
        height, width = white.shape
        size = np.array([width, height], float)
        pooled = cv2.dilate(power, np.ones((3, 3), np.uint8))
        step = 1.7 / (0.5 * max(height, width))
        # At least most of a tile has to be in view, otherwise neighbouring peaks merge.
        largest = max(min(scales[1], min(height, width) / (0.75 * self.tile)), scales[0])
        logs = np.arange(math.log(scales[0]), math.log(largest) + step, step)
        half = math.ceil(math.radians(angle) / step)
        turns = np.arange(-half, half + 1) * step
        base = self.frequencies / self.tile  # (K, 2) cycles per pixel
        expected, deviation = float(pooled.mean()), float(pooled.std()) + 1e-9
        coarse: list[tuple[float, np.ndarray]] = []
        for mirror in (1.0, -1.0):
            f = base * (mirror, 1.0)
            cos, sin = np.cos(turns)[:, None], np.sin(turns)[:, None]
            rotated = np.stack([cos * f[:, 0] - sin * f[:, 1], sin * f[:, 0] + cos * f[:, 1]], -1)  # (R, K, 2)
            scores = np.empty((len(logs), len(turns)), np.float32)
            for i, log_scale in enumerate(logs):
                moved = rotated * math.exp(-log_scale)
                inside = np.abs(moved).max(-1) < 0.49
                excess = np.where(inside, _look_up(pooled, moved * size, height, width) - expected, 0.0).sum(-1)
                scores[i] = excess / (deviation * np.sqrt(np.maximum(inside.sum(-1), 8)))
            tops = np.where(scores >= cv2.dilate(scores, np.ones((5, 5), np.uint8)), scores, -np.inf)
            for index in np.argsort(tops, axis=None)[::-1][: 4 * count]:
                row, column = divmod(int(index), scores.shape[1])
                scale, turn = math.exp(logs[row]), turns[column]
                linear = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
                coarse.append((float(tops[row, column]), linear @ np.diag([mirror, 1.0])))
        coarse.sort(key=lambda item: -item[0])
        fitted = [self._fit(power, linear, size) for _, linear in coarse[: 2 * count]]
        fitted.sort(key=lambda item: -item[0])
        distinct: list[np.ndarray] = []
        for _, linear in fitted:
            if len(distinct) < count and all(np.abs(linear - other).max() > 0.003 for other in distinct):
                distinct.append(linear)
        return [(linear, self._test(white, power, linear)) for linear in distinct]

    def _fit(self, power: np.ndarray, linear: np.ndarray, size: np.ndarray) -> tuple[float, np.ndarray]:
        """Least-squares linear part from the sub-bin positions of the peaks near their predicted places."""
        base = self.frequencies / self.tile
        width, height = int(size[0]), int(size[1])
        current = linear
        for reach in (2, 2, 1, 1):
            target = base @ np.linalg.inv(current) * size  # frequencies move with the inverse transpose
            around = np.arange(-reach, reach + 1)
            offsets = np.stack(np.meshgrid(around, around), -1).reshape(-1, 2)
            bins = np.rint(target)[:, None] + offsets
            values = _look_up(power, bins, height, width)
            best, peak = bins[np.arange(len(bins)), values.argmax(1)], values.max(1)
            beside = [_look_up(power, best + d, height, width) for d in ((-1, 0), (1, 0), (0, -1), (0, 1))]
            position = best + np.stack([_vertex(beside[0], peak, beside[1]), _vertex(beside[2], peak, beside[3])], 1)
            inside = np.abs(target / size).max(1) < 0.49
            weight = np.where(inside, np.maximum(peak - 1.5, 0.0), 0.0) ** 2
            for _ in range(3):  # reweighted, so that peaks of the host drop out
                if np.count_nonzero(weight > 1e-3) < 8:
                    break
                root = np.sqrt(weight)[:, None]
                solution = np.linalg.lstsq(base * root, position / size * root, rcond=None)[0].T
                distance = np.linalg.norm(base @ solution.T * size - position, axis=1)
                weight = weight / (1.0 + (distance / 0.5) ** 2)
            else:
                singular = np.linalg.svd(solution, compute_uv=False)
                if singular[1] > 1e-3 and singular[0] / singular[1] < 1.04:  # only near-similarities are credible
                    current = np.linalg.inv(solution).T
        final = base @ np.linalg.inv(current) * size
        inside = np.abs(final / size).max(1) < 0.49
        excess = np.where(inside, _look_up(power, final, height, width) - float(power.mean()), 0.0).sum()
        return float(excess / math.sqrt(max(inside.sum(), 8))), current


def _log_periodogram(white: np.ndarray) -> np.ndarray:
    """Logarithm of the windowed half-plane periodogram over its local level, so that no frequency dominates."""
    height, width = white.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    power = np.log(np.abs(scipy.fft.rfft2(white * window)) ** 2 + np.float32(1e-9))
    level = cv2.blur(power, (15, 15), borderType=cv2.BORDER_REFLECT)
    return np.log1p(np.exp(np.minimum(power - level, 20.0)))


def _look_up(power: np.ndarray, bins: np.ndarray, height: int, width: int) -> np.ndarray:
    """Values of a half-plane spectrum at (x, y) bins of either sign."""
    ix, iy = np.rint(bins[..., 0]).astype(int), np.rint(bins[..., 1]).astype(int)
    negative = ix < 0
    ix, iy = np.where(negative, -ix, ix), np.where(negative, -iy, iy)
    return power[iy % height, np.minimum(ix, power.shape[1] - 1)]


def _vertex(left: np.ndarray, middle: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Position of a parabola's vertex through three equidistant values, within half a step."""
    curvature = left - 2 * middle + right
    return np.clip(np.where(curvature < -1e-9, 0.5 * (left - right) / np.minimum(curvature, -1e-9), 0.0), -0.5, 0.5)
