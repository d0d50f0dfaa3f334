"""MAE on CIFAR-10, and the five methods built on it under the same conditions.

    vestige learn mae_cifar
    vestige learn mae_cifar --set system=droppos

The encoder is a ViT of 64 patches of 4×4 pixels that two CPU cores train usefully in 15 minutes. All systems get the
same data, encoder, decoder, optimiser and time; LUT makes its two views itself, as its paper does.
"""

from __future__ import annotations

from vestige.bench.masked.systems import OPTIMISATION, SIZES, build_method, crop_scale
from vestige.data.packs import named_pack
from vestige.engines.masked.job import masked_job
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig


def build(ctx: RecipeContext) -> Job:
    slug, o = ctx.options["system"], ctx.options
    model = build_method(slug, o)
    limit = o["limit"] or None
    train, test = named_pack("cifar10", "train", limit=limit), named_pack("cifar10", "test", limit=limit)
    scale = o["scale"] or crop_scale(slug)
    return masked_job(ctx, model, train, test, scale=(scale, 1.0), about={"system": slug})


RECIPE = Recipe(
    name="mae_cifar",
    about="Masked modelling on CIFAR-10: MAE, or with --set system=... one of the methods built on it.",
    build=build,
    config=TrainConfig(steps=100_000, budget_seconds=900, schedule_by="time", checkpoint_every=200, **OPTIMISATION),
    reach={"linear": "at least 8 points above random_linear after 15 minutes on two cores"},
    options={"system": "mae", "limit": 0, "scale": 0.0, **SIZES},
)
