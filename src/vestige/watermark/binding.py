"""What binds a mark to its picture: signs of carriers and pilots that follow, with the key, from the local content.

A pattern that repeats is found by whoever adds its repetitions up, within one picture or over many, and can then be
pasted or subtracted. Here every block of a picture turns every data carrier k by a sign of its own, and the pilots are
multiplied by a mask:

    s_k(b) = Π_{i=1..5} sign(⟨r_ki, g_b⟩ + c_ki),        m(x) = Π_{i=1..3} sign(⟨q_i, d(x)⟩ + e_i),

g_b the low frequencies of the content around block b, below those of the mark, weighted by frequency; d(x)
differences of Gaussians around pixel x, isotropic, so that turned and mirrored pictures have the same mask and only the
scale has to be known. r, q are keyed and normal. The orders are odd, so that the signs have mean zero over the
contents, and above one, because a linear sign is learned from one picture. The small keyed constants c, e decide where
there is no content: the mark of a perfectly flat place is not bound to anything. The inverted picture has all signs
turned round, and so has its mark: it is read as well. Instead of the sign stands tanh, for marking and for reading:
where a sign is nearly undecided, so that compression may turn it round, the mark is weak and counts for little.

Sources: M. Kutter, S. Voloshynovskiy, A. Herrigel, The watermark copy attack, SPIE 2000 (the attack); J. Barr,
B. Bradley, B. Hannigan, Using digital watermarks with image signatures to mitigate the threat of the copy attack,
ICASSP 2003; D. Delannay, B. Macq, A method for hiding synchronization marks in scale and rotation resilient
watermarking schemes, SPIE 2002 (masks of content for pilots). The odd products and their soft reading are this
implementation's.
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.fft

from vestige.core.keys import derive
from vestige.core.runtime import rng

_CELL = 8  # pixels a side over which content is averaged
_VIEW = 8  # cells a side that describe a block
_HIGHEST = 4.3  # half cycles in that view: below the mark's own frequencies
_TILT = 0.8
_ORDER, _MASK_ORDER = 5, 3
_SOFT, _SOFT_MASK = 0.2, 0.3  # of the description's length: what counts as near zero
_FLAT = 60.0  # length of a description that says nothing, and scale of the keyed constants
_REDUCED = 4  # times, before the mask's Gaussians
_SIGMAS = 2.0 ** np.arange(0.0, 3.01, 0.5)  # of those Gaussians, in reduced pixels
_SOFT_FLAT = 0.5  # of those constants: the same
_FLAT_MASK = 0.5  # grey levels


class Binding:
    """The signs of one key.

    key: bytes. carriers: number of data carriers. hop: pixels from one block to the next.
    """

    def __init__(self, key: bytes, carriers: int, hop: int) -> None:
        keyed = rng(int.from_bytes(derive(key, "mark binding")[:8], "little"), "binding")
        u, v = np.meshgrid(np.arange(_VIEW), np.arange(_VIEW))
        radius = np.hypot(u, v)
        self._used = (radius > 0) & (radius < _HIGHEST)
        self._weights = radius[self._used].astype(np.float32) ** np.float32(_TILT)
        self._hop = hop // _CELL
        self._across = keyed.standard_normal((_ORDER, carriers, len(self._weights)), np.float32)
        self._constants = keyed.choice(np.array([-1, 1], np.float32), (_ORDER, carriers, 1)) * np.float32(_FLAT)
        self._mask = keyed.standard_normal((_MASK_ORDER, len(_SIGMAS) - 1), np.float32)
        self._mask_constants = keyed.choice(np.array([-1, 1], np.float32), _MASK_ORDER) * np.float32(_FLAT_MASK)

    def describe(self, luma: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """Descriptions g (rows, columns, D) of the blocks of an h×w luma whose first middle is its first pixel."""
        height, width = ((n - 1) * self._hop * _CELL for n in (rows, columns))
        spare = height - luma.shape[0], width - luma.shape[1]
        whole = cv2.copyMakeBorder(luma, 0, max(spare[0], 0), 0, max(spare[1], 0), cv2.BORDER_REPLICATE)
        cells = cv2.resize(whole[:height, :width], (width // _CELL, height // _CELL), interpolation=cv2.INTER_AREA)
        half = _VIEW // 2
        cells = cv2.copyMakeBorder(cells, half, half, half, half, cv2.BORDER_REPLICATE)
        views = np.lib.stride_tricks.sliding_window_view(cells, (_VIEW, _VIEW))[:: self._hop, :: self._hop]
        low = scipy.fft.dctn(views, axes=(-2, -1), norm="ortho")[..., self._used]
        described: np.ndarray = low.astype(np.float32) * self._weights
        return described

    def known(self, count: int, length: int, before: int) -> np.ndarray:
        """Share of the content of each of ``count`` blocks that is seen along a side.

        length: pixels of the side, of which the first ``before`` are blank.
        """
        middles = np.arange(count) * self._hop * _CELL
        half = _VIEW * _CELL // 2
        seen = np.minimum(middles + half, length) - np.maximum(middles - half, before)
        return np.maximum(seen, 0) / (2 * half)

    def signs(self, described: np.ndarray) -> np.ndarray:
        """s (rows, columns, carriers) of descriptions, between -1 and 1."""
        shape = described.shape[:2]
        flat = described.reshape(-1, described.shape[-1])
        width = _SOFT * np.linalg.norm(flat, axis=1, keepdims=True) + np.float32(_FLAT * _SOFT_FLAT)
        total = np.ones((len(flat), self._across.shape[1]), np.float32)
        for across, constants in zip(self._across, self._constants):
            total *= np.tanh((flat @ across.T + constants.T) / width)
        return total.reshape(*shape, -1)

    def mask(self, luma: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """m (h×w) of a luma of which ``scale`` pixels are one of the mark's, between -1 and 1."""
        height, width = luma.shape
        size = [max(2, round(n / (_REDUCED * scale))) for n in (width, height)]
        small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
        smooth = [cv2.GaussianBlur(small, (0, 0), float(s), borderType=cv2.BORDER_REFLECT) for s in _SIGMAS]
        bands = np.stack([(a - b) / np.float32(s) for a, b, s in zip(smooth, smooth[1:], _SIGMAS)], -1)
        total = np.ones(small.shape, np.float32)
        for across, constant in zip(self._mask, self._mask_constants):
            value = bands @ across
            around = cv2.GaussianBlur(value * value, (0, 0), float(_SIGMAS[-1]), borderType=cv2.BORDER_REFLECT)
            total *= np.tanh((value + constant) / (_SOFT_MASK * np.sqrt(around) + np.float32(_FLAT_MASK * _SOFT_FLAT)))
        return cv2.resize(total, (width, height), interpolation=cv2.INTER_LINEAR)
