"""The real twin of the distortions: Pillow's codecs and resampling, OpenCV's filters, on float32 arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.image_io import Limits, decode, encode, to_float, to_uint8
from vestige.core.runtime import rng
from vestige.data.distortion_plans import LUMA, Step

#: Files written here are trusted: a flat picture may compress as well as it likes.
_TRUSTED = Limits(max_pixels_per_byte=math.inf)


def run(steps: list[Step], images: np.ndarray, cover: np.ndarray | None) -> np.ndarray:
    """Carry out a plan; N×3×H×W in [0, 1] -> float32 with eight-bit values."""
    x = images.astype(np.float32)
    for name, params in steps:
        x = COVERED[name](x, cover, **params) if name in COVERED else STEPS[name](x, **params)
    return round8(x)


def run_mask(steps: list[Step], masks: np.ndarray) -> np.ndarray:
    """Move bool masks N×1×H×W with the pixels."""
    if not any(name in MOVES or name in COVERED for name, _ in steps):
        return masks.astype(bool)
    m = masks.astype(np.float32)
    for name, params in steps:
        if name in COVERED:
            m = COVERED[name](m, None, **params)
        elif name == "overlay":
            m = overlay(m, params["tops"], params["lefts"], np.zeros_like(params["patch"]))
        elif name == "warp":
            m = warp(m, params["matrices"], None if params["fill"] is None else 0.0)
        elif name == "pad":
            m = pad(m, **{**params, "colour": 0.0})
        elif name in MOVES:
            m = STEPS[name](m, **params)
    return m > 0.5


def round8(x: np.ndarray) -> np.ndarray:
    """Round to the nearest eight-bit value."""
    return np.floor(x.clip(0, 1) * np.float32(255) + np.float32(0.5)) / np.float32(255)


def _each(x: np.ndarray, operation: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply an operation on H×W×C arrays to every picture."""
    results = []
    for index, picture in enumerate(x):
        result = operation(index, np.ascontiguousarray(picture.transpose(1, 2, 0)))
        results.append((result[..., None] if result.ndim == 2 else result).transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(results))


def codec(x: np.ndarray, format: str, quality: int) -> np.ndarray:
    """Encode and decode with the format's ordinary encoder, chroma at half resolution where it is lossy."""
    results = []
    for picture in x:
        try:
            data = encode(to_uint8(picture), format, quality=quality, subsampling=2)
        except (OSError, ValueError):
            height, width = picture.shape[1:]
            raise UsageError(f"{format} cannot hold a picture of {width}×{height} pixels; resize it first.") from None
        results.append(to_float(decode(data, format, _TRUSTED).pixels))
    return np.concatenate(results)


def resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic (a = −0.5) with a kernel that widens when shrinking, as image editors do."""
    from PIL import Image

    def channel(plane: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))

    return np.stack([np.stack([channel(np.ascontiguousarray(plane)) for plane in picture]) for picture in x])


def crop(x: np.ndarray, tops: np.ndarray, lefts: np.ndarray, height: int, width: int) -> np.ndarray:
    """Windows at seeded positions, one for each picture."""
    return np.stack([p[:, t : t + height, c : c + width] for p, t, c in zip(x, tops, lefts, strict=True)])


def flip(x: np.ndarray, columns: bool, rows: bool) -> np.ndarray:
    """Mirror left-right, top-bottom or both."""
    return np.ascontiguousarray(x[:, :, :: -1 if rows else 1, :: -1 if columns else 1])


def warp(x: np.ndarray, matrices: np.ndarray, fill: float | None) -> np.ndarray:
    """Sample bilinearly where the homographies (output to input pixel) point; fill None repeats the edge."""
    import cv2

    height, width = x.shape[2:]
    border = cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    value = (fill or 0.0,) * 4
    return _each(x, lambda i, p: cv2.warpPerspective(p, matrices[i], (width, height), None, flags, border, value))


def pad(x: np.ndarray, top: int, bottom: int, left: int, right: int, colour: float) -> np.ndarray:
    """Bars of one grey around the picture."""
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=colour)


def blur(x: np.ndarray, sigma: float, size: int) -> np.ndarray:
    """Gaussian filter; the edge is repeated."""
    import cv2

    return _each(x, lambda _, p: cv2.GaussianBlur(p, (size, size), sigma, borderType=cv2.BORDER_REPLICATE))


def convolve(x: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Correlate each picture with its kernel; the edge is repeated."""
    import cv2

    return _each(x, lambda i, p: cv2.filter2D(p, -1, kernels[i], borderType=cv2.BORDER_REPLICATE))


def median(x: np.ndarray, size: int) -> np.ndarray:
    """Median over a square window of eight-bit samples."""
    import cv2

    return _each(x, lambda _, p: cv2.medianBlur((p.clip(0, 1) * 255 + 0.5).astype(np.uint8), size)) / np.float32(255)


def normal_field(path: tuple[Any, ...], index: int, shape: tuple[int, ...]) -> np.ndarray:
    """The standard normal field of one picture, the same in both twins."""
    return rng(*path, "field", index).standard_normal(shape, np.float32)


def uniform_field(path: tuple[Any, ...], index: int, shape: tuple[int, ...]) -> np.ndarray:
    """The uniform field of one picture, the same in both twins."""
    return rng(*path, "field", index).random(shape, np.float32)


def noise(x: np.ndarray, sigma: float, path: tuple[Any, ...]) -> np.ndarray:
    """x + sigma·n with n standard normal, independent for every sample."""
    return np.stack([p + np.float32(sigma) * normal_field(path, i, p.shape) for i, p in enumerate(x)])


def salt_pepper(x: np.ndarray, fraction: float, path: tuple[Any, ...]) -> np.ndarray:
    """Half of the chosen pixels turn black, half white, in all channels."""
    u = np.stack([uniform_field(path, i, (1, *p.shape[1:])) for i, p in enumerate(x)])
    return np.where(u < fraction, (u < fraction / 2).astype(np.float32), x)


def colour(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """y = M·x for every pixel."""
    return (matrix @ x.reshape(len(x), 3, -1)).reshape(x.shape)


def contrast(x: np.ndarray, factor: float) -> np.ndarray:
    """y = m + c·(x − m) with m the mean luma of the picture."""
    mean = np.tensordot(LUMA, x.mean((2, 3), dtype=np.float64), (0, 1)).astype(np.float32)[:, None, None, None]
    return mean + np.float32(factor) * (x - mean)


def hue(x: np.ndarray, turn: float) -> np.ndarray:
    """Rotate the hue in the HSV model."""
    import cv2

    def turned(_: int, picture: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(picture.clip(0, 1), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    return _each(x, turned)


def gamma(x: np.ndarray, exponent: float) -> np.ndarray:
    """y = x^g on [0, 1]."""
    return x.clip(0, 1) ** np.float32(exponent)


def quantize(x: np.ndarray, levels: int) -> np.ndarray:
    """Round to levels + 1 equidistant values."""
    return np.floor(x.clip(0, 1) * levels + np.float32(0.5)) / np.float32(levels)


def multiply(x: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Uneven illumination: multiply by a field N×1×H×W."""
    return x * field


def overlay(x: np.ndarray, tops: np.ndarray, lefts: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """An opaque grey patch h×w on each picture."""
    height, width = patch.shape
    x = x.copy()
    for picture, top, left in zip(x, tops, lefts, strict=True):
        picture[:, top : top + height, left : left + width] = patch
    return x


def dropout(x: np.ndarray, cover: np.ndarray | None, fraction: float, path: tuple[Any, ...]) -> np.ndarray:
    """Pixels, chosen independently, come from the cover."""
    u = np.stack([uniform_field(path, i, (1, *p.shape[1:])) for i, p in enumerate(x)])
    return np.where(u < fraction, np.float32(0) if cover is None else cover.astype(np.float32), x)


def cropout(
    x: np.ndarray, cover: np.ndarray | None, tops: np.ndarray, lefts: np.ndarray, height: int, width: int
) -> np.ndarray:
    """All pixels outside one window come from the cover."""
    result = np.zeros_like(x) if cover is None else cover.astype(np.float32).copy()
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        window = (i, slice(None), slice(top, top + height), slice(left, left + width))
        result[window] = x[window]
    return result


STEPS: dict[str, Callable[..., np.ndarray]] = {
    f.__name__: f
    for f in (
        codec, resize, crop, flip, warp, pad, blur, convolve, median, noise, salt_pepper, colour, contrast, hue,
        gamma, quantize, multiply, overlay,
    )
}  # fmt: skip
COVERED: dict[str, Callable[..., np.ndarray]] = {"dropout": dropout, "cropout": cropout}
MOVES = {"resize", "crop", "flip", "warp", "pad", "overlay"}
