"""A small convolutional generator of square pictures, from noise or from a reduced picture and noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError

CODES, UPSAMPLERS = ("noise", "picture"), ("transposed", "nearest")


class ConvGenerator(nn.Module):
    """Stages that double the side, from 4×4 (code "noise") or from a picture reduced by four (code "picture").

    size: side of what it makes, a power of two from 16 on. base: channels of the last stage; earlier ones have twice
    as many, up to 4·base. upsample: "transposed" (4×4 convolutions of stride two, as DCGAN has) or "nearest" (repeat,
    then a 3×3 convolution). forward(noise N×latent, low N×3×size/4×size/4 or None) -> N×3×size×size in [0, 1].
    Raises UsageError for other settings, and when the reduced picture is missing.

    Source: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, ICLR 2016.

    >>> ConvGenerator(16, 8)(torch.zeros(2, 64)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self, size: int = 64, base: int = 32, *, latent: int = 64, code: str = "noise", upsample: str = "transposed"
    ) -> None:
        super().__init__()
        if code not in CODES or upsample not in UPSAMPLERS:
            raise UsageError(f"code is one of {', '.join(CODES)}, upsample one of {', '.join(UPSAMPLERS)}.")
        if size not in (16, 32, 64, 128, 256) or not 1 <= base <= 256 or not 1 <= latent <= 1024:
            raise UsageError(
                f"size {size} must be a power of two from 16 to 256, base {base} and latent {latent} small."
            )
        self.settings: dict[str, Any] = {
            "size": size, "base": base, "latent": latent, "code": code, "upsample": upsample,
        }  # fmt: skip
        self.size, self.latent, self.code = size, latent, code
        start = size // 4 if code == "picture" else 4
        widest = 4 * base
        self.start = start
        self.noise = nn.Linear(latent, widest * 16)
        self.picture = nn.Conv2d(3, widest, 3, 1, 1) if code == "picture" else None
        stages: list[nn.Module] = []
        inside, side = widest, start
        while side < size:
            side *= 2
            outside = 3 if side == size else min(widest, base * (size // side))
            if upsample == "transposed":
                stages.append(nn.ConvTranspose2d(inside, outside, 4, 2, 1))
            else:
                stages += [nn.Upsample(scale_factor=2), nn.Conv2d(inside, outside, 3, 1, 1)]
            if side < size:
                stages += [nn.BatchNorm2d(outside), nn.ReLU()]
            inside = outside
        self.first = nn.Sequential(nn.BatchNorm2d(widest), nn.ReLU())
        self.stages = nn.Sequential(*stages)

    def forward(self, noise: Tensor, low: Tensor | None = None) -> Tensor:
        x = self.noise(noise).view(len(noise), -1, 4, 4)
        if self.picture is not None:
            if low is None or low.shape[1:] != (3, self.start, self.start):
                raise UsageError(f"This generator enlarges pictures of {self.start}×{self.start} pixels.")
            x = F.interpolate(x, low.shape[2:], mode="bilinear") + self.picture(2 * low - 1)
        return torch.sigmoid(self.stages(self.first(x)))
