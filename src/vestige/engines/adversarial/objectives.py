"""What an attack wants: a loss to raise for each picture, and a margin that is above 0 when the aim is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.distortions import Chain, compose


class Scores(NamedTuple):
    """loss: (n,), raised by the attack, differentiable. margin: (n,), above 0 when the aim is reached.

    Iterates are compared by margin, and by loss where margins are equal (-inf when there is no aim to reach).
    """

    loss: Tensor
    margin: Tensor


class Objective(Protocol):
    """Scores pictures n×3×H×W in [0, 1].

    chosen: int64 (n,), which of the attacked pictures these are (attacks drop pictures that are done, and repeat one
    for a population), to look up labels. step: number of the iteration, for objectives that draw at random.
    An attribute ``cost`` (1 without it) says how many evaluations of the model one call takes.
    """

    def __call__(self, images: Tensor, chosen: Tensor, step: int) -> Scores: ...


def evaluate(objective: Objective, images: Tensor, chosen: Tensor, step: int) -> Scores:
    """Call an objective and check what it returns; InputError for NaN or infinity, UsageError for other shapes."""
    scores = objective(images, chosen, step)
    n = len(images)
    if tuple(scores.loss.shape) != (n,) or tuple(scores.margin.shape) != (n,):
        raise UsageError(
            f"An objective must return a loss and a margin for each of {n} pictures; "
            f"got {tuple(scores.loss.shape)} and {tuple(scores.margin.shape)}."
        )
    if not torch.isfinite(scores.loss).all() or torch.isnan(scores.margin).any():
        raise InputError(f"The objective is not finite at step {step}; check the model and its input range.")
    return Scores(scores.loss, scores.margin.detach())


def cost_of(objective: Objective) -> int:
    """Evaluations of the model per call."""
    return int(getattr(objective, "cost", 1))


@dataclass(frozen=True)
class Classification:
    """Make a classifier err, or say a chosen class.

    model: pictures -> logits N×K, in evaluation mode. labels: int64 (N,), the true classes or, when ``targeted``, the
    wanted ones. margin: max_{k≠y} z_k − z_y, and z_t − max_{k≠t} z_k when targeted. loss: "cross-entropy", or "margin"
    (Carlini and Wagner, Towards evaluating the robustness of neural networks, IEEE S&P 2017), which does not vanish
    for confident models.

    >>> objective = Classification(lambda x: x.mean((2, 3)), torch.tensor([0]))
    >>> objective(torch.ones(1, 3, 2, 2), torch.tensor([0]), 0).margin.tolist()
    [0.0]
    """

    model: Callable[[Tensor], Tensor]
    labels: Tensor
    targeted: bool = False
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64 or self.loss not in ("cross-entropy", "margin"):
            raise UsageError("A classification aim needs int64 labels (N,) and the loss 'cross-entropy' or 'margin'.")

    def __call__(self, images: Tensor, chosen: Tensor, step: int) -> Scores:
        logits = self.model(images)
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise UsageError(f"A classifier must return logits N×K with K ≥ 2; got {tuple(logits.shape)}.")
        if len(self.labels) <= int(chosen.max()):
            raise UsageError(f"There are {len(self.labels)} labels for picture number {int(chosen.max())}.")
        labels = self.labels.to(chosen.device)[chosen]
        if labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise UsageError(f"Labels must lie in 0 … {logits.shape[1] - 1}; got {int(labels.max())}.")
        own = logits.gather(1, labels[:, None])[:, 0]
        other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        margin = own - other if self.targeted else other - own
        if self.loss == "margin":
            return Scores(margin, margin)
        entropy = F.cross_entropy(logits, labels, reduction="none")
        return Scores(-entropy if self.targeted else entropy, margin)


@dataclass(frozen=True)
class Maximise:
    """Raise any differentiable score of pictures; the aim is reached above ``threshold`` (without one: never).

    score: (pictures, chosen) -> (n,), higher is better; for a distance in features, a detector's output, a likelihood.

    >>> objective = Maximise(lambda x, chosen: x.mean((1, 2, 3)), threshold=0.5)
    >>> objective(torch.ones(1, 3, 2, 2), torch.tensor([0]), 0).margin.tolist()
    [0.5]
    """

    score: Callable[[Tensor, Tensor], Tensor]
    threshold: float | None = None

    def __call__(self, images: Tensor, chosen: Tensor, step: int) -> Scores:
        value = self.score(images, chosen)
        return Scores(value, value - (torch.inf if self.threshold is None else self.threshold))


class Expected:
    """Expectation over transformations: the mean loss and margin over distorted pictures.

    E_t[ℓ(t(x))] with t drawn anew in every step from ``distortions``: pairs (name, strength) or chains of
    `vestige.data.distortions`, or functions (images, seed=...) -> images. Each call takes ``draws`` of them, going
    through all before any is repeated. Include ("identity", 0) to keep the undistorted picture in the mean.
    Raises UsageError for unknown distortions or fewer than one draw. Source: Athalye et al., Synthesizing robust
    adversarial examples, ICML 2018.

    >>> plain = Maximise(lambda x, chosen: x.mean((1, 2, 3)))
    >>> Expected(plain, [("jpeg", 75), ("blur", 1)])(torch.ones(1, 3, 16, 16), torch.tensor([0]), 0).loss.shape
    torch.Size([1])
    """

    def __init__(
        self,
        objective: Objective,
        distortions: Sequence[tuple[str, float] | Chain | Callable[..., Tensor]],
        *,
        draws: int = 4,
        seed: int = 0,
    ) -> None:
        if not distortions or draws < 1:
            raise UsageError("An expectation needs at least one distortion and one draw.")
        self.objective = objective
        self.distortions = [compose([d]) if isinstance(d, tuple) else d for d in distortions]
        self.draws, self.seed = draws, seed
        self.cost = draws * cost_of(objective)

    def __call__(self, images: Tensor, chosen: Tensor, step: int) -> Scores:
        generator = rng(self.seed, "expected", step)
        order = generator.permutation(len(self.distortions))
        total: list[Scores] = []
        for draw in range(self.draws):
            distort = self.distortions[order[draw % len(order)]]
            distorted = distort(images, seed=int(generator.integers(2**31)))
            total.append(self.objective(distorted, chosen, step))
        losses, margins = zip(*total, strict=True)
        return Scores(torch.stack(losses).mean(0), torch.stack(margins).mean(0))
