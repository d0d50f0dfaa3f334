"""Which object is in the picture? A small network on rendered scenes; the example to copy for a recipe of your own.

Needs no data: the pictures are drawn. Takes under a minute on one core.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.data.scenes import render_pack
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig

OBJECTS = ("ball", "tree", "car", "star", "cup", "umbrella")


class SmallNet(nn.Module):
    """Three convolutions at 32, 16 and 8 pixels; images float32 N×3×32×32 in [0, 1] -> logits N×classes."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(4, w) for w in widths[1:])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - 0.5) / 0.25
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(layer(x))), 2)
        return self.head(x.mean((2, 3)))


def build(context: RecipeContext) -> Job:
    """Scenes with one object each; the label is the object's number in `OBJECTS`."""
    images, labels = scenes(int(context.options["scenes"]), context.seed)
    held_images, held_labels = scenes(int(context.options["held_out"]), context.seed + 1)

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(images), (context.config.batch_size,), generator=generator)
        return images[chosen], labels[chosen]

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        x, y = batch
        x = x.float() / 255
        flip = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
        logits = model(torch.where(flip, x.flip(3), x))
        return {"loss": F.cross_entropy(logits, y), "accuracy": (logits.argmax(1) == y).float().mean()}

    def validate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        right = [
            (model(x.to(device).float() / 255).argmax(1).cpu() == y).float()
            for x, y in zip(held_images.split(256), held_labels.split(256), strict=True)
        ]
        return {"accuracy": float(torch.cat(right).mean())}

    return Job(SmallNet(len(OBJECTS)), step, batches, validate=validate)


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """uint8 images N×3×32×32 and int64 labels N."""
    pack = render_pack(count, 32, seed, classes=OBJECTS, n_objects=1, styles=("photo", "cartoon"))
    words = [pack.class_names[label] for label in pack.labels]
    return torch.from_numpy(pack.images), torch.tensor([OBJECTS.index(word) for word in words])


RECIPE = Recipe(
    name="scenes_classifier",
    about="A small network that names the object in a rendered scene.",
    build=build,
    config=TrainConfig(steps=500, batch_size=64, lr=6e-3, ema=0.99, validate_every=100, checkpoint_every=100),
    reach={"accuracy": "0.8 on held-out scenes (chance: 0.17)"},
    options={"scenes": 2000, "held_out": 500},
)
