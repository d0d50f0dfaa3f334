"""PatchCraft, and the networks it is compared with, on published pictures of real generators.

    vestige learn patchcraft
    vestige learn patchcraft --variant rgb --seed 1

All arms see the same levelled squares in as many updates. The default variant learns from the training part of the pack
and is judged on its validation part; the others leave a third of the families and all sources of the judged pictures
out, which third follows from the seed. Without the pack, scenes and up-sampling stages stand in. Options: network, of
`NETWORKS`; patch, grid and width of PatchCraft; the others are those of `vestige.recipes.forensics._published`.

Result: patchcraft.safetensors, for `vestige find --only patchcraft --model`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vestige.bench.forensics.lgrad import LGradNet
from vestige.core.errors import UsageError
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.generated import TraceDetector
from vestige.forensics.npr import TraceResNet
from vestige.forensics.patchcraft import PatchCraftNet
from vestige.recipes.forensics._published import HELD, OPTIONS, SHUFFLED, THREE, detector_job

_RESNET: dict[str, Any] = {"depth": 18, "stages": 4, "width": 0.5, "stem": "large"}
#: Networks by name; PatchCraft's take its sizes.
NETWORKS: dict[str, Callable[..., TraceDetector]] = {
    "patchcraft": PatchCraftNet,
    "whole": lambda **sizes: PatchCraftNet(**sizes, smashed=False),
    "both": lambda **sizes: PatchCraftNet(**sizes, contrast="concat"),
    "rgb": lambda **_: TraceResNet("rgb", **_RESNET),
    "srm": lambda **_: TraceResNet("srm", **_RESNET),
    "npr": lambda **_: TraceResNet("npr", width=0.5),
    "lgrad": lambda **_: LGradNet(**_RESNET),
}


def build(ctx: RecipeContext) -> Job:
    """The network of the run and what it learns from."""
    o = ctx.options
    if o["network"] not in NETWORKS:
        raise UsageError(f"network is one of {', '.join(NETWORKS)}; got {o['network']!r}.")
    sizes = {name: int(o[name]) for name in ("patch", "grid", "width")}
    return detector_job(ctx, NETWORKS[o["network"]](**sizes), "patchcraft")


RECIPE = Recipe(
    name="patchcraft",
    about="The contrast of rich and poor textures, learnt from published pictures of real generators.",
    build=build,
    config=TrainConfig(
        steps=1800, batch_size=32, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=50, clip=1.0, ema=0.99,
        log_every=25, validate_every=90, checkpoint_every=300,
    ),
    reach={"levelled, mean": "0.05 above a residual network on RGB, families and sources left out"},
    options={**OPTIONS, "network": "patchcraft", "patch": 8, "grid": 5, "width": 16},
    variants={
        "default": Variant("the examiner, learnt from all families"),
        "held": Variant("a third of the families and sources left out", HELD, seeds=THREE),
        "rgb": Variant("a residual network on RGB", {**HELD, "network": "rgb"}, seeds=THREE),
        "srm": Variant("a residual network on the noise residual", {**HELD, "network": "srm"}, seeds=THREE),
        "npr": Variant("NPR", {**HELD, "network": "npr"}),
        "lgrad": Variant("a residual network on gradients of another one", {**HELD, "network": "lgrad"}, seeds=()),
        "whole": Variant("without Smash & Reconstruct", {**HELD, "network": "whole"}, seeds=THREE),
        "both": Variant("both textures instead of their contrast", {**HELD, "network": "both"}),
        "shuffled_labels": SHUFFLED,
    },
    judged_by="auroc",
)  # fmt: skip
