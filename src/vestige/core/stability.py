"""The versions of a picture on which a verdict near its threshold is tried again.

Saving again and scaling change no content. A verdict that they turn over hangs on chance, and is told as unsure.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vestige.core.image_io import encode
from vestige.core.picture import ImageSubject

#: Verdicts whose deciding score lies within so many units of log-odds of its threshold are tried again: of 346 innocent
#: validation files 6 %, of edited ones half.
NEAR = 0.5
QUALITY, SCALE = 90, 0.9
#: Side in pixels below which a scaled picture holds too little to be examined.
_SMALLEST = 64


def versions(subject: ImageSubject) -> Iterator[tuple[str, ImageSubject]]:
    """Each version's name in words, and the picture."""
    pixels = subject.pixels
    yield f"saved again as JPEG {QUALITY}", ImageSubject(encode(pixels, "JPEG", quality=QUALITY), subject.source)
    if min(pixels.shape[:2]) * SCALE >= _SMALLEST:
        yield f"scaled to {SCALE:.0%}", ImageSubject(encode(_scaled(pixels), "PNG"), subject.source)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    import cv2

    size = (round(pixels.shape[1] * SCALE), round(pixels.shape[0] * SCALE))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
