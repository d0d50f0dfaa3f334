"""A small KL-VAE of 64-pixel scenes and photographs, saved as a diffusers ``AutoencoderKL`` folder.

    vestige learn scenes_vae
    vestige learn scenes_vae --variant house   # of the house generator: eight channels, three hours of one core

The sides shrink by four, to 16×16 latents of four or eight channels; the middle blocks attend. The base of the marks
that live in an image decoder (WOUAF, Stable Signature, Safe-SD) and of latent diffusion on scenes. Half of a batch are
crops of the photos pack, where the data folder has it; otherwise all of it is rendered scenes.

Presets: "cpu" (decoder of 0.87 M weights, 15 minutes on one core), "house" (1.5 M) and "gpu" (decoder of 6 M; add
--set steps=20000 --set batch_size=64 --set precision=auto). Options: size in pixels; latent, the channels of the
latents; scenes to render, and held, those to judge by; share of photographs; limit, the number of photographs, 0 all;
kl, the weight of the KL term; edges, that of the gradient term (see `vestige.nn.vae.vae_loss`).

Result: the folder "vae", read by ``AutoencoderKL.from_pretrained(OUT / "vae")``, with scaling_factor = 1 / standard
deviation of the latents.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.files import folder_atomic
from vestige.engines.marking.mixture import scenes_and_photos
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.metrics.quality import psnr, ssim
from vestige.nn.vae import decode, encode, fit_scaling, small_vae, vae_loss

PRESETS: dict[str, tuple[int, ...]] = {"cpu": (16, 32, 96), "house": (24, 48, 128), "gpu": (64, 128, 192)}


def build(ctx: RecipeContext) -> Job:
    """The autoencoder of the preset on scenes and photographs."""
    o = ctx.options
    if o["preset"] not in PRESETS:
        raise UsageError(f"preset is {o['preset']!r}; choose one of {', '.join(PRESETS)}.")
    mix, held = scenes_and_photos(
        int(o["size"]),
        int(o["scenes"]),
        held=int(o["held"]),
        seed=ctx.seed,
        limit=int(o["limit"]),
        share=float(o["share"]),
    )
    vae = attending(int(o["size"]), PRESETS[o["preset"]], int(o["latent"]))

    def batches(number: int, generator: torch.Generator) -> torch.Tensor:
        return mix.batch(ctx.config.batch_size, generator)

    def step(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return vae_loss(model, batch * 2 - 1, generator, kl=float(o["kl"]), edges=float(o["edges"]))

    def validate(model: nn.Module) -> dict[str, float]:
        return {f"{kind} psnr": rebuilt(model, images[:64])["psnr"] for kind, images in held.items()}

    def evaluate(model: nn.Module) -> dict[str, Any]:
        figures = {f"{kind} {name}": v for kind, images in held.items() for name, v in rebuilt(model, images).items()}
        return {**figures, "decoder weights": sum(p.numel() for p in model.get_submodule("decoder").parameters())}

    return Job(
        model=vae,
        step=step,
        batches=batches,
        validate=validate,
        evaluate=evaluate,
        save=partial(save_vae, pictures=mix.batch(256, torch.Generator().manual_seed(ctx.seed))),
    )


def attending(size: int, widths: tuple[int, ...], latent: int = 4) -> Any:
    """`small_vae` with attention in its middle blocks, as the autoencoders of large models have it."""
    plain = small_vae(size, widths, latent)
    return type(plain).from_config({**plain.config, "mid_block_add_attention": True})


@torch.no_grad()
def rebuilt(vae: Any, images: np.ndarray) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of decode(encode(x)), the latents being the modes, for uint8 N×3×S×S."""
    device = next(vae.parameters()).device
    parts = []
    for at in range(0, len(images), 64):
        x = torch.from_numpy(images[at : at + 64]).to(device).float() / 127.5 - 1
        parts.append((decode(vae, encode(vae, x)) / 2 + 0.5).clamp(0, 1).cpu().numpy())
    made, original = np.concatenate(parts), images.astype(np.float32) / 255
    return {"psnr": float(np.mean(psnr(original, made))), "ssim": float(np.mean(ssim(original, made)))}


def save_vae(model: Any, out: Path, *, pictures: torch.Tensor) -> None:
    """Fit the scaling factor on ``pictures`` ([0, 1]) and write ``out``/vae, which appears whole or not at all."""
    fit_scaling(model, ((part * 2 - 1).to(model.device) for part in pictures.split(64)))
    folder = out / "vae"
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError(f"{folder} exists and is no autoencoder folder; choose another --out.")
    with folder_atomic(folder) as new:
        model.save_pretrained(new, safe_serialization=True)


RECIPE = Recipe(
    name="scenes_vae",
    about="A small KL-VAE (f = 4, four channels) of 64-pixel scenes and photographs; a diffusers folder.",
    build=build,
    config=TrainConfig(
        steps=1000, batch_size=16, lr=1.5e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup=50, clip=1.0, ema=0.99,
        log_every=25, validate_every=250, checkpoint_every=50,
    ),
    reach={"scenes psnr": "26 dB on scenes held out, at 16×16×4 latents"},
    options={
        "preset": "cpu", "latent": 4, "size": 64, "scenes": 4000, "held": 128, "share": 0.5, "limit": 0,
        "kl": 1e-6, "edges": 0.5,
    },
    variants={
        "default": Variant("four channels, the base of the marks in image decoders"),
        "house": Variant(
            "eight channels, the base of the house generator",
            {"preset": "house", "latent": 8, "scenes": 8000},
            {"steps": 5000, "lr": 1e-3, "ema": 0.995},
        ),
    },
    judged_by="scenes psnr",
)  # fmt: skip
