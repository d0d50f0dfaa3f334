"""Standard erasers that take one step from second-order statistics instead of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vestige.engines.forgetting.fisher import flat, importance, mean_gradient, sample_gradients, unflat, woodfisher
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.nn.access import head_name


def masked(problem: ForgetProblem, name: str, change: Tensor) -> Tensor:
    """The change of a parameter, 0 where the problem has pruned it."""
    return change if problem.mask is None or name not in problem.mask else change * problem.mask[name]


@dataclass(frozen=True)
class Influence:
    """θ_u = θ_o + α·F⁻¹v,  v = (1/N)[Σ_{D_f} g − (N_f/N_r) Σ_{D_r} g]: the step that removing D_f would cause.

    Subtracting a training sample moves θ along +F⁻¹ of its gradient; F⁻¹v comes from the WoodFisher recursion over
    ``samples`` retained samples. Running statistics stay. Source: Model Sparsity Can Simplify Machine Unlearning,
    NeurIPS 2023.
    """

    slug: ClassVar[str] = "influence"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    alpha: float = 5.0
    samples: int = 1000

    def erase(self, problem: ForgetProblem) -> nn.Module:
        model, forget, retain = problem.copy(), problem.forget, problem.retain
        names = [name for name, _ in model.named_parameters()]
        share = len(forget) / (len(forget) + len(retain))
        v = share * (flat(mean_gradient(model, forget), names) - flat(mean_gradient(model, retain), names))
        some = retain.sample(self.samples, problem.seed)
        rows = (row for batch in sample_gradients(model, some) for row in flat(batch, names, batched=True))
        step = unflat(woodfisher(rows, v, len(some)), model, names)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                change = self.alpha * step[name]
                parameter.add_(masked(problem, name, change))
        return model


@dataclass(frozen=True)
class FisherForget:
    """θ_i ← θ_i + ε,  ε ~ N(0, σ²),  σ = α·F_i^(−1/4): noise where the retained data does not hold a weight in place.

    F: Fisher diagonal on ``samples`` retained samples. where: "head" or "all". A forgotten class gets ``emphasis``
    times the noise on its own output. σ is at most the spread of its layer's weights times ``limit``. Source: Eternal
    Sunshine of the Spotless Net, CVPR 2020.
    """

    slug: ClassVar[str] = "fisher_forget"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    alpha: float = 1e-3
    where: str = "head"
    emphasis: float = 10.0
    limit: float = 1.0
    samples: int = 2000

    def erase(self, problem: ForgetProblem) -> nn.Module:
        model = problem.copy()
        fisher = importance(model, problem.retain_sample(self.samples))
        last = head_name(model)
        generator = torch.Generator().manual_seed(problem.seed + 17)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                in_head = name.rpartition(".")[0] == last
                if self.where == "head" and not in_head:
                    continue
                sigma = self.alpha * fisher[name].clamp(min=1e-12) ** -0.25
                most = self.limit * (float(parameter.std()) if parameter.numel() > 1 else float(parameter.abs()))
                sigma = sigma.clamp(max=most)
                if in_head and problem.classes:
                    sigma[list(problem.classes)] *= self.emphasis
                noise = torch.randn(parameter.shape, generator=generator).to(parameter.device) * sigma
                parameter.add_(masked(problem, name, noise))
        return model
