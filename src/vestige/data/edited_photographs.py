"""Edited squares of photographs for localisers to learn from and be judged on, from parts that share no photograph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from vestige.core.image_io import decode, encode
from vestige.data.manipulated import Manipulated, manipulated
from vestige.data.stand_in import photographs_or_scenes

WHOLE = 192  # side of the photographs that squares are cut from
PARTS = ("train", "val", "test")


def stored(image: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The finished picture is stored without loss."""
    return image, mask


def shared(image: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two of five finished pictures are stored without loss, the others as JPEG 60 to 95 with colours halved."""
    if generator.random() < 0.4:
        return image, mask
    return decode(encode(image, "JPEG", quality=int(generator.integers(60, 96)), subsampling=2)).pixels, mask


@lru_cache(maxsize=8)
def edited_photographs(
    part: str, operations: Sequence[str], count: int, size: int, *, unedited: float = 0.5, lossless: bool = False,
    limit: int = 0, seed: int = 0,
) -> Manipulated:  # fmt: skip
    """``count`` squares with histories of their own, a share of them unedited, handled alike.

    part: "train", "val" or "test" of the photos pack, rendered scenes without data. lossless: all are `stored`, else
    `shared`. limit: photographs before parts are cut, 0 all.

    >>> len(edited_photographs("val", ("splice",), 3, 32, limit=32))
    3
    """
    known = photographs_or_scenes(part, WHOLE, limit=limit, seed=seed)
    return manipulated(
        [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in known], count, size, operations=operations,
        unedited=unedited, seed=3 * seed + PARTS.index(part), handling=stored if lossless else shared,
    )  # fmt: skip


def jpeg_70(images: np.ndarray) -> np.ndarray:
    """uint8 N×3×H×W saved as JPEG 70 with colours halved, the way platforms do."""
    found = [
        decode(encode(np.ascontiguousarray(x.transpose(1, 2, 0)), "JPEG", quality=70, subsampling=2)).pixels
        for x in images
    ]
    return np.stack(found).transpose(0, 3, 1, 2)


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """uint8 N×3×H×W through a Gaussian blur."""
    planes = [cv2.GaussianBlur(np.ascontiguousarray(x.transpose(1, 2, 0)), (0, 0), sigma) for x in images]
    return np.stack(planes).transpose(0, 3, 1, 2)
