"""VINE at small size: a one-step U-Net inside an autoencoder embeds, a ConvNeXt reads, blur stands in for editing.

    vestige learn vine
    vestige learn vine --set preset=gpu --set steps=12000 --set batch_size=32 --set precision=auto

Presets: "cpu" (64 pixels) and "gpu" (128 pixels); bits, 0 keeps the preset's 16 or 32. bank "vine" is StegaStamp's set
with the blurs of growing severity; the variant "jpeg_noise" has neither and is what the claim about blur compares with.
VINE-R: ``start`` names the weights of a first run and ``editor`` a diffusers pipeline folder of this package; four
batches in five are then redrawn from the noise level ``noise`` before they are read, with straight=true letting the
gradient pass. Other options as in the recipe maskmark.
"""

from __future__ import annotations

from typing import Any

import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.editing import sdedit
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.engines.diffusion.schedules import grid
from vestige.engines.marking.critic import Critic
from vestige.engines.marking.distort import BANKS, DistortionLayer
from vestige.engines.marking.job import Editing, MarkingPlan, marking_job, training_pictures
from vestige.engines.marking.model import load_marker
from vestige.engines.marking.stages import Stage
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.watermark.vine import VineNet

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "bits": 16, "size": 64, "widths": (8, 16), "unet_widths": (16, 32), "dims": (32, 64, 128),
        "depths": (2, 2, 2), "side": 32, "hidden": 256,
    },
    "gpu": {
        "bits": 32, "size": 128, "widths": (32, 64, 64), "unet_widths": (64, 128, 128), "dims": (32, 64, 128, 256),
        "depths": (2, 2, 4, 2), "side": 64, "hidden": 1024,
    },
}  # fmt: skip


def build(ctx: RecipeContext) -> Job:
    """The networks of the preset, the critic, and the editor where one is named."""
    o = ctx.options
    if o["preset"] not in PRESETS or o["bank"] not in BANKS:
        raise UsageError(
            f"preset is one of {', '.join(PRESETS)} and bank one of {', '.join(BANKS)}; got {o['preset']}, {o['bank']}."
        )
    sizes = PRESETS[o["preset"]] | ({"bits": o["bits"]} if o["bits"] else {})
    train, test = training_pictures(sizes["size"], source=o["source"], limit=o["limit"], seed=ctx.seed, held=o["held"])
    model = VineNet(**sizes, features=o["features"])
    if o["start"]:
        started, _ = load_marker(o["start"], "vine", VineNet)
        model.load_state_dict(started.state_dict())

    def share(part: float) -> int:
        return max(1, round(part * ctx.config.steps))

    # The gates also open by themselves, so that every arm ends with all of its losses in force.
    stages = [
        Stage("data", accuracy=0.9, patience=share(0.3)),
        Stage("distortions", wait=share(0.05), accuracy=0.85, patience=share(0.15), ramp=share(0.25)),
        Stage("fidelity", wait=share(0.1), accuracy=0.8, patience=share(0.2), ramp=share(0.25)),
    ]
    plan = MarkingPlan(
        layer=DistortionLayer(BANKS[o["bank"]], chain=o["chain"]),
        stages=[] if o["start"] else stages,
        critic=Critic(16),
        fixed_start=not o["start"],
        editing=editor(ctx) if o["editor"] else None,
    )
    facts = {"preset": o["preset"], "bank": o["bank"], "editor": bool(o["editor"])}
    return marking_job(ctx, model, train, test, plan, slug="vine", facts=facts)


def editor(ctx: RecipeContext) -> Editing:
    """Redrawing by the pipeline of the option ``editor``: noised to the level ``noise`` and sampled without a prompt.

    Raises UsageError for a foreign pipeline.
    """
    o = ctx.options
    model = load_pipeline(o["editor"])
    if not isinstance(model, TextToImage):
        raise UsageError(f"{o['editor']} is no pipeline of this package; give the pipeline folder of its recipes.")
    model = model.to(ctx.device).eval()

    def redraw(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        levels = grid(model.table, o["edit_steps"])
        denoiser = model.denoiser([""] * len(images))
        return model.decode(sdedit(denoiser, model.encode(images), levels, o["noise"], generator))

    return Editing(redraw, share=0.8, straight=o["straight"])


RECIPE = Recipe(
    name="vine",
    about="VINE: a one-step diffusion embedder trained against blur, the surrogate of generative editing.",
    build=build,
    config=TrainConfig(
        steps=1000, batch_size=16, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=0.02, clip=1.0,
        log_every=25, validate_every=50, checkpoint_every=50,
    ),
    judged_by="kept",
    variants={
        "default": Variant("trained against blur and StegaStamp's set", seeds=(0, 1, 2)),
        "jpeg_noise": Variant("the same with JPEG and noise alone", {"bank": "jpeg_noise"}, seeds=(0, 1, 2)),
    },
    reach={"identity 0": "0.99", "mean": "0.9", "psnr": "32 dB"},
    options={
        "preset": "cpu", "bits": 32, "bank": "vine", "chain": 1, "features": "", "start": "", "editor": "",
        "noise": 0.2, "edit_steps": 20, "straight": False, "source": 256, "limit": 0, "held": 0,
    },
)  # fmt: skip
