"""Fidelity of a changed image to its original: PSNR and SSIM on numpy arrays N×3×H×W in [0, 1]."""

from __future__ import annotations

import cv2
import numpy as np

from vestige.core.errors import UsageError


def psnr(original: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of every image in decibels, float64 (N,): -10 log10(mean squared error).

    Infinite for equal images. Raises UsageError when the arrays are not both N×C×H×W of one shape.

    >>> float(psnr(np.zeros((1, 3, 4, 4)), np.full((1, 3, 4, 4), 0.1))[0].round(6))
    20.0
    """
    _check(original, changed)
    error = np.array([np.mean(np.square(a.astype(float) - b)) for a, b in zip(original, changed, strict=True)])
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(error)


def ssim(original: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Structural similarity of every image, float64 (N,), averaged over pixels and channels.

    ssim = (2 μx μy + c1)(2 σxy + c2) / ((μx² + μy² + c1)(σx² + σy² + c2)), c1 = 0.01², c2 = 0.03², local moments under
    a Gaussian window of standard deviation 1.5 and 11×11 samples; the 5 outermost pixels are left out. Source: Z. Wang
    et al., Image quality assessment: from error visibility to structural similarity, IEEE TIP 2004. Raises UsageError
    for other shapes or sides under 11 pixels.

    >>> float(ssim(np.zeros((1, 3, 16, 16)), np.zeros((1, 3, 16, 16)))[0])
    1.0
    """
    _check(original, changed)
    if min(original.shape[2:]) < 11:
        raise UsageError(f"Structural similarity needs sides of at least 11 pixels, got {original.shape[2:]}.")
    return np.array(
        [np.mean([_ssim(x, y) for x, y in zip(a, b, strict=True)]) for a, b in zip(original, changed, strict=True)]
    )


def _ssim(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x = _smooth(x * x) - mean_x**2
    var_y = _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    index /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(index[5:-5, 5:-5].mean())


def _smooth(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)


def _check(original: np.ndarray, changed: np.ndarray) -> None:
    if original.ndim != 4 or original.shape != changed.shape or original.size == 0:
        raise UsageError(f"Images are compared as N×C×H×W arrays of one shape, got {original.shape}, {changed.shape}.")
