"""What every training run shares of optimisation: parameter groups, optimisers and learning-rate schedules.

Sources: Decoupled Weight Decay Regularization, ICLR 2019 (AdamW); SGDR: Stochastic Gradient Descent with Warm
Restarts, ICLR 2017 (the cosine); Accurate, Large Minibatch SGD, arXiv 2017 (warm-up).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from vestige.core.errors import UsageError

_NORMS = (
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase, nn.LocalResponseNorm,
)  # fmt: skip


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: those that decay and those that do not.

    Left out of weight decay: biases, everything with fewer than two dimensions (gains, scalars), the parameters of
    normalisation layers, and names in the set ``model.no_weight_decay()`` where a model has that method (tokens,
    position embeddings). A parameter shared by two modules is counted once. Raises UsageError when nothing is
    trainable.

    >>> [len(g["params"]) for g in parameter_groups(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), 0.1)]
    [1, 3]
    """
    named = getattr(model, "no_weight_decay", None)
    exempt = set(named()) if callable(named) else set()
    decay: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{prefix}.{name}" if prefix else name
            plain = parameter.ndim < 2 or name.endswith("bias") or isinstance(module, _NORMS) or full in exempt
            (rest if plain else decay).append(parameter)
    if not decay and not rest:
        raise UsageError(f"{type(model).__name__} has no trainable parameters.")
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]


def make_optimizer(
    parameters: Iterable[nn.Parameter | Mapping[str, Any]],
    name: str = "adamw",
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.05,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum, in PyTorch's fused form where all parameters allow it.

    A group with its own "lr" keeps its ratio to ``lr`` under every schedule (see `set_lr`). Raises UsageError for an
    unknown name.
    """
    groups: list[Any] = [dict(p) if isinstance(p, Mapping) else p for p in parameters]
    if not groups:
        raise UsageError("There are no parameters to train.")
    if not isinstance(groups[0], dict):
        groups = [{"params": groups}]
    for group in groups:
        group["params"] = list(group["params"])  # a generator would be used up by the look at the devices below
    every = [p for g in groups for p in g["params"]]
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in every)
    optimizer: torch.optim.Optimizer
    if name == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)
    elif name == "sgd":
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused)
    else:
        raise UsageError(f"There is no optimizer {name!r}; choose adamw or sgd.")
    for group in optimizer.param_groups:
        group["lr_scale"] = group["lr"] / lr
    return optimizer


def learning_rate(
    step: int, fraction: float, *, lr: float, min_lr: float, warmup: float, steps: int, schedule: str
) -> float:
    """The learning rate of update number ``step`` (from 0), ``fraction`` of the run being done.

    Warm-up is linear, over ``warmup`` steps, or over that fraction of the run when it is below 1. With t in [0, 1]
    the share of the rest that is done: constant: lr; linear: lr + (min_lr - lr) t;
    cosine: min_lr + (lr - min_lr)(1 + cos(pi t)) / 2.

    >>> settings = dict(lr=1.0, min_lr=0.0, warmup=0.1, steps=100, schedule="cosine")
    >>> [round(learning_rate(s, s / 100, **settings), 2) for s in (0, 4, 9, 10, 55, 99)]
    [0.1, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if warmup >= 1:
        warm_share = min(warmup / steps, 1.0)
        ramp = (step + 1) / warmup
    else:
        warm_share = warmup
        ramp = (fraction + 1 / steps) / warmup if warmup else 1.0
    if ramp < 1:
        return lr * ramp
    t = min(max((fraction - warm_share) / (1 - warm_share), 0.0), 1.0) if warm_share < 1 else 0.0
    if schedule == "cosine":
        return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * t)) / 2
    return lr if schedule == "constant" else lr + (min_lr - lr) * t


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the rate ``lr`` times its own ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
