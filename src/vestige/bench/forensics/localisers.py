"""What localisers of edits are compared with: a U-Net, small versions of three published networks, and Grad-CAM.

Sources: Image Manipulation Detection by Multi-View Multi-Scale Supervision, ICCV 2021 (MVSS-Net); ManTra-Net:
Manipulation Tracing Network for Detection and Localization of Image Forgeries with Anomalous Features, CVPR 2019;
TruFor: Leveraging All-Round Clues for Trustworthy Image Forgery Detection and Localization, CVPR 2023; Grad-CAM: Visual
Explanations from Deep Networks via Gradient-based Localization, ICCV 2017. The networks keep the parts that their names
stand for and are far narrower; the extractors of ManTra-Net and TruFor are trained along with the rest, not on a
classification of manipulations and on traces of cameras beforehand.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.forensics.tripinet import ResidualSE
from vestige.forensics.wscl import Stream
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


class GradCAM(nn.Module):
    """A classifier of whole pictures, asked which places raise its answer: N×3×H×W in [0, 1] -> log-odds N of an edit.

    WSCL's stream on colours up to the features its map is drawn from; their mean over the picture is classified.
    depth, width, stages: of the stream.
    """

    def __init__(self, depth: int = 18, width: float = 0.25, stages: int = 2) -> None:
        super().__init__()
        stream = Stream("rgb", depth, width, stages)
        *features, last = stream.draw
        assert isinstance(last, nn.Conv2d)
        self.features = nn.Sequential(stream.encoder, *features)
        self.head = nn.Linear(last.in_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self._judged(self.features((images - 0.5) / 0.25))

    def _judged(self, features: Tensor) -> Tensor:
        return self.head(features.mean((2, 3))).squeeze(1)

    def loss(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy; labels: float N, 1 edited."""
        return {"loss": F.binary_cross_entropy_with_logits(self(images), labels)}

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """The log-odds N."""
        return self(images)

    @torch.no_grad()
    def localize(self, images: Tensor) -> Tensor:
        """Maps N×1×H×W in [0, 1]: max(0, features weighted by the mean slope of the log-odds in each channel).

        Every map is scaled to [0, 1] and multiplied by the probability of an edit: scaled alone, the map of an
        unedited picture would reach one as well, and no threshold could serve several pictures.
        """
        features = self.features((images - 0.5) / 0.25)
        with torch.enable_grad():
            asked = features.detach().requires_grad_()
            logits = self._judged(asked)
            (slope,) = torch.autograd.grad(logits.sum(), asked)
        maps = F.relu((slope.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True))
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        scaled = (maps - low) / (high - low).clamp_min(1e-12) * logits.detach().sigmoid()[:, None, None, None]
        return F.interpolate(scaled, images.shape[2:], mode="bilinear", align_corners=False)


class _Exchange(nn.Module):
    """Two streams, each with half of what the other holds added twice: weighed by channel, and by place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, 2 * width))
        self.place = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.ReLU(), nn.Conv2d(width, 2, 1))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([x, y], 1)
        held = torch.cat([both.mean((2, 3)), both.amax((2, 3))], 1)
        channels = self.channel(held).sigmoid()[..., None, None].chunk(2, 1)
        places = self.place(both).sigmoid().chunk(2, 1)
        from_x, from_y = (z * (c + p) / 2 for z, c, p in zip((x, y), channels, places, strict=True))
        return x + from_y, y + from_x


class TruForLite(nn.Module):
    """N×3×H×W in [0, 1] -> logits of the map.

    Colours and a noise residual that is learnt go through three stages each and exchange what they hold after every
    one; the map is read from both at all stages. There is no map of confidence, which would not change the map.
    Sides: multiples of 8.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48), width: int = 24) -> None:
        super().__init__()
        pairs = list(zip((3, *widths), widths, strict=False))
        self.residual = nn.Sequential(BayarConv2d(3, 8), _convs(8, 16, halve=False), nn.Conv2d(16, 3, 3, 1, 1))
        self.colours = nn.ModuleList(_convs(a, b) for a, b in pairs)
        self.noise = nn.ModuleList(_convs(a, b) for a, b in pairs)
        self.exchange = nn.ModuleList(_Exchange(w) for w in widths)
        self.merge = nn.ModuleList(nn.Conv2d(2 * w, width, 1) for w in widths)
        self.last = nn.Sequential(_convs(len(widths) * width, width, halve=False), nn.Conv2d(width, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        x, y = (images - 0.5) / 0.25, self.residual(images)
        half, found = (images.shape[2] // 2, images.shape[3] // 2), []
        stages = zip(self.colours, self.noise, self.exchange, self.merge, strict=True)
        for colours, noise, exchange, merge in stages:
            x, y = exchange(colours(x), noise(y))
            merged = merge(torch.cat([x, y], 1))
            found.append(F.interpolate(merged, half, mode="bilinear", align_corners=False))
        return [F.interpolate(self.last(torch.cat(found, 1)), images.shape[2:], mode="bilinear", align_corners=False)]
