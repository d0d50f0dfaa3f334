"""Deep Digital Steganography Purifier on colour crops of photographs: auto-encoder first, then the GAN stage.

    vestige learn ddsp --out out/learn/ddsp

Stego pictures carry simulated HILL payloads of 0.1 to 0.4 bits a sample in each channel, and one to four bit planes
are redrawn in turn. Least-significant-bit embedders are left for the tests. Drawn scenes take the place of photographs
where there are none. The weights are written as ddsp.safetensors, those before the GAN stage as
ddsp_autoencoder.safetensors; the shipped file is a copy of the former. The variant "autoencoder" has as many updates
and no GAN stage. About 15 minutes on one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.runtime import rng
from vestige.data.stand_in import photographs_or_scenes
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.watermark.ddsp import DDSP, PLANES, destruction
from vestige.watermark.stego import hill_cost, lsb_match, lsb_read, simulate

#: critic: learning rate of the discriminator over that of the generator, which is low by then.
OPTIONS: dict[str, Any] = {
    "size": 64,
    "width": 32,
    "blocks": 4,
    "gan_from": 0.8,
    "payload": 0.4,
    "critic": 3.0,
    "limit": 0,
}
HELD = 12


def stego_of(cover: np.ndarray, number: int, largest: float) -> np.ndarray:
    """uint8 3×S×S with a HILL payload of at most ``largest`` bits a sample in every channel."""
    rate = rng(number, "stego").uniform(min(0.1, largest), largest)
    return np.stack([simulate(c, hill_cost(c), rate, seed=number * 3 + i) for i, c in enumerate(cover)])


def build(ctx: RecipeContext) -> Job:
    o, config = ctx.options, ctx.config
    pictures = photographs_or_scenes("train", 256, limit=int(o["limit"]), seed=ctx.seed)
    held = photographs_or_scenes("val", 256, limit=int(o["limit"]), seed=ctx.seed)[:HELD, :, 64:192, 64:192]
    size, largest = int(o["size"]), float(o["payload"])
    system = DDSP(3, width=int(o["width"]), blocks=int(o["blocks"]), seed=ctx.seed)
    gan_from = round(float(o["gan_from"]) * config.steps)
    facts = {"embedder": "HILL", "payload": [min(0.1, largest), largest], "steps": config.steps}

    def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        r = rng(ctx.seed, "crops", number)
        covers = []
        for i in r.integers(0, len(pictures), config.batch_size):
            top, left = r.integers(0, 256 - size + 1, 2)
            covers.append(pictures[i, :, top : top + size, left : left + size])
        stego = [stego_of(c, number * config.batch_size + k, largest) for k, c in enumerate(covers)]
        return torch.from_numpy(np.stack(stego)), torch.from_numpy(np.stack(covers)), torch.tensor(number)

    def step(model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(model, DDSP)
        stego, cover, number = batch
        pair, planes = (stego.float() / 255, cover.float() / 255), PLANES[int(number) % len(PLANES)]
        if int(number) < gan_from:
            return {"loss": model.loss(pair, planes)}
        losses = model.adversarial_losses(pair, planes)
        return {"loss": losses["generator"] + losses["discriminator"], "generator": losses["generator"].detach()}

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, DDSP)
        clean = held.astype(np.float32) / np.float32(255)
        figures, default = {}, model.planes
        for model.planes in PLANES:
            error = float(np.mean(np.square(model.purify(clean) - clean)))
            figures[f"psnr, {model.planes} planes"] = -10 * float(np.log10(error))
        model.planes = default
        bits = rng(ctx.seed, "held").integers(0, 2, 4000).astype(bool)
        stego = np.stack([lsb_match(cover, bits, b"held", seed=i) for i, cover in enumerate(held)])
        back = (model.purify(stego.astype(np.float32) / np.float32(255)) * 255).round().astype(np.uint8)
        wrong = [destruction(bits, lsb_read(picture, len(bits), b"held")) for picture in back]
        return {"psnr": figures[f"psnr, {default} planes"], "bit_errors": float(np.mean(wrong)), **figures}

    def on_step(done: int, model: nn.Module) -> None:
        assert isinstance(model, DDSP)
        if done == gan_from:
            model.save(ctx.out / "ddsp_autoencoder.safetensors", {**facts, "stage": "auto-encoder"})

    def save(model: nn.Module, out: Path) -> None:
        assert isinstance(model, DDSP)
        model.save(out / "ddsp.safetensors", {**facts, "stage": "GAN" if gan_from < config.steps else "auto-encoder"})

    parameters: list[nn.Parameter | Mapping[str, Any]] = [
        {"params": list(system.generator.parameters())},
        {"params": list(system.discriminator.parameters()), "lr": float(o["critic"]) * config.lr},
    ]
    return Job(
        system, step, batches, validate=validate, save=save, parameters=parameters, on_step=on_step
    )  # fmt: skip


RECIPE = Recipe(
    name="ddsp",
    about="A network that keeps pictures and ruins hidden payloads.",
    build=build,
    config=TrainConfig(
        steps=1400, batch_size=8, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup=60, precision="auto",
        channels_last=True, validate_every=70, checkpoint_every=200,
    ),
    reach={"psnr": "at least 36 dB on covers", "bit_errors": "at least 0.45"},
    options=OPTIONS,
    variants={
        "default": Variant("auto-encoder, then the adversarial stage", seeds=(0, 1, 2)),
        "autoencoder": Variant("the auto-encoder alone, with as many updates", {"gan_from": 1.0}, seeds=(0, 1, 2)),
    },
    judged_by="psnr",
)  # fmt: skip
