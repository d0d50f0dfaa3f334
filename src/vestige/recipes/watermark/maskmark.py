"""MaskMark on photographs: a mark for the whole picture or a region, with a map of where it is.

    vestige learn maskmark
    vestige learn maskmark --set preset=gpu --set steps=12000 --set batch_size=32 \\
        --set lr=5e-4 --set precision=auto

Presets: "cpu" (64 pixels, 16 bits), "gpu" (128 pixels, 32 bits) and "paper" (256 pixels, 32 bits, 100,000 steps of 16
at a rate of 1e-4 there). Options: variant D or ED; bits, 0 keeps the preset's (64 lets the keyed mark carry 32 payload
bits); bank, a name of `vestige.engines.marking.distort.BANKS`; masks "all", or "full" for the network that the local
tests compare with; start, a weights file to fine-tune (the decoder weight is then 0.3 and every stage open). Pictures:
the photos pack, or rendered scenes where there is no data; ``source`` is the side they are cut out of, ``limit`` their
number, 0 all.

Results: maskmark.safetensors in the run's folder. Variants: the method, MaskMark-ED, and full masks only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.data.scenes import render_pack
from vestige.engines.marking.distort import BANKS, DistortionLayer
from vestige.engines.marking.job import MarkingPlan, marking_job, training_pictures
from vestige.engines.marking.masks import MaskSampler
from vestige.engines.marking.model import load_marker
from vestige.engines.marking.stages import Stage
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.watermark.maskmark import MaskMarkNet

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"bits": 16, "size": 64, "base": 16, "reader_base": 16, "levels": 3, "middle": 4, "outside": 8},
    "gpu": {"bits": 32, "size": 128, "base": 32, "reader_base": 64, "levels": 4, "middle": 16, "outside": 64},
    "paper": {"bits": 32, "size": 256, "base": 64, "reader_base": 128, "levels": 4, "middle": 16, "outside": 64},
}


def build(ctx: RecipeContext) -> Job:
    """The network of the preset, its pictures and its stages."""
    o = ctx.options
    if o["preset"] not in PRESETS or o["bank"] not in BANKS or o["masks"] not in ("all", "full"):
        raise UsageError(
            f"preset is one of {', '.join(PRESETS)}, bank one of {', '.join(BANKS)} and masks all or full; "
            f"got {o['preset']}, {o['bank']} and {o['masks']}."
        )
    sizes = {**PRESETS[o["preset"]], "variant": o["variant"]} | ({"bits": o["bits"]} if o["bits"] else {})
    train, test = training_pictures(sizes["size"], source=o["source"], limit=o["limit"], seed=ctx.seed, held=o["held"])
    tuning = bool(o["start"])
    model = MaskMarkNet(**sizes, decoder_weight=0.3 if tuning else o["decoder_weight"])
    if tuning:
        started, _ = load_marker(o["start"], "maskmark", MaskMarkNet)
        model.load_state_dict(started.state_dict())

    def share(part: float) -> int:
        return max(1, round(part * ctx.config.steps))

    # The paper's order. The accuracies guard it, and the gates also open by themselves: every arm ends with all losses.
    stages = [
        Stage("masks", wait=share(0.04), accuracy=0.9, patience=share(0.3)),
        Stage("distortions", wait=share(0.04), accuracy=0.85, patience=share(0.15), ramp=share(0.1)),
        Stage("fidelity", wait=share(0.08), accuracy=0.8, patience=share(0.15), ramp=share(0.25)),
    ]
    kinds = ("full",) if o["masks"] == "full" else ("full", "boxes", "strokes", "segments")
    plan = MarkingPlan(
        layer=DistortionLayer(BANKS[o["bank"]]),
        stages=[] if tuning else stages,
        masks=MaskSampler(kinds, segments=segments(o["segments"], sizes["size"], ctx.seed)),
    )
    facts = {"preset": o["preset"], "bank": o["bank"], "masks": o["masks"], "variant": o["variant"]}
    return marking_job(ctx, model, train, test, plan, slug="maskmark", facts=facts)


def segments(count: int, size: int, seed: int) -> np.ndarray | None:
    """Outlines of the objects of rendered scenes, bool K×size×size; None when count is 0."""
    if not count:
        return None
    masks = np.concatenate(render_pack(count, size, seed, masks=True).fields["masks"])
    return masks[masks.mean((1, 2)) > 0.02]


RECIPE = Recipe(
    name="maskmark",
    about="MaskMark: a learned mark with a map, read from any part of the picture that still carries it.",
    build=build,
    config=TrainConfig(
        steps=1200, batch_size=16, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=0.02, clip=1.0,
        log_every=25, validate_every=60, checkpoint_every=60,
    ),
    judged_by="kept",
    variants={
        "default": Variant("MaskMark-D, trained with masks of all kinds", seeds=(0, 1, 2)),
        "full": Variant("the same network with full masks only", {"masks": "full"}, seeds=(0, 1, 2)),
        "ed": Variant("MaskMark-ED, whose embedder sees the mask", {"variant": "ED"}),
    },
    reach={
        "identity 0": "0.99 at a PSNR of 36 dB (32 bits, 128 pixels)",
        "mean": "0.93",
        "10% of the area: bit_accuracy": "0.90, and 15 points above the network trained with masks=full",
        "25% of the area: iou": "0.85",
    },
    options={
        "preset": "cpu", "variant": "D", "bits": 0, "bank": "maskmark", "masks": "all", "segments": 150, "source": 256,
        "limit": 0, "held": 0, "decoder_weight": 0.2, "start": "",
    },
)  # fmt: skip
