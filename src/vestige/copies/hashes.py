"""Perceptual hashes that copy detection is compared with: aHash, dHash, pHash and PDQ.

Sources: Implementation and benchmarking of perceptual image hash functions, 2010 (pHash); the description of PDQ
published with its program in ThreatExchange. pHash here reduces pictures by area, programs that reduce otherwise differ
in a few bits; PDQ's blur treats the border as OpenCV does.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def _grey(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)


def average_hash(pixels: np.ndarray) -> np.ndarray:
    """bool 64: cells of 8×8 brighter than their mean."""
    small = cv2.resize(_grey(pixels), (8, 8), interpolation=cv2.INTER_AREA)
    return (small > small.mean()).ravel()


def difference_hash(pixels: np.ndarray) -> np.ndarray:
    """bool 64: cells of 9×8 brighter than the one to their left."""
    small = cv2.resize(_grey(pixels), (9, 8), interpolation=cv2.INTER_AREA)
    return (small[:, 1:] > small[:, :-1]).ravel()


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """bool 64: the lowest 8×8 DCT coefficients of the picture at 32×32 above their median."""
    low = cv2.dct(cv2.resize(_grey(pixels), (32, 32), interpolation=cv2.INTER_AREA))[:8, :8]
    return (low > np.median(low)).ravel()


def pdq(pixels: np.ndarray) -> np.ndarray:
    """bool 256: the 16×16 lowest DCT coefficients (without the constant ones) of the blurred picture at 64×64 above
    their median."""
    grey = _grey(pixels)
    window = tuple(max(1, (n + 127) // 128) for n in grey.shape[::-1])
    for _ in range(2):
        grey = cv2.blur(grey, window)
    rows, columns = (((np.arange(64) + 0.5) * n / 64).astype(int) for n in grey.shape)
    small = grey[rows][:, columns]
    i, j = np.arange(1, 17)[:, None], np.arange(64)[None]
    basis = np.sqrt(2 / 64) * np.cos(np.pi / 128 * i * (2 * j + 1))
    low = basis @ small @ basis.T
    return (low > np.median(low)).ravel()


HASHES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "aHash": average_hash,
    "dHash": difference_hash,
    "pHash": perceptual_hash,
    "PDQ": pdq,
}


def agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of equal bits between each of N and each of M hashes, N×M.

    >>> agreement(np.array([[True, False]]), np.array([[True, True], [True, False]])).tolist()
    [[0.5, 1.0]]
    """
    signs_a, signs_b = (np.where(x, 1.0, -1.0) for x in (a, b))
    return (1 + signs_a @ signs_b.T / a.shape[1]) / 2
