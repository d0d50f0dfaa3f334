"""Settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vestige.core.errors import UsageError


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run. Raises UsageError for a value out of range.

    steps: updates in all. batch_size: for the recipe's ``batches``; examples per device and part of an update.
    warmup: steps, or the fraction of the run when below 1. clip: largest gradient norm. accumulate: batches per update.
    ema: decay of the moving average of the weights (see `EMA`); what is validated and saved is then the average.
    precision: "32", "bf16" (mixed), or "auto": bf16 where the device has units for it. channels_last: that layout for
    the model's weights and batches, made safe for every network (`vestige.nn.layout`). compile: `torch.compile` the
    model's forward. validate_every: steps, 0 only at the end. checkpoint_every: steps. budget_seconds: stop when the
    training time, that of earlier sessions included and validation excluded, is used up. schedule_by: "time" lets the
    learning rate follow the share of the budget used up, or of the steps where that is further; such a run resumes
    where it stopped, but not bit for bit. devices, strategy: as in lightning_fabric ("auto" or "ddp").
    """

    steps: int = 1000
    batch_size: int = 128
    lr: float = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    momentum: float = 0.9
    warmup: int | float = 0.05
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    min_lr: float = 0.0
    clip: float | None = 1.0
    accumulate: int = 1
    ema: float | None = None
    precision: Literal["auto", "32", "bf16"] = "32"
    compile: bool = False
    channels_last: bool = False
    seed: int = 0
    log_every: int = 20
    validate_every: int = 0
    checkpoint_every: int = 200
    budget_seconds: float | None = None
    schedule_by: Literal["step", "time"] = "step"
    devices: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "devices"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("weight_decay", "momentum", "warmup", "min_lr", "validate_every"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")
        for name in ("lr", "clip", "budget_seconds"):
            value = getattr(self, name)
            _check(value is None or 0 < value < math.inf, name, value, "above 0")
        _check(self.ema is None or 0 <= self.ema < 1, "ema", self.ema, "at least 0 and below 1")
        _check(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two values in [0, 1)"
        )
        for name, known in (
            ("optimizer", ("adamw", "sgd")),
            ("schedule", ("cosine", "constant", "linear")),
            ("precision", ("auto", "32", "bf16")),
            ("schedule_by", ("step", "time")),
        ):
            _check(getattr(self, name) in known, name, repr(getattr(self, name)), f"one of {', '.join(known)}")
        plain = self.strategy == "auto" or (self.strategy.startswith("ddp") and "spawn" not in self.strategy)
        _check(plain, "strategy", repr(self.strategy), "auto or ddp (sharded weights cannot resume exactly)")

    def fraction(self, step: int, seconds: float) -> float:
        """The share of the run that is done after ``step`` updates and ``seconds`` of training, in [0, 1]."""
        done = step / self.steps
        if self.schedule_by == "time" and self.budget_seconds is not None:
            done = max(done, seconds / self.budget_seconds)
        return min(done, 1.0)


def _check(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value}; it must be {wanted}.")
