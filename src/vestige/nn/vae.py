"""Autoencoders between pixels in [-1, 1] and latents, as diffusers models: a small KL-VAE and the identity.

Latents are stored times ``scaling_factor`` (= 1 / their standard deviation), the convention of diffusers' pipelines:
z = scaling_factor · encode(x), x = decode(z / scaling_factor).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from vestige.nn.unet import norm_groups


def small_vae(size: int = 64, widths: Sequence[int] = (32, 64, 64), latent: int = 4, *, layers: int = 1) -> Any:
    """An ``AutoencoderKL`` with ``latent`` channels that shrinks the sides by 2^(levels - 1).

    >>> small_vae(16, (16, 32), 4).encode(torch.zeros(1, 3, 16, 16)).latent_dist.mode().shape
    torch.Size([1, 4, 8, 8])
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        latent_channels=latent,
        norm_num_groups=norm_groups(widths),
        sample_size=size,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def identity_vae(channels: int = 3) -> Any:
    """An ``AutoencoderTiny`` whose latents are the pixels themselves, to about 1e-5.

    diffusers' text-to-image pipelines always decode latents; with this autoencoder they serve pixel-space models too.
    AutoencoderTiny computes encode(x) = W2 * W1 * (x + 1)/2 and decode(z) = 2·(V2 * relu(V1 * 3 tanh(z/3))) - 1 with
    3×3 convolutions. The weights carry the pixels, shrunk by ``scaling_factor`` = 64 so that tanh stays linear, and a
    bias keeps relu open.

    >>> x = torch.rand(1, 3, 8, 8) * 2 - 1
    >>> vae = identity_vae()
    >>> bool((decode(vae, encode(vae, x)) - x).abs().max() < 1e-4)
    True
    """
    from diffusers import AutoencoderTiny

    scale = 64.0
    vae: Any = AutoencoderTiny(
        in_channels=channels,
        out_channels=channels,
        encoder_block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        num_encoder_blocks=(0,),
        num_decoder_blocks=(0,),
        latent_channels=channels,
        scaling_factor=scale,
        force_upcast=False,
    )
    first, last, inner, outer = (m for part in (vae.encoder, vae.decoder) for m in part.modules() if _is_conv(m))
    _carry(first, channels, 2 / scale, 0.0)  # (x + 1)/2 -> (x + 1)/scale
    _carry(last, channels, 1.0, -1 / scale)  # -> x/scale
    _carry(inner, channels, scale / 4, 8.0)  # -> x/4 + 8: far above the kink of relu, even when x leaves [-1, 1]
    _carry(outer, channels, 2.0, 0.5 - 16.0)  # -> (x + 1)/2, which decode maps to x
    return vae.requires_grad_(False)


def _is_conv(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Conv2d)


@torch.no_grad()
def _carry(layer: Any, channels: int, scale: float, shift: float) -> None:
    """Make a 3×3 convolution pass its first channels on, each times ``scale`` plus ``shift``."""
    layer.weight.zero_()
    layer.bias.zero_()
    for c in range(channels):
        layer.weight[c, c, 1, 1] = scale
        layer.bias[c] = shift


def encode(vae: Any, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Pixels N×3×H×W in [-1, 1] -> scaled latents; the mode of the posterior, or a draw when given a generator."""
    output = vae.encode(images)
    if hasattr(output, "latent_dist"):
        posterior = output.latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
    else:
        latents = output.latents
    return latents * vae.config.scaling_factor


def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents -> pixels N×3×H×W, nominally in [-1, 1]."""
    return vae.decode(latents / vae.config.scaling_factor).sample


def vae_loss(
    vae: Any, images: torch.Tensor, generator: torch.Generator, *, kl: float = 1e-6, edges: float = 0.5
) -> dict[str, torch.Tensor]:
    """|x - x̂|₁ + edges·|∇x - ∇x̂|₁ + kl·KL(q(z|x) ‖ N(0, 1)), all means per pixel (KL: sum over z, mean over N).

    The gradient term stands in for a feature loss: it keeps thin strokes without a second network. images: [-1, 1].
    """
    posterior = vae.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device).to(posterior.mean)
    rebuilt = vae.decode(posterior.mean + posterior.std * noise).sample
    pixel = F.l1_loss(rebuilt, images)
    edge = sum((F.l1_loss(rebuilt.diff(dim=d), images.diff(dim=d)) for d in (2, 3)), pixel.new_zeros(()))
    divergence = posterior.kl().mean()
    return {"loss": pixel + edges * edge + kl * divergence, "pixel": pixel.detach(), "kl": divergence.detach()}


@torch.no_grad()
def fit_scaling(vae: Any, batches: Iterable[torch.Tensor]) -> float:
    """Set ``scaling_factor`` = 1 / standard deviation of the latents of ``batches`` ([-1, 1]) and return it."""
    latents = torch.cat([vae.encode(images).latent_dist.mode().flatten() for images in batches])
    factor = 1.0 / float(latents.double().std())
    vae.register_to_config(scaling_factor=factor)
    return factor
