"""CtrlRegen's controls (picture tokens and edges) for the scenes model, trained on clean renders.

    vestige learn ctrlregen

The text-to-image model and the picture encoder stay frozen. Options: pipeline, a diffusers folder, "" for the model of
scenes that comes with vestige; scenes to render, of these sizes of object in turn; size in pixels, 0 for the
model's; low and high, thresholds of the edges; drop, the share of pictures that are shown without their caption;
semantic and spatial, the weights of the controls, 0 to leave one out.

Three quarters of a second of one core for an update, a quarter of an hour in all. Results: ctrlregen.safetensors in the
run's folder, which the claims read and the command takes as ``--set controls=FILE``; the shipped file is a copy of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.data.scenes import SIZES, render_pack
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.nn.text import token_ids
from vestige.watermark.ctrlregen import CtrlRegen
from vestige.watermark.learned import WEIGHTS

OPTIONS: dict[str, Any] = {
    "pipeline": "", "scenes": 6000, "sizes": "medium,large", "size": 0, "low": 50.0, "high": 100.0, "drop": 0.8,
    "semantic": 1.0, "spatial": 1.0, "held_out": 64,
}  # fmt: skip


def build(ctx: RecipeContext) -> Job:
    """The model with fresh controls, renders with their captions, and the diffusion loss."""
    o = ctx.options
    sizes = str(o["sizes"]).split(",")
    if not set(sizes) <= set(SIZES) or int(o["scenes"]) < len(sizes) or not 0 <= float(o["drop"]) <= 1:
        raise UsageError(f"sizes are among {', '.join(SIZES)}, scenes at least one of each, and drop is in [0, 1].")
    folder = Path(o["pipeline"]) if o["pipeline"] else WEIGHTS / "scenes_text2image"
    model = load_pipeline(folder)
    if not isinstance(model, TextToImage):
        raise InputError(f"{folder} is no pipeline of ours or of Stable Diffusion 1 or 2.")
    system = CtrlRegen(
        model, thresholds=(float(o["low"]), float(o["high"])), semantic=float(o["semantic"]),
        spatial=float(o["spatial"]),
    )  # fmt: skip
    held_out = int(o["held_out"])
    size = int(o["size"]) or min(model.latent_shape()[1:]) * system.factor
    each = (int(o["scenes"]) + held_out) // len(sizes)
    packs = [
        render_pack(each, size, ctx.seed, first=i * each, n_objects=1, object_size=kind) for i, kind in enumerate(sizes)
    ]
    order = torch.randperm(each * len(sizes), generator=torch.Generator().manual_seed(ctx.seed))
    pictures = torch.from_numpy(np.concatenate([p.images for p in packs]))[order]
    ids = token_ids(model.tokenizer, [c for p in packs for c in p.fields["caption"]])[order]
    empty = token_ids(model.tokenizer, [""])

    def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(held_out, len(pictures), (ctx.config.batch_size,), generator=generator)
        # Removal runs without the picture's caption, so most of the training does too.
        dropped = torch.rand(len(chosen), generator=generator) < float(o["drop"])
        return pictures[chosen], torch.where(dropped[:, None], empty, ids[chosen])

    def step(module: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(module, CtrlRegen)
        return {"loss": module.loss(batch[0].float() / 255, batch[1], generator)}

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, CtrlRegen)
        device = module.model.device
        held = pictures[:held_out].to(device).float() / 255
        with torch.no_grad():
            generator = torch.Generator(device).manual_seed(0)
            return {"loss": float(module.loss(held, empty.to(device).expand(held_out, -1), generator))}

    def evaluate(module: nn.Module) -> dict[str, float]:
        """The same loss without one control or both."""
        assert isinstance(module, CtrlRegen)
        found = {}
        for name, weights in (("edges alone", (0.0, 1.0)), ("tokens alone", (1.0, 0.0)), ("no controls", (0.0, 0.0))):
            module.semantic, module.spatial = weights
            found[f"loss, {name}"] = validate(module)["loss"]
        module.semantic, module.spatial = float(o["semantic"]), float(o["spatial"])
        return found

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, CtrlRegen)
        module.save(out / "ctrlregen.safetensors")

    return Job(
        model=system, step=step, batches=batches, validate=validate, evaluate=evaluate, save=save,
        parameters=[p for p in system.parameters() if p.requires_grad],
    )  # fmt: skip


RECIPE = Recipe(
    name="ctrlregen",
    about="Semantic and spatial controls that hold a regeneration from clean noise to the picture.",
    build=build,
    config=TrainConfig(
        steps=1100, batch_size=16, lr=8e-4, betas=(0.9, 0.99), weight_decay=0.01, warmup=60, ema=0.99,
        precision="auto", log_every=20, validate_every=55, checkpoint_every=100,
    ),
    reach={"loss": "below 'loss, no controls', which is that of the model alone"},
    options=OPTIONS,
    variants={
        "default": Variant("both controls", seeds=(0, 1, 2)),
        "edges_alone": Variant("trained without the tokens of the picture", {"semantic": 0.0}),
        "tokens_alone": Variant("trained without the edges", {"spatial": 0.0}),
    },
    judged_by="-loss",
)  # fmt: skip
