"""The original and the reference: training from fresh weights, with the loop that erasers use."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.engines.forgetting.cost import Cost, measured
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.nn.access import NORMS


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


def usual_training(model: nn.Module) -> Tuning:
    """A recipe to train the architecture from fresh weights with when nobody says how it was trained: 20 epochs, one
    cycle of the rate, mirrored pictures; SGD for networks with batch normalisation, Adam for others."""
    if any(isinstance(part, NORMS) for part in model.modules()):
        return Tuning(20, 0.1, batch_size=64, schedule="onecycle", augment="flip")
    return Tuning(20, 1e-3, optimizer="adam", weight_decay=0.0, batch_size=64, schedule="onecycle", augment="flip")


def expected_cost(problem: ForgetProblem, least: float = 0.4) -> Cost:
    """What `retrain` would take, from a few of its steps: seconds, and peak memory where whole batches were tried.

    least: seconds to try for; a slow network is tried on a few samples only.
    """
    retain, tuning = problem.retain, replace(problem.training, epochs=1)
    enough = min(4 * tuning.batch_size, len(retain))
    fresh, tried = problem.fresh(problem.seed), min(4, len(retain))
    tune(fresh, [Phase(retain.take(range(tried)), fit)], tuning)  # the first steps of a process are slower
    while True:
        with measured() as cost:
            tune(fresh, [Phase(retain.take(range(tried)), fit)], tuning)
        if cost.seconds >= least or tried >= enough:
            break
        tried = min(4 * tried, enough)
    epochs = problem.training.epochs
    peak = cost.peak_mb if tried >= min(tuning.batch_size, len(retain)) else float("nan")
    passed = epochs * len(retain)
    steps = epochs * -(-len(retain) // tuning.batch_size)
    return Cost(cost.seconds * passed / tried, passed, passed, steps, peak)
