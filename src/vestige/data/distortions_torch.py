"""The differentiable twin of the distortions, on torch tensors of any device, with kornia where it has the step.

Rounding is straight through (the gradient of the identity); clipping to [0, 1] stops gradients outside. The random
fields come from the same generators as in the real twin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vestige.data import distortions_real as real
from vestige.data.distortion_plans import LUMA, Step

Tensor = torch.Tensor


def run(steps: list[Step], images: Tensor, cover: Tensor | None) -> Tensor:
    """Carry out a plan; N×3×H×W in [0, 1] -> the same dtype and device, eight-bit values."""
    x = images.float()
    for name, params in steps:
        x = COVERED[name](x, cover, **params) if name in COVERED else STEPS[name](x, **params)
    return round8(x).to(images.dtype)


def run_mask(steps: list[Step], masks: Tensor) -> Tensor:
    """Move bool masks N×1×H×W with the pixels, exactly as the real twin does."""
    moved = real.run_mask(steps, masks.detach().cpu().numpy())
    return torch.from_numpy(moved).to(masks.device)


def _pass(x: Tensor, value: Tensor) -> Tensor:
    """``value`` with the gradient of ``x``."""
    return x + (value - x).detach()


def round8(x: Tensor) -> Tensor:
    """Round to the nearest eight-bit value, straight through."""
    x = x.clamp(0, 1)
    return _pass(x, torch.floor(x.detach() * 255 + 0.5) / 255)


def _tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device=like.device, dtype=like.dtype)


def codec(x: Tensor, format: str, quality: int) -> Tensor:
    """JPEG by soft rounding of block transform coefficients; other formats straight through the real codec."""
    x = round8(x)
    if format != "JPEG":
        return _pass(x, _tensor(real.codec(x.detach().cpu().numpy(), format, quality), x))
    from kornia.enhance import jpeg_codec_differentiable

    strength = torch.full((x.shape[0],), float(quality), device=x.device)
    return jpeg_codec_differentiable(x, strength)


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bicubic with anti-aliasing, the same kernel as Pillow's."""
    return F.interpolate(x, (height, width), mode="bicubic", antialias=True)


def crop(x: Tensor, tops: np.ndarray, lefts: np.ndarray, height: int, width: int) -> Tensor:
    """Windows at seeded positions, one for each picture."""
    return torch.stack([p[:, t : t + height, c : c + width] for p, t, c in zip(x, tops, lefts, strict=True)])


def flip(x: Tensor, columns: bool, rows: bool) -> Tensor:
    """Mirror left-right, top-bottom or both."""
    return x.flip([axis for axis, on in ((2, rows), (3, columns)) if on])


def warp(x: Tensor, matrices: np.ndarray, fill: float | None) -> Tensor:
    """Sample bilinearly where the homographies (output to input pixel) point; fill None repeats the edge."""
    height, width = x.shape[2:]
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([columns, rows, np.ones_like(rows)], -1).reshape(-1, 3) @ matrices.transpose(0, 2, 1)
    pixels = points[..., :2] / points[..., 2:]
    grid = ((2 * pixels + 1) / (width, height) - 1).reshape(len(x), height, width, 2)
    level = fill or 0.0
    padding = "border" if fill is None else "zeros"
    return F.grid_sample(x - level, _tensor(grid, x), "bilinear", padding, align_corners=False) + level


def pad(x: Tensor, top: int, bottom: int, left: int, right: int, colour: float) -> Tensor:
    """Bars of one grey around the picture."""
    return F.pad(x, (left, right, top, bottom), value=colour)


def blur(x: Tensor, sigma: float, size: int) -> Tensor:
    """Gaussian filter; the edge is repeated."""
    from kornia.filters import gaussian_blur2d

    return gaussian_blur2d(x, (size, size), (sigma, sigma), border_type="replicate")


def convolve(x: Tensor, kernels: np.ndarray) -> Tensor:
    """Correlate each picture with its kernel; the edge is repeated."""
    from kornia.filters import filter2d

    return filter2d(x, _tensor(kernels, x), border_type="replicate")


def median(x: Tensor, size: int) -> Tensor:
    """Median over a square window; the gradient goes to the chosen sample."""
    from kornia.filters import median_blur

    half = size // 2
    padded = F.pad(x, (half, half, half, half), mode="replicate")
    return median_blur(padded, (size, size))[:, :, half : half + x.shape[2], half : half + x.shape[3]]


def _fields(
    draw: Callable[[tuple[Any, ...], int, tuple[int, ...]], np.ndarray], path: Any, shape: Any, x: Tensor
) -> Tensor:
    return torch.stack([_tensor(draw(path, index, tuple(shape)), x) for index in range(len(x))])


def noise(x: Tensor, sigma: float, path: tuple[Any, ...]) -> Tensor:
    """x + sigma·n with n standard normal, independent for every sample."""
    return x + sigma * _fields(real.normal_field, path, x.shape[1:], x)


def salt_pepper(x: Tensor, fraction: float, path: tuple[Any, ...]) -> Tensor:
    """Half of the chosen pixels turn black, half white, in all channels."""
    u = _fields(real.uniform_field, path, (1, *x.shape[2:]), x)
    return torch.where(u < fraction, (u < fraction / 2).to(x.dtype), x)


def colour(x: Tensor, matrix: np.ndarray) -> Tensor:
    """y = M·x for every pixel."""
    return torch.einsum("ij,njhw->nihw", _tensor(matrix, x), x)


def contrast(x: Tensor, factor: float) -> Tensor:
    """y = m + c·(x − m) with m the mean luma of the picture."""
    mean = (x.mean((2, 3)) @ _tensor(LUMA, x))[:, None, None, None]
    return mean + factor * (x - mean)


def hue(x: Tensor, turn: float) -> Tensor:
    """Rotate the hue in the HSV model."""
    from kornia.enhance import adjust_hue

    return adjust_hue(x.clamp(0, 1), 2 * np.pi * turn)


def gamma(x: Tensor, exponent: float) -> Tensor:
    """y = x^g on [0, 1]; below 1/255 the gradient is that of a chord, because the slope at black may be infinite."""
    x, knee = x.clamp(0, 1), 1 / 255
    soft = torch.where(x < knee, x * knee ** (exponent - 1), x.clamp_min(knee) ** exponent)
    return _pass(soft, x.detach() ** exponent)


def quantize(x: Tensor, levels: int) -> Tensor:
    """Round to levels + 1 equidistant values, straight through."""
    x = x.clamp(0, 1)
    return _pass(x, torch.floor(x.detach() * levels + 0.5) / levels)


def multiply(x: Tensor, field: np.ndarray) -> Tensor:
    """Uneven illumination: multiply by a field N×1×H×W."""
    return x * _tensor(field, x)


def _window(x: Tensor, tops: np.ndarray, lefts: np.ndarray, height: int, width: int) -> Tensor:
    """bool N×1×H×W, True in one window of each picture."""
    inside = torch.zeros((len(x), 1, *x.shape[2:]), dtype=torch.bool, device=x.device)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        inside[i, :, top : top + height, left : left + width] = True
    return inside


def overlay(x: Tensor, tops: np.ndarray, lefts: np.ndarray, patch: np.ndarray) -> Tensor:
    """An opaque grey patch h×w on each picture."""
    patched = _tensor(real.overlay(np.zeros(tuple(x.shape), np.float32), tops, lefts, patch), x)
    return torch.where(_window(x, tops, lefts, *patch.shape), patched, x)


def dropout(x: Tensor, cover: Tensor | None, fraction: float, path: tuple[Any, ...]) -> Tensor:
    """Pixels, chosen independently, come from the cover."""
    u = _fields(real.uniform_field, path, (1, *x.shape[2:]), x)
    return torch.where(u < fraction, torch.zeros_like(x) if cover is None else cover.to(x), x)


def cropout(x: Tensor, cover: Tensor | None, tops: np.ndarray, lefts: np.ndarray, height: int, width: int) -> Tensor:
    """All pixels outside one window come from the cover."""
    other = torch.zeros_like(x) if cover is None else cover.to(x)
    return torch.where(_window(x, tops, lefts, height, width), x, other)


STEPS: dict[str, Callable[..., Tensor]] = {
    f.__name__: f
    for f in (
        codec, resize, crop, flip, warp, pad, blur, convolve, median, noise, salt_pepper, colour, contrast, hue,
        gamma, quantize, multiply, overlay,
    )
}  # fmt: skip
COVERED: dict[str, Callable[..., Tensor]] = {"dropout": dropout, "cropout": cropout}
