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

    Sequences (said N×L×K, class numbers N×L, those below 0 left out): mean over all places that count; with "none" and
    "sum" over the means of the samples.

    Raises InputError when labels are negative or beyond the outputs.

    >>> round(float(task_loss(torch.zeros(2, 4), torch.tensor([0, 3]))), 3)
    1.386
    """
    if targets.dtype in (torch.int64, torch.int32):
        if said.ndim == 3 and targets.ndim == 2:
            return _sequence_loss(said, targets, reduction)
        if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= said.shape[1]):
            raise InputError(
                f"Labels lie in {int(targets.min())}…{int(targets.max())}, the model has {said.shape[1]} outputs; "
                "check the label file or the model."
            )
        return F.cross_entropy(said, targets.long(), reduction=reduction)
    each = (said.flatten(1) - targets.reshape(len(targets), -1).to(said.dtype)).abs().mean(1)
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


def _sequence_loss(said: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if said.shape[:2] != targets.shape or int(targets.max()) >= said.shape[2]:
        raise InputError(f"Targets {tuple(targets.shape)} do not fit outputs {tuple(said.shape)}; check the model.")
    counted = targets >= 0
    if reduction == "mean":
        return F.cross_entropy(said[counted], targets[counted].long())
    each = F.cross_entropy(said.flatten(0, 1), targets.clamp(min=0).flatten().long(), reduction="none").view_as(targets)
    means = (each * counted).sum(1) / counted.sum(1).clamp(min=1)
    return means if reduction == "none" else means.sum()


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
