"""Deep Digital Steganography Purifier on colour crops of photographs: auto-encoder first, then the GAN stage.

    vestige learn recipes/watermark/ddsp --out out/learn/ddsp

Stego pictures carry LSB payloads (matching) or simulated HILL payloads of 0.1 to 0.4 bits a sample in each channel.
The weights are written as ddsp.safetensors; copied to src/vestige/weights/ they are what ``DDSP()`` reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.runtime import rng
from vestige.data.packs import named_pack
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.watermark.ddsp import DDSP, destruction
from vestige.watermark.stego import hill_cost, lsb_match, lsb_read, simulate

OPTIONS: dict[str, Any] = {"size": 64, "width": 32, "blocks": 6, "gan_from": 0.8, "payload": 0.4}


def stego_of(cover: np.ndarray, number: int, largest: float) -> np.ndarray:
    """uint8 3×S×S with a payload in every channel; LSB and HILL in turn."""
    r = rng(number, "stego")
    rate, out = r.uniform(0.1, largest), cover.copy()
    for c, channel in enumerate(cover):
        if number % 2:
            bits = r.integers(0, 2, int(rate * channel.size)).astype(bool)
            out[c] = lsb_match(channel, bits, f"{number} {c}".encode(), seed=number)
        else:
            out[c] = simulate(channel, hill_cost(channel), rate, seed=number * 3 + c)
    return out


def build(ctx: RecipeContext) -> Job:
    o, config = ctx.options, ctx.config
    pictures = named_pack("photos", "train", size=256).images
    held = named_pack("photos", "val", size=256).images[:, :, 64:192, 64:192]
    size = int(o["size"])
    system = DDSP(3, width=int(o["width"]), blocks=int(o["blocks"]), seed=ctx.seed)

    def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        r = rng(ctx.seed, "crops", number)
        covers = []
        for i in r.integers(0, len(pictures), config.batch_size):
            top, left = r.integers(0, 256 - size + 1, 2)
            covers.append(pictures[i, :, top : top + size, left : left + size])
        stego = [stego_of(c, number * config.batch_size + k, float(o["payload"])) for k, c in enumerate(covers)]
        return torch.from_numpy(np.stack(stego)), torch.from_numpy(np.stack(covers)), torch.tensor(number)

    def step(model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(model, DDSP)
        stego, cover, number = batch
        pair = stego.float() / 255, cover.float() / 255
        if int(number) < float(o["gan_from"]) * config.steps:
            return {"loss": model.loss(pair)}
        losses = model.adversarial_losses(pair)
        return {"loss": losses["generator"] + losses["discriminator"], "generator": losses["generator"].detach()}

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, DDSP)
        clean = held.astype(np.float32) / np.float32(255)
        made = model.purify(clean)
        wrong = []
        for i, cover in enumerate(held[:16]):
            bits = rng(i, "held").integers(0, 2, 2000).astype(bool)
            stego = lsb_match(cover[1], bits, b"held", seed=i)
            picture = cover.copy()
            picture[1] = stego
            back = model.purify(picture[None].astype(np.float32) / np.float32(255))
            wrong.append(destruction(bits, lsb_read((back[0, 1] * 255).round().astype(np.uint8), 2000, b"held")))
        error = float(np.mean(np.square(made - clean)))
        return {"psnr": -10 * float(np.log10(error)), "bit_errors": float(np.mean(wrong))}

    def save(model: nn.Module, out: Path) -> None:
        assert isinstance(model, DDSP)
        model.save(out / "ddsp.safetensors")

    return Job(model=system, step=step, batches=batches, validate=validate, save=save)


RECIPE = Recipe(
    name="watermark/ddsp",
    about="A network that keeps pictures and ruins hidden payloads.",
    build=build,
    config=TrainConfig(
        steps=4000, batch_size=16, lr=5e-4, weight_decay=0.0, warmup=100, validate_every=500, checkpoint_every=200
    ),
    reach={"psnr": "at least 36 dB on covers", "bit_errors": "at least 0.45"},
    options=OPTIONS,
)
