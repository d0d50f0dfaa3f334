"""A small diffusion model of photographs for the zoo: it redraws photographs, pixel by pixel, without an autoencoder.

    vestige learn zoo_diffusion
    vestige learn zoo_diffusion --set vae=src/vestige/weights/zoo_vae --set highest=1 --out FOLDER

A UNet, unconditional (it knows the empty caption only), trained on squares of photographs reduced by two. In pixels it
sees only the part of the chain that redrawing runs through (``highest``, a share of it), so that minutes suffice; it
does not draw pictures from nothing. In the latents of an autoencoder (``vae``, a folder) it can, poorly: colours and
textures, no objects.

Options: size of the squares; squares for each photograph; limit, the number of photographs, 0 all; vae; highest.

Result: the folder "pipeline", as diffusers' StableDiffusionPipeline has it. `vestige.engines.fakes.shipped_sources`
reads the package's weights/zoo_diffusion; `vestige.forensics.laundering` learns from weights/laundering_model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.data.fakes import as_float
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.diffusion.latent import shrink_factor
from vestige.engines.diffusion.pipeline import TextToImage, save_pipeline
from vestige.engines.diffusion.schedules import cosine
from vestige.engines.fakes import redraw_source, zoo_squares
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.metrics.quality import psnr
from vestige.nn.text import build_tokenizer, text_encoder, token_ids
from vestige.nn.unet import text_unet
from vestige.nn.vae import identity_vae

WIDTHS, LATENT_WIDTHS = (16, 32, 64), (32, 64)


def build(ctx: RecipeContext) -> Job:
    """The diffusion model on squares of photographs."""
    o = ctx.options
    size, highest = int(o["size"]), float(o["highest"])
    if not 0 < highest <= 1:
        raise UsageError(f"highest is {highest}; it must be above 0 and at most 1.")
    train, held = zoo_squares(size, int(o["squares"]), limit=int(o["limit"]), seed=ctx.seed)
    source = torch.from_numpy(train)
    tokenizer = build_tokenizer(["a photo"], 4)
    words = text_encoder(tokenizer, 32, 1)
    vae: Any = load_autoencoder(o["vae"]) if o["vae"] else identity_vae()
    channels, small = (vae.config.latent_channels, size // shrink_factor(vae)) if o["vae"] else (3, size)
    unet = text_unet(small, channels, WIDTHS if not o["vae"] else LATENT_WIDTHS, 32)
    model = TextToImage(unet, vae, words, tokenizer, cosine(), "v")
    empty = token_ids(tokenizer, [""])
    known = torch.cat([model.encode(part.float() / 255) for part in source.split(256)]) if o["vae"] else source

    def batches(number: int, generator: torch.Generator) -> torch.Tensor:
        chosen = known[torch.randint(len(known), (ctx.config.batch_size,), generator=generator)]
        if o["vae"]:
            return chosen
        mirrored = torch.rand(len(chosen), generator=generator) < 0.5
        return torch.where(mirrored[:, None, None, None], chosen.flip(3), chosen)

    def step(module: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(module, TextToImage)
        x = batch if o["vae"] else batch.float() / 127.5 - 1
        levels = (torch.rand(len(x), generator=generator, device=x.device) * highest * len(module.table)).long()
        return {"loss": module.loss(x, empty.expand(len(x), -1).to(x.device), generator, levels=levels, drop=0.0)}

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, TextToImage)
        x = as_float(held[:32])
        drawn = module.sample([""] * 32, guidance=1.0, steps=15)
        found = {"spread of samples": float(drawn.std(0).mean()), "spread of photographs": float(x.std(0).mean())}
        return found | {"psnr": float(np.mean(psnr(x, redraw_source(module, 0.1, steps=20)(x))))}

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, TextToImage)
        save_pipeline(out / "pipeline", module)

    return Job(model, step, batches, evaluate=evaluate, save=save)


RECIPE = Recipe(
    name="zoo_diffusion",
    about="A small diffusion model of squares of photographs, whose redrawn photographs detectors must find.",
    build=build,
    config=TrainConfig(
        steps=500, batch_size=16, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup=50, clip=1.0, ema=0.99,
        log_every=25, validate_every=0, checkpoint_every=100,
    ),
    reach={"psnr": "24 dB between photographs held out and what it makes of them at strength 0.1"},
    options={"size": 64, "squares": 4, "limit": 0, "vae": "", "highest": 0.4},
)  # fmt: skip
