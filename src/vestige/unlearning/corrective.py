"""Corrective unlearning: undo manipulated training data of which only a part was found.

What the eraser may keep still holds the undetected rest, so retraining on it teaches the manipulation again. The eraser
here dampens the weights that the known part uses, over a grid of strengths, and picks one without any oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.data.poisons import stamp, visible
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.fisher import importance
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.unlearning.ssd import damp

#: The published grid: α, and λ as multiples of α.
ALPHAS = (0.1, 1.0, 10.0, 50.0, 100.0, 500.0, 1e3, 1e4, 1e5, 1e6)
LAMBDAS = (0.1, 0.5, 1.0, 5.0, 10.0)


def selection_score(model: nn.Module, problem: ForgetProblem) -> float:
    """What hyper-parameters are chosen by: (accuracy on retain-validation + 1 − agreement with the labels of S_f) / 2.

    Retain-validation: the problem's validation samples, which may be manipulated like the training set; without them
    500 of the retained samples. Knows neither the clean labels of S_f nor the rest of S_m.
    """
    kept = problem.val if problem.val is not None else problem.retain_sample(500)
    return (say(model, kept).accuracy + 1 - say(model, problem.forget).accuracy) / 2


@dataclass(frozen=True)
class Corrective:
    """Selective Synaptic Dampening over its published grid, the best by `selection_score`.

    alphas: the grid of α; lambdas: λ as multiples of α. Strengths that choose no weight, or leave a network whose
    output is not finite, are passed over. per_sample: squares of single gradients in place of those of batch means,
    which are published and what the grid is made for. Raises UsageError when no strength is left.

    Source: Corrective Machine Unlearning, TMLR 2024; the dampening: Selective Synaptic Dampening, AAAI 2024.
    """

    slug: ClassVar[str] = "corrective"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain", "statistics"})
    alphas: tuple[float, ...] = ALPHAS
    lambdas: tuple[float, ...] = LAMBDAS
    per_sample: bool = False
    batch_size: int = 32
    most: int | None = None

    def candidates(self, problem: ForgetProblem) -> Iterator[tuple[dict[str, float], nn.Module]]:
        """Every strength of the grid that changes something: ({"alpha", "lam"}, model)."""
        how: dict[str, Any] = {"per_sample": self.per_sample, "batch_size": self.batch_size}
        everything = problem.importance_of_all(most=self.most, **how)
        known = importance(problem.model, problem.forget, **how)
        for alpha in self.alphas:
            if not any(bool((known[n] > alpha * everything[n]).any()) for n in known):
                continue
            for times in self.lambdas:
                model = problem.copy()
                with torch.no_grad():
                    for name, parameter in model.named_parameters():
                        parameter.copy_(damp(parameter, everything[name], known[name], alpha, times * alpha))
                yield {"alpha": alpha, "lam": times * alpha}, model

    def chosen(
        self, problem: ForgetProblem, score: Callable[[nn.Module], float] | None = None
    ) -> tuple[dict[str, float], nn.Module]:
        """The best strength and its model by ``score`` (`selection_score` by default; an oracle's for an upper
        bound)."""
        best: tuple[float, dict[str, float], nn.Module] | None = None
        for strength, model in self.candidates(problem):
            if not np.isfinite(say(model, problem.forget.take(range(1))).outputs).all():
                continue
            value = selection_score(model, problem) if score is None else score(model)
            if best is None or value > best[0]:
                best = (value, strength, model)
        if best is None:
            raise UsageError("No strength of the grid dampens any weight; lower the alphas.")
        return best[1], best[2]

    def erase(self, problem: ForgetProblem) -> nn.Module:
        return self.chosen(problem)[1]

    @staticmethod
    def measure(model: nn.Module, affected: Samples, clean: Samples) -> dict[str, float]:
        """{"corrected": accuracy on the affected domain with true labels, "retained": accuracy on clean test
        samples}."""
        return {"corrected": say(model, affected).accuracy, "retained": say(model, clean).accuracy}


def triggered(test: Samples, target: int = 0, side: int = 3, least: float = 0) -> Samples:
    """Test pictures with the trigger and their true labels. Those of the target class are left out: they would be
    called right without any correction. So are those that the trigger changes by fewer than ``least`` grey levels (see
    `visible`): they are not manipulated. Raises UsageError when no picture is left."""
    chosen = (test.labels != target).nonzero()[:, 0]
    if not len(chosen):
        raise UsageError(f"All test samples are of the target class {target}.")
    chosen = chosen[torch.from_numpy(visible(test.inputs[chosen].numpy(), least, side))]
    if not len(chosen):
        raise UsageError(f"The trigger changes no test picture by {least:g} grey levels.")
    kept = test.take(chosen)
    return Samples(torch.from_numpy(stamp(kept.inputs.numpy(), side)), kept.labels)


def trigger_success(model: nn.Module, affected: Samples, target: int = 0) -> float:
    """Share of triggered pictures that are called the target."""
    return float((say(model, affected).outputs.argmax(1) == target).mean())
