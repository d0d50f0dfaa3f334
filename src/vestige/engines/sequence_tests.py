"""Tests on sequences: keyed numbers, alignment of tokens with a cyclic key, permutation test, one-proportion test.

The alignments take a table of costs, so that they serve any two sequences: token against key, frame against frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.keys import derive

#: Cells of one step of the dynamic programme that are computed together; larger ones leave the processor's cache.
_TOGETHER = 8192


class KeyedUniforms:
    """Numbers ξ[row, column] in (0, 1) that only the holder of the key can tell from independent uniform ones.

    ξ[r, c] = (first 53 bits of AES-256(k, r ‖ c) + ½) / 2⁵³ with k derived from the key for one purpose. Any entry is
    computed on its own, so a table of any size costs no memory.

    >>> KeyedUniforms(b"key", "example")(2, [0, 1, 2]).shape
    (3,)
    """

    def __init__(self, key: bytes, purpose: str) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        # Electronic codebook over blocks that are all different: AES as a random function of (row, column).
        self._cipher = Cipher(algorithms.AES(derive(key, purpose)), modes.ECB())

    def __call__(self, rows: Any, columns: Any) -> np.ndarray:
        """float64 of the shape that the integers ``rows`` and ``columns`` broadcast to."""
        rows, columns = np.broadcast_arrays(np.asarray(rows, np.uint64), np.asarray(columns, np.uint64))
        blocks = np.stack([rows, columns], axis=-1).astype("<u8")
        encryptor = self._cipher.encryptor()
        stream = np.frombuffer(encryptor.update(blocks.tobytes()) + encryptor.finalize(), "<u8")
        return (((stream[::2] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53).reshape(rows.shape)


def alignment_cost(cost: np.ndarray, block: int | None = None, *, stride: int = 1) -> np.ndarray:
    """The least summed cost of a block of tokens and an equally long stretch of the cyclic key, float64 (B,).

    min over block starts a (every ``stride``-th) and key offsets o of Σ_{i<k} cost[a+i, (o+i) mod n].
    cost: B×m×n (or m×n), tokens × key positions. block: k, at most m (default m). Raises UsageError.

    >>> float(alignment_cost(1.0 - np.roll(np.eye(4), 2, axis=1))[0])
    0.0
    """
    cost, block, starts = _table(cost, block, stride)
    _, tokens, length = cost.shape
    at = (np.arange(length) + np.arange(tokens)[:, None]) % length
    diagonals = np.take_along_axis(cost, at[None], axis=2).astype(np.float64)
    sums = np.zeros((len(cost), tokens + 1, length))
    np.cumsum(diagonals, axis=1, out=sums[:, 1:])
    return (sums[:, starts + block] - sums[:, starts]).min(axis=(1, 2))


def edit_alignment_cost(cost: np.ndarray, block: int | None = None, *, gap: float, stride: int = 1) -> np.ndarray:
    """As `alignment_cost`, with tokens and key positions that may be skipped at ``gap`` each, float32 (B,).

    A[i, j] = min(A[i-1, j] + γ, A[i, j-1] + γ, A[i-1, j-1] + cost[a+i, (o+j) mod n]), A[i, 0] = iγ, A[0, j] = jγ;
    the least A[k, k] over block starts a and offsets o. All tables, blocks and offsets advance together: about
    1 ns a cell. Raises UsageError. Source: Kuditipudi et al., Robust distortion-free watermarks for language models,
    TMLR 2024.

    >>> table = np.delete(1.0 - np.eye(4), 1, axis=0)  # the token that fits key position 1 was deleted
    >>> float(edit_alignment_cost(table, gap=0.25)[0]), float(alignment_cost(table)[0])
    (0.5, 1.0)
    """
    cost, block, starts = _table(cost, block, stride)
    if not gap >= 0:
        raise UsageError(f"The cost of a gap is {gap}; it must be 0 or more.")
    tables, _, length = cost.shape
    around = np.arange(length + block - 1) % length
    least = np.empty((tables, len(starts)), np.float32)
    work = [(t, s) for t in range(tables) for s in range(len(starts))]
    together = max(1, _TOGETHER // length)
    for first in range(0, len(work), together):
        chosen = work[first : first + together]
        windows = np.stack([cost[t, starts[s] : starts[s] + block] for t, s in chosen])
        for (t, s), value in zip(chosen, _edit_windows(windows[..., around], block, length, np.float32(gap))):
            least[t, s] = value
    return least.min(axis=1)


def _edit_windows(cost: np.ndarray, block: int, length: int, gap: np.float32) -> np.ndarray:
    """The least A[k, k] over offsets of B×k×(n+k-1) costs, whose columns repeat the key past its end."""
    ramp = np.arange(block + 1, dtype=np.float32) * gap
    above = np.empty((block + 1, len(cost), length), np.float32)
    above[:] = ramp[:, None, None]
    below = np.empty_like(above)
    skipped = np.empty(above.shape[1:], np.float32)
    for i in range(block):
        row = cost[:, i]
        below[0] = ramp[i + 1]
        for j in range(block):
            cell = below[j + 1]
            np.add(above[j], row[:, j : j + length], out=cell)
            np.minimum(above[j + 1], below[j], out=skipped)
            if gap:
                np.add(skipped, gap, out=skipped)
            np.minimum(cell, skipped, out=cell)
        above, below = below, above
    return above[block].min(axis=1)


def _table(cost: np.ndarray, block: int | None, stride: int) -> tuple[np.ndarray, int, np.ndarray]:
    cost = np.asarray(cost, np.float32)
    cost = cost[None] if cost.ndim == 2 else cost
    if cost.ndim != 3 or 0 in cost.shape:
        raise UsageError(f"Costs are a table tokens×key, or a batch of them, with no empty side; got {cost.shape}.")
    if not np.isfinite(cost).all():
        raise UsageError("The costs hold values that are not finite.")
    tokens = cost.shape[1]
    block = tokens if block is None else block
    if not 1 <= block <= tokens or stride < 1:
        raise UsageError(f"A block holds 1 to {tokens} tokens and the stride is at least 1; got {block} and {stride}.")
    return cost, block, np.arange(0, tokens - block + 1, stride)


def permutation_p_value(
    statistic: float, draw: Callable[[int], np.ndarray], resamples: int, *, stop_after: int = 0, batch: int = 64
) -> tuple[float, int]:
    """p-value of a statistic that is low under the alternative, and how many null values it took.

    p = (1 + #{null ≤ statistic}) / (1 + T). ``draw(count)`` returns that many null values, exchangeable with the
    statistic under the null hypothesis. stop_after: h > 0 ends the test at the h-th null value ≤ statistic with
    p = h / (values drawn), which is valid as well and spares work where there is nothing to find. Raises UsageError.
    Source of the early end: Besag and Clifford, Sequential Monte Carlo p-values, Biometrika 1991.

    >>> permutation_p_value(-1.0, lambda count: np.zeros(count), 99)
    (0.01, 99)
    """
    if resamples < 1 or stop_after < 0 or batch < 1:
        raise UsageError(f"A permutation test needs 1 resample or more; got {resamples}.")
    below = drawn = 0
    while drawn < resamples:
        null = np.asarray(draw(min(batch, resamples - drawn)))
        hits = np.flatnonzero(null <= statistic)
        if stop_after and below + len(hits) >= stop_after:
            drawn += int(hits[stop_after - below - 1]) + 1
            return stop_after / drawn, drawn
        below += len(hits)
        drawn += len(null)
    return (1 + below) / (1 + resamples), resamples


def proportion_test(ones: int, n: int, share: float = 0.5) -> tuple[float, float]:
    """z and one-sided p-value of ``ones`` successes in ``n`` trials against the success rate ``share``.

    z = (ones - n·share) / sqrt(n·share·(1-share)), p = 1 - Φ(z). Below 10 trials, where the normal law is too kind,
    p is the exact binomial tail. No trials: z = 0, p = 1. Raises UsageError.

    >>> proportion_test(60, 100)[0]
    2.0
    """
    if not (0 <= ones <= n and 0 < share < 1):
        raise UsageError(f"{ones} successes in {n} trials at rate {share} is not a count of a proportion.")
    if n == 0:
        return 0.0, 1.0
    z = (ones - n * share) / math.sqrt(n * share * (1 - share))
    if n < 10:
        tail = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(ones, n + 1))
        return z, min(tail, 1.0)
    return z, 0.5 * math.erfc(z / math.sqrt(2))
