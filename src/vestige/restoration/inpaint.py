"""Classical inpainting: fill a masked region from its surroundings.

Sources: Telea, An Image Inpainting Technique Based on the Fast Marching Method, Journal of Graphics Tools 2004;
Bertalmio, Bertozzi, Sapiro, Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting, CVPR 2001.
"""

from __future__ import annotations

import numpy as np

from vestige.core.errors import UsageError
from vestige.data.filling import FILLS, fill


class ClassicInpaint:
    """Fills what the mask covers; every other sample is returned as it came.

    "telea" marches inward from the rim and sets each pixel to the weighted mean of I(q) + grad I(q)·(p - q) over the
    known pixels q within ``radius``. "navier-stokes" carries the image Laplacian along the lines of equal brightness,
    grad(lap I)·perp(grad I) = 0, with the intensity as stream function. Both suit scratches and small objects; large
    holes come out smooth.

    radius: pixels, how far a filled pixel looks. Raises UsageError for an unknown method, a radius outside 1 to 100,
    a missing mask, or shapes that do not fit.

    >>> images, masks = np.full((1, 3, 8, 8), 0.5, np.float32), np.zeros((1, 1, 8, 8), bool)
    >>> images[..., 3, 3], masks[..., 3, 3] = 1.0, True
    >>> bool(abs(ClassicInpaint().restore(images, masks) - 0.5).max() < 0.01)
    True
    """

    slug = "inpaint_classic"

    def __init__(self, *, method: str = "telea", radius: float = 5.0) -> None:
        if method not in FILLS:
            raise UsageError(f"There is no inpainting method {method!r}; choose one of {', '.join(FILLS)}.")
        if not 1 <= radius <= 100:
            raise UsageError(f"The inpainting radius is {radius} pixels; choose 1 to 100.")
        self.method, self.radius = method, float(radius)

    def restore(self, images: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """images float32 N×3×H×W, masks bool N×1×H×W (True is filled) -> images of the same shape."""
        if masks is None:
            raise UsageError("Inpainting needs a mask of what to fill.")
        _check(images, masks)
        restored = np.array(images, np.float32)
        for image, mask in zip(restored, masks[:, 0]):
            fill(image, mask, self.radius, self.method)
        return restored

    def erase(self, images: np.ndarray, masks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Remove what the masks cover: the filled images, and the masks again."""
        restored = self.restore(images, masks)
        assert masks is not None  # restore refuses None
        return restored, masks.copy()


def _check(images: np.ndarray, masks: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(f"Images are N×3×H×W, got {'×'.join(map(str, images.shape))}.")
    if masks.dtype != np.bool_ or masks.shape != (len(images), 1, *images.shape[2:]):
        raise UsageError(
            f"Masks are bool N×1×H×W of the images' size, got {masks.dtype} {'×'.join(map(str, masks.shape))}."
        )
