"""Front ends that remove what a picture shows and leave how it was made: fixed and learned high-pass filters.

All take float32 N×C×H×W and keep the size; edges are reflected. Values may be on any scale; a constant picture gives
zero. Source of the filters: Rich Models for Steganalysis of Digital Images, IEEE TIFS 2012.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError

_SQUARE3 = [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]
_SQUARE5 = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
#: The eight neighbours, clockwise from the right.
_AROUND = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def _line(direction: tuple[int, int], taps: dict[int, float]) -> np.ndarray:
    """A 5×5 filter with taps at multiples of a direction from its centre."""
    kernel = np.zeros((5, 5), np.float32)
    for step, value in taps.items():
        kernel[2 + step * direction[0], 2 + step * direction[1]] = value
    return kernel


def _centred(values: list[list[int]], divisor: int) -> np.ndarray:
    kernel = np.zeros((5, 5), np.float32)
    edge = (5 - len(values)) // 2
    kernel[edge : 5 - edge, edge : 5 - edge] = np.array(values, np.float32) / divisor
    return kernel


@cache
def srm_kernels(count: int = 30) -> np.ndarray:
    """The linear filters of the spatial rich model, each divided by its largest tap, float32 count×5×5.

    30: eight of first, four of second and eight of third order, four edges of 3×3 and of 5×5, two squares. 3: the
    squares and the horizontal second order, as forgery localisers take them. Raises UsageError for other counts.

    >>> bool(abs(srm_kernels(30).sum((1, 2))).max() < 1e-6)
    True
    """
    second = [_line(d, {-1: 0.5, 0: -1, 1: 0.5}) for d in _AROUND[:4]]
    squares = [_centred(_SQUARE3, 4), _centred(_SQUARE5, 12)]
    if count == 3:
        return np.stack([*squares, second[0]])
    if count != 30:
        raise UsageError(f"There are sets of 30 and of 3 filters, got {count}.")
    first = [_line(d, {0: -1, 1: 1}) for d in _AROUND]
    third = [_line(d, {-1: 1 / 3, 0: -1, 1: 1, 2: -1 / 3}) for d in _AROUND]
    edges = []
    for square in squares:  # an edge is the half of a square above its centre, centre row included
        half = square.copy()
        half[3:] = 0
        edges += [np.rot90(half, turn) for turn in range(4)]
    return np.stack([*first, *second, *third, *edges, *squares]).astype(np.float32)


class SRM(nn.Module):
    """Fixed high-pass filters on every channel: N×C×H×W -> N×(C·count)×H×W, cut off at ±``limit`` (0: not at all).

    >>> SRM(3)(torch.full((1, 3, 8, 8), 0.5)).abs().max().item() < 1e-6
    True
    """

    def __init__(self, count: int = 3, limit: float = 0.0) -> None:
        super().__init__()
        self.limit = limit
        self.kernels: Tensor
        self.register_buffer("kernels", torch.from_numpy(srm_kernels(count).copy())[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        found = F.conv2d(_padded(x.reshape(n * channels, 1, height, width), 2), self.kernels.to(x.dtype))
        found = found.reshape(n, -1, height, width)
        return found.clamp(-self.limit, self.limit) if self.limit else found


class BayarConv2d(nn.Module):
    """A learned prediction error: every filter has -1 in its centre and other taps that sum to 1.

    The taps are what is stored, minus their mean, plus 1/(k² - 1); that holds exactly and divides by nothing.

    Source: Constrained Convolutional Neural Networks, IEEE TIFS 2018.

    >>> BayarConv2d(3, 3)(torch.full((1, 3, 8, 8), 0.5)).abs().max().item() < 1e-5
    True
    """

    def __init__(self, inside: int, outside: int, size: int = 5) -> None:
        super().__init__()
        if size % 2 == 0 or size < 3:
            raise UsageError(f"The filter needs an odd side of 3 or more, got {size}.")
        self.size = size
        self.taps = nn.Parameter(torch.randn(outside, inside, size * size - 1) / (size * math.sqrt(inside)))

    @property
    def weight(self) -> Tensor:
        """outside×inside×k×k."""
        free = self.taps - self.taps.mean(2, keepdim=True) + 1 / self.taps.shape[2]
        half = self.taps.shape[2] // 2
        centre = free.new_full((*free.shape[:2], 1), -1.0)
        return torch.cat([free[..., :half], centre, free[..., half:]], 2).unflatten(2, (self.size, self.size))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(_padded(x, self.size // 2), self.weight)


class CentralDifferenceConv2d(nn.Conv2d):
    """y = w * x - θ · (Σ w) x: a convolution that sees differences from the centre as θ goes to 1.

    Takes the arguments of `torch.nn.Conv2d`; the stride applies to both terms.

    Source: Searching Central Difference Convolutional Networks for Face Anti-Spoofing, CVPR 2020.

    >>> layer = CentralDifferenceConv2d(1, 2, 3, padding=1, theta=1.0, bias=False)
    >>> layer(torch.ones(1, 1, 5, 5))[:, :, 1:4, 1:4].abs().max().item() < 1e-5
    True
    """

    def __init__(
        self, inside: int, outside: int, size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1,
        groups: int = 1, bias: bool = True, theta: float = 0.7,
    ) -> None:  # fmt: skip
        super().__init__(inside, outside, size, stride, padding, dilation, groups, bias)
        self.theta = theta

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        if self.theta == 0:
            return found
        # The centre of an unpadded window lies that far from the border of the picture.
        inset = self.dilation[0] * (self.kernel_size[0] // 2) - int(self.padding[0])
        centre = x if inset <= 0 else x[:, :, inset:-inset, inset:-inset]
        summed = self.weight.sum((2, 3), keepdim=True)
        centre = centre[..., :: self.stride[0], :: self.stride[1]]  # not as a stride: see vestige.nn.layout
        return found - self.theta * F.conv2d(centre, summed, groups=self.groups)


def neighbour_residual(x: Tensor, step: int = 2) -> Tensor:
    """x less itself reduced and enlarged by ``step`` with nearest neighbours, N×C×H×W; sides are cut to multiples.

    What is left of each step×step block is its difference from its first pixel: where an up-sampling layer made the
    picture, these have a pattern. Source: Rethinking the Up-Sampling Operations in CNN-based Generative Network for
    Generalizable Deepfake Detection, CVPR 2024.

    >>> neighbour_residual(torch.arange(16.0).view(1, 1, 4, 4))[0, 0, 0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    height, width = (side // step * step for side in x.shape[2:])
    x = x[:, :, :height, :width]
    return x - x[:, :, ::step, ::step].repeat_interleave(step, 2).repeat_interleave(step, 3)


def local_mean_residual(x: Tensor, size: int = 3) -> Tensor:
    """x less the mean of the size×size pixels around, N×C×H×W."""
    return x - F.avg_pool2d(_padded(x, size // 2), size, 1)


@cache
def _dct_matrix(size: int) -> Tensor:
    from scipy.fft import dct

    return torch.from_numpy(dct(np.eye(size), axis=0, norm="ortho").astype(np.float32))


def block_dct(x: Tensor, size: int = 8, stride: int | None = None) -> Tensor:
    """Orthonormal DCT-II of blocks of a side: N×C×H×W -> N×(C·size²)×h×w, row frequencies first.

    stride: from block to block, ``size`` unless given; sides are cut to what whole blocks cover.

    >>> block_dct(torch.ones(1, 1, 8, 8)).flatten()[:2].round().abs().tolist()
    [8.0, 0.0]
    """
    n, channels, height, width = x.shape
    if min(height, width) < size:
        raise UsageError(f"A picture of {width}×{height} has no block of {size} pixels.")
    matrix = _dct_matrix(size).to(x)
    basis = torch.einsum("ui,vj->uvij", matrix, matrix).reshape(size * size, 1, size, size)
    found = F.conv2d(x.reshape(n * channels, 1, height, width), basis, stride=stride or size)
    return found.reshape(n, channels * size * size, *found.shape[2:])


def _padded(x: Tensor, edge: int) -> Tensor:
    return F.pad(x, (edge,) * 4, mode="reflect" if min(x.shape[2:]) > edge else "replicate")
