"""Losses that erasers are made of, in the form the tuning loop takes: (model, batch, batch beside it) -> scalar."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError
from vestige.engines.forgetting.samples import Batch
from vestige.nn.access import outputs


def task_loss(said: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy for class numbers, absolute error for real targets (N, or N×T). Reductions: mean, sum, none (N).

    Raises InputError when labels are negative or beyond the outputs.

    >>> round(float(task_loss(torch.zeros(2, 4), torch.tensor([0, 3]))), 3)
    1.386
    """
    if targets.dtype in (torch.int64, torch.int32):
        if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= said.shape[1]):
            raise InputError(
                f"Labels lie in {int(targets.min())}…{int(targets.max())}, the model has {said.shape[1]} outputs; "
                "check the label file or the model."
            )
        return F.cross_entropy(said, targets.long(), reduction=reduction)
    each = (said.flatten(1) - targets.reshape(len(targets), -1).to(said.dtype)).abs().mean(1)
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


def fit(model: nn.Module, batch: Batch, beside: Batch | None = None) -> Tensor:
    """The task's own loss on the batch."""
    return task_loss(outputs(model, batch.x), batch.labels)


def ascend(model: nn.Module, batch: Batch, beside: Batch | None = None) -> Tensor:
    """Its negative: gradient ascent."""
    return -fit(model, batch)


def kl(target_logits: Tensor, logits: Tensor, temperature: float = 1.0, reduction: str = "mean") -> Tensor:
    """T²·KL(softmax(target/T) ‖ softmax(logits/T)) per sample, averaged over samples (or N of them with "none").

    >>> float(kl(torch.zeros(2, 3), torch.zeros(2, 3)))
    0.0
    """
    p = F.log_softmax(target_logits / temperature, 1)
    q = F.log_softmax(logits / temperature, 1)
    each = (p.exp() * (p - q)).sum(1) * temperature**2
    return each if reduction == "none" else each.mean()
