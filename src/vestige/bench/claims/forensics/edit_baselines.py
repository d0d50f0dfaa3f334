"""What localisers of edits are compared with: a plain U-Net and small versions of two published networks.

Sources: Image Manipulation Detection by Multi-View Multi-Scale Supervision, ICCV 2021 (MVSS-Net); ManTra-Net:
Manipulation Tracing Network for Detection and Localization of Image Forgeries with Anomalous Features, CVPR 2019. These
keep the parts that their names stand for and are far narrower; ManTra-Net's extractor is trained along with the rest,
not on a classification of manipulations beforehand.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.forensics.tripinet import ResidualSE
from vestige.nn.conv_unet import ConvUNet
from vestige.nn.mask_losses import dice_loss, mask_loss
from vestige.nn.residual import SRM, BayarConv2d


class PlainUNet(nn.Module):
    """A U-Net on colours: N×3×H×W in [0, 1] -> its one map of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = ConvUNet(3, base=12, levels=3), nn.Conv2d(12, 1, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.last(self.body((images - 0.5) / 0.25))]


def _convs(inside: int, outside: int, *, halve: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    layers += [nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if halve else nn.Sequential(*layers)


def _slopes(x: Tensor) -> Tensor:
    """Length of Sobel's gradient in every channel."""
    taps = x.new_tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).expand(x.shape[1], 1, 3, 3) / 8
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across, down = (F.conv2d(padded, k, groups=x.shape[1]) for k in (taps, taps.mT))
    return (across.square() + down.square() + 1e-8).sqrt()


class _PlaceAttention(nn.Module):
    """x + γ·(what other places with like features hold), γ from 0 on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask, self.answer, self.value = (nn.Conv2d(width, n, 1) for n in (width // 4, width // 4, width))
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        alike = (self.ask(x).flatten(2).mT @ self.answer(x).flatten(2)).softmax(2)
        return x + self.share * (self.value(x).flatten(2) @ alike.mT).view_as(x)


class MVSSLite(nn.Module):
    """N×3×H×W in [0, 1] -> logits of the map, then those of its edges at a quarter of the size.

    Colours and Bayar's residuals each through four stages; edges are drawn from Sobel's gradients of all stages of the
    colours, shallow to deep; both branches are joined by attention over places and channels. Sides: multiples of 16.
    """

    def __init__(self, widths: tuple[int, ...] = (12, 24, 48, 64)) -> None:
        super().__init__()
        pairs = list(zip((3, *widths), widths, strict=False))
        self.colours = nn.ModuleList(_convs(a, b) for a, b in pairs)
        self.bayar = BayarConv2d(3, 3)
        self.noise = nn.Sequential(*(_convs(a, b) for a, b in pairs))
        self.edges = nn.ModuleList(nn.Conv2d(w, 12, 3, 1, 1) for w in widths)
        self.deepen = nn.ModuleList(nn.Conv2d(12, 12, 3, 1, 1) for _ in widths)
        self.edge = nn.Conv2d(12, 1, 1)
        both = 2 * widths[-1]
        self.place, self.channel = _PlaceAttention(both), ResidualSE(both)
        self.last = nn.Sequential(nn.Conv2d(both, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        x, quarter = (images - 0.5) / 0.25, (images.shape[2] // 4, images.shape[3] // 4)
        drawn = torch.zeros(())
        for stage, edge, deepen in zip(self.colours, self.edges, self.deepen, strict=True):
            x = stage(x)
            found = F.interpolate(edge(_slopes(x)), quarter, mode="bilinear", align_corners=False)
            drawn = F.relu(deepen(found + drawn)) + found
        joined = torch.cat([x, self.noise(self.bayar(images))], 1)
        map_ = self.last(self.place(joined) + self.channel(joined))
        return [F.interpolate(map_, images.shape[2:], mode="bilinear", align_corners=False), self.edge(drawn)]

    def loss(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """0.16 Dice of maps + 0.04 cross-entropy of whole pictures + 0.8 Dice of edges, the first and last of edits."""
        map_, edges = self(images)
        whole = map_.flatten(1).amax(1)
        edited = masks.flatten(1).amax(1)
        total = 0.04 * F.binary_cross_entropy_with_logits(whole, edited)
        rows = edited > 0.5
        if bool(rows.any()):
            grown, shrunk = (sign * F.max_pool2d(sign * masks[rows], 5, 1, 2) for sign in (1, -1))
            outline = F.max_pool2d(grown - shrunk, 4)
            total = total + 0.16 * dice_loss(map_[rows], masks[rows]) + 0.8 * dice_loss(edges[rows], outline)
        return {"loss": total}


def _around(x: Tensor, side: int) -> Tensor:
    """Means of side×side pixels, first down and then across, which is quicker."""
    down = F.avg_pool2d(x, (side, 1), 1, (side // 2, 0), count_include_pad=False)
    return F.avg_pool2d(down, (1, side), 1, (0, side // 2), count_include_pad=False)


class ManTraLite(nn.Module):
    """N×3×H×W in [0, 1] -> logits of the map.

    Colours, SRM and Bayar residuals are read at full size; features become how far they are from the mean of windows of
    7, 15 and 31 pixels and of the picture, in the picture's deviations; a recurrent cell goes over these from far to
    near.
    """

    def __init__(self, width: int = 12, kept: int = 6) -> None:
        super().__init__()
        self.bayar, self.srm = BayarConv2d(3, 3), SRM(3)
        self.traces = nn.Sequential(_convs(3 + 9 + 3, width, halve=False), _convs(width, width, halve=False))
        self.adapt = nn.Sequential(nn.Conv2d(width, kept, 1, bias=False), nn.BatchNorm2d(kept))
        self.floor = nn.Parameter(torch.zeros(kept, 1, 1))
        self.gates = nn.Conv2d(2 * kept, 4 * kept, 3, 1, 1)
        self.last = nn.Conv2d(kept, 1, 7, 1, 3)

    def forward(self, images: Tensor) -> list[Tensor]:
        found = torch.cat([(images - 0.5) / 0.25, 10 * self.srm(images), 10 * self.bayar(images)], 1)
        features = self.adapt(self.traces(found))
        spread = features.std((2, 3), keepdim=True).maximum(self.floor.sigmoid() * 0.1 + 1e-3)
        means = [features.mean((2, 3), keepdim=True)]
        means += [_around(features, side) for side in (31, 15, 7)]
        state, cell = torch.zeros_like(features), torch.zeros_like(features)
        for mean in means:
            take, forget, give, new = self.gates(torch.cat([(features - mean) / spread, state], 1)).chunk(4, 1)
            cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
            state = give.sigmoid() * cell.tanh()
        return [self.last(state)]

    def loss(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The loss of the other networks' maps, so that all are cut at one half alike."""
        return {"loss": mask_loss(self(images)[0], masks)}
