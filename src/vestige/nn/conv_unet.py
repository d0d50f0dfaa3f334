"""The classic convolutional U-Net, and the nested one that segments salient regions (U²-Net).

Sources: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015; U²-Net: Going Deeper with Nested
U-Structure for Salient Object Detection, Pattern Recognition 2020. Both with group normalisation.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError


def _normed(inside: int, outside: int, *, dilation: int = 1) -> nn.Sequential:
    """3×3 convolution, group normalisation, ReLU; at least two channels in a group, so that 1×1 maps survive it."""
    groups = next(g for g in (8, 4, 2, 1) if g == 1 or (outside % g == 0 and outside >= 2 * g))
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, 1, dilation, dilation, bias=False),
        nn.GroupNorm(groups, outside),
        nn.ReLU(inplace=True),
    )


class ConvUNet(nn.Module):
    """Double 3×3 convolutions at widths base·(1, 2, 4, ..., 2^levels), max-pool down, transposed convolutions up.

    x: N×inside×H×W -> N×outside×H×W, outside being ``base`` unless given (a last 1×1 convolution then maps to it).
    Raises UsageError when a side cannot be halved ``levels`` times.

    Source: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.

    >>> ConvUNet(3, base=8, levels=2)(torch.zeros(1, 3, 16, 24)).shape
    torch.Size([1, 8, 16, 24])
    """

    def __init__(self, inside: int, base: int = 64, levels: int = 4, outside: int | None = None) -> None:
        super().__init__()
        if base < 1 or levels < 1:
            raise UsageError(f"A U-Net needs a base width and levels of at least 1, got {base} and {levels}.")
        self.levels = levels
        widths = [base * 2**level for level in range(levels + 1)]
        self.first = nn.Sequential(_normed(inside, base), _normed(base, base))
        self.down = nn.ModuleList(nn.Sequential(_normed(a, b), _normed(b, b)) for a, b in pairwise(widths))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.Sequential(_normed(2 * a, a), _normed(a, a)) for a in widths[:-1])
        self.last = nn.Conv2d(base, outside, 1) if outside is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        multiple = 2**self.levels
        if x.shape[2] % multiple or x.shape[3] % multiple:
            raise UsageError(f"A U-Net of {self.levels} levels needs sides divisible by {multiple}, got {x.shape[2:]}.")
        kept = [self.first(x)]
        for block in self.down:
            kept.append(block(F.max_pool2d(kept[-1], 2)))
        x = kept.pop()
        for level in reversed(range(self.levels)):
            x = self.up[level](torch.cat([kept[level], self.enlarge[level](x)], 1))
        return self.last(x)


class _Nested(nn.Module):
    """A residual U-block: ``depth`` convolutions down, one dilated, as many up, added to the first one's output.

    flat: dilations instead of pooling, for maps that are small already.
    """

    def __init__(self, depth: int, inside: int, middle: int, outside: int, flat: bool = False) -> None:
        super().__init__()
        self.flat = flat
        self.first = _normed(inside, outside)
        self.down = nn.ModuleList(
            _normed(outside if i == 0 else middle, middle, dilation=2**i if flat else 1) for i in range(depth - 1)
        )
        self.bottom = _normed(middle, middle, dilation=2 ** (depth - 1) if flat else 2)
        self.up = nn.ModuleList(
            _normed(2 * middle, outside if i == 0 else middle, dilation=2**i if flat else 1) for i in range(depth - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = top = self.first(x)
        kept = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 or self.flat else _halved(x))
            kept.append(x)
        x = self.bottom(x)
        for block in reversed(self.up):
            skip = kept.pop()
            x = block(torch.cat([_as_large(x, skip), skip], 1))
        return x + top


class NestedUNet(nn.Module):
    """The small U²-Net: six nested U-blocks down, five up, six side maps fused into one: N×3×H×W -> logits N×1×H×W.

    middle, outside: widths within and between the blocks (16 and 64 in the paper's small model). Any size from 32 on
    serves; below, the deepest maps have one pixel.

    Source: U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection, Pattern Recognition 2020.

    >>> NestedUNet(3, 4, 8)(torch.zeros(1, 3, 40, 32)).shape
    torch.Size([1, 1, 40, 32])
    """

    def __init__(self, inside: int = 3, middle: int = 16, outside: int = 64) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _Nested(depth, inside if i == 0 else outside, middle, outside, flat)
            for i, (depth, flat) in enumerate([(7, False), (6, False), (5, False), (4, False), (4, True), (4, True)])
        )
        self.up = nn.ModuleList(
            _Nested(depth, 2 * outside, middle, outside, flat)
            for depth, flat in [(7, False), (6, False), (5, False), (4, False), (4, True)]
        )
        self.side = nn.ModuleList(nn.Conv2d(outside, 1, 3, 1, 1) for _ in range(6))
        self.fuse = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else _halved(x))
            kept.append(x)
        maps = [self.side[5](x)]
        for i in reversed(range(5)):
            x = self.up[i](torch.cat([_as_large(x, kept[i]), kept[i]], 1))
            maps.append(self.side[i](x))
        full = kept[0]
        return self.fuse(torch.cat([_as_large(m, full) for m in reversed(maps)], 1))


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def _as_large(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
