"""A captioner of drawn scenes with one object: kind, colour, texture, size, style and place, each by a classifier.

    vestige learn visual_paraphrase

The attack redraws a picture from what the captioner says; the variant "judge" is a second one of other scenes that the
claims ask what is left, so that the attacker does not judge itself. Scenes are rendered at the size of the model that
redraws; no data pack is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vestige.bench.watermark.small_marks import renders
from vestige.core.runtime import rng
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.watermark.visual_paraphrase import ATTRIBUTES, SceneCaptioner

HELD_OUT = 400


def build(ctx: RecipeContext) -> Job:
    images, _, scenes = renders(int(ctx.options["scenes"]) + HELD_OUT, ctx.seed + 31)
    order = torch.from_numpy(rng(ctx.seed, "order").permutation(len(images)))
    x, y = torch.from_numpy(images)[order], SceneCaptioner.labels(scenes)[order]
    held = min(HELD_OUT, len(x) // 2)
    said = y.clone()
    if ctx.options["shuffled_labels"]:
        said[held:] = y[held:][torch.from_numpy(rng(ctx.seed, "shuffled labels").permutation(len(y) - held))]

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(held, len(x), (ctx.config.batch_size,), generator=generator)
        return x[chosen], said[chosen]

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, SceneCaptioner)
        return {"loss": model.loss(batch)}

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, SceneCaptioner)
        right = torch.from_numpy(model.attributes(x[:held].numpy())) == y[:held]
        figures = {name: float(right[:, i].float().mean()) for i, name in enumerate(ATTRIBUTES)}
        return {"right": float(right.float().mean()), **figures}

    return Job(SceneCaptioner(seed=ctx.seed), step, batches, validate=validate)


OPTIONS: dict[str, Any] = {"scenes": 16_000, "shuffled_labels": False}
RECIPE = Recipe(
    name="visual_paraphrase",
    about="A captioner of drawn scenes, for redrawing pictures from words.",
    build=build,
    config=TrainConfig(
        steps=1800, batch_size=32, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=0.05, log_every=20,
        validate_every=90, checkpoint_every=200,
    ),
    reach={"right": "0.8 of the attributes"},
    options=OPTIONS,
    variants={
        "captioner": Variant("what the attacker asks for words"),
        "judge": Variant("another one, of other scenes, that is asked what the pictures still show", seeds=(1,)),
        "shuffled_labels": Variant("a captioner that learnt captions dealt out at random",
                                   {"shuffled_labels": True}),
    },
    judged_by="right",
)  # fmt: skip
