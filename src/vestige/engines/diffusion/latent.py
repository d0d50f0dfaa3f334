"""Working on the latents of large pictures: encoding and decoding in bounded memory, and masks at latent size."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.nn.vae import decode, encode


def shrink_factor(vae: Any) -> int:
    """How many pixels a side of the picture one latent spans: 2^(levels - 1)."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


@torch.no_grad()
def encode_images(
    vae: Any, images: torch.Tensor, *, batch: int = 16, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Images N×3×H×W in [0, 1] -> scaled latents N×C×h×w, ``batch`` at a time; a posterior draw when given a generator.

    Raises UsageError for sides that the autoencoder cannot divide.
    """
    factor = shrink_factor(vae)
    if images.shape[-1] % factor or images.shape[-2] % factor:
        raise UsageError(
            f"The picture is {images.shape[-1]}×{images.shape[-2]}; its sides must be multiples of {factor}."
        )
    return torch.cat([encode(vae, part * 2 - 1, generator) for part in images.split(batch)])


@torch.no_grad()
def decode_latents(vae: Any, latents: torch.Tensor, *, batch: int = 16) -> torch.Tensor:
    """Scaled latents -> images in [0, 1], ``batch`` at a time."""
    return torch.cat([(decode(vae, part) / 2 + 0.5).clamp(0, 1) for part in latents.split(batch)])


def latent_mask(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """bool N×1×H×W -> N×1×(H/factor)×(W/factor): True where any pixel below is.

    >>> latent_mask(torch.eye(4, dtype=torch.bool)[None, None], 2)[0, 0].tolist()
    [[True, False], [False, True]]
    """
    return F.max_pool2d(mask.float(), factor) > 0
