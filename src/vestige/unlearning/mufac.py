"""Identity-unlearning benchmark: forget people, keep a task whose classes have nothing to do with who they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.identity_task import IdentityTask
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.problem import ForgetProblem, group_problem
from vestige.engines.forgetting.samples import Samples
from vestige.metrics.unlearning import mia_forget_vs_test, nomus

#: Published on MUFAC, multi-class: test accuracy A, M, NoMUS.
PUBLISHED = {
    "original": (0.5951, 0.2136, 0.5839),
    "retrain": (0.4880, 0.0445, 0.6995),
    "FT": (0.6055, 0.2129, 0.5898),
    "CF-3": (0.5900, 0.2126, 0.5824),
    "NegGrad": (0.4048, 0.0485, 0.6539),
    "UNSIR": (0.5925, 0.1990, 0.5972),
    "SCRUB": (0.5984, 0.1415, 0.6577),
    "Advanced NegGrad": (0.5633, 0.0953, 0.6863),
}


def samples_of(task: IdentityTask, where: np.ndarray) -> Samples:
    """The pictures at those positions with their classes."""
    return Samples(torch.from_numpy(task.images[where]), torch.from_numpy(task.labels[where]))


def identity_problem(model: nn.Module, task: IdentityTask, **more: Any) -> tuple[ForgetProblem, Samples]:
    """The problem of forgetting the persons of the part "forget", tested on the persons of "test"; and the unseen."""

    def samples(where: np.ndarray) -> Samples:
        return samples_of(task, where)

    known = np.concatenate([task.where("forget"), task.where("retain")])
    people = task.persons[task.where("forget")]
    problem = group_problem(
        model,
        samples(known),
        task.persons[known],
        sorted(set(people.tolist())),
        test=samples(task.where("test")),
        **more,
    )
    return problem, samples(task.where("unseen"))


@dataclass(frozen=True)
class Mufac:
    """Utility, forgetting and NoMUS = λ·A + (1 − λ)(1 − 2M) of a model.

    A: accuracy on the test persons. M = |a − 0.5|, a the accuracy of a logistic regression that tells forgotten from
    unseen persons by their loss (equally many, mean of ``splits`` stratified shuffles); the published column "MIA" is
    M. M hides a direction: "loss gap", mean loss on the unseen less that on the forgotten, is positive for memory and
    negative for over-forgetting. With few persons look at the interval: ``draws`` bootstrap draws of persons' losses.
    A retrained model has less data, so NoMUS alone may prefer not forgetting: read A and M too.

    Source: Towards Machine Unlearning Benchmarks: Forgetting the Personal Identities in Facial Recognition Systems,
    AAAI 2024 PPAI workshop. Shuffles instead of folds are this implementation's.
    """

    slug: ClassVar[str] = "mufac"
    weight: float = 0.5
    splits: int = 10
    draws: int = 0
    seed: int = 0

    def measure(self, model: nn.Module, problem: ForgetProblem, unseen: Samples) -> dict[str, float]:
        """{"A", "attack", "M", "NoMUS", "loss gap", "A forget"} and, with draws, "M low" and "M high" (90 %)."""
        if problem.test is None:
            raise UsageError("The benchmark needs test persons.")
        forget = say(model, problem.train.take(problem.forget_idx))
        gone, new = forget.losses, say(model, unseen).losses
        assert gone is not None
        assert new is not None
        utility = say(model, problem.test).accuracy
        attack = mia_forget_vs_test(gone, new, splits=self.splits, seed=self.seed)
        row = {
            "A": utility, "attack": attack, "M": abs(attack - 0.5), "NoMUS": nomus(utility, attack, self.weight),
            "loss gap": float(new.mean() - gone.mean()), "A forget": forget.accuracy,
        }  # fmt: skip
        if self.draws:
            draw = rng(self.seed, "mufac bootstrap")
            found = [
                abs(mia_forget_vs_test(draw.choice(gone, len(gone)), draw.choice(new, len(new)), splits=3) - 0.5)
                for _ in range(self.draws)
            ]
            row |= {"M low": float(np.quantile(found, 0.05)), "M high": float(np.quantile(found, 0.95))}
        return row
