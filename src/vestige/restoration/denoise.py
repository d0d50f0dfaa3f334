"""Denoising by non-local means, with its strength set from the noise measured in the picture.

Sources: Buades, Coll, Morel, A Non-Local Algorithm for Image Denoising, CVPR 2005; noise level: Donoho and Johnstone,
Ideal Spatial Adaptation by Wavelet Shrinkage, Biometrika 1994.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.core.errors import UsageError

_STRIP = 512


def noise_level(image: np.ndarray) -> float:
    """Standard deviation of white Gaussian noise in a 3×H×W or H×W image, in its own units; 0 below 2×2 pixels.

    sigma = median(|d|) / 0.6745 over the finest diagonal Haar coefficients d = (a - b - c + e) / 2 of every 2×2 block,
    where pictures hold little but noise. The median over the channels is returned. Blocks at the end of the range are
    left out, because clipping has removed their noise.

    >>> from vestige.core.runtime import rng
    >>> round(noise_level(0.5 + 0.05 * rng(0).standard_normal((3, 64, 64))), 2)
    0.05
    """
    channels = image if image.ndim == 3 else image[None]
    step = max(1, int(np.sqrt(channels[0].size / 4_000_000)))
    levels = []
    for channel in channels:
        height, width = (n - n % 2 for n in channel.shape)
        if not height or not width:
            return 0.0
        a, b = channel[0:height:2, 0:width:2][::step, ::step], channel[0:height:2, 1:width:2][::step, ::step]
        c, e = channel[1:height:2, 0:width:2][::step, ::step], channel[1:height:2, 1:width:2][::step, ::step]
        low, high = np.minimum(np.minimum(a, b), np.minimum(c, e)), np.maximum(np.maximum(a, b), np.maximum(c, e))
        inside = (low > channel.min()) & (high < channel.max())
        detail = np.abs(a - b - c + e)[inside] / 2
        levels.append(float(np.median(detail)) / 0.6745 if detail.size else 0.0)
    return float(np.median(levels))


class NonLocalMeans:
    """Each pixel becomes the mean of the pixels around it, weighted by how alike their neighbourhoods are.

    NL[v](i) = sum_j w(i, j) v(j), w(i, j) = exp(-max(|v(N_i) - v(N_j)|² - 2 sigma², 0) / h²) / Z(i), computed in
    CIELAB on 8-bit samples with patches N of ``patch`` and a search window of ``search`` pixels on a side.

    strength: h in grey levels of 255, for lightness and colour; None takes ``factor`` times the estimated noise level
    and leaves a picture alone where that is below half a grey level. Raises UsageError for a strength out of range and
    for even window sizes.

    >>> from vestige.core.runtime import rng
    >>> noisy = np.float32(0.5 + 0.08 * rng(0).standard_normal((1, 3, 32, 32)))
    >>> bool(NonLocalMeans().restore(noisy).std() < 0.5 * noisy.std())
    True
    """

    slug = "nlm"

    def __init__(self, *, strength: float | None = None, factor: float = 0.7, patch: int = 3, search: int = 21) -> None:
        if strength is not None and not 0 <= strength <= 255:
            raise UsageError(f"The denoising strength is {strength}; choose 0 to 255 grey levels.")
        if not (1 <= patch <= search <= 101 and patch % 2 and search % 2):
            raise UsageError("Denoising windows are odd, patch ≤ search ≤ 101 pixels.")
        self.strength, self.factor, self.patch, self.search = strength, factor, patch, search

    def restore(self, images: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """images float32 N×3×H×W -> denoised images; masks bool N×1×H×W limit the change to where they are True."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"Images are N×3×H×W, got {'×'.join(map(str, images.shape))}.")
        shape = (len(images), 1, *images.shape[2:])
        if masks is not None and (masks.dtype != np.bool_ or masks.shape != shape):
            raise UsageError(f"Masks are bool {'×'.join(map(str, shape))} for these images.")
        restored = np.array(images, np.float32)
        for image in restored:
            strength = self.strength if self.strength is not None else self.factor * 255 * noise_level(image)
            if strength >= 0.5:
                self._denoise(image, float(strength))
        return restored if masks is None else np.where(masks, restored, np.asarray(images, np.float32))

    def _denoise(self, image: np.ndarray, strength: float) -> None:
        import cv2

        height = image.shape[1]
        border = self.search // 2 + self.patch // 2
        source = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        for top in range(0, height, _STRIP):
            first, last = max(top - border, 0), min(top + _STRIP + border, height)
            strip: Any = np.ascontiguousarray(source[:, first:last].transpose(1, 2, 0))
            clean = cv2.fastNlMeansDenoisingColored(strip, None, strength, strength, self.patch, self.search)
            rows = clean[top - first : min(top + _STRIP, height) - first]
            image[:, top : top + _STRIP] = rows.transpose(2, 0, 1).astype(np.float32) / 255
