"""Informed embedding: the host's own contribution to every soft code bit is known when marking, and compensated.

After whitening, block b of the picture contributes y_bj = x_bj + g_b s_bj to the soft value of code bit j (signs folded
so that positive is right): x from the host, g_b the block's response, s_bj the amplitude it is given. A reader sees
some window W of blocks. The amplitudes minimise

    Σ_W Σ_j (τ - Σ_{b in W} y_bj / t_W)²  +  μ / B · Σ_bj s_bj²,        t_W = Σ_{b in W} g_b,

over the whole panel and its half-area crops: one small ridge regression for all code bits. x and g are measured on a
blindly marked, JPEG-compressed panel, so that blocks whose mark compression would erase are not relied on.

Sources: H. Malvar, D. Florencio, Improved spread spectrum, IEEE Trans. Signal Processing 2003 (host compensation);
M. Miller, G. Doërr, I. Cox, Applying informed coding and embedding to design a robust high-capacity watermark, IEEE TIP
2004. The windowed regression and the compression in the loop are this implementation's.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from vestige.watermark.carriers import Carriers, blocks, fold, grid, overlap_add, whiten

_QUALITIES = (40, 80, 100)  # of the JPEG compression in the loop; weaker where stronger would leave nothing
_CLEAR = 0.8  # margin of code bits under compression from which that compression is reckoned with
_LARGEST = 3.0  # of any |s_bj|
_LARGEST_BLOCK = 1.7  # of their root mean square in a block, so that the mark does not gather where it would be seen
_TARGETS = (1.8, 1.5)  # τ of pilots and data
_RIDGE = 2.0  # μ


def panel_change(
    luma: np.ndarray, carriers: Carriers, chips: np.ndarray, groups: np.ndarray, amplitude: np.ndarray
) -> np.ndarray:
    """The change of luma (h×w, grey levels) that marks a panel whose first pixel is tile point (0, 0).

    luma: float32 h×w, 0-255. chips: ±1 (slots,). groups: code bit that each chip repeats, (slots,). amplitude: float32
    h×w, root mean square in grey levels that the mark may have at each place; the result has at most its energy.
    """
    rows, columns = grid(luma.shape)
    chips = chips.astype(np.float32)
    turns = carriers.block_turns(rows, columns)
    pairs = (chips[: len(chips) // 2] + 1j * chips[len(chips) // 2 :]).astype(np.complex64)
    plain = np.concatenate([np.ones(carriers.count, np.complex64), pairs])
    # Blind marking needs one tile only: its phase repeats.
    tile = carriers.tiles(plain)
    height, width = luma.shape
    blind = np.tile(tile, (-(-height // len(tile)), -(-width // len(tile))))[:height, :width] * amplitude
    for quality in _QUALITIES:
        white = whiten(_compressed(luma + blind, quality))
        folded = fold(white)
        if _margins(carriers.phasors(folded), carriers, chips, groups)[0] >= _CLEAR:
            break
    seen = carriers.at(blocks(white)) * np.conj(turns) / carriers.level(folded)
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], np.arange(groups.max() + 1))
    soft = (carriers.soft_chips(seen) * chips).reshape(rows * columns, -1)[:, order]
    data = np.add.reduceat(soft, first, axis=1).astype(float)
    pilots = seen[..., : carriers.count].reshape(rows * columns, -1).astype(complex)
    response = np.maximum(data.mean(1), 0.0)
    if response.max() <= 0.0:  # compression leaves nothing anywhere: there is nothing to optimise
        return blind
    response += 0.02 * response.max()
    ratio = max(float(pilots.real.mean(1) @ response / (response @ response)), 1e-6)
    windows = _windows(rows, columns)
    strength = _ridge(data - response[:, None], response, windows, _TARGETS[1]).astype(np.float32)
    pilot_strength = _ridge(pilots - ratio * response[:, None], ratio * response, windows, _TARGETS[0])
    strength, pilot_strength = _limited(strength), _limited(pilot_strength)
    per_chip = strength[:, groups] * chips
    half = len(chips) // 2
    weights = np.concatenate([pilot_strength, per_chip[:, :half] + 1j * per_chip[:, half:]], axis=1)
    weights = weights.reshape(rows, columns, -1).astype(np.complex64) * turns
    change = overlap_add(carriers.tiles(weights))[:height, :width] * amplitude
    energy, budget = float(np.mean(change**2)), float(np.mean(amplitude**2))
    return change * np.float32(min(1.0, math.sqrt(budget / max(energy, 1e-12))))


def margins(luma: np.ndarray, carriers: Carriers, chips: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """What JPEG compression leaves of a marked panel: mean over deviation of its code bits, and mean aligned pilot.

    Decoding needs about 0.75 of the first; of the second, the more the easier registration finds the mark.
    """
    return _margins(carriers.phasors(fold(whiten(_compressed(luma, _QUALITIES[0])))), carriers, chips, groups)


def _margins(phasors: np.ndarray, carriers: Carriers, chips: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    bits = np.bincount(groups, carriers.soft_chips(phasors) * chips)
    return float(bits.mean() / (bits.std() + 1e-9)), float(phasors[: carriers.count].real.mean())


def _compressed(luma: np.ndarray, quality: int) -> np.ndarray:
    """Luma after JPEG compression."""
    pixels = np.clip(luma + 0.5, 0, 255).astype(np.uint8)
    encoded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.float32)


def _limited(strength: np.ndarray) -> np.ndarray:
    """Amplitudes (B, J) held to the largest allowed in a block and each."""
    loudness = np.sqrt(np.mean(np.abs(strength) ** 2, axis=1, keepdims=True))
    strength = strength / np.maximum(loudness / _LARGEST_BLOCK, 1.0)
    limited: np.ndarray = strength / np.maximum(np.abs(strength) / _LARGEST, 1.0)
    return limited


def _windows(rows: int, columns: int) -> np.ndarray:
    """The whole grid and nine crops to half its area, as rows of block indicators (10 or fewer, B)."""
    found = [np.ones((rows, columns))]
    height, width = max(1, round(0.71 * rows)), max(1, round(0.71 * columns))
    for top in sorted({round(t) for t in np.linspace(0, rows - height, 3)}):
        for left in sorted({round(t) for t in np.linspace(0, columns - width, 3)}):
            window = np.zeros((rows, columns))
            window[top : top + height, left : left + width] = 1.0
            found.append(window)
    return np.reshape(found, (len(found), -1))


def _ridge(host: np.ndarray, response: np.ndarray, windows: np.ndarray, target: float) -> np.ndarray:
    """The minimising amplitudes (B, J) for host contributions (B, J) and responses (B,)."""
    nominal = (windows @ response)[:, None]  # t_W
    design = windows * response / nominal
    # As few equations as windows: the dual form inverts the smaller matrix.
    gram = design @ design.T + _RIDGE / len(response) * np.eye(len(design))
    return design.T @ np.linalg.solve(gram, target - windows @ host / nominal)
