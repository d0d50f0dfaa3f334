"""The original and the reference: training from fresh weights, with the loop that erasers use."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples


def train(fresh: nn.Module, samples: Samples, tuning: Tuning) -> nn.Module:
    """A trained copy of ``fresh`` by the task's loss. Raises UsageError when training diverges."""
    tuned = tune(fresh, [Phase(samples, fit)], tuning)
    if tuned.stopped:
        raise UsageError(f"Training did not converge: {tuned.stopped}; lower the rate.")
    return tuned.model


def retrain(problem: ForgetProblem, seed: int | None = None) -> nn.Module:
    """The gold reference: the recipe of the original on the retained samples alone, from other initial weights."""
    seed = problem.seed + 1000 if seed is None else seed
    fresh, tuning = problem.fresh(seed), replace(problem.training, seed=seed)
    if problem.mask is None:
        return train(fresh, problem.retain, tuning)
    with torch.no_grad():  # a sparse original is compared with a retrained model of the same sparsity
        for name, parameter in fresh.named_parameters():
            if name in problem.mask:
                parameter.mul_(problem.mask[name])
    return problem.tune([Phase(problem.retain, fit)], tuning, fresh).model
