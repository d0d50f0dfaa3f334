"""Pictures to mark, and what is done to them between marking and reading."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

BITS = np.random.default_rng(5).random(32) < 0.5


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1)[None]).astype(np.float32) / 255


def to_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(image[0].transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8)


def saved(image: np.ndarray, **options) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, **options)
    return from_uint8(np.asarray(Image.open(file).convert("RGB")))


def graphics(kind: str) -> np.ndarray:
    """A page of text, or a flat picture in white, black or grey, 300×400."""
    if kind != "text":
        return np.full((1, 3, 300, 400), {"white": 1.0, "black": 0.0, "grey": 0.5}[kind], np.float32)
    page = np.full((300, 400, 3), 255, np.uint8)
    for row in range(20, 300, 24):
        cv2.putText(page, "the quick brown fox 0123", (8, row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1)
    return from_uint8(page)
