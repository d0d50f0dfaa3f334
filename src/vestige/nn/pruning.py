"""Masks of weights to keep: by magnitude or by how much signal flows through them, over all layers together."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError

Mask = dict[str, Tensor]


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers, by parameter name; biases and normalisation are never pruned."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Linear)
    return {
        f"{name}.weight" if name else "weight": part.weight
        for name, part in model.named_modules()
        if isinstance(part, layers)
    }


def _top(scores: Mapping[str, Tensor], keep: float) -> Mask:
    every = torch.cat([s.flatten() for s in scores.values()])
    cut = round((1 - keep) * len(every))
    threshold = every.kthvalue(cut).values if cut > 0 else every.min() - 1
    return {name: (s > threshold).float() for name, s in scores.items()}


def _checked(rate: float) -> None:
    if not 0 <= rate < 1:
        raise UsageError(f"The pruning rate is {rate}; it must be at least 0 and below 1.")


def magnitude_mask(model: nn.Module, rate: float) -> Mask:
    """One-shot: keep the largest |w| of all prunable weights together; 1 keeps, 0 prunes.

    Raises UsageError for a rate outside [0, 1).

    >>> float(magnitude_mask(nn.Linear(2, 1), 0.5)["weight"].sum())
    1.0
    """
    _checked(rate)
    return _top({name: w.detach().abs() for name, w in prunable(model).items()}, 1 - rate)


def synflow_mask(model: nn.Module, rate: float, shape: tuple[int, ...], rounds: int = 100) -> Mask:
    """Keep the weights that carry most of the synaptic flow |w·∂R/∂w|, R = Σ f_{|w|}(1), pruned in many small rounds.

    No data: an image of ones goes through the network of absolute weights in float64, normalisation in eval mode with
    unit statistics; round r keeps (1 − rate)^(r/rounds). shape: C×H×W of the input. Source: Pruning neural networks
    without any data by iteratively conserving synaptic flow, NeurIPS 2020.
    """
    _checked(rate)
    flow = copy.deepcopy(model).double().eval()
    for part in flow.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_running_stats()
    for buffer in ("mean", "std"):  # normalisation of the input would make ones negative
        if isinstance(getattr(flow, buffer, None), Tensor):
            getattr(flow, buffer).fill_(0.0 if buffer == "mean" else 1.0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.abs_()
    weights = prunable(flow)
    ones = torch.ones(1, *shape, dtype=torch.float64, device=next(flow.parameters()).device)
    mask: Mask = {name: torch.ones_like(w, dtype=torch.float32) for name, w in weights.items()}
    for round_ in range(1, rounds + 1):
        said = flow(ones)
        total = getattr(said, "logits", said).sum()
        slopes = torch.autograd.grad(total, list(weights.values()))
        scores = {n: (w.detach() * g).abs() for (n, w), g in zip(weights.items(), slopes, strict=True)}
        mask = _top(scores, (1 - rate) ** (round_ / rounds))
        with torch.no_grad():
            for name, weight in weights.items():
                weight.mul_(mask[name])
    return mask


def apply_mask(model: nn.Module, mask: Mask) -> nn.Module:
    """A copy in which pruned weights are zero."""
    pruned = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in pruned.named_parameters():
            if name in mask:
                parameter.mul_(mask[name].to(parameter))
    return pruned


def density(mask: Mask) -> dict[str, float]:
    """Share of weights kept: "all", and "least" in the emptiest layer (0 means that a layer vanished)."""
    kept = [float(m.mean()) for m in mask.values()]
    total = sum(m.numel() for m in mask.values())
    return {"all": sum(float(m.sum()) for m in mask.values()) / total, "least": min(kept)}
