"""Enlarging by resampling: the reference that learned super-resolution has to beat.

Source: Duchon, Lanczos Filtering in One and Two Dimensions, Journal of Applied Meteorology 1979.
"""

from __future__ import annotations

import numpy as np

from vestige.core.errors import LimitError, UsageError

_MAX_PIXELS = 480_000_000


class Lanczos:
    """Enlarges ``scale`` times with the windowed sinc L(x) = sinc(x) sinc(x / 3), |x| < 3.

    Raises UsageError for a scale below 1 or above 8, LimitError when the result would exceed 480 megapixels.

    >>> Lanczos(scale=2).restore(np.zeros((1, 3, 4, 5), np.float32)).shape
    (1, 3, 8, 10)
    """

    slug = "lanczos"

    def __init__(self, *, scale: float = 2.0) -> None:
        if not 1 <= scale <= 8:
            raise UsageError(f"The scale is {scale}; choose 1 to 8.")
        self.scale = float(scale)

    def restore(self, images: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """images float32 N×3×H×W -> N×3×round(scale H)×round(scale W) in [0, 1]; masks are not used."""
        from PIL import Image

        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"Images are N×3×H×W, got {'×'.join(map(str, images.shape))}.")
        size = tuple(max(1, round(n * self.scale)) for n in images.shape[2:])
        if size[0] * size[1] > _MAX_PIXELS:
            raise LimitError(f"The result would have {size[0] * size[1] / 1e6:.0f} megapixels; the limit is 480.")
        enlarged = np.empty((*images.shape[:2], *size), np.float32)
        for target, image in zip(enlarged, images):
            for plane, channel in zip(target, image):
                samples = Image.fromarray(np.ascontiguousarray(channel, np.float32))
                plane[:] = np.asarray(samples.resize((size[1], size[0]), Image.Resampling.LANCZOS))
        return enlarged.clip(0, 1, out=enlarged)
