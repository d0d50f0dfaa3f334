"""HiDDeN on photographs: the convolutional baseline that learned marks are compared with.

    vestige learn hidden
    vestige learn hidden --set preset=gpu --set steps=12000 --set batch_size=32 --set precision=auto

Three stages: bits on a fixed batch without distortions, then all pictures with distortions of growing strength, then
the loss on the picture. Without the first the reader stays at chance.

Presets: "cpu" (64 pixels, 16 bits) and "gpu" (128 pixels, 32 bits). form "original" has a free residual, an image loss
and an adversary; "revisited" bounds the residual by ``scale`` and has neither. Other options as in the recipe maskmark.
"""

from __future__ import annotations

from typing import Any

from vestige.core.errors import UsageError
from vestige.engines.marking.critic import Critic
from vestige.engines.marking.distort import BANKS, DistortionLayer
from vestige.engines.marking.job import MarkingPlan, marking_job, training_pictures
from vestige.engines.marking.stages import Stage
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.watermark.hidden import HiddenNet

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"bits": 16, "size": 64, "width": 24, "decoder_blocks": 5},
    "gpu": {"bits": 32, "size": 128, "width": 64, "decoder_blocks": 7},
}


def build(ctx: RecipeContext) -> Job:
    """The network of the preset, its pictures, and the adversary of the original form."""
    o = ctx.options
    if o["preset"] not in PRESETS or o["bank"] not in BANKS or o["form"] not in ("original", "revisited"):
        raise UsageError(
            f"preset is one of {', '.join(PRESETS)}, bank one of {', '.join(BANKS)} and form original or revisited; "
            f"got {o['preset']}, {o['bank']} and {o['form']}."
        )
    sizes = PRESETS[o["preset"]] | ({"bits": o["bits"]} if o["bits"] else {})
    original = o["form"] == "original"
    weights: dict[str, Any] = {"scale": None, "image_weight": o["image_weight"]}
    if not original:
        weights = {"scale": o["scale"], "image_weight": 0.0}
    train, test = training_pictures(sizes["size"], source=o["source"], limit=o["limit"], seed=ctx.seed, held=o["held"])

    def share(part: float) -> int:
        return max(1, round(part * ctx.config.steps))

    plan = MarkingPlan(
        layer=DistortionLayer(BANKS[o["bank"]]),
        # Bits first, on a fixed batch and without distortions: with all pictures at once they are not found, and with
        # distortions neither. The last gate opens by itself, so that every run ends with the picture's loss in force.
        stages=[
            Stage("data", accuracy=0.9, patience=share(0.3)),
            Stage("distortions", wait=share(0.05), accuracy=0.9, patience=share(0.2), ramp=share(0.2)),
            Stage("fidelity", wait=share(0.1), accuracy=0.8, patience=share(0.2), ramp=share(0.2)),
        ],
        fixed_start=True,
        critic=Critic(16, kind="classifier", lr=1e-4) if original else None,
    )  # fmt: skip
    facts = {"preset": o["preset"], "bank": o["bank"], "form": o["form"]}
    return marking_job(ctx, HiddenNet(**sizes, **weights), train, test, plan, slug="hidden", facts=facts)


RECIPE = Recipe(
    name="hidden",
    about="HiDDeN: message planes into a convolutional embedder, averaged maps out of the reader.",
    build=build,
    config=TrainConfig(
        steps=1200, batch_size=16, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=0.02, clip=1.0,
        log_every=25, validate_every=60, checkpoint_every=60,
    ),
    judged_by="kept",
    reach={"identity 0": "0.99 at a PSNR of 33 dB", "mean": "0.85"},
    options={
        "preset": "cpu", "form": "original", "scale": 0.06, "image_weight": 0.7, "bits": 0, "bank": "values",
        "source": 256, "limit": 0, "held": 0,
    },
)  # fmt: skip
