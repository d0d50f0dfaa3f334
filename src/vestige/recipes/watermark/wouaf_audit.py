"""Attacks on WOUAF that train something: a classifier of marked pictures, and decoders tuned to lose their fingerprint.

    vestige learn wouaf_audit

Works on the finished runs wouaf/default/0 and, for the classifier that has not seen the attacked one, wouaf/default/1.
Options: classifier_steps of 32; tuned, the lengths of the fine-tunings in updates of 8 pictures. Results: how often the
classifier is right, on pictures of a WOUAF it has not seen and of the one it was taught by, and the tuned decoders.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.watermark import wouaf_bed as bed
from vestige.core.errors import InputError
from vestige.engines import parts
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.runs import finished
from vestige.engines.train import TrainConfig
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.nn.vae import vae_loss
from vestige.watermark.wouaf import Wouaf, WouafNet

Batch = Mapping[str, Any]


def network(seed: int) -> WouafNet:
    """The WOUAF of that seed; raises InputError where its run is missing."""
    run = finished("wouaf", "default", seed)
    if run is None:
        raise InputError("The audit attacks trained networks; train them with: vestige learn wouaf --for-claims.")
    return Wouaf(run.folder / "wouaf.safetensors").network


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Train the classifiers and the tuned decoders, and test the classifiers."""
    o, ours = ctx.options, network(0)
    accuracy = {}
    for name, seed in (("another WOUAF", 1), ("the attacked WOUAF", 0)):
        judge = parts.trained(ctx, f"classifier of {name}", classifier_job(ctx, network(seed)), config(ctx, 2e-3))
        found, truth = marked_or_not(ctx, ours, int(o["tested"]), 9000)
        right = partial(share_right, judge, found, truth)
        accuracy[f"taught by {name}"] = parts.figures(ctx, f"accuracy {name}", right)
    fixed = bed.fingerprints(ours.bits, 1, 0, "tuned")
    vae = ours.stamped(torch.from_numpy(fixed.astype(np.float32)))
    images = bed.pictures(ctx.data, ours.size, int(o["pictures"]), 17_000)
    for steps in o["tuned"]:
        parts.trained(ctx, f"tuned {steps}", tuning_job(ctx, vae, images), config(ctx, 5e-4, int(steps), 8))
    return {**accuracy, "updates": 2 * int(o["classifier_steps"]) + sum(map(int, o["tuned"]))}


def config(ctx: RecipeContext, lr: float, steps: int = 0, batch_size: int = 32) -> TrainConfig:
    """The settings of one part; steps 0 are those of the classifiers."""
    count = steps or int(ctx.options["classifier_steps"])
    return TrainConfig(
        steps=count, batch_size=batch_size, lr=lr, weight_decay=0.0 if steps else 0.05, clip=1.0, warmup=0,
        seed=ctx.seed, log_every=max(1, count // 20), validate_every=max(1, count // 20),
    )  # fmt: skip


@torch.no_grad()
def marked_or_not(ctx: RecipeContext, net: WouafNet, count: int, first: int) -> tuple[Tensor, Tensor]:
    """Pictures of different latents, half of them by users' decoders and half by the plain one; bool N, marked."""
    images = bed.pictures(ctx.data, net.size, count, first)
    half = len(images) // 2
    latents = torch.cat([net.encode(part) for part in images.split(32)])
    bits = bed.fingerprints(net.bits, half, ctx.seed, "secrecy", first)
    made = np.concatenate([bed.decoded_for(net, latents[:half], bits), bed.decoded(bed.original(), latents[half:])])
    return torch.from_numpy(made), torch.arange(len(images)) < half


def classifier_job(ctx: RecipeContext, net: WouafNet) -> Job:
    """A small ResNet that tells pictures of users' decoders from those of the plain one."""
    images, truth = marked_or_not(ctx, net, int(ctx.options["taught"]), 6000)
    held, held_truth = marked_or_not(ctx, net, 100, 8500)

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        chosen = torch.randint(len(images), (32,), generator=generator)
        return {"chosen": chosen, "flip": bool(torch.rand((), generator=generator) < 0.5)}

    def step(module: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        x = images[batch["chosen"]]
        x = x.flip(3) if batch["flip"] else x
        return {"loss": F.binary_cross_entropy_with_logits(module(x)[:, 0], truth[batch["chosen"]].float())}

    def validate(module: nn.Module) -> dict[str, float]:
        return {"accuracy": share_right(module, held, held_truth)}

    judge = ResNet(ResNetConfig(18, "imagenet", 0.25, classes=1))
    return Job(judge, step, batches, validate=validate)


@torch.no_grad()
def share_right(judge: nn.Module, images: Tensor, truth: Tensor) -> float:
    """How often the classifier is right."""
    guess = torch.cat([judge(part)[:, 0] for part in images.split(64)]) > 0
    return float((guess == truth).float().mean())


class Decoder(nn.Module):
    """An autoencoder of which the decoder alone learns."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False)
        self.vae.decoder.requires_grad_(True)


def tuning_job(ctx: RecipeContext, vae: Any, images: Tensor) -> Job:
    """A user's decoder fine-tuned to rebuild plain pictures, by somebody who wants to be rid of the fingerprint."""

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        return {"chosen": torch.randint(len(images), (8,), generator=generator)}

    def step(module: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(module, Decoder)
        return {"loss": vae_loss(module.vae, images[batch["chosen"]] * 2 - 1, generator)["loss"]}

    model = Decoder(copy.deepcopy(vae))
    return Job(model, step, batches, parameters=[p for p in model.parameters() if p.requires_grad])


RECIPE = Recipe(
    name="wouaf_audit",
    about="Who notices WOUAF's fingerprints, and what is left of them after fine-tuning.",
    perform=perform,
    variants={"default": Variant("a classifier taught by another WOUAF, one by the same, and tuned decoders")},
    options={"classifier_steps": 250, "taught": 800, "tested": 300, "pictures": 200, "tuned": (25, 100)},
)
