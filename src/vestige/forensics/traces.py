"""Local statistics of noise, interpolation, compression and colour: what an edit breaks, whatever the edit was.

Each is measured in small windows all over the picture. An edited region need not look odd by any absolute measure; it
differs from the rest of its own picture in some of them.

Sources: Rich Models for Steganalysis of Digital Images, IEEE TIFS 2012 (residual filters); Exposing Digital Forgeries
by Detecting Traces of Resampling, IEEE TSP 2005 (neighbour correlation); ZERO: a Local JPEG Grid Origin Detector, IPOL
2021 (grid phase as evidence).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.nn.residual import srm_kernels

#: Pixels from one measurement to the next.
STRIDE = 4
#: Luma filters of the rich model: first order in four directions, second in four, third in two, the four edges of
#: 3×3, both squares.
_CHOSEN = (0, 1, 2, 3, 8, 9, 10, 11, 12, 14, 20, 21, 22, 23, 28, 29)
_SQUARE = 14  # place of the 3×3 square among them
_LAGS = ((0, 1), (1, 0), (1, 1), (0, 2))
#: Channels of `trace_maps`.
CHANNELS = len(_CHOSEN) + 4 + len(_LAGS) + 2 + 3 + 2 + 4 + 8 + 4
_HALO = 48  # pixels that a measurement may look beyond its place


def trace_maps(pixels: np.ndarray, *, strip: int = 512) -> np.ndarray:
    """uint8 H×W×3 -> float32 CHANNELS×⌈H/4⌉×⌈W/4⌉; in strips, so that memory stays bounded.

    Raises UsageError for other arrays and for pictures below 32 pixels a side.

    >>> trace_maps(np.zeros((40, 50, 3), np.uint8)).shape == (CHANNELS, 10, 13)
    True
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or min(pixels.shape[:2]) < 32:
        raise UsageError(f"Traces are measured in uint8 H×W×3 of 32 pixels or more, got {pixels.dtype} {pixels.shape}.")
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % 8), (0, -width % 8), (0, 0)), "symmetric")
    profile = _global_profile(padded)
    parts = []
    for top in range(0, len(padded), strip):
        first, last = max(0, top - _HALO), min(len(padded), top + strip + _HALO)
        found = _measure(torch.from_numpy(padded[first:last].transpose(2, 0, 1).astype(np.float32)), profile)
        begin = (top - first) // STRIDE
        parts.append(found[:, begin : begin + -(-min(strip, len(padded) - top) // STRIDE)])
    maps = torch.cat(parts, 1)[:, : -(-height // STRIDE), : -(-width // STRIDE)]
    return maps.numpy()


@torch.no_grad()
def _measure(x: Tensor, profile: tuple[Tensor, Tensor]) -> Tensor:
    """3×H×W in [0, 255], sides multiples of 8, rows starting at one -> CHANNELS×H/4×W/4."""
    luma, blue, red = _ycc(x)
    residuals = _filtered(luma, _CHOSEN)
    square = residuals[_SQUARE]
    maps = [_log_mean(residuals.abs())]
    chroma = torch.stack([_filtered(c, (28,))[0] for c in (blue, red)])
    steps = torch.stack(
        [c.diff(dim=1, append=c[:, -1:]).abs() + c.diff(dim=0, append=c[-1:]).abs() for c in (blue, red)]
    )
    maps += [_log_mean(chroma.abs()), _log_mean(steps)]
    maps.append(_lag_correlations(square, _LAGS))
    pair = torch.stack([square, residuals[0]])
    maps.append(torch.log((_mean(pair.square()) + 0.05) / (_mean(pair.abs()).square() + 0.05)))
    maps.append(_mean((torch.stack([residuals[0], residuals[2], square]).abs() < 0.75).float()))
    maps.append(_colour_correlations(x))
    level = _mean(torch.stack([luma, luma.square()]))
    spread = (level[1] - level[0].square()).clamp_min(0).sqrt()
    maps.append(torch.stack([level[0] / 64, _mean(blue[None])[0] / 16, _mean(red[None])[0] / 16, torch.log1p(spread)]))
    maps.append(_coarse(luma))
    maps.append(_grid(luma, profile))
    return torch.cat(maps)


def _ycc(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    luma = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    return luma, (x[2] - luma) * 0.564, (x[0] - luma) * 0.713


def _filtered(plane: Tensor, chosen: tuple[int, ...]) -> Tensor:
    kernels = torch.from_numpy(srm_kernels(30)[list(chosen)])[:, None]
    return F.conv2d(F.pad(plane[None, None], (2, 2, 2, 2), mode="reflect"), kernels)[0]


def _mean(maps: Tensor, window: int = 8, stride: int = STRIDE) -> Tensor:
    edge = (window - stride) // 2
    return F.avg_pool2d(maps[None], window, stride, edge, count_include_pad=False)[0]


def _beside(plane: Tensor, down: int, right: int) -> Tensor:
    """The plane that far on, its border repeated."""
    height, width = plane.shape
    rows, columns = torch.arange(height) + down, torch.arange(width) + right
    return plane[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)]


def _log_mean(maps: Tensor) -> Tensor:
    return torch.log(_mean(maps) + 0.1)


def _lag_correlations(residual: Tensor, lags: tuple[tuple[int, int], ...]) -> Tensor:
    """Correlation of a residual with itself some pixels on: interpolation and smoothing raise it."""
    products = torch.stack([residual * _beside(residual, down, right) for down, right in lags])
    return _mean(products) / (_mean(residual[None].square()) + 0.05)


def _colour_correlations(x: Tensor) -> Tensor:
    """Correlation of the fine detail of red and green, and of green and blue: one light makes both."""
    detail = torch.stack([_filtered(c, (28,))[0] for c in x])
    energy = _mean(detail.square()) + 0.1
    both = _mean(torch.stack([detail[0] * detail[1], detail[1] * detail[2]]))
    return both / torch.stack([energy[0] * energy[1], energy[1] * energy[2]]).sqrt()


def _coarse(luma: Tensor) -> Tensor:
    """The same kind of statistics at half the resolution, which tell texture from noise."""
    half = F.avg_pool2d(luma[None, None], 2)[0, 0]
    residuals = _filtered(half, (0, 2, 8, 10, 28, 29))
    square = residuals[4]
    products = torch.stack([square * _beside(square, 0, 1), square * _beside(square, 1, 0)])
    energy = _mean(square[None].square(), 8, 2) + 0.05
    return torch.cat([torch.log(_mean(residuals.abs(), 8, 2) + 0.1), _mean(products, 8, 2) / energy])


def _second(luma: Tensor, axis: int) -> Tensor:
    """|2 Y(k) − Y(k−1) − Y(k+1)| along an axis, capped so that edges of the content weigh little."""
    down, right = (1, 0) if axis == 0 else (0, 1)
    around = _beside(luma, down, right) + _beside(luma, -down, -right)
    return (2 * luma - around).abs().clamp(max=12.0)


def _phases(length: int) -> Tensor:
    return F.one_hot(torch.arange(length) % 8, 8).float()


def _global_profile(pixels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean second difference at the eight phases across and down, over their mean, of the whole picture."""
    luma = torch.from_numpy(pixels @ np.array([0.299, 0.587, 0.114], np.float32))
    across, down = (_second(luma, axis).mean(1 - axis) for axis in (1, 0))
    found = [(values @ _phases(len(values))) * 8 / len(values) for values in (across, down)]
    return found[0] / (found[0].mean() + 0.05), found[1] / (found[1].mean() + 0.05)


def _grid(luma: Tensor, profile: tuple[Tensor, Tensor]) -> Tensor:
    """For both directions: correlation of a window's phases with the picture's, and how uneven they are (log)."""
    found = []
    for axis, reference in ((1, profile[0]), (0, profile[1])):
        phases = _phases(luma.shape[axis]).T
        masks = phases[:, None, :] if axis == 1 else phases[:, :, None]
        local = _mean(_second(luma, axis)[None] * masks, 32) * 8
        uneven = local / (local.mean(0) + 0.05) - 1
        usual = reference[:, None, None] - 1
        sizes = uneven.square().mean(0).sqrt() * usual.square().mean().sqrt()
        found += [(uneven * usual).mean(0) / (sizes + 1e-3), torch.log(uneven.square().mean(0) + 1e-3)]
    return torch.stack(found)
