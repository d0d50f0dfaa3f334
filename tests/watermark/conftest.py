"""A text-to-image model of a few thousand weights, for attacks that redraw."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="package")
def tiny_model():
    import torch

    from vestige.engines.diffusion.pipeline import TextToImage
    from vestige.engines.diffusion.schedules import cosine
    from vestige.nn.text import build_tokenizer, text_encoder
    from vestige.nn.unet import text_unet
    from vestige.nn.vae import identity_vae

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["a red ball on sand", "a blue cup in neon style"], 12)
    encoder = text_encoder(tokenizer, 32, 1, 2)
    return TextToImage(text_unet(16, 3, (8, 16), 32, head=8), identity_vae(), encoder, tokenizer, cosine(), "v").eval()
