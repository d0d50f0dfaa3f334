"""Worst-case forget sets: the training samples whose influence is hardest to erase, by bi-level optimisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.forgetting.cost import count
from vestige.engines.forgetting.evaluate import represent, say
from vestige.engines.forgetting.losses import task_loss
from vestige.engines.forgetting.samples import Samples
from vestige.nn.access import NORMS, outputs
from vestige.nn.simplex import project_capped


@dataclass(frozen=True)
class WorstCase:
    """min_w Σ_i w_i ℓ(θ_u(w); z_i) + γ‖w‖²,  0 ≤ w ≤ 1, Σ w = N_f,  θ_u(w) = argmin_θ Σ_i (1 − w_i) ℓ(θ; z_i).

    w_i = 1: forget i. The forget set wanted is the one still remembered after unlearning. The lower level is a few
    epochs of sign descent θ ← θ − β·sign(∇) from θ_o, β falling linearly to 0 (steps of one size would leave noise that
    favours whole classes); sign has no gradient, so the upper gradient is the direct term ℓ(θ_u; z_i) + 2γw_i, taken in
    eval mode without augmentation. Upper step: w ← P(w − η·g), P the Euclidean projection onto the capped simplex, w
    binarised (top N_f) at the end of every ``every`` rounds. g is divided by its standard deviation, so that η does not
    depend on the number of samples or the scale of the loss. Once w is binary, two samples change places when their
    gradients differ by more than 1/η deviations: an η far below 1 keeps the first round's choice for good.

    rounds, epochs: upper rounds and lower epochs in each. beta, eta: the two rates. easiest: reverse the sign, the
    set easiest to erase. groups: one w for each class or prompt (see `attack`). Sets of several seeds are compared by
    `jaccard`; duplicates are worst cases by construction and `duplicates` lists them.

    Source: Challenging Forgets: Unveiling the Worst-Case Forget Sets in Machine Unlearning, ECCV 2024.
    """

    slug: ClassVar[str] = "worst_case"
    rounds: int = 3
    epochs: int = 1
    beta: float = 1e-3
    eta: float = 2.0
    gamma: float = 1e-4
    every: int = 1
    easiest: bool = False
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rounds, self.epochs, self.every, self.batch_size) < 1:
            raise UsageError("rounds, epochs, every and batch_size must be at least 1.")

    @staticmethod
    def measure(model: nn.Module, samples: Samples, chosen: np.ndarray) -> dict[str, float]:
        """What a model says about a set: "UA", its mean "loss", and the share with a duplicate outside the set.

        For a network retrained without the set, UA near 0 means that the rest teaches it anyway.
        """
        said = say(model, samples.take(chosen))
        return {
            "UA": 1 - said.accuracy, "loss": said.loss, "duplicated": len(duplicates(samples, chosen)) / len(chosen),
        }  # fmt: skip

    def attack(
        self,
        model: nn.Module,
        samples: Samples,
        n: int,
        *,
        groups: np.ndarray | None = None,
        lower: Callable[[nn.Module, np.ndarray], nn.Module] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(positions of the n chosen samples, or numbers of the n chosen groups; w before the last binarising).

        groups: int (N,), the group of each sample; losses are then averaged over groups. lower: (model, w of every
        sample) -> unlearned model, another lower level than fine-tuning (for prompts of a diffusion model, say). Raises
        UsageError for n out of range.
        """
        owner = np.arange(len(samples)) if groups is None else np.unique(groups, return_inverse=True)[1]
        sizes = np.bincount(owner)
        if not 1 <= n < len(sizes):
            raise UsageError(f"Of {len(sizes)} samples or groups 1 to {len(sizes) - 1} can be chosen; got {n}.")
        w = np.full(len(sizes), n / len(sizes))
        soft = w
        for number in range(self.rounds):
            each = w[owner]
            unlearned = self._unlearn(model, samples, each, number) if lower is None else lower(model, each)
            losses = say(unlearned, samples).losses
            assert losses is not None
            g = np.bincount(owner, losses) / sizes
            g = (-g if self.easiest else g) + 2 * self.gamma * w
            soft = project_capped(w - self.eta * g / max(float(g.std()), 1e-12), n)
            w = soft
            if (number + 1) % self.every == 0 and number < self.rounds - 1:
                w = np.zeros_like(soft)
                w[_top(soft, g, n)] = 1.0
        return np.sort(_top(soft, g, n)), soft

    def _unlearn(self, model: nn.Module, samples: Samples, w: np.ndarray, number: int) -> nn.Module:
        """A few epochs of sign descent on Σ (1 − w_i) ℓ_i from the original; running statistics stay."""
        import copy

        student = copy.deepcopy(model).train()
        for part in student.modules():
            if isinstance(part, NORMS):
                part.eval()
        parameters = [p for p in student.parameters() if p.requires_grad]
        stay = torch.from_numpy(1 - w).float()
        numbered = Samples(samples.inputs, samples.labels, None, torch.arange(len(samples)))
        device = parameters[0].device
        steps, done = self.epochs * -(-len(samples) // self.batch_size), 0
        for epoch in range(self.epochs):
            seed = self.seed + 101 * number + epoch
            for batch in numbered.batches(self.batch_size, seed=seed, drop_single=True, device=device):
                each = task_loss(outputs(student, batch.x), batch.labels, "none")
                weights = stay.to(device)[batch.index]
                slopes = torch.autograd.grad((weights * each).sum() / weights.sum().clamp(min=1e-6), parameters)
                count(forward=len(batch), backward=len(batch), steps=1)
                with torch.no_grad():
                    for parameter, slope in zip(parameters, slopes, strict=True):
                        parameter.sub_(self.beta * (1 - done / steps) * slope.sign())
                done += 1
        return student.eval()


def _top(w: np.ndarray, g: np.ndarray, n: int) -> np.ndarray:
    """The n largest weights; equal ones by the smaller gradient."""
    return np.lexsort((g, -w))[:n]


def heuristic(name: str, model: nn.Module, samples: Samples, n: int, seed: int = 0) -> np.ndarray:
    """Sets of n samples that need no optimisation, for comparison.

    "random"; "lowest loss", "highest loss" of the original; "moderate": distance to the own class's mean feature
    nearest to that class's median distance; "herding": samples whose running mean feature stays nearest to the class's.
    Classes keep their shares in the last two. Raises UsageError for another name.
    """
    if name == "random":
        return np.sort(rng(seed, "random set").permutation(len(samples))[:n])
    if name in ("lowest loss", "highest loss"):
        losses = say(model, samples).losses
        assert losses is not None
        order = np.argsort(losses, kind="stable")
        return np.sort(order[:n] if name == "lowest loss" else order[-n:])
    if name not in ("moderate", "herding"):
        raise UsageError(
            f"There is no heuristic {name!r}; choose random, lowest loss, highest loss, moderate or herding."
        )
    features, labels = represent(model, samples), samples.labels.numpy()
    chosen: list[int] = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        want = round(n * len(own) / len(samples))
        x = features[own] - features[own].mean(0)
        chosen += own[_moderate(x, want) if name == "moderate" else _herding(x, want)].tolist()
    rest = np.setdiff1d(np.arange(len(samples)), chosen)  # shares are rounded
    fill = rng(seed, "fill").permutation(rest)[: max(0, n - len(chosen))].tolist()
    return np.sort(np.array((chosen + fill)[:n]))


def _moderate(x: np.ndarray, n: int) -> np.ndarray:
    distance = np.linalg.norm(x, axis=1)
    return np.argsort(np.abs(distance - np.median(distance)), kind="stable")[:n]


def _herding(x: np.ndarray, n: int) -> np.ndarray:
    total, free, order = np.zeros(x.shape[1]), np.ones(len(x), bool), []
    for _ in range(n):
        error = ((total + x) ** 2).sum(1)
        error[~free] = np.inf
        best = int(error.argmin())
        order.append(best)
        free[best] = False
        total += x[best]
    return np.array(order, np.int64)


def jaccard(sets: Sequence[np.ndarray]) -> float:
    """Mean overlap |A ∩ B| / |A ∪ B| of all pairs: how stable a choice is over seeds.

    >>> jaccard([np.array([1, 2]), np.array([2, 3])])
    0.3333333333333333
    """
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    if not pairs:
        raise UsageError("Overlap needs at least two sets.")
    return float(np.mean([len(np.intersect1d(a, b)) / len(np.union1d(a, b)) for a, b in pairs]))


def duplicates(samples: Samples, chosen: np.ndarray) -> np.ndarray:
    """Those of the chosen whose input occurs outside the choice too, byte for byte: the rest teaches them anyway."""
    outside = np.setdiff1d(np.arange(len(samples)), chosen)
    known = {_bytes(samples.inputs[int(i)]) for i in outside}
    return np.array([i for i in chosen if _bytes(samples.inputs[int(i)]) in known], np.int64)


def _bytes(x: Tensor) -> bytes:
    return x.contiguous().numpy().tobytes()
