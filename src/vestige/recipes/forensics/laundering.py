"""The two stages that tell photographs, laundered photographs and pictures synthetic from the start apart.

    vestige learn laundering

Pristine: squares of 64 pixels of photographs reduced by two. Laundered: the same through the autoencoder of
weights/laundering_model. Full: samples of the latent diffusion model of that folder. All are handled alike (scaled,
brightened, JPEG 60 to 97 or lossless) before crops are cut. The folder is written by recipes/forensics/zoo_vae and
zoo_diffusion. Photographs to train and to judge by are different ones.

The threshold of `vestige find` is set on photographs of another collection, by
`vestige.bench.forensics.examiner_threshold`.

Options: squares of each photograph; limit, the number of photographs, 0 all; width and front of the networks; steps of
the sampler; crop; rate, the share of photographs that may be flagged.

Result: laundering.safetensors; a copy of it goes into the package's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vestige.bench.forensics.examiner_threshold import threshold_on_photographs
from vestige.data.fakes import handled
from vestige.engines.fakes import autoencoder_source
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.forensics import laundering_data
from vestige.forensics.laundering import LABELS, LaunderingDetector, LaunderingNet, laundering_training
from vestige.forensics.laundering_data import three_kinds
from vestige.forensics.learned import save_network


def build(ctx: RecipeContext) -> Job:
    """Both stages and the pictures they learn from."""
    o = ctx.options
    train, test = (
        three_kinds(
            part, squares=int(o["squares"]), limit=int(o["limit"]), steps=int(o["sampler_steps"]), seed=ctx.seed
        )
        for part in ("train", "val")
    )
    batches, step = laundering_training(
        train, ctx.config.batch_size, crop=int(o["crop"]), augment=lambda picture, seed: handled(picture[None], seed)[0]
    )

    def evaluate(module: nn.Module) -> dict[str, Any]:
        assert isinstance(module, LaunderingNet)
        detector = LaunderingDetector(network=module.eval(), crop=int(o["crop"]))
        pictures = np.concatenate([test[label] for label in LABELS])
        return detector.measure(pictures, np.repeat(LABELS, [len(test[label]) for label in LABELS]))

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, LaunderingNet)
        facts: dict[str, Any] = {"pictures": {label: len(train[label]) for label in LABELS}, "crop": int(o["crop"])}
        examiner = LaunderingDetector(network=module.eval(), crop=int(o["crop"]))
        makers = [autoencoder_source(laundering_data.MODEL, "laundering_model")]
        facts |= threshold_on_photographs(examiner, makers, float(o["rate"]), limit=int(o["limit"]), seed=ctx.seed)
        save_network(out / "laundering.safetensors", module, "laundering", facts)

    return Job(LaunderingNet(float(o["width"]), o["front"]), step, batches, evaluate=evaluate, save=save)


RECIPE = Recipe(
    name="laundering",
    about="Two stages that tell photographs, photographs through an autoencoder and generated pictures apart.",
    build=build,
    config=TrainConfig(
        steps=500, batch_size=64, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=30, clip=1.0, ema=0.98,
        log_every=25, validate_every=0, checkpoint_every=100,
    ),
    reach={"balanced accuracy": "0.85 on photographs held out"},
    options={"squares": 1, "limit": 0, "width": 0.25, "front": "srm", "sampler_steps": 15, "crop": 32, "rate": 0.02},
)  # fmt: skip
