"""A small autoencoder of photographs for the zoo of generators: its round trips are pictures that it re-made.

    vestige learn zoo_vae --set precision=auto
    vestige learn zoo_vae --set widths=16+32+48 --set latent=16 --out FOLDER

Sides shrink by eight to latents of eight channels, without attention: another factor, width and training set than
the shipped scenes_vae, so that detectors that learnt one autoencoder can be tested on the other. Trained on squares of
photographs reduced by two (`vestige.data.fakes.squares`), which is what the zoo re-makes.

The second command trains the finer one that `vestige.forensics.laundering` learns from: sides shrink by four, and a
photograph hardly changes to the eye.

Options: widths of the levels and channels of the latents; size of the squares; squares for each photograph; limit, the
number of photographs, 0 all; kl and edges, see `vestige.nn.vae.vae_loss`. Without the photos pack it learns rendered
scenes.

Result: the folder "vae", a diffusers ``AutoencoderKL``. `vestige.engines.fakes.shipped_sources` reads the package's
weights/zoo_vae.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from vestige.core.errors import InputError
from vestige.core.files import folder_atomic
from vestige.data.fakes import as_float
from vestige.engines.fakes import autoencoder_source, zoo_squares
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.metrics.quality import psnr
from vestige.nn.vae import fit_scaling, small_vae, vae_loss


def build(ctx: RecipeContext) -> Job:
    """The autoencoder on squares of photographs."""
    o = ctx.options
    train, held = zoo_squares(int(o["size"]), int(o["squares"]), limit=int(o["limit"]), seed=ctx.seed)
    source = torch.from_numpy(train)

    def batches(number: int, generator: torch.Generator) -> torch.Tensor:
        chosen = source[torch.randint(len(source), (ctx.config.batch_size,), generator=generator)]
        mirrored = torch.rand(len(chosen), generator=generator) < 0.5
        return torch.where(mirrored[:, None, None, None], chosen.flip(3), chosen)

    def step(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return vae_loss(model, batch.float() / 127.5 - 1, generator, kl=float(o["kl"]), edges=float(o["edges"]))

    def validate(model: nn.Module) -> dict[str, float]:
        x = as_float(held[:64])
        return {"psnr": float(np.mean(psnr(x, autoencoder_source(model)(x))))}

    def save(model: nn.Module, out: Path) -> None:
        folder = out / "vae"
        if folder.exists() and not (folder / "config.json").is_file():
            raise InputError(f"{folder} exists and is no autoencoder folder; choose another --out.")
        fit_scaling(model, (source[at : at + 64].float() / 127.5 - 1 for at in range(0, min(256, len(source)), 64)))
        with folder_atomic(folder) as new:
            model.save_pretrained(new, safe_serialization=True)  # type: ignore[operator]

    widths = [int(width) for width in str(o["widths"]).split("+")]
    return Job(
        small_vae(int(o["size"]), widths, int(o["latent"])),
        step,
        batches,
        validate=validate,
        evaluate=validate,
        save=save,
    )


RECIPE = Recipe(
    name="zoo_vae",
    about="A small KL-VAE of squares of photographs, whose round trips detectors must find.",
    build=build,
    config=TrainConfig(
        steps=2000, batch_size=16, lr=1.5e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup=50, clip=1.0, ema=0.99,
        log_every=25, validate_every=500, checkpoint_every=100,
    ),
    reach={"psnr": "20 dB on squares of photographs held out"},
    options={"widths": "16+32+48+64", "latent": 8, "size": 64, "squares": 4, "limit": 0, "kl": 1e-6, "edges": 0.5},
)  # fmt: skip
