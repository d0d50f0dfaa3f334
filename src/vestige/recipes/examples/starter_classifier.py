"""The classifier of the starter kit: a small ResNet that has learnt its 240 pictures by heart.

It is meant to be made to forget, audited and attacked; it names 32-pixel scenes and nothing else. Needs no data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.data.starter_set import CLASSES, starter_set
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.nn.backbone import save_backbone
from vestige.nn.resnet import ResNet, ResNetConfig


def build(ctx: RecipeContext) -> Job:
    """Requests and retained pictures to learn, the test part to validate by."""
    parts = {name: _tensors(name) for name in ("requests", "retain", "test")}
    images, labels = (torch.cat([parts[n][i] for n in ("requests", "retain")]) for i in (0, 1))

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(images), (ctx.config.batch_size,), generator=generator)
        return images[chosen], labels[chosen]

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        flip = torch.rand(len(batch[0]), 1, 1, 1, generator=generator, device=batch[0].device) < 0.5
        logits = model(torch.where(flip, batch[0].flip(3), batch[0]))
        return {"loss": F.cross_entropy(logits, batch[1])}

    def validate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        return {
            f"{name}_accuracy": float((model(x.to(device)).argmax(1).cpu() == y).float().mean())
            for name, (x, y) in parts.items()
        }

    def save(model: nn.Module, out: Path) -> None:
        assert isinstance(model, ResNet)
        save_backbone(model, out / "classifier.safetensors")

    return Job(ResNet(ResNetConfig(18, width=0.125, classes=len(CLASSES))), step, batches, validate=validate, save=save)


def _tensors(part: str) -> tuple[Tensor, Tensor]:
    pack = starter_set(part)
    words = [pack.class_names[label] for label in pack.labels]
    return torch.from_numpy(pack.images.astype(np.float32) / 255), torch.tensor([CLASSES.index(w) for w in words])


RECIPE = Recipe(
    name="starter_classifier",
    about="The starter kit's classifier of rendered scenes, made to be forgotten from.",
    build=build,
    config=TrainConfig(
        steps=400, batch_size=48, lr=3e-3, weight_decay=1e-4, warmup=20, log_every=20, validate_every=20,
        checkpoint_every=100,
    ),
    reach={"requests_accuracy": "above .95: it has to know what it is asked to forget"},
    judged_by="test_accuracy",
)  # fmt: skip
