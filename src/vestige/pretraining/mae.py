"""MAE: hide three quarters of the patches, encode the rest, predict the normalised pixels of the hidden ones.

Source: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
"""

from __future__ import annotations

from functools import partial

from vestige.engines.masked.losses import squared
from vestige.engines.masked.masking import MaskStrategy, uniform
from vestige.engines.masked.model import MaskedModel, Objective
from vestige.engines.masked.targets import PixelTarget
from vestige.nn.vit import DecoderConfig, MaskedDecoder, ViT, ViTConfig

ENCODER = ViTConfig()
DECODER = DecoderConfig()


class MAE(MaskedModel):
    """L = Σ_masked ‖decoder(encoder(seen)) - t‖² / |masked|,  t = (x - mean) / √(var + 1e-6) of each patch.

    The reference of the masked models: the mean over the channels of each hidden patch and over all hidden patches.
    encoder, decoder: sizes (small by default; the paper's are ``VITS["vit_base_16_224"]`` and a decoder of 512×8).
    mask_ratio: share of patches that are hidden. norm_pixels: predict normalised pixels. Raises UsageError for sizes
    that do not fit together.

    Source: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.

    >>> import torch
    >>> model = MAE(ViTConfig(width=16, depth=1, heads=2), DecoderConfig(16, 1, 2))
    >>> out = model.loss(torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0))
    >>> out["loss"].shape
    torch.Size([])
    """

    slug = "mae"

    def __init__(
        self,
        encoder: ViTConfig = ENCODER,
        decoder: DecoderConfig = DECODER,
        *,
        mask_ratio: float = 0.75,
        norm_pixels: bool = True,
        mask: MaskStrategy | None = None,
    ) -> None:
        target = PixelTarget(encoder, norm_pixels)
        pixels = Objective("pixels", target, MaskedDecoder(encoder, target.dim, decoder), squared)
        super().__init__(ViT(encoder), mask or partial(uniform, ratio=mask_ratio), [pixels])
