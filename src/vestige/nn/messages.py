"""How bits become planes that a convolutional embedder can read, and planes become bits again.

Bits are float N×L of zeros and ones. The planes are learned, except `tile_bits`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError


def check_bits(bits: Tensor, length: int) -> Tensor:
    """Bits as float N×L; raises UsageError for another length or shape."""
    if bits.ndim != 2 or bits.shape[1] != length:
        raise UsageError(f"Messages must have shape N×{length}; got {tuple(bits.shape)}.")
    return bits.float()


def tile_bits(bits: Tensor, height: int, width: int) -> Tensor:
    """Every bit as a constant plane: N×L -> N×L×H×W.

    Source: HiDDeN: Hiding Data with Deep Networks, ECCV 2018.

    >>> import torch
    >>> tile_bits(torch.tensor([[0.0, 1.0]]), 2, 3).sum((2, 3)).tolist()
    [[0.0, 6.0]]
    """
    return bits[:, :, None, None].expand(-1, -1, height, width)


def _conv(inside: int, outside: int, relu: bool = True) -> list[nn.Module]:
    """Convolution, normalisation over each picture, ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(inside, outside, 3, 1, 1), nn.GroupNorm(1, outside)]
    return [*layers, nn.ReLU()] if relu else layers


class LinearPlane(nn.Module):
    """Linear(L -> L²), as an L×L picture, nearest to H×W, three convolutions: N×L -> N×channels×H×W.

    Raises UsageError when a side is shorter than 2L: fewer than two pixels for an entry do not survive the way back.

    Source: Mask Image Watermarking, NeurIPS 2025.

    >>> import torch
    >>> LinearPlane(8)(torch.zeros(2, 8), 16, 24).shape
    torch.Size([2, 3, 16, 24])
    """

    def __init__(self, bits: int, channels: int = 3) -> None:
        super().__init__()
        self.bits = bits
        self.spread = nn.Linear(bits, bits * bits)
        layers = [*_conv(1, channels), *_conv(channels, channels), *_conv(channels, channels)]
        self.refine = nn.Sequential(*layers)

    def forward(self, bits: Tensor, height: int, width: int) -> Tensor:
        check_side(self.bits, height, width)
        plane = self.spread(check_bits(bits, self.bits)).view(-1, 1, self.bits, self.bits)
        return self.refine(F.interpolate(plane, (height, width), mode="nearest"))


class PlaneReader(nn.Module):
    """The way back from `LinearPlane`: convolutions down to one channel, nearest to L×L, Linear(L² -> L).

    maps: N×channels×H×W -> soft bits N×L, nominally 0 or 1. The paper has a ReLU after the last convolution too, which
    throws away half of the few entries that are read: without it a small reader had 99 % instead of 76 % of 8 bits
    right after 160 updates. Raises UsageError when a side is shorter than 2L.

    >>> import torch
    >>> PlaneReader(8)(torch.zeros(2, 3, 16, 24)).shape
    torch.Size([2, 8])
    """

    def __init__(self, bits: int, channels: int = 3) -> None:
        super().__init__()
        self.bits = bits
        layers = [*_conv(channels, channels), *_conv(channels, channels), *_conv(channels, 1, relu=False)]
        self.refine = nn.Sequential(*layers)
        self.gather = nn.Linear(bits * bits, bits)
        nn.init.constant_(self.gather.bias, 0.5)

    def forward(self, maps: Tensor) -> Tensor:
        check_side(self.bits, *maps.shape[2:])
        plane = F.interpolate(self.refine(maps), (self.bits, self.bits), mode="nearest")
        return self.gather(plane.flatten(1))


def check_side(bits: int, height: int, width: int) -> None:
    """Raises UsageError when a plane of L×L entries does not fit twice into the picture's sides."""
    if min(height, width) < 2 * bits:
        raise UsageError(f"{bits} bits need a mark of at least {2 * bits} pixels a side, got {width}×{height}.")


class DensePlane(nn.Module):
    """±1 bits through two dense layers to a small colour picture, enlarged: N×L -> N×3×H×W.

    Dense(L -> hidden) ReLU, Dense(hidden -> 3·side²) ReLU, nearest to H×W. hidden and side are 4096 and 64 in the
    paper, for 256-pixel pictures.

    Source: Robust Watermarking Using Generative Priors Against Image Editing, ICLR 2025 (its condition adaptor).

    >>> import torch
    >>> DensePlane(8, side=4, hidden=16)(torch.zeros(2, 8), 16, 16).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(self, bits: int, *, side: int = 64, hidden: int = 4096) -> None:
        super().__init__()
        self.bits, self.side = bits, side
        self.dense = nn.Sequential(nn.Linear(bits, hidden), nn.ReLU(), nn.Linear(hidden, 3 * side * side), nn.ReLU())

    def forward(self, bits: Tensor, height: int, width: int) -> Tensor:
        signs = 2 * check_bits(bits, self.bits) - 1
        return F.interpolate(self.dense(signs).view(-1, 3, self.side, self.side), (height, width), mode="nearest")
