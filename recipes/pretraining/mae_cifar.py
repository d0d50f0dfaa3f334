"""MAE on CIFAR-10, and the five methods built on it under the same conditions.

    vestige learn recipes/pretraining/mae_cifar
    vestige learn recipes/pretraining/mae_cifar --set system=droppos

The encoder is a ViT of 64 patches of 4×4 pixels that two CPU cores train usefully in 15 minutes. All systems get the
same data, encoder, decoder, optimiser and time; LUT makes its two views itself, as its paper does.
"""

from __future__ import annotations

from typing import Any

from vestige.core.errors import UsageError
from vestige.data.packs import named_pack
from vestige.engines.masked.job import masked_job
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.nn.vit import DecoderConfig, ViTConfig
from vestige.pretraining.color_mae import ColorMAE
from vestige.pretraining.dmjd import DMJD
from vestige.pretraining.droppos import DropPos
from vestige.pretraining.lut import LUT
from vestige.pretraining.mae import MAE
from vestige.pretraining.mp3 import MP3

METHODS: dict[str, Any] = {method.slug: method for method in (MAE, ColorMAE, DropPos, MP3, LUT, DMJD)}

#: The widths of LUT's MLPs and the pace of its slow copy belong to the size of the run; crops small enough to hide
#: where a patch came from would make MP3's task impossible.
OWN: dict[str, dict[str, Any]] = {"lut": {"hidden": 512, "momentum": 0.99}}
SCALE = {"mp3": 0.6, "droppos": 0.6}


def build(ctx: RecipeContext) -> Job:
    slug, o = ctx.options["system"], ctx.options
    if slug not in METHODS:
        raise UsageError(f"system is {slug!r}; choose one of {', '.join(METHODS)}.")
    limit = o["limit"] or None
    train, test = named_pack("cifar10", "train", limit=limit), named_pack("cifar10", "test", limit=limit)
    sizes: dict[str, Any] = {"encoder": ViTConfig(width=o["width"], depth=o["depth"], heads=o["heads"])}
    if slug != "mp3":
        sizes["decoder"] = DecoderConfig(o["decoder_width"], o["decoder_depth"], o["decoder_heads"])
    model = METHODS[slug](**sizes, **OWN.get(slug, {}))
    scale = o["scale"] or SCALE.get(slug, 0.2)
    return masked_job(ctx, model, train, test, scale=(scale, 1.0), about={"system": slug})


RECIPE = Recipe(
    name="mae_cifar",
    about="Masked modelling on CIFAR-10: MAE, or with --set system=... one of the methods built on it.",
    build=build,
    config=TrainConfig(
        steps=100_000, batch_size=128, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, warmup=0.05, clip=3.0,
        budget_seconds=900, schedule_by="time", checkpoint_every=200,
    ),
    reach={"linear": "at least 8 points above random_linear after 15 minutes on two cores"},
    options={
        "system": "mae", "limit": 0, "scale": 0.0, "width": 128, "depth": 6, "heads": 4,
        "decoder_width": 96, "decoder_depth": 2, "decoder_heads": 3,
    },
)  # fmt: skip
