"""Keyed carriers of a tiled spread-spectrum mark: frequencies of a square tile, some known (pilots), some modulated.

The mark repeats a tile of side T = 128 with spectrum

    P(u, v) = A_p exp(i φ_uv)               on pilots: known phases, few and strong, for synchronisation
    P(u, v) = A_d (c - i c') exp(i φ_uv)    on data carriers: two chips c, c' = ±1 each

Frequencies and phases follow from the key. A picture is read after whitening: it is folded to one tile (all repetitions
added), transformed, and every carrier's phasor turned back by φ and the shift; real and imaginary parts are soft chips.
Folding in overlapping blocks instead gives the same per place, which embedding and localisation use.

Sources: I. Cox et al., Secure spread spectrum watermarking for multimedia, IEEE TIP 1997; M. Kutter, Watermarking
resisting to translation, rotation and scaling, SPIE 1998 (periodic marks); S. Pereira, T. Pun, Robust template
matching for affine resistant image watermarks, IEEE TIP 2000 (spectral pilots).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import scipy.fft
from scipy.special import i0e

from vestige.core.keys import derive
from vestige.core.runtime import rng

TILE = 128
HOP = TILE // 2  # blocks are tiles weighted with a tent, half a tile apart, so that they add up to one everywhere
_TENT_1D = (1 - np.abs((np.arange(TILE) + 0.5) / HOP - 1)).astype(np.float32)
TENT = np.outer(_TENT_1D, _TENT_1D)


def whiten(luma: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """float32 h×w (0-255) without its local mean, over local contrast, limited: edges and texture do not dominate.

    valid: bool h×w; the result is zero elsewhere and next to it.
    """
    if valid is not None:
        luma = np.where(valid, luma, np.float32(luma[valid].mean() if valid.any() else 0.0))
    residual = luma - cv2.GaussianBlur(luma, (0, 0), 2.0)
    spread = cv2.GaussianBlur(residual * residual, (0, 0), 2.5)
    white = np.clip(residual / np.sqrt(spread + 2.0), -1.5, 1.5)
    if valid is not None:
        white *= cv2.erode(valid.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=1)
    return white


def fold(white: np.ndarray) -> np.ndarray:
    """All tiles of an h×w array added up, T×T; tiles count from its first pixel."""
    height, width = white.shape
    padded = np.pad(white, ((0, -height % TILE), (0, -width % TILE)))
    return padded.reshape(padded.shape[0] // TILE, TILE, -1, TILE).sum(axis=(0, 2))


def grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of blocks that cover an h×w array; block (i, j) starts at ((i-1)·HOP, (j-1)·HOP)."""
    return -(-shape[0] // HOP) + 1, -(-shape[1] // HOP) + 1


def blocks(white: np.ndarray) -> np.ndarray:
    """Tent-weighted blocks of an h×w array, (rows, columns, T, T); they add up to the array."""
    rows, columns = grid(white.shape)
    spare = [(HOP, n * HOP - side) for n, side in zip((rows, columns), white.shape)]
    padded = np.pad(white, spare)
    return np.lib.stride_tricks.sliding_window_view(padded, (TILE, TILE))[::HOP, ::HOP] * TENT


class Carriers:
    """The carriers of one key.

    key: bytes. pilots: their number. pilot_share: their share of the energy. band, pilot_band: lowest and highest
    radial frequency in cycles per pixel: low enough for half size, blur and strong compression, high enough for the
    host to be weak.

    >>> carriers = Carriers(b"k" * 32)
    >>> carriers.slots > 2000, carriers.pilots.shape
    (True, (32, 2))
    """

    def __init__(
        self,
        key: bytes,
        pilots: int = 32,
        pilot_share: float = 0.35,
        band: tuple[float, float] = (0.04, 0.25),
        pilot_band: tuple[float, float] = (0.08, 0.19),
    ) -> None:
        keyed = rng(int.from_bytes(derive(key, "mark carriers")[:8], "little"), "carriers")
        u, v = np.meshgrid(np.arange(TILE // 2), np.arange(-TILE // 2, TILE // 2))
        radius = np.hypot(u, v) / TILE
        # Axes carry the energy of straight edges.
        usable = (radius >= band[0]) & (radius <= band[1]) & (u > 1) & (np.abs(v) > 1)
        pool, radius = np.stack([u[usable], v[usable]], 1), radius[usable]
        # Multiples of 1/8 cycle per pixel carry the energy of compression blocks.
        clear = (radius >= pilot_band[0]) & (radius <= pilot_band[1]) & (pool % (TILE // 8) != 0).all(1)
        chosen = np.zeros(len(pool), bool)
        chosen[keyed.choice(np.flatnonzero(clear), pilots, replace=False)] = True
        self.pilots, self.data = pool[chosen], pool[~chosen]  # (K, 2), (M, 2): cycles per tile, x then y
        self.frequencies = np.concatenate([self.pilots, self.data])
        phases = keyed.uniform(0, 2 * np.pi, len(self.frequencies))
        self.turn = np.exp(1j * phases).astype(np.complex64)
        self.count, self.slots = pilots, 2 * len(self.data)
        # A cosine of amplitude a has power a²/2, a carrier with two chips twice as much.
        pilot, datum = math.sqrt(2 * pilot_share / pilots), math.sqrt((1 - pilot_share) / len(self.data))
        self.amplitudes = np.repeat([pilot, datum], [pilots, len(self.data)]).astype(np.float32)
        self._columns = int(self.frequencies[:, 0].max()) + 1

    def at(self, tiles: np.ndarray) -> np.ndarray:
        """Fourier coefficients of (..., T, T) tiles at the carriers, turned by their phases: (..., K + M) complex64."""
        across = scipy.fft.rfft(tiles, axis=-1)[..., : self._columns]
        spectrum = scipy.fft.fft(across, axis=-2)
        u, v = self.frequencies.T
        return spectrum[..., v, u] * np.conj(self.turn)

    def tiles(self, weights: np.ndarray) -> np.ndarray:
        """Tiles (..., T, T) of complex carrier weights (..., K + M), the adjoint of `at` up to a factor.

        Weights 1 on pilots and (±1 ± i) on data carriers give root mean square 1.
        """
        spectrum = np.zeros((*weights.shape[:-1], TILE, self._columns), np.complex64)
        u, v = self.frequencies.T
        spectrum[..., v, u] = weights * (self.amplitudes * self.turn) * np.float32(TILE * TILE / 2)
        return scipy.fft.irfft(scipy.fft.ifft(spectrum, axis=-2), n=TILE, axis=-1)

    def block_turns(self, rows: int, columns: int) -> np.ndarray:
        """exp(2πi f·start) of every block of a grid, (rows, columns, K + M): the mark's phase where a block starts."""
        u, v = self.frequencies.T
        half = np.pi * HOP * 2 / TILE  # a block's start is a whole number of half tiles
        down = np.exp(1j * half * np.outer(np.arange(rows) - 1, v))
        right = np.exp(1j * half * np.outer(np.arange(columns) - 1, u))
        return (down[:, None] * right[None]).astype(np.complex64)

    def level(self, tile: np.ndarray) -> np.ndarray:
        """Typical magnitude around each carrier in the spectrum of a folded picture, pilots left out: (K + M,)."""
        power = (np.abs(scipy.fft.rfft2(tile)) ** 2).astype(np.float32)
        known = np.ones_like(power)
        known[self.pilots[:, 1], self.pilots[:, 0]] = 0.0
        power, known = np.fft.fftshift(power * known, axes=0), np.fft.fftshift(known, axes=0)
        around = cv2.blur(power, (9, 9), borderType=cv2.BORDER_REFLECT)
        share = cv2.blur(known, (9, 9), borderType=cv2.BORDER_REFLECT)
        u, v = self.frequencies.T
        at = v + TILE // 2, u
        return np.sqrt(np.maximum(around[at] / np.maximum(share[at], 1e-3), 1e-12))

    # reading ----------------------------------------------------------------------------------------------------------

    def phasors(self, tile: np.ndarray) -> np.ndarray:
        """Carriers of a folded picture over their level, (K + M,) complex."""
        return np.divide(self.at(tile), self.level(tile))

    def shifted(self, phasors: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Phasors of a picture that shows tile point ``shift`` (x, y) at its first pixel, as if it showed (0, 0)."""
        return phasors * np.exp(-2j * np.pi / TILE * (self.frequencies[: phasors.shape[-1]] @ shift))

    def soft_chips(self, phasors: np.ndarray) -> np.ndarray:
        """Soft chips (..., slots) of aligned phasors (..., K + M)."""
        data = phasors[..., self.count :]
        return np.concatenate([data.real, data.imag], axis=-1)

    def align(self, phasors: np.ndarray) -> tuple[np.ndarray, float]:
        """Shift o (x, y, sub-pixel) at which the pilots agree best, and the log p-value of one trial.

        C(o) = Σ_k w_k cos(arg F_k - φ_k - 2π f_k·o), w_k = min(|F_k| / level, 1.4). In an unmarked picture the keyed
        φ_k are uniform and independent of F, so that Chernoff's bound holds on the (2T)² shifts by half pixels:

            P(max C >= c) <= (2T)² min_t exp(Σ_k ln I_0(t w_k) - t c).
        """
        z = _capped(phasors[: self.count])
        if not z.any():
            return np.zeros(2), 0.0
        surface = np.zeros((2 * TILE, TILE + 1), np.complex64)  # twice the side: shifts in half pixels
        surface[self.pilots[:, 1], self.pilots[:, 0]] = np.conj(z)
        correlation = scipy.fft.irfft2(surface, s=(2 * TILE, 2 * TILE)) * np.float32(2 * TILE * TILE)
        y, x = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
        peak = max(float(correlation[y, x]), 0.0)
        log_p = min(0.0, 2 * math.log(2 * TILE) + _log_tail(np.abs(z), peak))
        return self.near(z, np.array([x, y]) / 2, 0.5)[0], log_p

    def near(self, pilots: np.ndarray, start: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
        """Best shift within ``reach`` of a start, to an eighth of a pixel, and its height in standard deviations."""
        z = _capped(pilots)
        fine = np.arange(-reach, reach + 0.01, 0.125)
        u, v = self.pilots.T
        turn_x = np.exp(-2j * np.pi / TILE * np.outer(start[0] + fine, u))
        turn_y = np.exp(-2j * np.pi / TILE * np.outer(start[1] + fine, v))
        local = ((turn_y * z) @ turn_x.T).real
        iy, ix = np.unravel_index(int(np.argmax(local)), local.shape)
        deviation = math.sqrt(float((np.abs(z) ** 2).sum()) / 2) + 1e-12
        return start + fine[[ix, iy]], float(local[iy, ix]) / deviation


def _capped(pilots: np.ndarray) -> np.ndarray:
    """Phasors with magnitudes of at most 1.4, so that no strong frequency of the host decides."""
    capped: np.ndarray = pilots / np.maximum(np.abs(pilots) / 1.4, 1.0)
    return capped


_TILTS = np.concatenate([np.arange(0.0, 8.0, 0.25), np.arange(8.0, 40.0, 1.0)])[:, None]


def _log_tail(weights: np.ndarray, height: float) -> float:
    """Chernoff bound of ln P(Σ w_k cos φ_k >= height) for independent uniform φ_k."""
    moments = np.log(i0e(_TILTS * weights)) + _TILTS * weights
    return float((moments.sum(1) - _TILTS[:, 0] * height).min())


def overlap_add(tiles: np.ndarray) -> np.ndarray:
    """Tent-weighted sum of the tiles (rows, columns, T, T) of a block grid, without the outer half tiles."""
    rows, columns = tiles.shape[:2]
    total = np.zeros(((rows + 2) * HOP, (columns + 2) * HOP), np.float32)
    for i in (0, 1):
        for j in (0, 1):  # blocks a whole tile apart do not overlap
            part = tiles[i::2, j::2] * TENT
            height, width = part.shape[0] * TILE, part.shape[1] * TILE
            total[i * HOP : i * HOP + height, j * HOP : j * HOP + width] += part.transpose(0, 2, 1, 3).reshape(
                height, width
            )
    return total[HOP : rows * HOP, HOP : columns * HOP]
