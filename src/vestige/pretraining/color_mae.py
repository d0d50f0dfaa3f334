"""ColorMAE: MAE with masks cut from coloured noise.

Source: ColorMAE: Exploring data-independent masking strategies in Masked AutoEncoders, ECCV 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vestige.core.errors import UsageError
from vestige.engines.masked.masking import Grid, MaskPlan, from_scores
from vestige.nn.vit import DecoderConfig, ViTConfig
from vestige.pretraining.mae import DECODER, ENCODER, MAE

#: Gaussian widths in tokens: one for low- and high-pass, two for band-pass and band-stop.
WIDTHS: dict[str, tuple[float, ...]] = {"red": (1.5,), "blue": (1.0,), "green": (0.5, 2.0), "purple": (0.5, 2.0)}


def coloured_noise(color: str, n: int, size: Grid, generator: torch.Generator, widths: tuple[float, ...]) -> Tensor:
    """Filtered white noise W, n×H×W: red G_s*W, blue W - G_s*W, green G_s1*W - G_s2*W, purple W - green.

    G_s is a Gaussian blur of standard deviation s, done in the frequency domain, where it is exact and wraps around.
    Raises UsageError for an unknown colour or the wrong number of widths.
    """
    if color not in WIDTHS or len(widths) != len(WIDTHS[color]) or min(widths) <= 0:
        raise UsageError(
            f"Noise {color!r} of widths {widths} is unknown; choose red or blue (one), green or purple (two)."
        )
    device = generator.device
    white = torch.fft.rfft2(torch.randn(n, *size, generator=generator, device=device))
    rows, columns = torch.fft.fftfreq(size[0], device=device), torch.fft.rfftfreq(size[1], device=device)
    squared = rows[:, None] ** 2 + columns**2
    low = [(-2 * (torch.pi * s) ** 2 * squared).exp() for s in widths]
    band = low[0] if len(low) == 1 else low[0] - low[1]
    return torch.fft.irfft2(white * (band if color in ("red", "green") else 1 - band), s=size)


class ColorMask:
    """Seen are the tokens where a random crop of a pattern of coloured noise is highest.

    Patterns are made once, ``patterns`` of side ``side`` tokens from ``seed``; every image gets a crop of the token
    grid from one of them, mirrored at random (patterns wrap around, so no border is favoured).
    """

    def __init__(
        self, color: str = "green", ratio: float = 0.75, widths: tuple[float, ...] | None = None, *,
        patterns: int = 64, side: int = 256, seed: int = 0,
    ) -> None:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        widths = widths if widths is not None else WIDTHS.get(color, ())
        self.noise = coloured_noise(color, patterns, (side, side), generator, widths)
        self.ratio = ratio

    def __call__(self, n: int, grid: Grid, generator: torch.Generator) -> MaskPlan:
        patterns, side, _ = self.noise.shape
        if self.noise.device != generator.device:
            self.noise = self.noise.to(generator.device)

        def draw(high: int) -> Tensor:
            return torch.randint(high, (n, 1, 1), generator=generator, device=generator.device)

        rows = torch.arange(grid[0], device=generator.device)[:, None] * (1 - 2 * draw(2)) + draw(side)
        columns = torch.arange(grid[1], device=generator.device) * (1 - 2 * draw(2)) + draw(side)
        return from_scores(self.noise[draw(patterns), rows % side, columns % side].flatten(1), self.ratio)


class ColorMAE(MAE):
    """MAE whose seen tokens are the highest quarter of a crop of coloured noise: argsort(crop(N_color)).

    green: G_s1*W - G_s2*W of white noise W, the published recommendation, gives seen clumps of middle size. color:
    "green", "red", "blue" or "purple". widths: Gaussian widths in tokens (our choice, see `WIDTHS`). The rest as `MAE`.

    Source: ColorMAE: Exploring data-independent masking strategies in Masked AutoEncoders, ECCV 2024.

    >>> model = ColorMAE(ViTConfig(width=16, depth=1, heads=2), DecoderConfig(16, 1, 2), color="blue")
    >>> bool(model.loss(torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0))["loss"] > 0)
    True
    """

    slug = "color_mae"

    def __init__(
        self,
        encoder: ViTConfig = ENCODER,
        decoder: DecoderConfig = DECODER,
        *,
        color: str = "green",
        widths: tuple[float, ...] | None = None,
        mask_ratio: float = 0.75,
        norm_pixels: bool = True,
    ) -> None:
        super().__init__(encoder, decoder, norm_pixels=norm_pixels, mask=ColorMask(color, mask_ratio, widths))
