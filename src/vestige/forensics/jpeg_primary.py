"""Which quantisation a picture went through before its present form, judged from its DCT coefficients.

Two cases. A JPEG file gives quantised coefficients: an earlier, aligned compression with steps q1 shows in which
multiples of the present step q2 occur. Other files give samples: a decoded JPEG shows as coefficients on multiples of
q1. Both leave the share of zeros out, because it says more about texture than about history.

Sources: Estimation of primary quantization matrix in double compressed JPEG images, DFRWS 2003 (compatible
histograms, calibration by a shifted grid); Image forgery localization via block-grained analysis of JPEG artifacts,
IEEE TIFS 7(3), 2012 (likelihood of a block under single and double compression).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from vestige.data.jpeg_dct import ZIGZAG, block_dct, clipped_blocks, sample_rows, standard_table

FREQUENCIES = ZIGZAG[1:16]
QUALITIES = np.arange(30, 101)
_TABLES = np.stack([standard_table(int(q)).reshape(64) for q in QUALITIES])
_TOP = 20  # larger quantised magnitudes share one bin
_REACH = 512  # magnitudes modelled, in units of one
_NOISE = 0.5  # standard deviation of a coefficient after rounding samples and colours between two compressions
_LATTICE_NOISE = 0.35  # the same after decoding only
_BACKGROUND = 0.02  # share of coefficients that follow no history
_SPREADS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)


@dataclass(frozen=True)
class Primary:
    """An earlier quantisation and the evidence for it.

    quality: of the nearest libjpeg table, None when its steps follow no libjpeg table. steps: q1 by row-major
    frequency. gain: log-likelihood gain over no earlier compression, in nats. count: non-zero coefficients it
    rests on. ratios: by frequency, candidate steps and float32 (step, 21) log P(n | step) / P(n | none) for
    quantised magnitudes n; empty for lattices.
    """

    quality: int | None
    steps: dict[int, int]
    gain: float
    count: int
    ratios: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def rate(self) -> float:
        """Gain per coefficient in thousandths of a nat, drawn to zero for few coefficients."""
        return 1000 * max(self.gain, 0.0) / (self.count + 300)


@lru_cache(maxsize=4096)
def _spread(q1: int, q2: int) -> np.ndarray:
    """Probability (magnitude n, lattice point m) that a value at m·q1 is quantised to ±n with step q2."""
    points = np.arange(_REACH // q1 + 1) * q1
    n = np.arange(_TOP + 1)
    low, high = np.where(n == 0, -0.5, n - 0.5) * q2, (n + 0.5) * q2
    high[-1] = 1e9
    return ndtr((high[:, None] - points) / _NOISE) - ndtr((low[:, None] - points) / _NOISE)


def _cumulative(magnitudes: np.ndarray, step: int) -> np.ndarray:
    """Smoothed distribution functions (spread, value + ½) of unquantised magnitudes, one for each assumed spread."""
    fine = np.bincount(np.minimum(np.rint(magnitudes).astype(np.int64), _REACH), minlength=_REACH + 1)
    mirrored = np.concatenate([fine[:0:-1] / 2, fine[:1], fine[1:] / 2])
    width = max(1.0, 0.5 * step)
    taps = np.exp(-0.5 * (np.arange(-int(3 * width), int(3 * width) + 1) / width) ** 2)
    density = np.convolve(mirrored, taps / taps.sum(), "same")[_REACH:]
    density[1:] *= 2
    whole = np.concatenate([[0.0], np.cumsum(density)])
    whole /= max(whole[-1], 1e-9)
    at = np.arange(len(whole))
    table = np.stack([np.interp((at - 0.5) / s + 0.5, at, whole) for s in _SPREADS])
    table[:, 0] = 0
    return table


def _expected(cumulative: np.ndarray, q1: int, q2: int) -> np.ndarray:
    """P(n | n ≥ 1) after quantisation with q1, then q2: (spread, 20) for every assumed spread of the original."""
    kernel = _spread(q1, q2)
    edges = np.concatenate([[0.0], (np.arange(kernel.shape[1]) + 0.5) * q1 + 0.5])
    edges = np.minimum(edges, cumulative.shape[1] - 1.001)
    whole = edges.astype(np.int64)
    share = edges - whole
    mass = np.diff(cumulative[:, whole] * (1 - share) + cumulative[:, whole + 1] * share, axis=1)
    expected = (mass @ kernel.T)[:, 1:] + 1e-6
    return expected / expected.sum(axis=1, keepdims=True)


def _fit(counts: np.ndarray, models: np.ndarray, rounds: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Best mixture over the spreads for every model (model, spread, n): distributions and log likelihoods."""
    weights = np.full(models.shape[:2], 1 / models.shape[1])
    for _ in range(rounds):
        mixed = np.matmul(weights[:, None], models)[:, 0]
        weights = weights * np.matmul(models, (counts / mixed)[:, :, None])[:, :, 0]
        weights /= weights.sum(axis=1, keepdims=True)
    mixed = np.matmul(weights[:, None], models)[:, 0]
    return mixed, np.log(mixed) @ counts


def _choose(gains: dict[int, tuple[np.ndarray, np.ndarray]]) -> tuple[int | None, dict[int, int], float]:
    """The history with the largest gain: a libjpeg table, or, where that explains much less, free steps.

    gains: by frequency, the candidate steps and the gain of each.
    """
    total = np.zeros(len(QUALITIES))
    for k, (steps, gain) in gains.items():
        at = np.minimum(np.searchsorted(steps, _TABLES[:, k]), len(steps) - 1)
        total += np.where(steps[at] == _TABLES[:, k], gain[at], 0)  # larger steps leave no non-zero coefficient
    best = int(total.argmax())
    # a step chosen freely at each frequency must pay for the choice
    free = {k: (int(s[g.argmax()]), float(g.max()) - np.log(len(s))) for k, (s, g) in gains.items()}
    free_gain = sum(max(g, 0.0) for _, g in free.values())
    if free_gain > 1.5 * total[best] + 30:
        return None, {k: s for k, (s, _) in free.items()}, free_gain
    return int(QUALITIES[best]), {k: int(_TABLES[best, k]) for k in gains}, float(total[best])


def requantised(luma: np.ndarray, table: np.ndarray, limit: int = 3_000_000) -> Primary | None:
    """The compression before the last one, on the same grid, of a JPEG file; None without usable coefficients.

    luma: float32 H×W, the file's own samples. table: its 8×8 steps. limit: samples looked at. The distribution of
    unquantised coefficients is taken from the same picture on a grid shifted by (4, 4).
    """
    present = table.reshape(64)
    cut = sample_rows(luma, limit)
    clean = ~clipped_blocks(cut)
    n = np.abs(np.rint(block_dct(cut - np.float32(128))[clean][:, FREQUENCIES] / present[FREQUENCIES]))
    cut = sample_rows(luma[:, 4:], limit, 4)
    shifted = np.abs(block_dct(cut)[~clipped_blocks(cut)][:, FREQUENCIES])
    if not len(n) or not len(shifted):
        return None
    gains: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    ratios: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    used = 0
    for i, k in enumerate(map(int, FREQUENCIES)):
        counts = np.bincount(np.minimum(n[:, i], _TOP).astype(np.int64), minlength=_TOP + 1)[1:].astype(float)
        if counts.sum() < 20:
            continue
        q2 = int(present[k])
        cumulative = _cumulative(shifted[:, i], q2)
        steps = np.unique(np.concatenate([[1], _TABLES[:, k]]))
        once = _expected(cumulative, 1, q2)
        twice = np.stack([_expected(cumulative, int(q1), q2) for q1 in steps])
        models, likelihood = _fit(counts, (1 - _BACKGROUND) * twice + _BACKGROUND * once)
        gains[k] = steps, likelihood - likelihood[0]
        ratios[k] = steps, np.pad(np.log(models / models[0]), ((0, 0), (1, 0))).astype(np.float32)
        used += int(counts.sum())
    if not gains:
        return None
    quality, chosen, gain = _choose(gains)
    return Primary(quality, chosen, gain, used, ratios)


def _magnitudes(luma: np.ndarray, table: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Quantised magnitudes uint8 (by, bx, len(used)), at most 20; zero, which says nothing, in clipped blocks."""
    steps = table.reshape(64)[used].astype(np.float32)
    rows = []
    for start in range(0, luma.shape[0] - 7, 512):
        cut = luma[start : start + 512]
        n = np.minimum(np.abs(np.rint(block_dct(cut - np.float32(128))[:, :, used] / steps)), _TOP)
        n[clipped_blocks(cut)] = 0
        rows.append(n.astype(np.uint8))
    return np.concatenate(rows)


def requantised_blocks(luma: np.ndarray, table: np.ndarray, primary: Primary) -> tuple[np.ndarray, Primary]:
    """Log-likelihood ratio of every block, and the earlier compression it refers to.

    Returns float32 (by, bx), positive for an earlier compression and negative for none. The libjpeg quality with the
    largest gain in any square of 4×4 tiles of 4×4 blocks replaces that of the whole picture when it gains more there,
    so that a region with a past of its own is found in a picture without.
    """
    used = np.array(sorted(primary.steps))
    n = _magnitudes(luma, table, used)
    by, bx = n.shape[0] // 4, n.shape[1] // 4
    tiles = n[: 4 * by, : 4 * bx].reshape(by, 4, bx, 4, len(used)).transpose(0, 2, 4, 1, 3).reshape(by, bx, -1, 16)
    gain = np.zeros((by, bx, len(QUALITIES)), np.float32)
    for i, k in enumerate(map(int, used)):
        steps, ratio = primary.ratios[k]
        by_quality = ratio[np.searchsorted(steps, _TABLES[:, k])].T
        for value in range(1, _TOP + 1):
            present = (tiles[:, :, i] == value).sum(axis=2)
            if present.any():
                gain += present[:, :, None].astype(np.float32) * by_quality[value]
    side = min(4, by, bx)
    sums = gain.cumsum(axis=0).cumsum(axis=1)
    sums = np.pad(sums, ((1, 0), (1, 0), (0, 0)))
    squares = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    local = squares.max(axis=(0, 1))
    if local.max() > max(primary.gain, 0):
        best = int(local.argmax())
        primary = replace(
            primary,
            quality=int(QUALITIES[best]),
            steps={int(k): int(_TABLES[best, k]) for k in used},
            gain=float(local[best]),
        )
    found = np.zeros(n.shape[:2], np.float32)
    for i, k in enumerate(map(int, used)):
        steps, ratio = primary.ratios[k]
        found += ratio[np.searchsorted(steps, primary.steps[k])][n[:, :, i]]
    return found, primary


_LATTICE_STEPS = np.arange(1, 61)
_FINE = 8  # histogram bins in a unit


@lru_cache(maxsize=1)
def _waves() -> tuple[np.ndarray, np.ndarray]:
    """cos(2πx/q) on the fine bins, and which bins lie outside the zero cell: both (step, bin)."""
    x = np.arange(128 * _FINE) / _FINE
    outside = x[None] >= _LATTICE_STEPS[:, None] / 2
    return np.cos(2 * np.pi * x / _LATTICE_STEPS[:, None]) * outside, outside.astype(float)


def _periodicity(luma: np.ndarray, row: int, column: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of cos(2πx/q) over non-zero coefficients, and their number, both (frequency, step)."""
    cut = sample_rows(luma[:, column:], limit, row)
    values = np.abs(block_dct(cut)[~clipped_blocks(cut)][:, FREQUENCIES])
    bins = np.minimum(np.rint(values * _FINE), 128 * _FINE - 1).astype(np.int64)
    counts = np.stack([np.bincount(b, minlength=128 * _FINE) for b in bins.T]).astype(float)
    counts[:, -1] = 0
    wave, outside = _waves()
    return counts @ wave.T, counts @ outside.T


def lattice(luma: np.ndarray, phase: tuple[int, int] = (0, 0), limit: int = 3_000_000) -> Primary | None:
    """The compression a decoded picture went through, from coefficients on multiples of its steps.

    With R the mean of cos(2πx/q) over the non-zero coefficients x, less its value on three other grids of the same
    picture, n samples on a lattice of step q gain about n·R² nats over n samples on none. Steps below 2 are lost in
    the rounding of samples, so qualities above about 95 are not seen. None without usable coefficients.
    """
    row, column = phase
    sums, count = _periodicity(luma, row, column, limit)
    others = [_periodicity(luma, (row + r) % 8, (column + c) % 8, limit) for r, c in ((4, 4), (0, 4), (4, 0))]
    control = sum(s for s, _ in others) / np.maximum(sum(n for _, n in others), 1)
    excess = sums / np.maximum(count, 1) - control
    gain = count * excess * np.abs(excess)
    gain[:, 0] = 0
    kept = [i for i in range(len(FREQUENCIES)) if count[i, 1] >= 20]
    if not kept:
        return None
    gains = {int(FREQUENCIES[i]): (_LATTICE_STEPS, gain[i]) for i in kept}
    quality, chosen, total = _choose(gains)
    chosen = {k: q for k, q in chosen.items() if q <= _LATTICE_STEPS[-1]}
    used = sum(int(count[list(FREQUENCIES).index(k), max(q - 1, 1)]) for k, q in chosen.items())
    return Primary(quality, chosen, total, used)


def lattice_blocks(luma: np.ndarray, primary: Primary, phase: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Log-likelihood ratio float32 (by, bx): positive for blocks on the lattice, negative for blocks off it.

    A coefficient at distance d from the lattice of step q counts log(0.95·q·N(d; 0.35) + 0.05); in the zero cell only
    evidence against the lattice counts.
    """
    used = np.array([k for k, q in sorted(primary.steps.items()) if q >= 2], np.int64)
    row, column = phase
    steps = np.array([primary.steps[int(k)] for k in used], np.float32)
    rows = []
    for start in range(row, luma.shape[0] - 7, 512):
        cut = luma[start : start + 512, column:]
        x = block_dct(cut)[:, :, used]
        n = np.rint(x / steps)
        density = np.exp(-0.5 * ((x - n * steps) / _LATTICE_NOISE) ** 2) * steps / (_LATTICE_NOISE * 2.5066)
        ratio = np.log(0.95 * density + 0.05)
        ratio = np.where(n == 0, np.minimum(ratio, 0), ratio)
        rows.append(np.where(clipped_blocks(cut), 0, ratio.sum(axis=2)))
    return np.concatenate(rows).astype(np.float32) if rows else np.zeros((0, 0), np.float32)
