"""Problems small enough to solve in a blink: blobs of colour, a network of three layers."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem, class_problem, random_problem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import train

CLASSES = 4


class ToyNet(nn.Module):
    """Images N×3×8×8 -> logits N×outputs."""

    def __init__(self, outputs: int = CLASSES) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x - 0.5).mean((2, 3)))


def pictures(n: int, seed: int, noise: float = 170.0) -> Samples:
    """uint8 pictures of one of four colours under noise, with their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    colours = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200], [170, 170, 60]], dtype=torch.float32)
    shade = colours[labels][:, :, None, None]
    images = shade + noise * torch.randn(n, 3, 8, 8, generator=generator)
    return Samples(images.clamp(0, 255).to(torch.uint8), labels)


TRAINING = Tuning(epochs=10, lr=0.05, batch_size=32, schedule="onecycle")


@cache
def trained(outputs: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return train(ToyNet(outputs), pictures(160, 0), TRAINING)


def toy_problem(kind: str = "class") -> ForgetProblem:
    """Forget class 1, or a random tenth."""
    more = {"val": pictures(40, 2), "training": TRAINING, "build": ToyNet, "seed": 0}
    if kind == "class":
        return class_problem(trained(), pictures(160, 0), 1, test=pictures(60, 1), **more)
    return random_problem(trained(), pictures(160, 0), 0.1, test=pictures(60, 1), **more)
