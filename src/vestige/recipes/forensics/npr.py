"""NPR on published pictures of real generators.

    vestige learn npr

Options and pictures as in `vestige.recipes.forensics.patchcraft`. Result: npr.safetensors, for
`vestige find --only npr --model`.
"""

from __future__ import annotations

from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.npr import TraceResNet
from vestige.recipes.forensics._published import HELD, OPTIONS, SHUFFLED, THREE, detector_job


def build(ctx: RecipeContext) -> Job:
    """A residual network on what neighbouring pixels differ by."""
    return detector_job(ctx, TraceResNet("npr", width=float(ctx.options["width"])), "npr")


RECIPE = Recipe(
    name="npr",
    about="Pattern of up-sampling layers in blocks of two pixels, learnt from published pictures of real generators.",
    build=build,
    config=TrainConfig(
        steps=1800, batch_size=32, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=50, clip=1.0, ema=0.99,
        log_every=25, validate_every=90, checkpoint_every=300,
    ),
    reach={"levelled, mean": "more than its own labels shuffled"},
    options={**OPTIONS, "width": 0.5},
    variants={
        "default": Variant("the examiner, learnt from all families"),
        "held": Variant("a third of the families and sources left out", HELD, seeds=THREE),
        "shuffled_labels": SHUFFLED,
    },
    judged_by="auroc",
)  # fmt: skip
