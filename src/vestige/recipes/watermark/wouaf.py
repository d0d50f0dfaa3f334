"""WOUAF on the small autoencoder of scenes and photographs: decoder, mapping, affine layers and reader together.

    vestige learn wouaf
    vestige learn wouaf --set vae=FOLDER

vae: any diffusers folder with an ``AutoencoderKL`` (of a pipeline, or the autoencoder alone); "" takes the shipped one.
Presets: "cpu" (64 pixels, 16 bits, half an hour on one core), "gpu" (64 pixels, 32 bits; add --set steps=8000 --set
batch_size=64 --set precision=auto) and "paper" (512 pixels, 32 bits, ResNet-50, 50,000 steps of 32 at a rate of 1e-4
there). Options: bits and size, 0 keeps the preset's; chance, of each augmentation; pixels, the weight of the mean
squared error; decoder_rate, learning rate of the decoder over that of the rest; growth, share of the run in which the
pictures of a batch grow from one to all; first, see `WouafNet`; pictures, the number of squares to train on;
limit, of photographs, 0 all.

Results: wouaf.safetensors in the run's folder, with the autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.core.errors import InputError, UsageError
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.marking.distort import DistortionLayer, apply
from vestige.engines.marking.job import MarkingPlan, marking_job
from vestige.engines.marking.mixture import scenes_and_photos
from vestige.engines.marking.stages import Stage
from vestige.engines.optim import parameter_groups
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.watermark.learned import WEIGHTS
from vestige.watermark.wouaf import AUGMENTATIONS, WouafNet

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"bits": 16, "size": 64, "depth": 18, "reader_width": 0.25, "stem": "cifar"},
    "gpu": {"bits": 32, "size": 64, "depth": 18, "reader_width": 0.5, "stem": "cifar"},
    "paper": {"bits": 32, "size": 512, "depth": 50, "reader_width": 1.0},
}


@dataclass(frozen=True)
class Augmentation(DistortionLayer):
    """Every element of the bank with probability ``chance``, drawn anew for each ``part`` pictures of a batch.

    Batch statistics of the reader then see the same mixture in every batch.
    """

    chance: float = 0.3
    part: int = 4

    def __call__(
        self, images: Tensor, masks: Tensor, generator: np.random.Generator, *, cover: Tensor | None = None,
        severity: float = 1.0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        made = []
        for at in range(0, len(images), self.part):
            piece, where = images[at : at + self.part], masks[at : at + self.part]
            for draw in self.bank:
                if generator.random() < self.chance:
                    strength, seed = draw.strength(generator, severity), int(generator.integers(2**31))
                    piece, where = apply(draw, piece, where, strength, seed)
            made.append((piece, where))
        return torch.cat([p for p, _ in made]), torch.cat([w for _, w in made])


def build(ctx: RecipeContext) -> Job:
    """The network of the preset around the autoencoder, pictures and stages."""
    o = ctx.options
    if o["preset"] not in PRESETS or not 0 <= o["chance"] <= 1:
        raise UsageError(f"preset is one of {', '.join(PRESETS)} and chance in [0, 1]; got {o['preset']}.")
    sizes = PRESETS[o["preset"]] | {name: o[name] for name in ("bits", "size") if o[name]}
    net = WouafNet(**sizes, vae=autoencoder(o["vae"]), pixels=o["pixels"], first=o["first"])
    mix, held = scenes_and_photos(
        net.size,
        max(16, o["pictures"] // 2),
        held=o["held"] or max(16, o["pictures"] // 24),
        seed=ctx.seed,
        limit=o["limit"],
        source=max(192, 2 * net.size),
    )
    squares = mix.batch(o["pictures"], torch.Generator().manual_seed(ctx.seed))

    def share(part: float) -> int:
        return max(1, round(part * ctx.config.steps))

    plan = MarkingPlan(
        layer=Augmentation(AUGMENTATIONS, chance=o["chance"]),
        # Bits first, and on few pictures: with all of them at once they are not found. The gates also open by
        # themselves, so that a run whose bits come late still ends with pictures.
        stages=[
            Stage(
                "fidelity", wait=share(o["growth"]), accuracy=0.9, patience=share(o["growth"] + 0.15), ramp=share(0.2)
            ),
            Stage("distortions", wait=share(0.05), accuracy=0.9, patience=share(0.15), ramp=share(0.15)),
        ],
    )
    facts = {"preset": o["preset"], "chance": o["chance"], "seed": ctx.seed, "fingerprints": "even weight"}
    job = marking_job(
        ctx, net, (squares * 255).round().byte().numpy(), np.concatenate(list(held.values())), plan, slug="wouaf",
        facts=facts,
    )  # fmt: skip
    drawn = job.batches

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        return even(few(drawn(number, generator), shown(number / max(1, share(o["growth"])), len(squares))))

    job.batches = batches
    decoder = [{**g, "lr": ctx.config.lr * o["decoder_rate"]} for g in parameter_groups(net.vae.decoder, 0.0)]
    rest = torch.nn.ModuleList([net.mapping, net.affine, net.reader])
    job.parameters = [*decoder, *parameter_groups(rest, ctx.config.weight_decay)]
    return job


def shown(progress: float, pictures: int) -> int:
    """How many pictures a batch is drawn from: one at first, all from progress 1 on, growing by a constant factor."""
    return max(1, round(pictures ** min(1.0, progress)))


def few(batch: dict[str, Any], count: int) -> dict[str, Any]:
    """The batch with pictures among the first ``count``: where all look alike, the reader can only learn the marks."""
    return {**batch, "ids": [number % count for number in batch["ids"]]}


def even(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with fingerprints of even weight: the last bit is turned where it must be.

    Those of odd weight are never trained with, so that users who get one are new to the network.
    """
    bits = batch["bits"].clone()
    bits[:, -1] = bits[:, :-1].sum(1) % 2
    return {**batch, "bits": bits}


def autoencoder(folder: str) -> Any:
    """The autoencoder to mark; raises InputError with the recipe when the shipped one is not there."""
    place = Path(folder) if folder else WEIGHTS / "scenes_vae"
    if not folder and not place.is_dir():
        raise InputError(
            "The autoencoder scenes_vae is not installed; train it with: vestige learn scenes_vae, "
            "and name its folder with --set vae=FOLDER."
        )
    return load_autoencoder(place)


RECIPE = Recipe(
    name="wouaf",
    about="WOUAF: an image decoder for every user, made by modulating weights, and the reader that tells users apart.",
    build=build,
    config=TrainConfig(
        steps=1100, batch_size=16, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=0.02, clip=1.0,
        log_every=25, validate_every=55, checkpoint_every=55,
    ),
    judged_by="kept",
    variants={"default": Variant("fingerprints in the decoder, and their reader", seeds=(0, 1, 2))},
    reach={
        "identity 0": "0.99",
        "mean": "0.90 (bit accuracy over the suite of distortions)",
        "psnr": "within 1 dB of the autoencoder's own",
    },
    options={
        "preset": "cpu", "vae": "", "bits": 0, "size": 0, "chance": 0.15, "pixels": 10.0, "decoder_rate": 0.25,
        "growth": 0.45, "first": 0.02, "pictures": 3000, "limit": 0, "held": 0,
    },
)  # fmt: skip
