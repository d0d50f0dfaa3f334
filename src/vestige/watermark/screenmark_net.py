"""The networks of ScreenMark: diffuser of messages into patterns, and reader of one pattern.

Source: ScreenMark: Watermarking Arbitrary Visual Content on Screen, AAAI 2025 (arXiv 2409.03487). The networks, the
pilot and the losses on patterns and unmarked screens are this implementation's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.distortions_torch import round8
from vestige.engines.marking.model import BitReading, EmbedderReader, Level, Trial
from vestige.nn.messages import check_bits

#: Shares of red, green and blue in luma.
LUMA = (0.299, 0.587, 0.114)
_START = 8  # side of the diffuser's first maps
_LOCAL = 5  # window of the local mean and contrast that the reader takes out, in pixels of half size


def local_contrast(images: Tensor) -> Tensor:
    """(x − mean) / (local deviation + 1/255), limited to ±3: content's edges weigh no more than a faint pattern.

    On a flat page the pattern alone is left. N×3×H×W.
    """
    half = _LOCAL // 2

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (half,) * 4, mode="replicate"), _LOCAL, 1)

    detail = images - around(images)
    spread = around(detail.square().mean(1, keepdim=True)).clamp_min(1e-8).sqrt()
    return (detail / (spread + 1 / 255)).clamp(-3, 3)


def _wrapped(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, 1, 1, padding_mode="circular")


class Diffuser(nn.Module):
    """Bits N×L -> pattern N×3×S×S in (0, 1): a dense layer to 8×8 maps, doublings with 3×3 convolutions that wrap
    around, so that it tiles without seams, the pilot added, and a bilinear doubling: finer detail would not survive
    compression. colour: red, green and blue may differ; otherwise the pattern is grey, since JPEG keeps half of the
    colour and grey copies none."""

    def __init__(self, bits: int, size: int, width: int, pilot: Tensor, colour: bool = False) -> None:
        super().__init__()
        if size < 2 * _START or size & (size - 1):
            raise UsageError(f"A pattern's side is a power of two of at least {2 * _START}, got {size}.")
        self.bits, self.width = bits, width
        self.spread = nn.Linear(bits, width * _START**2)
        layers: list[nn.Module] = [_wrapped(width, width), nn.GroupNorm(4, width), nn.SiLU()]
        inside = width
        for _ in range(int(math.log2(size // (2 * _START)))):
            outside = max(inside // 2, 16)
            layers += [nn.Upsample(scale_factor=2), _wrapped(inside, outside), nn.GroupNorm(4, outside), nn.SiLU()]
            inside = outside
        self.refine = nn.Sequential(*layers, _wrapped(inside, 3 if colour else 1))
        self.pilot: Tensor
        self.register_buffer("pilot", pilot, persistent=False)

    def forward(self, bits: Tensor) -> Tensor:
        maps = self.spread(2 * check_bits(bits, self.bits) - 1).view(-1, self.width, _START, _START)
        # Bounded, so that no message drowns the pilot.
        tile = torch.sigmoid(2 * doubled(torch.tanh(self.refine(maps).float()) + self.pilot))
        return tile.expand(-1, 3, -1, -1)


def doubled(tiles: Tensor) -> Tensor:
    """N×C×h×w -> N×C×2h×2w, bilinear, wrapping around."""
    around = F.pad(tiles, (1, 1, 1, 1), mode="circular")
    return F.interpolate(around, scale_factor=2, mode="bilinear")[:, :, 2:-2, 2:-2]


def pilot_tile(side: int) -> Tensor:
    """The fixed pattern side×side, mean 0 and deviation 1, smooth over about a pixel, that tells the phase."""
    noise = torch.from_numpy(rng(0, "screenmark pilot").standard_normal((1, 1, side, side)).astype(np.float32))
    tap = torch.tensor([0.25, 0.5, 0.25])
    smooth = F.conv2d(F.pad(noise, (1, 1, 1, 1), mode="circular"), (tap[:, None] * tap)[None, None])[0, 0]
    return (smooth - smooth.mean()) / smooth.std()


class Reverser(nn.Module):
    """Aligned pattern at half size N×3×T×T -> logits N×L: convolutions that wrap around and a dense layer."""

    def __init__(self, bits: int, side: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _wrapped(3, width), nn.GroupNorm(8, width), nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1, padding_mode="circular"), nn.GroupNorm(8, 2 * width), nn.SiLU(),
            nn.Conv2d(2 * width, width, 1),
        )  # fmt: skip
        self.head = nn.Linear(width * (side // 2) ** 2 + 3 * side**2, bits)

    def forward(self, x: Tensor) -> Tensor:
        # What is linear in the pattern needs no depth to be found.
        return self.head(torch.cat([self.net(x).flatten(1), x.flatten(1)], 1)).float()


class ScreenMarkNet(EmbedderReader):
    """S' = a·P(m) + (1 − a)·S, rounded to eight bits, with P tiled over the screen; read from windows of any phase.

    P: message diffuser, with a fixed pilot of strength ``pilot`` in it. Reader: local contrast, the phase at which the
    pilot correlates best (by phase alone), and the message reverser on the pattern in that phase, after a residual
    block that starts as the identity and joins it with the stage "screen". Three stages: without any picture (a = 1:
    what is read is the pattern); with the stage "screen", a = α^level sinks to α; with the stage "fidelity" the
    perceptual loss grows:

        L1 = MSE(soft + ½, m) + w_r R(P),    R = (mean P − 0.55)² + max(std P − 0.4, 0)² + mean cos²(P_i, P_j)
        L2 = BCE(soft, m) + w_r R(P) + w_c mean soft(S)²,    L3 = L2 + level · (w_i E(S', S) + w_p d(S', S))

    with E the squared error of luma (with ``colour``: of red, green, blue) and d a distance of deep features. bits: L.
    size: side of P and of a window, a power of two. alpha: α. colour: see `Diffuser`. diffuser, reader: first widths.
    Raises UsageError for sizes that do not fit.

    Source: ScreenMark: Watermarking Arbitrary Visual Content on Screen, AAAI 2025. The networks, R and the loss on
    unmarked screens are this implementation's.

    >>> net = ScreenMarkNet(8, 32, diffuser=16, reader=8).eval()
    >>> x = net.embed(torch.rand(2, 3, 32, 32), torch.zeros(2, 8))
    >>> x.shape, net.read(x).soft.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        bits: int = 32,
        size: int = 128,
        *,
        alpha: float = 6 / 255,
        pilot: float = 0.7,
        diffuser: int = 96,
        reader: int = 32,
        pattern_weight: float = 0.3,
        clean_weight: float = 0.05,
        image_weight: float = 300.0,
        perceptual_weight: float = 0.0,
        colour: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < alpha < 1 or bits < 1 or diffuser < 4 or diffuser % 4 or reader < 8 or reader % 8:
            raise UsageError("alpha lies in (0, 1), bits is at least 1, diffuser a multiple of 4 and reader one of 8.")
        self.bits, self.size, self.alpha = bits, size, alpha
        self.pattern_weight, self.clean_weight = pattern_weight, clean_weight
        self.image_weight, self.perceptual_weight = image_weight, perceptual_weight
        self.settings = {
            "bits": bits, "size": size, "alpha": alpha, "pilot": pilot, "diffuser": diffuser, "reader": reader,
            "pattern_weight": pattern_weight, "clean_weight": clean_weight, "image_weight": image_weight,
            "perceptual_weight": perceptual_weight, "colour": colour,
        }  # fmt: skip
        template = pilot_tile(size // 2)
        self.template: Tensor  # conjugate spectrum of the pilot
        self.register_buffer("template", torch.fft.fft2(template).conj(), persistent=False)
        self.colour = colour
        self.diffuser = Diffuser(bits, size, diffuser, pilot * template, colour)
        self.reverser = Reverser(bits, size // 2, reader)
        self.deeper = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.SiLU(), nn.Conv2d(16, 3, 3, 1, 1))
        nn.init.zeros_(self.deeper[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.deeper[2].bias)  # type: ignore[arg-type]
        self.open = 1.0  # level of the stage "screen": 0 without pictures, 1 with the overlay at α
        self._shifts: Tensor | None = None  # of the windows of this step
        self._features: list[Any] = []  # the judge of d, not a part of the mark's weights

    def prepare(self, level: Level) -> None:
        self.open = level("screen")

    def pattern(self, bits: Tensor) -> Tensor:
        """N×3×S×S in (0, 1)."""
        return self.diffuser(bits)

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        """The pattern starts at the first pixel; in training at a random one, like that of a window on a screen."""
        tile = self.pattern(bits)
        if self.training:
            self._shifts = 2 * torch.randint(self.size // 2, (2, len(tile)))
            tile = rolled(tile, self._shifts)
        return round8(blend(images, tile, self.alpha**self.open))

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        """In training the phase is that of the last `embed`: one window alone does not show a pilot well enough."""
        seen = local_contrast(F.avg_pool2d(images.float(), 2))
        if self.training and self._shifts is not None and len(seen) <= self._shifts.shape[1]:
            shifts = -self._shifts[:, : len(seen)] // 2
        else:
            shifts, _ = self.phase(seen)
        return BitReading(self.decode(rolled(seen, shifts)))

    @torch.no_grad()
    def phase(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """(shifts down and right 2×N of the patterns N×3×T×T, deviations (N,) of the pilot's peak from the mean)."""
        spectrum = torch.fft.fft2(tiles.float().mean(1))
        # Frequencies weigh alike: lines of text have much energy in few of them.
        spectrum = spectrum / (spectrum.abs() + 1e-6)
        found = torch.fft.ifft2(spectrum * self.template).real.flatten(1)
        peak, place = found.max(1)
        clear = (peak - found.mean(1)) / found.std(1).clamp_min(1e-6)
        return torch.stack([place // tiles.shape[3], place % tiles.shape[3]]), clear

    def decode(self, tiles: Tensor) -> Tensor:
        """Contrast of patterns in their own phase, N×3×T×T -> logits N×L."""
        return self.reverser(tiles if self.open == 0 else tiles + self.deeper(tiles))

    def objective(self, trial: Trial, level: Level) -> dict[str, Tensor]:
        if self.open == 0:
            message = trial.bit_loss(F.mse_loss, trial.reading.soft + 0.5)
            loss = message + self.pattern_weight * spread_loss(trial.embedded)  # which is the pattern
            return {"loss": loss, "message": message.detach()}
        message = trial.bit_loss(F.binary_cross_entropy_with_logits, trial.reading.soft)
        few = max(2, len(trial.images) // 8)
        unmarked = self.read(trial.images[:few]).soft.square().mean()
        apart = spread_loss(self.pattern(trial.bits[:few]))
        loss = message + self.clean_weight * unmarked + self.pattern_weight * apart
        fidelity = level("fidelity")
        if fidelity > 0:
            change = trial.embedded - trial.images
            seen = change if self.colour else torch.einsum("nchw,c->nhw", change, change.new_tensor(LUMA))
            loss = loss + fidelity * self.image_weight * seen.square().mean()
            if self.perceptual_weight > 0:
                loss = loss + fidelity * self.perceptual_weight * self._distance(trial)
        return {"loss": loss, "message": message.detach(), "unmarked": unmarked.detach()}

    def _distance(self, trial: Trial) -> Tensor:
        from vestige.metrics.perceptual import perceptual_distance
        from vestige.nn.features import load_feature_net

        if not self._features:
            self._features.append(load_feature_net().to(trial.images.device))
        few = max(1, len(trial.images) // 4)  # it costs more than the rest of the step
        return perceptual_distance(trial.images[:few], trial.embedded[:few], self._features[0].maps).mean()


def blend(images: Tensor, pattern: Tensor, alpha: float) -> Tensor:
    """a·P + (1 − a)·S in sRGB values, as compositors do."""
    return images + alpha * (pattern - images)


def spread_loss(patterns: Tensor) -> Tensor:
    """(mean − 0.55)² + max(std − 0.4, 0)² + mean squared cosine between patterns of a batch, N×3×S×S -> scalar.

    A mean a little above the middle costs bright pages, which most are, and dark ones about the same.
    """
    flat = patterns.flatten(1) - 0.55
    mean, std = flat.mean(1), flat.std(1)
    unit = F.normalize(flat - mean[:, None], dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(0)
    apart = cosines.square().sum() / max(1, len(flat) * (len(flat) - 1))
    return mean.square().mean() + F.relu(std - 0.4).square().mean() + apart


def rolled(patterns: Tensor, shifts: Tensor) -> Tensor:
    """Each pattern moved cyclically by its own (down, right)."""
    steps = torch.arange(patterns.shape[2], device=patterns.device)
    rows, columns = ((steps + s[:, None].to(patterns.device)) % len(steps) for s in shifts)
    which = torch.arange(len(patterns), device=patterns.device)
    # Advanced indices around the slice move the channels to the end.
    return patterns[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
