"""The arithmetic of JPEG without a codec: block DCT, standard quantisation tables, coefficients of stored samples."""

from __future__ import annotations

import numpy as np

from vestige.core.errors import UsageError

#: Zigzag scan: ``ZIGZAG[i]`` is the row-major index of the i-th coefficient in file order.
ZIGZAG = np.array(
    sorted(range(64), key=lambda k: (k // 8 + k % 8, (k // 8 if (k // 8 + k % 8) % 2 else k % 8))), np.int64
)

_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *([99] * 32),
)  # fmt: skip
_BASE = {"luma": np.array(_LUMA).reshape(8, 8), "chroma": np.array(_CHROMA).reshape(8, 8)}


def _basis() -> np.ndarray:
    n = np.arange(8)
    rows = np.cos((2 * n[None] + 1) * n[:, None] * np.pi / 16) / 2
    rows[0] /= np.sqrt(2)
    return rows


#: Orthonormal 8-point DCT-II, rows are frequencies; the scaling is that of JPEG.
DCT8 = _basis().astype(np.float32)
_DCT64 = np.kron(_basis(), _basis()).astype(np.float32)


def standard_table(quality: int, kind: str = "luma") -> np.ndarray:
    """Quantisation table int64 8×8 that the IJG library (libjpeg) writes at a quality from 1 to 100.

    ``step = clip(floor((base·s + 50) / 100), 1, 255)`` with s = 5000/quality below 50 and 200 − 2·quality above.
    Raises UsageError for another quality or kind ("luma", "chroma"). Source: ITU-T T.81, 1992, Annex K, tables K.1
    and K.2.

    >>> int(standard_table(75)[0, 0])
    8
    """
    if not 1 <= quality <= 100 or kind not in _BASE:
        raise UsageError(f"There is no {kind!r} table of quality {quality}; use 1 to 100 and 'luma' or 'chroma'.")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_BASE[kind] * scale + 50) // 100, 1, 255)


def blocks(plane: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    """Whole 8×8 blocks of an H×W plane on a grid whose origin is (row, column): (by, bx, 64), row-major samples."""
    by, bx = max(plane.shape[0] - row, 0) // 8, max(plane.shape[1] - column, 0) // 8
    cut = plane[row : row + 8 * by, column : column + 8 * bx]
    return cut.reshape(by, 8, bx, 8).swapaxes(1, 2).reshape(by, bx, 64)


def block_dct(plane: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    """Orthonormal 8×8 DCT of the whole blocks of a float32 H×W plane: float32 (by, bx, 64), row-major frequencies.

    >>> float(block_dct(np.full((8, 8), 3, np.float32))[0, 0, 0])
    24.0
    """
    cut = blocks(np.asarray(plane, np.float32), row, column)
    return (cut.reshape(-1, 64) @ _DCT64.T).reshape(cut.shape)


def clipped_blocks(plane: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    """Bool (by, bx): blocks with a sample at 0 or 255, whose coefficients are not what was encoded."""
    cut = blocks(plane, row, column)
    return (cut.min(axis=2, initial=255) <= 0) | (cut.max(axis=2, initial=0) >= 255)


def quantised(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Quantised coefficients int16 (by, bx, 64) recovered from decoded samples and the 8×8 table they were coded with.

    Rounding the samples to integers disturbs a coefficient with standard deviation 0.29, so recovery is exact in
    practice from steps of 2 on; blocks with clipped samples (`clipped_blocks`) are not recovered.
    """
    coefficients = block_dct(np.asarray(plane, np.float32) - np.float32(128))
    return np.rint(coefficients / table.reshape(64).astype(np.float32)).astype(np.int16)


def sample_rows(plane: np.ndarray, limit: int, row: int = 0) -> np.ndarray:
    """At most about ``limit`` samples of an H×W plane as whole rows of 8×8 blocks, evenly spread, on the same grid.

    The grid starts at ``row``; the result starts on it.
    """
    count = max(plane.shape[0] - row, 0) // 8
    keep = max(1, min(count, limit // max(8 * plane.shape[1], 1)))
    if keep >= count:
        return plane[row:]
    chosen = np.arange(keep) * count // keep
    rows = (row + 8 * chosen[:, None] + np.arange(8)).reshape(-1)
    return plane[rows]


def control_phases(phase: int) -> list[int]:
    """Grid phases (8·row + column) in the same position to grid (0, 0) as this one: the controls of its votes.

    Natural pictures have no handedness, so where only grid (0, 0) exists a phase and its mirror images win equally
    often. The eight neighbours of (0, 0), which its own zeros spill over to, control each other; so do the phases half
    a block away, which are their own mirrors and which codecs with 4×4 blocks favour together.

    >>> control_phases(8 * 1 + 2)
    [14, 58, 62]
    """
    row, column = divmod(phase, 8)
    if row in (0, 1, 7) and column in (0, 1, 7):
        found = {8 * r + c for r in (0, 1, 7) for c in (0, 1, 7)} - ({0} if phase else set())
    elif row % 4 == column % 4 == 0:
        found = {0, 4, 32, 36, 8 * row + (column - 1) % 8, 8 * row + (column + 1) % 8}
        found |= {8 * ((row - 1) % 8) + column, 8 * ((row + 1) % 8) + column}
    else:
        found = {8 * r + c for r in (row, -row % 8) for c in (column, -column % 8)}
    return sorted(found - {phase})


def grid_votes(plane: np.ndarray, dead_zone: np.ndarray, exclude: int | None = None, row_step: int = 1) -> np.ndarray:
    """Which of the 64 grid phases every 8×8 cell votes for: int8 (by, bx), 8·row + column, −1 for no vote.

    A cell's vote goes to the phase whose block has most coefficients within ``dead_zone`` (64 values, one for each
    frequency), because quantisation made zeros on the grid of an earlier compression and nowhere else. Ties and flat
    blocks do not vote. exclude: a phase that cannot win. row_step: use one of so many rows of cells.

    Source: ZERO: a local JPEG grid origin detector based on the number of DCT zeros and its applications in image
    forensics, IPOL 11, 2021.
    """
    plane = np.asarray(plane, np.float32)
    by, bx = max(plane.shape[0] - 7, 0) // 8, max(plane.shape[1] - 7, 0) // 8
    # repeated along a row, so that the comparison runs over whole rows
    bound = np.tile(np.asarray(dead_zone, np.float32).reshape(8, 8), bx)
    per_strip = max(1, 8 // row_step) * row_step  # what is at work at once stays in the processor's cache
    votes = [_strip_votes(plane, bound, exclude, start, min(per_strip, by - start), bx, row_step)
             for start in range(0, by, per_strip)]  # fmt: skip
    return np.concatenate(votes) if votes and bx else np.empty((0, 0), np.int8)


def _strip_votes(
    plane: np.ndarray, bound: np.ndarray, exclude: int | None, start: int, cells: int, bx: int, row_step: int
) -> np.ndarray:
    kept = -(-cells // row_step)
    counts = np.empty((64, kept, bx), np.int16)
    # one zero-filled strip makes every phase a plain reshape; the filler rows are never part of a kept block
    strip = np.zeros((8 * row_step * kept + 7, plane.shape[1]), np.float32)
    part = plane[8 * start : 8 * start + len(strip)]
    strip[: len(part)] = part
    turned = np.ascontiguousarray(strip.T)
    found = np.empty((kept, 8, 8 * bx), np.float32)
    small = np.empty(found.shape, bool)
    for column in range(8):
        # across, as products of 8×8 with wide matrices: many times faster than long ones with 8×8
        across = np.matmul(DCT8, turned[column : column + 8 * bx].reshape(bx, 8, -1))
        rows = np.ascontiguousarray(across.reshape(8 * bx, -1).T)
        for row in range(8):
            cut = rows[row : row + 8 * row_step * kept].reshape(kept, 8 * row_step, 8 * bx)[:, :8]
            np.matmul(DCT8, cut, out=found)
            np.less(np.abs(found, out=found), bound, out=small)
            # eight flags in one word: adding words adds bytes, the multiplication gathers the eight byte sums
            words = small.view(np.uint64).reshape(kept, 8, bx).sum(axis=1)
            counts[8 * row + column] = (words * np.uint64(0x0101010101010101)) >> np.uint64(56)
    if exclude is not None:
        counts[exclude] = -1
    most = counts.max(axis=0)
    votes = counts.argmax(axis=0).astype(np.int8)
    votes[((counts == most).sum(axis=0) > 1) | (most > 62)] = -1
    return votes
