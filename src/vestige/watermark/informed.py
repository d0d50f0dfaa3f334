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
from dataclasses import dataclass

import cv2
import numpy as np

from vestige.watermark.carriers import Carriers, Waves, blocks, fold, grid, overlap_add, whiten

_QUALITIES = (40, 80, 100)  # of the JPEG compression in the loop; weaker where stronger would leave nothing
_CLEAR = 0.8  # margin of code bits under compression from which that compression is reckoned with
_LARGEST = 3.0  # of any |s_bj|
_LARGEST_BLOCK = 1.7  # of their root mean square in a block, so that the mark does not gather where it would be seen
_TARGETS = (1.8, 1.5)  # τ of pilots and data
_RIDGE = 2.0  # μ
_NOISE_FLOOR = 1.5  # of the mean power around a carrier, below which a block counts as no quieter


@dataclass(frozen=True)
class Bound:
    """What content does to the mark of a panel: signs of the data carriers (rows, columns, M), mask h×w.

    Both lie between -1 and 1; the mark is weak where they are small, since readers may see another sign there.
    """

    signs: np.ndarray
    mask: np.ndarray


def panel_change(
    luma: np.ndarray,
    carriers: Carriers,
    chips: np.ndarray,
    groups: np.ndarray,
    amplitude: np.ndarray,
    bound: Bound | None = None,
) -> np.ndarray:
    """The change of luma (h×w, grey levels) that marks a panel whose first pixel is tile point (0, 0).

    luma: float32 h×w, 0-255. chips: ±1 (slots,). groups: code bit that each chip repeats, (slots,). amplitude: float32
    h×w, root mean square in grey levels that the mark may have at each place; the result has at most its energy.
    bound: as the content asks for, for carriers that are bound to it.
    """
    chips = chips.astype(np.float32)
    pairs = (chips[: len(chips) // 2] + 1j * chips[len(chips) // 2 :]).astype(np.complex64)
    pilots = np.ones(len(carriers.pilots), np.complex64)
    blind = _data(pairs[None], carriers, luma.shape, bound) + _pilots(pilots[None], carriers, luma.shape, bound)
    blind *= amplitude
    for quality in _QUALITIES:
        white = whiten(_compressed(luma + blind, quality))
        soft, seen = _seen(white, carriers, chips, bound)
        if _margins(soft, seen, groups)[0] >= _CLEAR:
            break
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], np.arange(groups.max() + 1))
    data = np.add.reduceat(soft[:, order], first, axis=1).astype(float)
    response = np.maximum(data.mean(1), 0.0)
    if response.max() <= 0.0:  # compression leaves nothing anywhere: there is nothing to optimise
        return blind
    response += 0.02 * response.max()
    windows = _windows(*grid(luma.shape))
    strength = _limited(_ridge(data - response[:, None], response, windows, _TARGETS[1]).astype(np.float32))
    half = len(chips) // 2
    each = strength[:, groups[:half]] * chips[:half] + 1j * (strength[:, groups[half:]] * chips[half:])
    change = _data(each.astype(np.complex64), carriers, luma.shape, bound)
    # A few pilots tell less about a block than its many data carriers do.
    ratio = max(float(seen.real.mean(1) @ response / (response @ response)), 1e-6)
    pilots = _limited(_ridge(seen - ratio * response[:, None], ratio * response, windows, _TARGETS[0]))
    change += _pilots(pilots.astype(np.complex64), carriers, luma.shape, bound)
    change *= amplitude
    energy, budget = float(np.mean(change**2)), float(np.mean(amplitude**2))
    return change * np.float32(min(1.0, math.sqrt(budget / max(energy, 1e-12))))


def margins(
    luma: np.ndarray, carriers: Carriers, chips: np.ndarray, groups: np.ndarray, bound: Bound | None = None
) -> tuple[float, float]:
    """What JPEG compression leaves of a marked panel: mean over deviation of its code bits, and mean aligned pilot.

    Decoding needs about 0.75 of the first; of the second, the more the easier registration finds the mark.
    """
    white = whiten(_compressed(luma, _QUALITIES[0]))
    return _margins(*_seen(white, carriers, chips.astype(np.float32), bound), groups)


def _pilots(weights: np.ndarray, carriers: Carriers, shape: tuple[int, ...], bound: Bound | None) -> np.ndarray:
    """The pilots with weights (blocks, K), or (1, K) where all blocks are alike, h×w."""
    part = _repeated(weights, carriers.pilots, shape)
    return part if bound is None else part * (bound.mask / _rms(bound.mask, None))


def _data(weights: np.ndarray, carriers: Carriers, shape: tuple[int, ...], bound: Bound | None) -> np.ndarray:
    """The data carriers with weights (blocks, M), or (1, M) where all blocks are alike, h×w."""
    if bound is None:
        return _repeated(weights, carriers.data, shape)
    signs = bound.signs / _rms(bound.signs, -1)
    signs = signs * carriers.data.block_turns(*signs.shape[:2])
    signs *= weights if len(weights) == 1 else weights.reshape(signs.shape)
    return overlap_add(carriers.data.tiles(signs), True)[: shape[0], : shape[1]]


def _repeated(weights: np.ndarray, waves: Waves, shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape
    if len(weights) == 1:
        tile = waves.tiles(weights[0])
        return np.tile(tile, (-(-height // len(tile)), -(-width // len(tile))))[:height, :width]
    turns = waves.block_turns(*grid(shape, waves.side))
    return overlap_add(waves.tiles(weights.reshape(turns.shape) * turns))[:height, :width]


def _rms(values: np.ndarray, axis: int | None) -> np.ndarray:
    return np.sqrt(np.mean(values * values, axis=axis, keepdims=True)) + np.float32(1e-6)


def _seen(
    white: np.ndarray, carriers: Carriers, chips: np.ndarray, bound: Bound | None
) -> tuple[np.ndarray, np.ndarray]:
    """What a reader sees: soft chips of every block, right where positive (B, slots), and pilots of theirs (B, K)."""
    data = data_blocks(white, carriers)
    if bound is not None:
        data *= bound.signs
    masked = white if bound is None else white * bound.mask
    tile = fold(masked)
    pilots = carriers.pilots.at(blocks(masked))
    pilots *= np.conj(carriers.pilots.block_turns(*pilots.shape[:2])) / carriers.pilots.level(tile, carriers.pilots)
    soft = carriers.soft_chips(data) * chips
    return soft.reshape(-1, len(chips)), pilots.reshape(-1, pilots.shape[-1])


def data_blocks(white: np.ndarray, carriers: Carriers) -> np.ndarray:
    """Data carriers of every block of whitened luma, turned back, over their level, (rows, columns, M).

    That of one tile where the mark repeats. Where it does not, every block's carriers are divided by the power around
    them, which weighs them by how little the host disturbs.
    """
    waves = carriers.data
    if carriers.binding is None:
        found = waves.at(blocks(white, waves.side))
        found *= np.conj(waves.block_turns(*found.shape[:2])) / waves.level(fold(white, waves.side), carriers.pilots)
        return found
    found, power = waves.with_power(blocks(white, waves.side, True))
    power += np.float32(_NOISE_FLOOR) * power.mean() + np.float32(1e-9)
    found *= np.conj(waves.block_turns(*found.shape[:2])) / power
    spread = np.sqrt((np.abs(found) ** 2).mean((0, 1)))
    return found / np.maximum(spread, np.float32(1e-9))


def _margins(soft: np.ndarray, pilots: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    bits = np.bincount(groups, soft.sum(0))
    return float(bits.mean() / (bits.std() + 1e-9)), float(pilots.sum(0).real.mean())


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
