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
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import scipy.fft
from scipy.ndimage import uniform_filter1d
from scipy.special import i0e

from vestige.core.keys import derive
from vestige.core.runtime import rng
from vestige.watermark.binding import Binding

TILE = 128


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


def fold(white: np.ndarray, side: int = TILE) -> np.ndarray:
    """All tiles of an h×w array added up, side×side; tiles count from its first pixel."""
    height, width = white.shape
    padded = np.pad(white, ((0, -height % side), (0, -width % side)))
    return padded.reshape(padded.shape[0] // side, side, -1, side).sum(axis=(0, 2))


def grid(shape: tuple[int, ...], side: int = TILE) -> tuple[int, int]:
    """Rows and columns of blocks that cover an h×w array: tiles half a tile apart, the first half outside."""
    return -(-2 * shape[0] // side) + 1, -(-2 * shape[1] // side) + 1


@cache
def window(side: int, power: bool = False) -> np.ndarray:
    """Weights of a block (side, side): tents, which add up to one over the blocks, or sines, whose squares do.

    Blocks with signs of their own add up in power, not in amplitude.
    """
    at = (np.arange(side) + 0.5) / side
    line = np.sin(np.pi * at) if power else 1 - np.abs(2 * at - 1)
    return np.outer(line, line).astype(np.float32)


def blocks(white: np.ndarray, side: int = TILE, power: bool = False) -> np.ndarray:
    """Weighted blocks of an h×w array, (rows, columns, side, side); see `grid` and `window`."""
    hop = side // 2
    spare = [(hop, n * hop - length) for n, length in zip(grid(white.shape, side), white.shape)]
    padded = np.pad(white, spare)
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side))[::hop, ::hop]
    weighted: np.ndarray = views * window(side, power)
    return weighted


def overlap_add(tiles: np.ndarray, power: bool = False) -> np.ndarray:
    """Weighted sum of the tiles (rows, columns, side, side) of a block grid, without the outer half tiles."""
    rows, columns, side = tiles.shape[:3]
    hop, weights = side // 2, window(side, power)
    total = np.zeros(((rows + 2) * hop, (columns + 2) * hop), np.float32)
    for i in (0, 1):
        for j in (0, 1):  # blocks a whole tile apart do not overlap
            part = tiles[i::2, j::2] * weights
            height, width = part.shape[0] * side, part.shape[1] * side
            total[i * hop : i * hop + height, j * hop : j * hop + width] += part.transpose(0, 2, 1, 3).reshape(
                height, width
            )
    return total[hop : rows * hop, hop : columns * hop]


@dataclass(frozen=True)
class Waves:
    """Waves with known phases on a square tile.

    side: of the tile. frequencies: cycles per tile, x then y, (N, 2), x positive. turn: exp(i phase), (N,).
    amplitude: of each, with a weight of one.
    """

    side: int
    frequencies: np.ndarray
    turn: np.ndarray
    amplitude: float

    def __len__(self) -> int:
        return len(self.frequencies)

    @property
    def _columns(self) -> int:
        return int(self.frequencies[:, 0].max()) + 1

    def at(self, tiles: np.ndarray) -> np.ndarray:
        """Fourier coefficients of tiles (..., side, side) at the waves, turned by their phases: (..., N) complex64."""
        across = scipy.fft.rfft(tiles, axis=-1)[..., : self._columns]
        spectrum = scipy.fft.fft(across, axis=-2)
        u, v = self.frequencies.T
        return spectrum[..., v, u] * np.conj(self.turn)

    def with_power(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`at`, and the mean power around every wave in its own tile, (..., N) float32."""
        across = scipy.fft.rfft(tiles, axis=-1)[..., : self._columns + 1]
        spectrum = scipy.fft.fft(across, axis=-2)
        power = spectrum.real**2 + spectrum.imag**2
        power = uniform_filter1d(uniform_filter1d(power, 5, -1, mode="nearest"), 5, -2, mode="wrap")
        u, v = self.frequencies.T
        return spectrum[..., v, u] * np.conj(self.turn), power[..., v, u]

    def tiles(self, weights: np.ndarray) -> np.ndarray:
        """Tiles (..., side, side) of complex weights (..., N), the adjoint of `at` up to a factor."""
        spectrum = np.zeros((*weights.shape[:-1], self.side, self._columns), np.complex64)
        u, v = self.frequencies.T
        scale = np.float32(self.amplitude * self.side**2 / 2)
        spectrum[..., v, u] = weights * (self.turn * scale)
        return scipy.fft.irfft(scipy.fft.ifft(spectrum, axis=-2, overwrite_x=True), n=self.side, axis=-1)

    def block_turns(self, rows: int, columns: int) -> np.ndarray:
        """exp(2πi f·start) of every block of a grid, (rows, columns, N): the phase where a block starts."""
        u, v = self.frequencies.T  # a block's start is a whole number of half tiles
        down = np.exp(1j * np.pi * np.outer(np.arange(rows) - 1, v)).astype(np.complex64)
        right = np.exp(1j * np.pi * np.outer(np.arange(columns) - 1, u)).astype(np.complex64)
        return down[:, None] * right[None]

    def level(self, tile: np.ndarray, apart: Waves | None = None) -> np.ndarray:
        """Typical magnitude around each wave in the spectrum of a folded picture, (N,).

        apart: strong waves on the same tile that are left out.
        """
        power = (np.abs(scipy.fft.rfft2(tile)) ** 2).astype(np.float32)
        known = np.ones_like(power)
        if apart is not None:
            known[apart.frequencies[:, 1], apart.frequencies[:, 0]] = 0.0
        power, known = np.fft.fftshift(power * known, axes=0), np.fft.fftshift(known, axes=0)
        around = cv2.blur(power, (9, 9), borderType=cv2.BORDER_REFLECT)
        share = cv2.blur(known, (9, 9), borderType=cv2.BORDER_REFLECT)
        u, v = self.frequencies.T
        at = v + self.side // 2, u
        return np.sqrt(np.maximum(around[at] / np.maximum(share[at], 1e-3), 1e-12))

    def shifted(self, phasors: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Phasors of a picture that shows tile point ``shift`` (x, y) at its first pixel, as if it showed (0, 0)."""
        turns = np.exp(-2j * np.pi / self.side * (self.frequencies @ shift)).astype(np.complex64)
        return phasors * turns


_PILOT_SHARE = {True: 0.3, False: 0.35}  # of the energy, bound or not


def _annulus(band: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (N, 2) of a tile within a band and their radius, cycles per pixel.

    Without the axes, which carry the energy of straight edges.
    """
    u, v = np.meshgrid(np.arange(TILE // 2), np.arange(-TILE // 2, TILE // 2))
    radius = np.hypot(u, v) / TILE
    usable = (radius >= band[0]) & (radius <= band[1]) & (u > 1) & (np.abs(v) > 1)
    return np.stack([u[usable], v[usable]], 1), radius[usable]


class Carriers:
    """The carriers of one key.

    key: bytes. bound: whether content turns the signs of data and masks the pilots (`binding`); pictures marked
    before there was a binding have carriers of their own, so that what is learned from them serves no forger of bound
    marks. pilots: their number. band, pilot_band: lowest and highest radial frequency in cycles per pixel: low enough
    for half size, blur and strong compression, high enough for the host to be weak.

    >>> carriers = Carriers(b"k" * 32)
    >>> carriers.slots > 2000, len(carriers.pilots)
    (True, 32)
    """

    def __init__(
        self,
        key: bytes,
        bound: bool = True,
        pilots: int = 32,
        band: tuple[float, float] = (0.04, 0.25),
        pilot_band: tuple[float, float] = (0.08, 0.19),
    ) -> None:
        purpose = "bound mark carriers" if bound else "mark carriers"
        keyed = rng(int.from_bytes(derive(key, purpose)[:8], "little"), "carriers")
        pool, radius = _annulus(band)
        # Multiples of 1/8 cycle per pixel carry the energy of compression blocks.
        clear = (radius >= pilot_band[0]) & (radius <= pilot_band[1]) & (pool % (TILE // 8) != 0).all(1)
        chosen = np.zeros(len(pool), bool)
        chosen[keyed.choice(np.flatnonzero(clear), pilots, replace=False)] = True
        data = pool[~chosen]
        turn = np.exp(1j * keyed.uniform(0, 2 * np.pi, pilots + len(data))).astype(np.complex64)
        # A cosine of amplitude a has power a²/2, a carrier with two chips twice as much.
        share = _PILOT_SHARE[bound]
        self.pilots = Waves(TILE, pool[chosen], turn[:pilots], math.sqrt(2 * share / pilots))
        self.data = Waves(TILE, data, turn[pilots:], math.sqrt((1 - share) / len(data)))
        self.slots = 2 * len(data)
        self.binding = Binding(key, len(data), TILE // 2) if bound else None

    def tile(self, chips: np.ndarray) -> np.ndarray:
        """What repeats of a mark that is not bound, T×T, root mean square 1. chips: ±1 (slots,)."""
        real, imaginary = np.split(np.asarray(chips, np.float32), 2)
        return self.pilots.tiles(np.ones(len(self.pilots), np.complex64)) + self.data.tiles(real + 1j * imaginary)

    # reading ----------------------------------------------------------------------------------------------------------

    def phasors(self, tile: np.ndarray) -> np.ndarray:
        """Pilots of a folded picture over their level, (K,) complex."""
        return np.divide(self.pilots.at(tile), self.pilots.level(tile, self.pilots))

    def soft_chips(self, data: np.ndarray) -> np.ndarray:
        """Soft chips (..., slots) of aligned phasors of the data carriers (..., M)."""
        return np.concatenate([data.real, data.imag], axis=-1)

    def align(self, phasors: np.ndarray) -> tuple[np.ndarray, float]:
        """Shift o (x, y, sub-pixel) at which the pilots agree best, and the log p-value of one trial.

        C(o) = Σ_k w_k cos(arg F_k - φ_k - 2π f_k·o), w_k = min(|F_k| / level, 1.4). In an unmarked picture the keyed
        φ_k are uniform and independent of F, so that Chernoff's bound holds on the (2T)² shifts by half pixels:

            P(max C >= c) <= (2T)² min_t exp(Σ_k ln I_0(t w_k) - t c).
        """
        z = _capped(phasors)
        if not z.any():
            return np.zeros(2), 0.0
        surface = np.zeros((2 * TILE, TILE + 1), np.complex64)  # twice the side: shifts in half pixels
        surface[self.pilots.frequencies[:, 1], self.pilots.frequencies[:, 0]] = np.conj(z)
        correlation = scipy.fft.irfft2(surface, s=(2 * TILE, 2 * TILE)) * np.float32(2 * TILE * TILE)
        y, x = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
        peak = max(float(correlation[y, x]), 0.0)
        log_p = min(0.0, 2 * math.log(2 * TILE) + _log_tail(np.abs(z), peak))
        return self.near(z, np.array([x, y]) / 2, 0.5)[0], log_p

    def near(self, pilots: np.ndarray, start: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
        """Best shift within ``reach`` of a start, to an eighth of a pixel, and its height in standard deviations."""
        z = _capped(pilots)
        fine = np.arange(-reach, reach + 0.01, 0.125)
        u, v = self.pilots.frequencies.T
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
