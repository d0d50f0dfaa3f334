"""The one loop behind every eraser that trains: losses by phase, masks, l1, teachers, clipping, frozen statistics.

A method states its `Phase`s (which samples, which loss, in which epochs); `tune` copies the model, runs them and counts
the cost. Retraining is the same loop from fresh weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.engines.forgetting.cost import count
from vestige.engines.forgetting.samples import Batch, Samples
from vestige.engines.optim import learning_rate
from vestige.nn.access import NORMS
from vestige.nn.layout import channels_last, channels_last_helps, contiguous, safe_strides

#: (model, batch, batch beside it or None) -> scalar to minimise.
Loss = Callable[[nn.Module, Batch, Batch | None], Tensor]


@dataclass(frozen=True)
class Phase:
    """One pass over ``samples`` in every epoch from ``first`` on and before ``last``.

    loss: what to minimise; several losses are minimised in turn on each batch, each by an optimiser of its own.
    lr: a rate, or one for each loss; a phase that states one has optimisers of its own, the others share one.
    beside: samples dealt out next to the main ones, over and over, batch for batch.
    """

    samples: Samples = field(repr=False)
    loss: Loss | Sequence[Loss]
    beside: Samples | None = field(default=None, repr=False)
    lr: float | Sequence[float] | None = None
    first: int = 0
    last: int | None = None
    batch_size: int | None = None

    @property
    def losses(self) -> list[Loss]:
        return [self.loss] if callable(self.loss) else list(self.loss)


@dataclass(frozen=True)
class Tuning:
    """How to train. Defaults: SGD, momentum 0.9, weight decay 5e-4, batches of 256, a constant rate.

    optimizer: "sgd" or "adam". schedule: "constant", "linear", "cosine", or "onecycle" (up for a fifth, down to 0).
    clip: largest norm of the gradient. freeze_bn: normalisation keeps its running statistics (affine weights still
    train); layers that are not trainable keep them anyway. augment: "none", "flip" or "crop_flip". trainable: which
    parameters, by name; None for all.
    """

    epochs: int = 10
    lr: float = 0.01
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    schedule: str = "constant"
    clip: float | None = None
    freeze_bn: bool = False
    augment: str = "none"
    trainable: Callable[[str], bool] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adam"):
            raise UsageError(f"There is no optimizer {self.optimizer!r} here; choose sgd or adam.")
        if self.schedule not in ("constant", "linear", "cosine", "onecycle"):
            raise UsageError(f"schedule is {self.schedule!r}; choose constant, linear, cosine or onecycle.")
        if self.epochs < 0 or not self.lr >= 0 or self.batch_size < 1:
            raise UsageError("A tuning needs epochs ≥ 0, a rate ≥ 0 and batches of at least one sample.")


@dataclass
class Tuned:
    """The trained copy, the mean loss of every epoch, and why it ended early (empty when it did not)."""

    model: nn.Module
    losses: list[float] = field(default_factory=list)
    stopped: str = ""


def tune(
    model: nn.Module,
    phases: Sequence[Phase],
    tuning: Tuning | None = None,
    *,
    mask: Mapping[str, Tensor] | None = None,
    l1: Callable[[int], float] | None = None,
    l1_on: Callable[[str], bool] | None = None,
    teachers: Sequence[nn.Module] = (),
    after_epoch: Callable[[int, nn.Module], bool | None] | None = None,
) -> Tuned:
    """Train a copy of ``model``; the model itself and its teachers are never changed.

    mask: by parameter name, 1 where a weight may change and 0 where it keeps its value (gradients are masked, and what
    momentum and weight decay moved is put back after every step). l1: γ of γ·‖θ‖₁ in each epoch, over the parameters
    ``l1_on`` chooses (all by default). teachers: models the losses call, held in eval mode without gradients and
    counted in the cost. after_epoch: called with the number of the epoch and the model; True ends the training. A
    loss that is not finite ends it too, with the weights at the end of the last good epoch. Returns the model in eval
    mode. Raises UsageError for a mask that fits no parameter, or when nothing is trainable.
    """
    tuning = tuning or Tuning()
    student = safe_strides(copy.deepcopy(model))
    if channels_last_helps(student):
        channels_last(student)
    run = _Run(student, list(phases), tuning, dict(mask or {}), l1, l1_on)
    tuned = Tuned(student)
    flags = [p.requires_grad for p in student.parameters()]
    with ExitStack() as stack:
        stack.enter_context(_counted([student, *teachers]))
        for teacher in teachers:
            stack.enter_context(_frozen(teacher))
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(tuning.trainable is None or tuning.trainable(name))
        run.start()
        safe = _state(student)
        for epoch in range(tuning.epochs):
            value = run.epoch(epoch)
            if value is None:
                student.load_state_dict(safe)
                tuned.stopped = f"the loss is not finite in epoch {epoch + 1}"
                break
            tuned.losses.append(value)
            student.eval()
            if after_epoch is not None and after_epoch(epoch, student):
                tuned.stopped = f"ended after epoch {epoch + 1}"
                break
            safe = _state(student)
    for parameter, flag in zip(student.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
        parameter.grad = None
    contiguous(student).eval()
    return tuned


class _Run:
    """One training: optimisers, masks and the count of steps."""

    def __init__(
        self,
        student: nn.Module,
        phases: list[Phase],
        tuning: Tuning,
        mask: dict[str, Tensor],
        l1: Callable[[int], float] | None,
        l1_on: Callable[[str], bool] | None,
    ) -> None:
        names = dict(student.named_parameters())
        for name, values in mask.items():
            if name not in names or names[name].shape != values.shape:
                raise UsageError(f"The mask has {name!r}, which does not fit a parameter of the model.")
        self.student, self.phases, self.tuning, self.l1, self.l1_on = student, phases, tuning, l1, l1_on
        self.mask = {names[n]: (m.to(names[n]), names[n].detach().clone()) for n, m in mask.items()}
        self.step = 0
        self.total = max(1, sum(self._steps(phase, e) for e in range(tuning.epochs) for phase in phases))

    def _steps(self, phase: Phase, epoch: int) -> int:
        active = phase.first <= epoch and (phase.last is None or epoch < phase.last)
        return math.ceil(len(phase.samples) / (phase.batch_size or self.tuning.batch_size)) if active else 0

    def start(self) -> None:
        trained = [p for p in self.student.parameters() if p.requires_grad]
        self.still = [
            part
            for part in self.student.modules()
            if isinstance(part, NORMS)
            and (self.tuning.freeze_bn or not any(p.requires_grad for p in part.parameters()))
        ]
        if not trained:
            raise UsageError("No parameter is trainable; widen the choice of parameters.")
        self.penalised = [
            p for n, p in self.student.named_parameters() if p.requires_grad and (self.l1_on is None or self.l1_on(n))
        ]
        shared: torch.optim.Optimizer | None = None
        self.optimizers: list[list[torch.optim.Optimizer]] = []
        for phase in self.phases:
            losses = phase.losses
            if phase.lr is None and len(losses) == 1:
                shared = shared or self._optimizer(trained, self.tuning.lr)
                self.optimizers.append([shared])
                continue
            rates = [phase.lr or self.tuning.lr] * len(losses) if not isinstance(phase.lr, Sequence) else phase.lr
            self.optimizers.append([self._optimizer(trained, rate) for rate in rates])

    def _optimizer(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        decay = self.tuning.weight_decay
        group: Any = {"params": parameters, "lr": lr, "base_lr": lr}
        if self.tuning.optimizer == "adam":
            return torch.optim.Adam([group], weight_decay=decay)
        return torch.optim.SGD([group], lr=lr, momentum=self.tuning.momentum, weight_decay=decay)

    def epoch(self, epoch: int) -> float | None:
        """Every active phase once; the mean loss, or None as soon as one is not finite."""
        total, seen = 0.0, 0
        for number, phase in enumerate(self.phases):
            if not self._steps(phase, epoch):
                continue
            seed = (self.tuning.seed * 1009 + epoch) * 31 + number
            size = phase.batch_size or self.tuning.batch_size
            device = next(self.student.parameters()).device
            beside = _endless(phase.beside, size, seed + 7, self.tuning.augment, device) if phase.beside else None
            for batch in phase.samples.batches(
                size, seed=seed, augment=self.tuning.augment, drop_single=True, device=device
            ):
                other = next(beside) if beside is not None else None
                for loss, optimizer in zip(phase.losses, self.optimizers[number], strict=True):
                    value = self._update(loss, optimizer, batch, other, epoch)
                    if value is None:
                        return None
                    total, seen = total + value * len(batch), seen + len(batch)
                self.step += 1
        return total / max(seen, 1)

    def _update(
        self, loss: Loss, optimizer: torch.optim.Optimizer, batch: Batch, other: Batch | None, epoch: int
    ) -> float | None:
        self.student.train()
        for part in self.still:
            part.eval()
        value = loss(self.student, batch, other)
        if not torch.isfinite(value):
            return None
        gamma = self.l1(epoch) if self.l1 is not None else 0.0
        penalty = gamma * sum(p.abs().sum() for p in self.penalised) if gamma else 0.0
        optimizer.zero_grad(set_to_none=True)
        (value + penalty).backward()
        count(backward=len(batch) + (len(other) if other is not None else 0), steps=1)
        for parameter, (keep, _) in self.mask.items():
            if parameter.grad is not None:
                parameter.grad *= keep
        if self.tuning.clip is not None:
            nn.utils.clip_grad_norm_([p for p in self.student.parameters() if p.grad is not None], self.tuning.clip)
        self._set_rate(optimizer)
        optimizer.step()
        with torch.no_grad():
            for parameter, (keep, start) in self.mask.items():
                parameter.copy_(torch.where(keep > 0, parameter, start))
        return float(value.detach())

    def _set_rate(self, optimizer: torch.optim.Optimizer) -> None:
        cycle = self.tuning.schedule == "onecycle"
        shape = "linear" if cycle else self.tuning.schedule
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                self.step,
                min(1.0, self.step / self.total),
                lr=group["base_lr"],
                min_lr=0.0,
                warmup=0.2 if cycle else 0.0,
                steps=self.total,
                schedule=shape,
            )


def _endless(samples: Samples, size: int, seed: int, augment: str, device: torch.device) -> Iterator[Batch]:
    while True:
        yield from samples.batches(size, seed=seed, augment=augment, drop_single=True, device=device)
        seed += 101


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@contextmanager
def _counted(models: Sequence[nn.Module]) -> Iterator[None]:
    def passed(module: nn.Module, args: Any, said: Any) -> None:
        first = args[0] if args else None
        count(forward=len(first) if isinstance(first, Tensor) else 0)

    handles = [model.register_forward_hook(passed) for model in models]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _frozen(teacher: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in teacher.modules()]
    flags = [(p, p.requires_grad) for p in teacher.parameters()]
    teacher.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for p, flag in flags:
            p.requires_grad_(flag)
