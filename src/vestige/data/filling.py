"""Filling a hole in a picture from its surroundings, without a model.

Sources: Telea, An Image Inpainting Technique Based on the Fast Marching Method, Journal of Graphics Tools 2004;
Bertalmio, Bertozzi, Sapiro, Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting, CVPR 2001.
"""

from __future__ import annotations

import numpy as np

from vestige.core.errors import UsageError

FILLS = ("telea", "navier-stokes")


def fill(image: np.ndarray, mask: np.ndarray, radius: float = 5.0, method: str = "telea") -> None:
    """Fill float32 C×H×W in place where the mask (bool H×W) is true; an empty mask leaves it as it is.

    radius: pixels, how far a filled pixel looks. Raises UsageError for an unknown method or a mask of everything.

    >>> image = np.full((3, 8, 8), 0.5, np.float32)
    >>> hole = np.zeros((8, 8), bool)
    >>> image[:, 3, 3], hole[3, 3] = 1.0, True
    >>> fill(image, hole)
    >>> bool(abs(image - 0.5).max() < 0.01)
    True
    """
    import cv2

    if method not in FILLS:
        raise UsageError(f"There is no inpainting method {method!r}; choose one of {', '.join(FILLS)}.")
    if mask.all():
        raise UsageError("The mask covers the whole picture; nothing is left to fill it from.")
    if not mask.any():
        return
    # work on the masked box and what the method can see around it, so that a big picture costs no more
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    reach = int(np.ceil(radius)) + 8
    top, bottom = max(rows[0] - reach, 0), rows[-1] + 1 + reach
    left, right = max(columns[0] - reach, 0), columns[-1] + 1 + reach
    view, hole = image[:, top:bottom, left:right], mask[top:bottom, left:right]
    flag = cv2.INPAINT_TELEA if method == "telea" else cv2.INPAINT_NS
    # the library fills several channels from eight bits only; one channel at a time keeps sixteen
    for channel in view:
        samples = (channel.clip(0, 1) * 65535 + 0.5).astype(np.uint16)
        filled = cv2.inpaint(samples, hole.astype(np.uint8), radius, flag)
        channel[hole] = filled[hole].astype(np.float32) / 65535
