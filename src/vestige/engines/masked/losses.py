"""How predictions are compared with targets; all reduce the last dimension and leave one value for each token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the channels: ...×C, ...×C -> ..."""
    return (prediction - target).square().mean(-1)


def smooth_l1(prediction: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """d²/2β where |d| < β, |d| - β/2 elsewhere, mean over the channels."""
    return F.smooth_l1_loss(prediction, target, reduction="none", beta=beta).mean(-1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-Σ_c t_c log softmax(logits)_c for target distributions, or for int64 class indices of one dimension less."""
    log_p = logits.log_softmax(-1)
    if target.dtype == torch.int64:
        return -log_p.gather(-1, target[..., None]).squeeze(-1)
    return -(target * log_p).sum(-1)


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2·cos(prediction, target), between 0 and 4."""
    return 2 - 2 * F.cosine_similarity(prediction, target, dim=-1)


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ w·v / Σ w over all tokens of all images; the plain mean without weights, 0 when every weight is 0."""
    if weights is None:
        return values.mean()
    weights = weights.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)
