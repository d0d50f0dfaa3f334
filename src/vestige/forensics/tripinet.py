"""TriPINet: colour, frequency and noise read side by side, fused at every scale, decoded into a map of edits.

Source: TriPINet: Tripartite Progressive Integration Network for Image Manipulation Localization, arXiv 2212.12841,
2022. The paper trains on CASIA v2; the recipe here trains a narrower network on edits that it makes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.findings import Finding
from vestige.forensics.learned import load_network
from vestige.nn.mask_losses import mask_loss
from vestige.nn.residual import SRM, BayarConv2d, block_dct

if TYPE_CHECKING:
    from vestige.core.subjects import ImageSubject

BRANCHES = ("rgb", "freq", "noise")
#: Convolutions of each stage.
BACKBONES = {"vgg16_bn": (2, 2, 3, 3, 3), "small": (1, 1, 2, 2, 2)}
_WIDTHS = (64, 128, 256, 512, 512)
_BLOCK = 4  # side of the blocks of the frequency branch, which reads the picture at twice its size
_TILE, _OVERLAP, _MOST = 512, 64, 6_000_000


def _stage(inside: int, outside: int, count: int) -> nn.Sequential:
    """3×3 convolutions with batch normalisation and ReLU, then halving."""
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [nn.Conv2d(inside if index == 0 else outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


class ResidualSE(nn.Module):
    """x + x·SE(x): channels weighed by what the whole map holds (Squeeze-and-Excitation Networks, CVPR 2018)."""

    def __init__(self, width: int, reduction: int = 16, pool: str = "mean") -> None:
        super().__init__()
        self.pool = pool
        hidden = max(4, width // reduction)
        self.weigh = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        held = x.mean((2, 3)) if self.pool == "mean" else x.amax((2, 3))
        return x + x * self.weigh(held).sigmoid()[..., None, None]


def frequency_maps(images: Tensor, block: int = _BLOCK) -> Tensor:
    """DCT coefficients of blocks of Y, Cb and Cr of the picture at twice its size: N×3×H×W -> N×(3·b²)×(2H/b)×(2W/b).

    Map c·b² + u·b + v holds frequency (u, v) of channel c.

    >>> frequency_maps(torch.rand(1, 3, 16, 24)).shape
    torch.Size([1, 48, 8, 12])
    """
    r, g, b = images.unbind(1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    converted = torch.stack([y, 0.564 * (b - y) + 0.5, 0.713 * (r - y) + 0.5], 1)
    return block_dct(F.interpolate(converted, scale_factor=2, mode="bilinear", align_corners=False), block)


class GuidedAttention(nn.Module):
    """Frequency F and noise N weigh each other by place and by channel, and the sum guides the colours R.

    x = [F, N]; by place w = softmax over the pair of two 1×1 stacks (2C -> C -> 1), by channel of two 1×1 layers
    (2C -> C) on the mean of x; each gives w_F·F + w_N·N + mid, mid = 1×1(x); out = R·(S + T) + R.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, 1, 1))
            for _ in range(2)
        )
        self.channel = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(2))
        self.mid = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(2))

    def weights(self, frequency: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """By place 2×N×1×H×W and by channel 2×N×C×1×1, each pair summing to 1."""
        x = torch.cat([frequency, noise], 1)
        mean = x.mean((2, 3), keepdim=True)
        place = torch.stack([layer(x) for layer in self.place]).softmax(0)
        return place, torch.stack([layer(mean) for layer in self.channel]).softmax(0)

    def forward(self, colour: Tensor, frequency: Tensor, noise: Tensor) -> Tensor:
        x = torch.cat([frequency, noise], 1)
        fused = torch.zeros_like(frequency)
        for weight, mid in zip(self.weights(frequency, noise), self.mid, strict=True):
            fused = fused + weight[0] * frequency + weight[1] * noise + mid(x)
        return colour * fused + colour


class _Joined(nn.Module):
    """The comparison: the branches there are, side by side, through a 1×1 convolution."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(count * width, width, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        return self.mix(torch.cat(maps, 1))


class TriPINet(nn.Module):
    """Images N×3×H×W in [0, 1] -> six maps of logits N×1×H×W: the answer, then the five that are supervised with it.

    width: factor on 64, 128, 256, 512, 512 channels. backbone: "vgg16_bn" or "small" (fewer convolutions). branches:
    those of "rgb", "freq" and "noise" that are used. fusion: "attention" needs all three; with fewer, or "concat", the
    maps go side by side through a 1×1 convolution. Sides that are no multiples of 32 are mirrored to one and cut back.

    >>> net = TriPINet(0.125, "small").eval()
    >>> [tuple(m.shape) for m in net(torch.rand(1, 3, 40, 64))] == [(1, 1, 40, 64)] * 6
    True
    """

    def __init__(
        self,
        width: float = 1.0,
        backbone: str = "vgg16_bn",
        branches: Sequence[str] = BRANCHES,
        fusion: str = "attention",
    ) -> None:
        super().__init__()
        chosen = tuple(name for name in BRANCHES if name in branches)
        if backbone not in BACKBONES or not chosen or set(branches) - set(BRANCHES) or not 0.05 <= width <= 2:
            raise UsageError(
                f"A backbone is {' or '.join(BACKBONES)}, branches are {', '.join(BRANCHES)}, the width is 0.05 to 2; "
                f"got {backbone}, {', '.join(branches) or 'none'} and {width}."
            )
        if fusion not in ("attention", "concat"):
            raise UsageError(f"The branches are fused by attention or concat; got {fusion!r}.")
        self.settings: dict[str, Any] = {
            "width": width, "backbone": backbone, "branches": list(chosen), "fusion": fusion,
        }  # fmt: skip
        self.branches = chosen
        widths = [max(4, round(w * width)) for w in _WIDTHS]
        counts = BACKBONES[backbone]
        self.bayar, self.srm = BayarConv2d(3, 3), SRM(3)
        self.read_dct = nn.Sequential(
            nn.InstanceNorm2d(3 * _BLOCK**2),
            ResidualSE(3 * _BLOCK**2),
            nn.Conv2d(3 * _BLOCK**2, widths[0], 1, bias=False),
            nn.BatchNorm2d(widths[0]),
        )
        self.stages = nn.ModuleDict()
        for name in chosen:
            sizes = zip((3, *widths), widths, counts)
            stages = [_stage(a, b, n) for a, b, n in sizes]
            self.stages[name] = nn.ModuleList(stages[1:] if name == "freq" else stages)
        attentive = fusion == "attention" and len(chosen) == 3
        self.fuse = nn.ModuleList(GuidedAttention(w) if attentive else _Joined(w, len(chosen)) for w in widths)
        outs = [widths[4], widths[2], widths[1], widths[0], max(4, widths[0] // 2)]
        inputs = [widths[4], widths[3], widths[2], widths[1], widths[0]]
        carried = [widths[4], *outs[:-1]]
        self.enter = nn.ModuleList(
            nn.Conv2d(a, b, 1, bias=False) if a != b else nn.Identity() for a, b in zip(carried, inputs, strict=True)
        )
        self.decode = nn.ModuleList(
            nn.Sequential(
                ResidualSE(a, pool="mean" if k < 3 else "max"), nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b),
                nn.ReLU(inplace=True), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            )
            for k, (a, b) in enumerate(zip(inputs, outs, strict=True))
        )  # fmt: skip
        self.sides = nn.ModuleList(nn.Conv2d(w, 1, 3, 1, 1) for w in (widths[4], *outs[:-1]))
        self.last = nn.Conv2d(outs[-1], 1, 1)

    def noise_maps(self, x: Tensor) -> Tensor:
        """Bayar's learned prediction errors plus the three SRM filters summed over the channels, N×3×H×W."""
        return self.bayar(x) + self.srm(x).unflatten(1, (3, 3)).sum(1)

    def forward(self, images: Tensor) -> list[Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 8:
            raise UsageError(f"Pictures must be N×3×H×W with sides of 8 or more; got {tuple(images.shape)}.")
        height, width = images.shape[2:]
        below, right = -height % 32, -width % 32
        mode = "reflect" if below < height and right < width else "replicate"
        x = F.pad(images, (0, right, 0, below), mode=mode)
        features: dict[str, list[Tensor]] = {}
        for name in self.branches:
            stages: Any = self.stages[name]
            found = [self.read_dct(frequency_maps(x))] if name == "freq" else []
            current = found[0] if found else (x - 0.5) / 0.25 if name == "rgb" else self.noise_maps(x)
            for stage in stages:
                current = stage(current)
                found.append(current)
            features[name] = found
        fused = [layer(*(features[name][k] for name in self.branches)) for k, layer in enumerate(self.fuse)]
        carried, side_inputs = fused[4], [fused[4]]
        for k, (enter, decode) in enumerate(zip(self.enter, self.decode, strict=True)):
            carried = enter(carried)
            carried = decode(carried if k == 0 else carried + fused[4 - k])
            side_inputs.append(carried)
        logits = [self.last(carried)] + [side(s) for side, s in zip(self.sides, side_inputs)]
        return [self._cut(m, x.shape[2:], height, width) for m in logits]

    @staticmethod
    def _cut(logits: Tensor, full: torch.Size, height: int, width: int) -> Tensor:
        if logits.shape[2:] != full:
            logits = F.interpolate(logits, full, mode="bilinear", align_corners=False)
        return logits[:, :, :height, :width]

    @torch.no_grad()
    def localize(self, images: Tensor) -> Tensor:
        """Probabilities N×1×H×W that a pixel was edited."""
        return self(images)[0].sigmoid()

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """N: mean of the highest 1 % of the probabilities."""
        return top_share(self.localize(images))


def top_share(maps: Tensor, share: float = 0.01) -> Tensor:
    """Mean of the highest ``share`` of each map's values."""
    flat = maps.flatten(1)
    return flat.topk(max(1, round(share * flat.shape[1])), 1).values.mean(1)


def tripinet_loss(logits: Sequence[Tensor], masks: Tensor) -> dict[str, Tensor]:
    """Σ over the six maps of cross-entropy + (1 - SSIM) + (1 - soft IoU); masks float N×1×H×W."""
    each = [mask_loss(m, masks) for m in logits]
    return {"loss": torch.stack(each).sum(), "map": each[0].detach()}


class TriPINetFinder:
    """Marks where a picture was edited, by its colours, frequencies and noise.

    weights: a file that the recipe ``forensics/tripinet`` wrote, by default the shipped one, read at first use.
    network: a network to use instead. Works on squares of 512 pixels that overlap; the score is the log-odds of the
    mean of the highest 1 % of probabilities. Applies to pictures of 64 pixels a side to 6 megapixels that are not flat.

    >>> from vestige.core.image_io import encode
    >>> from vestige.core.subjects import ImageSubject
    >>> TriPINetFinder().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "tripinet"
    photographs = True
    kind = "edit"

    def __init__(self, weights: str | Path | None = None, *, network: TriPINet | None = None) -> None:
        self._weights, self._network = weights, network
        self.facts: dict[str, Any] = {}

    @property
    def network(self) -> TriPINet:
        """Raises InputError with the command that trains it when there are no weights."""
        if self._network is None:
            self._network, self.facts = load_network(self.slug, TriPINet, self._weights)
        return self._network.eval()

    def find(self, subject: ImageSubject) -> Finding:
        try:
            pixels = subject.stored
            why = _outside(pixels)
            network = None if why else self.network
        except InputError as error:
            return Finding.not_applicable(self.slug, self.kind, str(error))
        if network is None:
            return Finding.not_applicable(self.slug, self.kind, why)
        map_ = tiled(network, pixels)
        p = float(top_share(torch.from_numpy(map_)[None, None]).clamp(1e-6, 1 - 1e-6))
        return Finding(
            self.slug,
            self.kind,
            float(np.log(p / (1 - p))),
            "Colours, frequencies and noise of a region differ from the rest as after an edit; the map shows where.",
            "No region differs from the rest in colours, frequencies and noise as after an edit.",
            evidence=(
                f"mean of the highest 1 % of probabilities: {p:.2f}",
                f"{(map_ > 0.5).mean():.1%} above one half",
            ),
            map=np.ascontiguousarray(subject.upright(map_)),
            map_caption="How likely each pixel was edited.",
        )


def _outside(pixels: np.ndarray) -> str:
    height, width = pixels.shape[:2]
    if min(height, width) < 64:
        return "the picture is smaller than 64 pixels on a side"
    if height * width > _MOST:
        return f"the picture has more than {_MOST // 1_000_000} megapixels, which would take too long"
    if pixels[::4, ::4].astype(np.float32).std((0, 1)).max() < 2:
        return "the picture is flat"
    return ""


@torch.no_grad()
def tiled(network: TriPINet, pixels: np.ndarray, tile: int = _TILE, overlap: int = _OVERLAP) -> np.ndarray:
    """Probabilities float32 H×W of uint8 H×W×3, from squares that overlap and fade into each other."""
    height, width = pixels.shape[:2]
    total, weight = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            cut = np.ascontiguousarray(pixels[top : top + tile, left : left + tile].transpose(2, 0, 1))
            found = network.localize(torch.from_numpy(cut)[None].float() / 255)[0, 0].numpy()
            ramps = [np.minimum(np.minimum(np.arange(n) + 1, n - np.arange(n)) / (overlap + 1), 1) for n in found.shape]
            fade = np.outer(*ramps).astype(np.float32)
            total[top : top + tile, left : left + tile] += fade * found
            weight[top : top + tile, left : left + tile] += fade
    return total / weight


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    count = 1 + -(-(length - tile) // (tile - overlap))
    return [round(start) for start in np.linspace(0, length - tile, count)]
