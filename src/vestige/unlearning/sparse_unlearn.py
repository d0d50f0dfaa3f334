"""Sparsity helps forgetting: prune first, then unlearn; or fine-tune under a shrinking l1 penalty."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import nn

from vestige.core.errors import UsageError
from vestige.core.roles import Unlearner
from vestige.engines.forgetting.evaluate import evaluate
from vestige.engines.forgetting.loop import Phase
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.nn.pruning import apply_mask, density, magnitude_mask, prunable, synflow_mask
from vestige.unlearning.baselines import FineTune

PRUNERS = ("omp", "imp", "synflow")


@dataclass(frozen=True)
class SparseUnlearn:
    """Prune the original to density 1 − rate, train it on all of D under the fixed mask m, then unlearn under m.

    Why: the error of an unrolled-SGD unlearner against exact retraining grows with ‖m ⊙ (θ_t − θ_0)‖, so a sparser mask
    bounds it. pruner: "omp" (one-shot global magnitude), "imp" (magnitude, 20 % of what is left a round, trained after
    each), "synflow" (no data). recover_epochs, recover_lr: the training under the mask. unlearner: any eraser that
    tunes through the problem; fine-tuning by default. Raises UsageError for an unknown pruner or a rate outside [0, 1).

    ``sparse`` gives the problem of the pruned original, to share among unlearners; ``erase`` the forgetting model;
    ``measure`` its row with the density, "least_density" being that of the emptiest layer.

    Source: Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023.
    """

    slug: ClassVar[str] = "sparse_unlearn"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    rate: float = 0.95
    pruner: str = "omp"
    recover_epochs: int = 5
    recover_lr: float = 0.05
    unlearner: Unlearner = field(default_factory=FineTune)

    def __post_init__(self) -> None:
        if self.pruner not in PRUNERS:
            raise UsageError(f"pruner is {self.pruner!r}; choose one of {', '.join(PRUNERS)}.")
        if not 0 <= self.rate < 1:
            raise UsageError(f"The pruning rate is {self.rate}; it must be at least 0 and below 1.")

    def sparse(self, problem: ForgetProblem) -> ForgetProblem:
        """The same problem for the pruned and recovered original; its mask holds for every unlearner."""
        if self.pruner == "imp":
            rates, left = [], 1.0
            while left * 0.8 > 1 - self.rate:
                left *= 0.8
                rates.append(1 - left)
            rates.append(self.rate)
        else:
            rates = [self.rate]
        for rate in rates:
            if self.pruner == "synflow":
                mask = synflow_mask(problem.model, rate, tuple(problem.train.inputs.shape[1:]))
            else:
                mask = magnitude_mask(problem.model, rate)
            pruned = replace(problem, model=apply_mask(problem.model, mask).eval(), mask=mask, statistics={})
            tuning = pruned.tuning(
                lr=self.recover_lr, epochs=self.recover_epochs, schedule="onecycle", augment=problem.training.augment
            )
            problem = replace(pruned, model=pruned.tune([Phase(pruned.train, fit)], tuning).model)
        return problem

    def erase(self, problem: ForgetProblem) -> nn.Module:
        return self.unlearner.erase(self.sparse(problem))

    def measure(self, problem: ForgetProblem, reference: nn.Module | None = None) -> dict[str, float]:
        """UA, RA, TA, MIA … of the sparse forgetting model, and its density."""
        sparse = self.sparse(problem)
        assert sparse.mask is not None
        kept = density(sparse.mask)
        row = evaluate(self.unlearner.erase(sparse), sparse, reference)
        return {**row, "density": kept["all"], "least_density": kept["least"]}


@dataclass(frozen=True)
class L1Sparse:
    """min CE(D_r) + γ_t‖θ‖₁ from θ_o;  γ_t = γ(1 − t/(T − T_0)) for t < T − T_0, then 0 for the last T_0 epochs.

    weights_only: leave normalisation and biases out of ‖θ‖₁ (the published loop has all parameters in it). Source: as
    `SparseUnlearn`.
    """

    slug: ClassVar[str] = "l1_sparse"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    gamma: float = 5e-4
    lr: float = 0.01
    epochs: int = 10
    rest: int = 2
    weights_only: bool = False

    def gamma_at(self, epoch: int) -> float:
        """γ_t.

        >>> [L1Sparse(gamma=1.0, epochs=4, rest=2).gamma_at(t) for t in range(4)]
        [1.0, 0.5, 0.0, 0.0]
        """
        span = max(1, self.epochs - self.rest)
        return self.gamma * (1 - epoch / span) if epoch < span else 0.0

    def erase(self, problem: ForgetProblem) -> nn.Module:
        chosen = set(prunable(problem.model)) if self.weights_only else None
        tuning = problem.tuning(lr=self.lr, epochs=self.epochs)
        return problem.tune(
            [Phase(problem.retain, fit)],
            tuning,
            l1=self.gamma_at,
            l1_on=None if chosen is None else chosen.__contains__,
        ).model
