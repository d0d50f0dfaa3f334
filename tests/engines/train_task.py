"""A small training task with everything that must survive a kill: dropout, batch norm, a moving average, a teacher,
accumulation, noise in the step, log and checkpoint intervals that do not divide each other.

Run as a program it trains and kills itself where it is told, ``train_task.py OUT STEP [save]``, or trains in two
processes, ``train_task.py OUT parallel``.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.engines.ema import EMA
from vestige.engines.train import TrainConfig, Trainer

STEPS = 40
CONFIG = TrainConfig(
    steps=STEPS, lr=0.02, ema=0.9, accumulate=2, log_every=6, checkpoint_every=7, validate_every=16, clip=0.5, seed=3,
)  # fmt: skip


class Net(nn.Module):
    """Labels are the sign of a product; the network is larger than one vector register and has an odd size."""

    def __init__(self, width: int = 37) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(24, 6, generator=generator)
    return x, x[:, :1] * x[:, 1:2]


def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    x, y = batch
    noisy = x + 0.05 * torch.randn(x.shape, generator=generator)
    error = model(noisy) - y
    return {"loss": error.square().mean(), "absolute": error.abs().mean()}


def validate(model: nn.Module) -> dict[str, float]:
    x, y = batches(0, torch.Generator().manual_seed(9))
    torch.rand(3)  # a validation that draws numbers must not change the training
    return {"error": float((model(x) - y).square().mean())}


def trainer(out: str | Path, config: TrainConfig = CONFIG, after: Any = None, **options: Any) -> Trainer:
    """The task; ``after`` is called with the number of updates done."""
    model = options.pop("model", None) or Net()
    teacher = EMA(model, 0.8, warm=False)

    def on_step(done: int, model: nn.Module) -> None:
        teacher.update(model, done)
        if after is not None:
            after(done)

    return Trainer(
        model, step, batches, config, out=out, validate=validate, extra={"teacher": teacher}, on_step=on_step,
        device="cpu", quiet=True, **options,
    )  # fmt: skip


def regression(out: Path, config: TrainConfig, **options: Any) -> Trainer:
    """y = x W without noise, which a linear model learns completely."""
    torch.manual_seed(0)
    truth = torch.randn(4, 2)

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        x = torch.randn(32, 4, generator=generator)
        return {"x": x, "y": x @ truth}

    def step(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (model(batch["x"]) - batch["y"]).square().mean()}

    chosen = {"model": nn.Linear(4, 2), "step": step, "batches": batches, "device": "cpu", "quiet": True, **options}
    return Trainer(config=config, out=out, **chosen)


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    if sys.argv[2] == "parallel":
        trainer(out, replace(CONFIG, accumulate=1, devices=2)).run()
        return
    at = int(sys.argv[2])

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def after(done: int) -> None:
        if done == at:
            if sys.argv[3:] == ["save"]:  # the new checkpoint is written beside the old one, and never moved into place
                os.replace = die
            else:
                die()

    trainer(out, after=after).run()


if __name__ == "__main__":
    main()
