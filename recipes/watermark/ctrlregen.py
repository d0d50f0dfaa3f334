"""CtrlRegen's controls (picture tokens and edges) for the scenes model, trained on clean renders.

    vestige learn recipes/watermark/ctrlregen --set pipeline=src/vestige/weights/scenes_text2image

The text-to-image model and the picture encoder stay frozen. The controls are written as controls.safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vestige.core.errors import InputError
from vestige.core.files import write_atomic
from vestige.data.scenes import render_pack
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.nn.text import token_ids
from vestige.watermark.ctrlregen import CtrlRegen

OPTIONS: dict[str, Any] = {
    "pipeline": "src/vestige/weights/scenes_text2image", "scenes": 6000, "size": 32, "low": 50, "high": 100,
    "drop": 0.5,
}  # fmt: skip
HELD_OUT = 256


def build(ctx: RecipeContext) -> Job:
    o = ctx.options
    model = load_pipeline(o["pipeline"])
    if not isinstance(model, TextToImage):
        raise InputError(f"{o['pipeline']} is no pipeline of ours or of Stable Diffusion 1 or 2.")
    system = CtrlRegen(model, thresholds=(float(o["low"]), float(o["high"])))
    pack = render_pack(int(o["scenes"]) + HELD_OUT, int(o["size"]), ctx.seed, n_objects=1)
    pictures = torch.from_numpy(pack.images)
    ids = token_ids(model.tokenizer, pack.fields["caption"])
    empty = token_ids(model.tokenizer, [""])

    def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(HELD_OUT, len(pictures), (ctx.config.batch_size,), generator=generator)
        # Removal runs without the picture's caption, so half of the training does too.
        dropped = torch.rand(len(chosen), generator=generator) < float(o["drop"])
        return pictures[chosen], torch.where(dropped[:, None], empty, ids[chosen])

    def step(module: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(module, CtrlRegen)
        return {"loss": module.loss(batch[0].float() / 255, batch[1], generator)}

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, CtrlRegen)
        held = pictures[:HELD_OUT].float() / 255
        with torch.no_grad():
            loss = module.loss(held, empty.expand(HELD_OUT, -1), torch.Generator().manual_seed(0))
        return {"loss": float(loss)}

    def save(module: nn.Module, out: Path) -> None:
        from safetensors.torch import save as dump

        assert isinstance(module, CtrlRegen)
        state = {name: value.detach().cpu().contiguous() for name, value in module.controls().items()}
        write_atomic(out / "controls.safetensors", dump(state))

    return Job(
        model=system, step=step, batches=batches, validate=validate, save=save,
        parameters=[p for p in system.parameters() if p.requires_grad],
    )  # fmt: skip


RECIPE = Recipe(
    name="watermark/ctrlregen",
    about="Semantic and spatial controls that hold a regeneration from clean noise to the picture.",
    build=build,
    config=TrainConfig(
        steps=3000, batch_size=32, lr=3e-4, weight_decay=0.01, warmup=100, ema=0.995, validate_every=500
    ),
    reach={"loss": "below that of the model without controls"},
    options=OPTIONS,
)
