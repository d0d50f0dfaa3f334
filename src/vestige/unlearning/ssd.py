"""Selective Synaptic Dampening: forget by shrinking the weights that matter most to what is to be forgotten."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.engines.forgetting.fisher import Output, importance
from vestige.engines.forgetting.problem import ForgetProblem

#: Relative difference below which two ratios of importances are the same but for rounding.
_TIE = 1e-4


@dataclass(frozen=True)
class SSD:
    """θ_i ← β_i·θ_i where I_f[i] > α·I_D[i],  β_i = min(λ·I_D[i] / I_f[i], 1); all other weights stay.

    I_D, I_f: mean squared gradient of the loss over all data (what is to be forgotten included) and over D_f, one value
    per parameter. No gradient step; once I_D is stored, no training data. Running statistics are not touched.

    alpha: smaller forgets more, and results depend on it strongly, so look at a curve. The paper's is 10 (ResNet-18; 5
    for a ViT), but with squares of single gradients I_f ≤ (N/N_f)·I_D, so a D_f of a tenth of the data or more never
    reaches it. None, the default, takes the percentile 100 − log(1 + 100·N_f/N) of I_f / I_D and needs no tuning.
    per_sample: squares of single gradients; otherwise of means over batches, as the published code has it (they depend
    on ``batch_size``, the same for both). importance: "loss", or "output_norm", which needs no labels. most: I_D from
    at most so many samples. Raises UsageError for α or λ not positive, or an α that chooses no weight.

    Source: Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening, AAAI 2024.

    >>> damp(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([20.0, 5.0]), alpha=10.0, lam=1.0)
    tensor([0.1000, 2.0000])
    """

    slug: ClassVar[str] = "ssd"
    alpha: float | None = None
    lam: float = 1.0
    per_sample: bool = True
    importance: Output = "loss"
    batch_size: int = 32
    most: int | None = None

    def __post_init__(self) -> None:
        if (self.alpha is not None and not self.alpha > 0) or not self.lam > 0:
            raise UsageError(f"alpha ({self.alpha}) and lam ({self.lam}) must be positive.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"statistics"} if self.importance == "output_norm" else {"labels", "statistics"})

    def importances(self, problem: ForgetProblem) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(I_D, I_f) by parameter name; I_D is computed once per problem."""
        how = {"per_sample": self.per_sample, "output": self.importance, "batch_size": self.batch_size}
        return (
            problem.importance_of_all(most=self.most, **how),  # type: ignore[arg-type]
            importance(problem.model, problem.forget, **how),  # type: ignore[arg-type]
        )

    def chosen_alpha(self, problem: ForgetProblem, everything: dict[str, Tensor], forget: dict[str, Tensor]) -> float:
        """α itself, or the percentile rule's."""
        if self.alpha is not None:
            return self.alpha
        ratio = torch.cat([(forget[n] / everything[n].clamp(min=1e-30)).flatten() for n in forget])
        percent = 100 - math.log1p(100 * len(problem.forget) / len(problem.train))
        k = min(len(ratio), max(1, round(percent / 100 * len(ratio))))
        found, most = float(ratio.kthvalue(k).values), float(ratio.max()) * (1 - _TIE)
        # Squares of single gradients have I_f / I_D ≤ N / N_f, which many weights may reach: none lies above then.
        below = ratio[ratio < most]
        return float(below.max()) if found >= most and len(below) else found

    def erase(self, problem: ForgetProblem) -> nn.Module:
        everything, forget = self.importances(problem)
        alpha = self.chosen_alpha(problem, everything, forget)
        if not any(bool((forget[n] > alpha * everything[n]).any()) for n in forget):
            most = max(float((forget[n] / everything[n].clamp(min=1e-30)).max()) for n in forget)
            raise UsageError(
                f"No weight is chosen at alpha {alpha:g} (the largest ratio is {most:.3g}); lower it or leave it out."
            )
        model = problem.copy()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(damp(parameter, everything[name], forget[name], alpha, self.lam))
        return model


def damp(theta: Tensor, everything: Tensor, forget: Tensor, alpha: float, lam: float) -> Tensor:
    """β·θ where I_f > α·I_D, θ elsewhere; a weight that matters to nothing (0 > 0 is false) is never chosen."""
    beta = (lam * everything / forget.clamp(min=torch.finfo(forget.dtype).tiny)).clamp(max=1)
    return torch.where(forget > alpha * everything, beta * theta, theta)
