"""A stand-in for an unknown detector: a small ResNet that tells scenes with a strong mark from scenes without.

    vestige learn robust_limits

An attack on it within 8 grey levels is what the claims try on the detector itself. Noise on its inputs is what makes
its gradients carry over; the variant without it shows how much. Pictures are rendered; no data pack is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.watermark.small_marks import BITS, SmallMark, renders
from vestige.core.runtime import rng
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.watermark.robust_limits import Substitute

#: Kind of the mark in `small_marks`, and pictures held out for validation.
KIND, HELD_OUT = "strong", 400
WIDTH = 0.25


def network() -> ResNet:
    """The stand-in before training."""
    return ResNet(ResNetConfig(18, width=WIDTH, classes=1))


def message(seed: int) -> np.ndarray:
    """bool 1×16: the bits of the mark of that seed."""
    return rng(seed, "bits").integers(0, 2, (1, BITS)).astype(bool)


def build(ctx: RecipeContext) -> Job:
    o = ctx.options
    count = int(o["scenes"])
    covers = renders(count + HELD_OUT, ctx.seed + 5)[0]
    covers = covers[rng(ctx.seed, "covers").permutation(len(covers))]
    labels = np.arange(len(covers)) % 2 == 0
    pictures = covers.copy()
    pictures[labels] = SmallMark(KIND, ctx.seed).mark(covers[labels], message(ctx.seed))
    held = min(HELD_OUT, len(covers) // 2)
    x, y = torch.from_numpy(pictures), torch.from_numpy(labels.astype(np.float32))
    said = y.clone()
    if o["shuffled_labels"]:
        said[held:] = y[held:][torch.from_numpy(rng(ctx.seed, "shuffled labels").permutation(len(y) - held))]
    noise = float(o["noise"])

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(held, len(x), (ctx.config.batch_size,), generator=generator)
        return x[chosen], said[chosen]

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": Substitute(net=model, noise=noise).loss(batch, generator)}

    def validate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        with torch.no_grad():
            logits = torch.cat([model(part.to(device))[:, 0].cpu() for part in x[:held].split(100)])
        right = float(((logits > 0) == (y[:held] > 0.5)).float().mean())
        return {"loss": float(F.binary_cross_entropy_with_logits(logits, y[:held])), "accuracy": right}

    return Job(network(), step, batches, validate=validate)


OPTIONS: dict[str, Any] = {"scenes": 8000, "noise": 0.4, "shuffled_labels": False}
RECIPE = Recipe(
    name="robust_limits",
    about="A classifier of marked and unmarked scenes that stands in for a detector nobody may look into.",
    build=build,
    config=TrainConfig(
        steps=2000, batch_size=32, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=0.05, log_every=20,
        validate_every=100, checkpoint_every=200,
    ),
    reach={"accuracy": "0.9 on scenes it has not seen, without noise"},
    options=OPTIONS,
    variants={
        "default": Variant("trained with noise on its inputs", seeds=(0, 1, 2)),
        "no_noise": Variant("trained without noise", {"noise": 0.0}),
        "shuffled_labels": Variant("trained on labels dealt out at random", {"shuffled_labels": True}),
    },
    judged_by="accuracy",
)  # fmt: skip
