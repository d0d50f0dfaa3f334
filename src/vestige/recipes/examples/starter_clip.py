"""The image-text model of the starter kit: a small CLIP of transformers for its six kinds of objects. Needs no data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vestige.data.starter_set import CLASSES, SIDE, starter_set
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import Batch, TrainConfig
from vestige.nn.image_text import ImageText, save_image_text, small_clip
from vestige.nn.text import build_tokenizer, token_ids

CAPTIONS = tuple(f"a photo of a {name}" for name in CLASSES)


def build(ctx: RecipeContext) -> Job:
    """Pictures of the kit's retain part with a caption each; the test part validates."""
    tokenizer = build_tokenizer(CAPTIONS, 10)
    pictures, named = {}, {}
    for part in ("retain", "test"):
        pack = starter_set(part)
        pictures[part] = torch.from_numpy(pack.images).float() / 255
        named[part] = torch.tensor([CLASSES.index(pack.class_names[label]) for label in pack.labels])
    ids = token_ids(tokenizer, CAPTIONS)
    model = ImageText(small_clip(tokenizer, size=SIDE, width=48, depth=2, projection=32, scale=20.0), tokenizer)

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(pictures["retain"]), (ctx.config.batch_size,), generator=generator)
        return pictures["retain"][rows], ids[named["retain"][rows]]

    def step(network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(network, ImageText)
        flip = torch.rand(len(batch[0]), 1, 1, 1, generator=generator, device=batch[0].device) < 0.5
        return {"loss": network.loss(torch.where(flip, batch[0].flip(3), batch[0]), batch[1])}

    def validate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, ImageText)
        device = next(network.parameters()).device
        scores = network.images(pictures["test"].to(device)) @ network.of_tokens(ids.to(device)).T
        return {"named": float((scores.argmax(1).cpu() == named["test"]).float().mean())}

    def save(network: nn.Module, out: Path) -> None:
        assert isinstance(network, ImageText)
        save_image_text(network, out / "clip")

    return Job(model, step, batches, validate=validate, save=save)


RECIPE = Recipe(
    name="starter_clip",
    about="The starter kit's CLIP of six kinds of objects, to fool and to repair.",
    build=build,
    config=TrainConfig(
        steps=600, batch_size=24, lr=3e-3, warmup=20, weight_decay=0.05, log_every=30, validate_every=30,
        checkpoint_every=100,
    ),
    reach={"named": "above .5 of the test pictures by the nearest caption (chance: .17)"},
    judged_by="named",
)  # fmt: skip
