"""What a mark is trained to survive: one random distortion, or a chain of them, for every batch; masks move along.

The distortions are those of `vestige.data.distortions` with their differentiable twins; results are rounded to eight
bits with the gradient passing straight through, and brought back to the size they came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.data.distortions import DISTORTIONS, distort_with_mask
from vestige.data.straight_through import straight_through


@dataclass(frozen=True)
class Draw:
    """One element of a bank: strength = mild + severity · u · (severe − mild), u uniform in [0, 1].

    signed: the strength is negated in half of the draws. real: the real codec, with the gradient of the identity,
    instead of its differentiable stand-in; only for distortions that keep the size.
    Raises UsageError for an unknown distortion or strengths out of its range.
    """

    name: str
    mild: float = 0.0
    severe: float = 0.0
    signed: bool = False
    real: bool = False

    def __post_init__(self) -> None:
        found = DISTORTIONS.get(self.name)
        if found is None or not all(found.low <= v <= found.high for v in (self.mild, self.severe)):
            raise UsageError(f"{self.name!r} from {self.mild:g} to {self.severe:g} is no distortion in its range.")

    def strength(self, generator: np.random.Generator, severity: float) -> float:
        value = self.mild + severity * float(generator.random()) * (self.severe - self.mild)
        return -value if self.signed and generator.random() < 0.5 else value


#: What MaskMark trains with (its noise of 0.1 is halved by its code).
MASKMARK = (
    Draw("identity"), Draw("jpeg", 90, 50), Draw("jpeg", 90, 50, real=True), Draw("blur", 0.3, 1),
    Draw("noise", 0, 0.05), Draw("median", 3, 5), Draw("salt_pepper", 0, 0.1), Draw("rotate", 0, 90, signed=True),
    Draw("perspective", 0.1, 0.5), Draw("flip", 1, 1),
)  # fmt: skip
#: Values and compression only.
VALUES = (
    Draw("identity"), Draw("jpeg", 90, 40), Draw("jpeg", 90, 40, real=True), Draw("webp", 90, 50),
    Draw("blur", 0.3, 1.5), Draw("noise", 0, 0.05), Draw("brightness", 1, 0.7), Draw("brightness", 1, 1.3),
    Draw("contrast", 1, 0.7), Draw("contrast", 1, 1.3), Draw("saturation", 1, 0.5), Draw("hue", 0, 0.05, signed=True),
    Draw("resize_back", 1, 0.4),
)  # fmt: skip
#: What happens to pictures on platforms, as the benchmark measures it: values, compression and geometry.
EVERYDAY = (
    *VALUES, Draw("jpeg", 60, 25), Draw("median", 3, 5), Draw("salt_pepper", 0, 0.05), Draw("sharpen", 0.5, 1.5),
    Draw("rotate", 0, 20, signed=True), Draw("crop_resize", 1, 0.4), Draw("crop_resize", 0.9, 0.5),
    Draw("perspective", 0, 0.3), Draw("flip", 1, 1), Draw("screenshot", 0.1, 1), Draw("border", 0, 0.1),
)  # fmt: skip
#: StegaStamp's set: colour, noise, blur and JPEG; meant for chains.
STEGASTAMP = (
    Draw("hue", 0, 0.1, signed=True), Draw("brightness", 1, 0.7), Draw("brightness", 1, 1.3), Draw("contrast", 1, 0.5),
    Draw("contrast", 1, 1.5), Draw("saturation", 1, 0), Draw("noise", 0, 0.02), Draw("blur", 0.3, 3),
    Draw("motion_blur", 1, 7), Draw("jpeg", 95, 50),
)  # fmt: skip
#: The surrogate of generative editing: blurs of growing severity, which keep the low band and take the others.
BLURS = (
    Draw("identity"), Draw("blur", 0.5, 4), Draw("blur", 0.3, 2), Draw("motion_blur", 3, 15), Draw("median", 3, 7),
    Draw("resize_back", 0.9, 0.25), Draw("noise", 0.01, 0.1), Draw("jpeg", 95, 30), Draw("contrast", 1, 0.7),
    Draw("gamma", 1, 1.5), Draw("cropout", 0.05, 0.4),
)  # fmt: skip
#: What a mark is trained with when nothing is known about editing; the reference of the blur surrogate.
JPEG_NOISE = (Draw("identity"), Draw("jpeg", 95, 50), Draw("noise", 0, 0.05))
BANKS = {
    "maskmark": MASKMARK, "values": VALUES, "everyday": EVERYDAY, "stegastamp": STEGASTAMP, "blurs": BLURS,
    "vine": (*STEGASTAMP, *BLURS), "jpeg_noise": JPEG_NOISE,
}  # fmt: skip


@dataclass(frozen=True)
class DistortionLayer:
    """Draws ``chain`` elements of a bank for the whole batch and applies one after the other.

    >>> layer = DistortionLayer((Draw("flip", 1, 1),))
    >>> images, masks = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    >>> masks[..., :4] = True
    >>> moved = layer(images, masks, np.random.default_rng(0))[1]
    >>> bool(moved[..., -4:].all()), bool(moved[..., :-4].any())
    (True, False)
    """

    bank: Sequence[Draw]
    chain: int = 1

    def __post_init__(self) -> None:
        if not self.bank or self.chain < 1:
            raise UsageError("A distortion layer needs a bank with at least one distortion and a chain of at least 1.")

    def __call__(
        self,
        images: Tensor,
        masks: Tensor,
        generator: np.random.Generator,
        *,
        cover: Tensor | None = None,
        severity: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """images N×3×H×W in [0, 1], masks bool N×1×H×W -> both distorted, of the same size.

        cover: the unmarked pictures, for distortions that paste them in.
        """
        for _ in range(self.chain):
            draw = self.bank[int(generator.integers(len(self.bank)))]
            strength, seed = draw.strength(generator, severity), int(generator.integers(2**31))
            images, masks = apply(draw, images, masks, strength, seed, cover)
        return images, masks


def apply(
    draw: Draw, images: Tensor, masks: Tensor, strength: float, seed: int, cover: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One distortion in full precision; a result of another size is brought back, its mask re-binarised."""
    height, width = images.shape[2:]
    with torch.autocast(images.device.type, enabled=False):
        images = images.float()
        if draw.real:
            return straight_through(images.clamp(0, 1), draw.name, strength, seed=seed), masks
        distorted, moved = distort_with_mask(images, masks, draw.name, strength, seed=seed, cover=cover)
        if distorted.shape[2:] != (height, width):
            distorted = F.interpolate(distorted, (height, width), mode="bicubic", antialias=True)
            distorted = distorted + (distorted.detach().clamp(0, 1) - distorted.detach())
            moved = F.interpolate(moved.float(), (height, width), mode="bilinear", antialias=True) > 0.5
    return distorted, moved
