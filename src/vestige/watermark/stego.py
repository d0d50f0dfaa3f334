"""Hiding bits in pictures without a trace in sight: what a purifier has to destroy.

Least-significant-bit replacement and ±1 matching along a keyed path carry real bits; HILL and S-UNIWARD give each
sample a cost, and a simulator draws the changes an optimal coder would make at a given payload.

Sources: Li et al., A new cost function for spatial image steganography (HILL), ICIP 2014; Holub, Fridrich, Denemark,
Universal distortion function for steganography in an arbitrary domain (S-UNIWARD), EURASIP JIS 2014; Filler, Fridrich,
Gibbs construction in steganography, IEEE TIFS 2010 (the simulator).
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng

_EXTREME = 1e8
#: Costs that the search for λ looks at.
_RANKS = 2048


def _path(count: int, size: int, key: bytes) -> np.ndarray:
    if not 1 <= count <= size:
        raise UsageError(f"{count} bits do not fit into {size} samples; give 1 to {size}.")
    return rng(0, "path", hashlib.sha256(key).hexdigest()).permutation(size)[:count]


def lsb_replace(pixels: np.ndarray, bits: np.ndarray, key: bytes, *, plane: int = 0) -> np.ndarray:
    """uint8 samples of any shape whose lowest bits, or those of a higher plane, along a keyed path, are the payload."""
    out = pixels.copy()
    flat, where = out.reshape(-1), _path(len(bits), pixels.size, key)
    flat[where] = (flat[where] & (0xFF ^ (1 << plane))) | (np.asarray(bits, np.uint8) << plane)
    return out


def lsb_match(pixels: np.ndarray, bits: np.ndarray, key: bytes, *, seed: int = 0) -> np.ndarray:
    """As `lsb_replace`, but a sample whose lowest bit is wrong moves by +1 or -1 at random."""
    out = pixels.copy()
    flat, where = out.reshape(-1), _path(len(bits), pixels.size, key)
    values = flat[where].astype(np.int16)
    step = rng(seed, "lsb_match").choice(np.array([-1, 1], np.int16), len(where))
    step = np.where(values == 0, 1, np.where(values == 255, -1, step))
    flat[where] = np.where((values & 1) == np.asarray(bits, np.int16), values, values + step).astype(np.uint8)
    return out


def lsb_read(pixels: np.ndarray, count: int, key: bytes, *, plane: int = 0) -> np.ndarray:
    """The ``count`` bits along the keyed path, from one bit plane, bool.

    >>> sent = np.array([True, False, True])
    >>> lsb_read(lsb_replace(np.zeros((4, 4), np.uint8), sent, b"k"), 3, b"k").tolist()
    [True, False, True]
    """
    return (pixels.reshape(-1)[_path(count, pixels.size, key)] >> plane & 1).astype(bool)


def hill_cost(grey: np.ndarray) -> np.ndarray:
    """HILL: high-pass filter, average of its size over 3×3, reciprocal, average over 15×15; float64 H×W."""
    kernel = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], np.float64)
    detail = np.abs(cv2.filter2D(grey.astype(np.float64), -1, kernel, borderType=cv2.BORDER_REFLECT_101))
    local = cv2.blur(detail, (3, 3), borderType=cv2.BORDER_REFLECT_101)
    return cv2.blur(1 / np.maximum(local, 1e-10), (15, 15), borderType=cv2.BORDER_REFLECT_101).clip(max=_EXTREME)


def uniward_cost(grey: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """S-UNIWARD: Σ over Daubechies-8 detail bands of |effect of a unit change| / (σ + |coefficient|); float64 H×W."""
    import pywt

    wavelet = pywt.Wavelet("db8")
    low, high = np.array(wavelet.dec_lo), np.array(wavelet.dec_hi)
    total = np.zeros(grey.shape)
    for rows, columns in ((low, high), (high, low), (high, high)):
        kernel = np.outer(rows, columns)
        band = cv2.filter2D(grey.astype(np.float64), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        weight = 1 / (sigma + np.abs(band))
        # A changed sample touches the coefficients around it: correlation with the mirrored kernel.
        total += cv2.filter2D(weight, -1, np.abs(kernel[::-1, ::-1]), borderType=cv2.BORDER_REFLECT_101)
    return total.clip(max=_EXTREME)


def simulate(pixels: np.ndarray, cost: np.ndarray, payload: float, *, seed: int = 0) -> np.ndarray:
    """uint8 H×W changed by ±1 as an optimal coder would to carry ``payload`` bits a sample.

    P(+1) = P(-1) = e^{-λρ} / (1 + 2 e^{-λρ}), λ such that the ternary entropy equals the payload. No message can be
    read from it. Raises UsageError for a payload outside (0, log2 3).
    """
    if not 0 < payload < np.log2(3):
        raise UsageError(f"The payload is {payload} bits a sample; it must lie between 0 and 1.58.")
    # Evenly spaced ranks have the distribution of the costs, at a fraction of the work.
    ranked = np.sort(cost, axis=None)
    count = min(ranked.size, _RANKS)
    ranked = ranked[((np.arange(count) + 0.5) * ranked.size / count).astype(np.int64)]
    low, high = 0.0, 1.0 / max(float(np.median(ranked)), 1e-12)
    while _entropy(ranked, high) > payload:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _entropy(ranked, middle) > payload else (low, middle)
    change = np.exp(-high * cost)
    probability = change / (1 + 2 * change)
    u = rng(seed, "simulate").random(pixels.shape)
    step = (u < probability).astype(np.int16) - (u > 1 - probability)
    step = np.where((pixels == 0) & (step < 0) | (pixels == 255) & (step > 0), -step, step)
    return (pixels + step).astype(np.uint8)


def _entropy(cost: np.ndarray, rate: float) -> float:
    """Mean ternary entropy in bits."""
    change = np.exp(-rate * cost)
    p = (change / (1 + 2 * change)).clip(1e-300, 1 / 3)
    rest = 1 - 2 * p
    return float(-(2 * p * np.log2(p) + rest * np.log2(rest.clip(1e-300))).mean())
