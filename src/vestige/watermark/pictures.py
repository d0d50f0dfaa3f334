"""What marks of pictures ask of the arrays they are given."""

from __future__ import annotations

import numpy as np

from vestige.core.errors import InputError, UsageError


def checked(images: np.ndarray, smallest: int = 0) -> np.ndarray:
    """The images as float32 N×3×H×W; the same array where it is that already.

    smallest: least side in pixels. Raises UsageError for other shapes and types and for smaller images, InputError
    when samples are not finite.

    >>> checked(np.zeros((1, 3, 4, 5))).dtype
    dtype('float32')
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != 3 or not np.issubdtype(images.dtype, np.floating):
        raise UsageError(f"Images are float N×3×H×W arrays in [0, 1], got {images.dtype} {images.shape}.")
    height, width = images.shape[2:]
    if min(height, width) < smallest:
        raise UsageError(f"The image is {width}×{height} pixels; a mark needs at least {smallest}×{smallest}.")
    if images.size and not (np.isfinite(images.min()) and np.isfinite(images.max())):
        raise InputError("The images hold samples that are not finite; replace them first.")
    return images.astype(np.float32, copy=False)
