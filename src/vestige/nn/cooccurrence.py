"""Co-occurrence of neighbouring residuals: how often one difference of neighbouring pixels follows another.

The residual in direction d is r(p) = x(p + d) - x(p) on eight-bit values, cut off at ±T. The spatial map of a channel
is C(i, j) = share of places with r(p) = i and r(p + d) = j; the map of two channels is the share of places where one
has residual i and the other j. Opposite directions give C(-j, -i) and C(-i, -j) and are averaged.

Source: Detecting Recolored Image by Spatial Correlation, arXiv 2204.10973, 2022; Steganalysis by Subtractive Pixel
Adjacency Matrix, IEEE TIFS 2010.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vestige.core.errors import UsageError

#: Steps (down, right) of the four directions: right, down, right-down and right-up.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (-1, 1))
CHANNEL_PAIRS = ((0, 1), (1, 2), (0, 2))
SETS = ("spatial", "channels")
SMALLEST = 3


def cooccurrence(
    x: Tensor,
    T: int = 15,
    directions: int = 4,
    soft: bool = False,
    *,
    sets: Sequence[str] = ("spatial",),
    width: float = 1.0,
) -> Tensor:
    """Co-occurrence maps float32 N×M×(2T+1)×(2T+1), each summing to 1.

    x: sRGB N×3×H×W, uint8 or float in [0, 1], sides of at least 3. directions: the first so many of `DIRECTIONS`.
    sets: "spatial" gives 3·directions maps (channel by channel, for each the directions), "channels" as many (pairs RG,
    GB, RB). soft: differentiable, each residual shared by the bins within ``width`` in proportion to 1 - |r - k|/width;
    on whole residuals and with a width of 1 that is the hard count. Without it values are rounded to eight bits.
    Raises UsageError for other shapes and settings.

    >>> maps = cooccurrence(torch.rand(2, 3, 32, 32))
    >>> maps.shape, bool(torch.allclose(maps.sum((2, 3)), torch.ones(2, 12)))
    (torch.Size([2, 12, 31, 31]), True)
    """
    _check(x)
    if not 1 <= T <= 127 or not 1 <= directions <= 4 or width < 1:
        raise UsageError(f"T lies in 1 … 127, directions in 1 … 4, width from 1; got {T}, {directions} and {width}.")
    if not sets or set(sets) - set(SETS):
        raise UsageError(f"Sets of maps are {' and '.join(SETS)}; got {', '.join(sets) or 'none'}.")
    if soft:
        if not x.is_floating_point():
            raise UsageError("Soft co-occurrence is differentiable and takes floating-point pictures in [0, 1].")
        return torch.stack([_soft(picture * 255, T, directions, sets, width) for picture in x])
    pixels = _bytes(x)
    return torch.from_numpy(np.stack([_hard(picture, T, directions, sets) for picture in pixels]))


def pixel_pairs(x: Tensor, levels: int = 64, directions: int = 4) -> Tensor:
    """Co-occurrence of neighbouring values at ``levels`` levels: N×(3·directions)×levels×levels, each summing to 1.

    Independent pixels give a map of rank 1, the product of its margins; smooth pictures keep to the diagonal.

    >>> pixel_pairs(torch.full((1, 3, 8, 8), 0.5), 4)[0, 0].argmax().item()
    10
    """
    _check(x)
    if not 2 <= levels <= 256 or not 1 <= directions <= 4:
        raise UsageError(f"There are 2 to 256 levels and 1 to 4 directions; got {levels} and {directions}.")
    found = []
    for picture in _bytes(x):
        value = picture.astype(np.int32) * levels // 256
        maps = []
        for plane in value:
            for step in DIRECTIONS[:directions]:
                here, there = _apart(plane, step)
                count = np.bincount((here * levels + there).ravel(), minlength=levels**2).reshape(levels, levels)
                maps.append((count + count.T) / np.float32(2 * here.size))
        found.append(np.stack(maps))
    return torch.from_numpy(np.stack(found).astype(np.float32))


def standing(maps: Tensor, gain: float = 1e4) -> Tensor:
    """log(1 + gain·C): brings the rare pairs, which tell most, to the scale of the common ones."""
    return torch.log1p(gain * maps)


def _hard(picture: np.ndarray, T: int, directions: int, sets: Sequence[str]) -> np.ndarray:
    """M×(2T+1)×(2T+1) of uint8 3×H×W."""
    bins = 2 * T + 1
    planes = picture.astype(np.int16)
    spatial, channels = [], []
    residuals = {}
    for step in DIRECTIONS[:directions]:
        for c in range(3):
            here, there = _apart(planes[c], step)
            residuals[step, c] = np.minimum(np.maximum(there - here, -T), T) + T
    if "spatial" in sets:
        for c in range(3):
            for step in DIRECTIONS[:directions]:
                first, second = _apart(residuals[step, c], step)
                count = _counted(first, second, bins)
                spatial.append(count + count[::-1, ::-1].T)
    if "channels" in sets:
        for one, two in CHANNEL_PAIRS:
            for step in DIRECTIONS[:directions]:
                count = _counted(residuals[step, one], residuals[step, two], bins)
                channels.append(count + count[::-1, ::-1])
    by_name = {"spatial": spatial, "channels": channels}
    maps = np.stack([m for name in SETS if name in sets for m in by_name[name]]).astype(np.float32)
    return maps / maps.sum((1, 2), keepdims=True)


def _counted(first: np.ndarray, second: np.ndarray, bins: int) -> np.ndarray:
    # in sixteen bits where they hold the index: half the memory traffic of what bincount makes of it
    index = first * np.int16(bins) + second if bins**2 < 2**15 else first.astype(np.int32) * bins + second
    return np.bincount(index.ravel(), minlength=bins * bins).reshape(bins, bins)


def _soft(picture: Tensor, T: int, directions: int, sets: Sequence[str], width: float) -> Tensor:
    """The same of float 3×H×W on the eight-bit scale, as products of bin memberships."""
    levels = torch.arange(-T, T + 1, device=picture.device, dtype=picture.dtype)

    def members(residual: Tensor) -> Tensor:
        near = (1 - (residual.clamp(-T, T)[..., None] - levels).abs() / width).clamp_min(0)
        return near / near.sum(-1, keepdim=True)

    spatial: list[list[Tensor]] = [[], [], []]
    channels: list[list[Tensor]] = [[], [], []]
    for step in DIRECTIONS[:directions]:
        here, there = _apart(picture, step)
        member = members(there - here)  # 3×h×w×bins
        if "spatial" in sets:
            first, second = _apart(member, step, 1)
            count = torch.einsum("chwi,chwj->cij", first, second)
            for c in range(3):
                spatial[c].append(count[c] + count[c].flip(0, 1).T)
        if "channels" in sets:
            for pair, (one, two) in enumerate(CHANNEL_PAIRS):
                count = torch.einsum("hwi,hwj->ij", member[one], member[two])
                channels[pair].append(count + count.flip(0, 1))
    by_name = {"spatial": spatial, "channels": channels}
    maps = torch.stack([m for name in SETS if name in sets for group in by_name[name] for m in group])
    return maps / maps.sum((1, 2), keepdim=True)


def _apart(plane, step: tuple[int, int], axis: int | None = None):  # type: ignore[no-untyped-def]
    """Views of an array (numpy or torch) at all places p and at p + step, along two axes (the last two by default)."""
    down, right = step
    first = plane.ndim - 2 if axis is None else axis
    height, width = plane.shape[first : first + 2]
    before = (slice(None),) * first
    rows = (
        (slice(0, height - down), slice(down, height)) if down >= 0 else (slice(-down, height), slice(0, height + down))
    )
    columns = (slice(0, width - right), slice(right, width))
    return plane[(*before, rows[0], columns[0])], plane[(*before, rows[1], columns[1])]


def _bytes(x: Tensor) -> np.ndarray:
    x = x.detach().cpu()
    return x.numpy() if x.dtype == torch.uint8 else (x.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _check(x: Tensor) -> None:
    fits = isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == 3 and len(x) > 0 and min(x.shape[2:]) >= SMALLEST
    if not fits or not (x.is_floating_point() or x.dtype == torch.uint8):
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise UsageError(
            f"Co-occurrences are counted in N×3×H×W, uint8 or float, sides of at least {SMALLEST}; got {got}."
        )
