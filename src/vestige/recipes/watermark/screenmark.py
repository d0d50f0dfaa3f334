"""ScreenMark: a diffuser of messages into overlays and a reader of screenshots, trained on photographs in three stages.

    vestige learn screenmark
    vestige learn screenmark --variant one_stage
    vestige learn screenmark --set preset=gpu --set steps=20000 --set batch_size=64 \\
        --set precision=auto

Presets: "cpu" (64-pixel pattern, 16 bits; all three stages within 15 minutes of one core) and "gpu" (128 pixels, 32
bits). Options: stages "three", or "one" for the same networks trained with everything from the first step, which the
claim compares with; bits, 0 keeps the preset's; alpha, the opacity in 255ths; perceptual, weight of the distance of
deep features (0 without; 1 suits a GPU, on a CPU it triples the time of a step of the last stage); screens, unmarked
ones whose presence is recorded; source, limit as in the recipe maskmark.

colour: the pattern may differ between red, green and blue, as it did in earlier versions; what it says then sits in
colour differences, which JPEG 4:2:0 halves and a grey copy lacks.

Results: screenmark.safetensors in the run's folder. Variants: the method, one stage, and colour patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.data.screens import KINDS, render_screens
from vestige.engines.marking.distort import DistortionLayer, Draw
from vestige.engines.marking.job import MarkingPlan, marking_job, training_pictures
from vestige.engines.marking.model import save_marker
from vestige.engines.marking.stages import Stage, Stages
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.watermark.screenmark import ScreenMark
from vestige.watermark.screenmark_net import ScreenMarkNet

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"bits": 16, "size": 64, "diffuser": 64, "reader": 24},
    "gpu": {"bits": 32, "size": 128, "diffuser": 128, "reader": 48},
}
#: What moves pixels. Scale is left to the reader's search, but for what lies between two scales of its ladder.
IMAGE_LEVEL = (
    Draw("identity"), Draw("crop_resize", 1, 0.965), Draw("crop_resize", 1, 0.965), Draw("resize_back", 1, 0.5),
    Draw("rotate", 0, 1, signed=True), Draw("perspective", 0, 0.02), Draw("overlay", 0, 0.3),
)  # fmt: skip
#: What changes their values.
PIXEL_LEVEL = (
    Draw("identity"), Draw("jpeg", 95, 50), Draw("jpeg", 95, 50, real=True), Draw("noise", 0, 0.03),
    Draw("blur", 0.3, 1), Draw("brightness", 1, 0.7), Draw("brightness", 1, 1.3), Draw("contrast", 1, 0.7),
    Draw("contrast", 1, 1.3), Draw("gamma", 1, 1.3), Draw("quantize", 7, 6), Draw("saturation", 0, 0),
)  # fmt: skip


@dataclass(frozen=True)
class ScreenDistorter(DistortionLayer):
    """Harder in steps: below severity 1/2 what moves pixels, below 1 what changes values, then chains of both."""

    def __call__(
        self, images: Tensor, masks: Tensor, generator: np.random.Generator, *, cover: Any = None, severity: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        if severity >= 1:
            return super().__call__(images, masks, generator, cover=cover)
        bank, begun = (IMAGE_LEVEL, 0.0) if severity < 0.5 else (PIXEL_LEVEL, 0.5)
        return DistortionLayer(bank)(images, masks, generator, cover=cover, severity=2 * (severity - begun))


def build(ctx: RecipeContext) -> Job:
    """The networks of the preset, photographs, and the stages."""
    o = ctx.options
    if o["preset"] not in PRESETS or o["stages"] not in ("three", "one"):
        raise UsageError(
            f"preset is one of {', '.join(PRESETS)} and stages three or one; got {o['preset']} and {o['stages']}."
        )
    sizes = PRESETS[o["preset"]] | ({"bits": o["bits"]} if o["bits"] else {})
    model = ScreenMarkNet(**sizes, alpha=o["alpha"] / 255, perceptual_weight=o["perceptual"], colour=o["colour"])
    train, test = training_pictures(model.size, source=o["source"], limit=o["limit"], seed=ctx.seed, held=o["held"])
    steps = ctx.config.steps
    stages = (
        Stage("screen", wait=steps // 20, accuracy=0.97, patience=steps // 4, ramp=max(1, steps // 10)),
        Stage("distortions", wait=steps // 8, accuracy=0.85, patience=steps // 4, ramp=max(1, steps // 5)),
        Stage("fidelity", wait=steps // 5, ramp=max(1, steps // 5)),
    )
    plan = MarkingPlan(
        layer=ScreenDistorter((*IMAGE_LEVEL, *PIXEL_LEVEL), chain=3),
        stages=stages if o["stages"] == "three" else (),
        zoom=0.25,
    )
    facts = {"preset": o["preset"], "stages": o["stages"], "steps": steps, "batch_size": ctx.config.batch_size}
    job = marking_job(ctx, model, train, test, plan, slug="screenmark", facts=facts)
    if o["stages"] == "three":
        job.on_step = SlowDiffuser(model, job.extra["stages"])

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, ScreenMarkNet)
        module.open = 1.0
        unmarked = presences(ScreenMark(network=module), ctx.seed, o["screens"])
        found = [round(float(v), 4) for v in np.sort(unmarked)[::-1]]
        save_marker(
            out / "screenmark.safetensors", module, "screenmark",
            {"trained on": len(train), "unmarked presence": found, **facts},
        )  # fmt: skip

    job.save = save
    return job


def presences(mark: ScreenMark, seed: int, count: int) -> np.ndarray:
    """Presence scores of unmarked drawn screens of all kinds that need no photographs."""
    kinds = [k for k in KINDS if k != "photos"]
    screens = np.concatenate([render_screens(k, -(-count // len(kinds)), 256, seed + 7) for k in kinds])[:count]
    return np.array([s.presence for s in mark.decode(screens.astype(np.float32) / 255)])


class SlowDiffuser:
    """A tenth of the learning rate for the diffuser once the stage "fidelity" has begun: a tenth of every update."""

    def __init__(self, model: ScreenMarkNet, stages: Stages) -> None:
        self.stages = stages
        self.before = [p.detach().clone() for p in model.diffuser.parameters()]

    @torch.no_grad()
    def __call__(self, done: int, model: nn.Module) -> None:
        assert isinstance(model, ScreenMarkNet)
        slow = self.stages.level("fidelity") > 0
        for before, now in zip(self.before, model.diffuser.parameters(), strict=True):
            if slow:
                now.copy_(before.to(now).lerp(now, 0.1))
            before.copy_(now)


RECIPE = Recipe(
    name="screenmark",
    about="ScreenMark: one overlay for a message over whatever a screen shows, read from screenshots.",
    build=build,
    config=TrainConfig(
        steps=2000, batch_size=32, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=0.02, clip=1.0,
        log_every=50, validate_every=100, checkpoint_every=100,
    ),
    judged_by="kept",
    variants={
        "default": Variant("three stages, pattern and loss in luma", seeds=(0, 1, 2)),
        "one_stage": Variant("the same networks, everything from the first step", {"stages": "one"}, seeds=(0, 1, 2)),
        "colour": Variant("three stages, a pattern in colour and the error of red, green and blue", {"colour": True}),
    },
    reach={"identity 0": "0.97 of a single window at a PSNR of 38 dB", "jpeg 75": "0.93"},
    options={
        "preset": "cpu", "stages": "three", "colour": False, "bits": 0, "alpha": 5, "perceptual": 0.0, "source": 256,
        "limit": 0, "held": 0, "screens": 60,
    },
)  # fmt: skip
