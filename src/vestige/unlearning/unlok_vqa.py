"""UnLOK-VQA: delete one fact from a vision-language model by a small edit, and look for it inside and from outside.

A defence edits one matrix of one block under a bound on every entry. White-box attacks read the logit lens of the
layers; black-box attacks ask in other words and with other pictures. An attack may name B candidates.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.engines.forgetting.losses import task_loss
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.nn.access import evaluating, outputs

DEFENCES = ("fact_erasure", "empty_response", "error_injection", "head_projection", "max_entropy", "input_rephrasing")
WHITE_BOX = ("head_projection", "probability_delta", "pd2")


def first_words(targets: Tensor) -> Tensor:
    """The first word of each answer, int64 N; labels of a classifier as they are."""
    if targets.ndim == 1:
        return targets
    return targets.gather(1, (targets >= 0).int().argmax(1)[:, None])[:, 0]


def at_answers(said: Tensor, targets: Tensor) -> Tensor:
    """Logits N×V where the answer begins; outputs of a classifier as they are."""
    if said.ndim == 2:
        return said
    return said[torch.arange(len(targets), device=targets.device), (targets >= 0).int().argmax(1)]


def lens_logits(model: Any, x: Tensor, targets: Tensor) -> Tensor:
    """Logit lens where the answer begins: layers×N×V, the last layer being the output. Needs a model with ``states``
    and ``lens`` (see `SmallVLM`); raises UsageError otherwise."""
    if not hasattr(model, "states") or not hasattr(model, "lens"):
        raise UsageError(f"{type(model).__name__} shows no states of its layers, which the logit lens needs.")
    return torch.stack([model.lens(at_answers(h, targets)) for h in model.states(x)])


@dataclass(frozen=True)
class UnlokVqa:
    """Delete facts by constrained tuning of one matrix W: |ΔW| ≤ ``clamp`` everywhere, Adam, until p(answer) < goal.

    defence: "fact_erasure" min log p(answer); "empty_response" and "error_injection" max log p(other answer), which is
    ``instead``; "input_rephrasing" fact erasure over ``rephrased`` too; "head_projection" adds, for every layer of
    ``layers``, max(0, z_answer − z_(k) + margin) with z_(k) the k-th largest logit of the lens; "max_entropy" adds
    −entropy of the lens there. matrix: the name of W, by default the second MLP matrix of the block a third of the way
    up (or the last matrix but one). An edit ends after ``steps`` at the latest, met or not: see `forgotten`.

    Source: Unlearning Sensitive Information in Multimodal LLMs: Benchmark and Attack-Defense Evaluation, TMLR 2024,
    which edits layer 7 of 32; the bound for small networks is wider than its.
    """

    slug: ClassVar[str] = "unlok_vqa"
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    defence: str = "fact_erasure"
    clamp: float = 0.05
    lr: float = 5e-3
    steps: int = 40
    goal: float = 1e-3
    matrix: str = ""
    layers: tuple[int, ...] = ()
    k: int = 10
    margin: float = 1.0
    weight: float = 1.0
    instead: Samples | None = field(default=None, repr=False)
    rephrased: Samples | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.defence not in DEFENCES:
            raise UsageError(f"defence is {self.defence!r}; choose one of {', '.join(DEFENCES)}.")
        if not self.clamp > 0 or self.steps < 1:
            raise UsageError("An edit needs a bound above 0 and at least one step.")

    def erase(self, problem: ForgetProblem) -> nn.Module:
        """A copy of the model with one matrix edited."""
        model = problem.copy()
        facts = problem.forget
        if self.defence == "input_rephrasing" and self.rephrased is not None:
            facts = Samples(
                torch.cat([facts.inputs, self.rephrased.inputs]), torch.cat([facts.labels, self.rephrased.labels])
            )
        batch = facts.batch(torch.arange(len(facts)))
        name = self.matrix or edited_matrix(model)
        matrix = model.get_parameter(name)
        flags = [p.requires_grad for p in model.parameters()]
        model.requires_grad_(False)
        matrix.requires_grad_(True)
        before = matrix.detach().clone()
        optimizer = torch.optim.Adam([matrix], self.lr)
        for _ in range(self.steps):
            loss, met = self._loss(model, batch.x, batch.labels)
            if met:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                matrix.copy_(torch.maximum(torch.minimum(matrix, before + self.clamp), before - self.clamp))
        for parameter, flag in zip(model.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = None
        return model

    def _loss(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, bool]:
        """(loss, whether the objective is met)."""
        inside = self.defence in ("head_projection", "max_entropy")
        lens = lens_logits(model, x, y) if inside else None
        logits = lens[-1] if lens is not None else at_answers(outputs(model, x), y)
        word = first_words(y)
        logp = logits.log_softmax(1).gather(1, word[:, None])[:, 0]
        gone = bool(logp.detach().exp().max() < self.goal)
        if self.defence in ("empty_response", "error_injection"):
            if self.instead is None:
                raise UsageError(f"Defence {self.defence!r} needs the answers to give instead.")
            other = task_loss(outputs(model, self.instead.inputs), self.instead.labels)
            return other, gone and float(other.detach()) < 0.1
        loss = logp.clamp(min=float(np.log(self.goal)) - 2).mean()
        if lens is None:
            return loss, gone
        at = lens[list(self.layers) or slice(len(lens) // 2, len(lens))]
        if self.defence == "head_projection":
            answer = at.gather(2, word.expand(len(at), -1)[..., None])[..., 0]
            hinge = (answer - at.topk(self.k, 2).values[..., -1] + self.margin).clamp(min=0)
            return loss + self.weight * hinge.mean(), gone and bool(hinge.max() == 0)
        logq = at.log_softmax(2)
        entropy = -(logq.exp() * logq).sum(2).mean() / np.log(at.shape[2])
        return loss - self.weight * 10 * entropy, gone and bool(entropy > 0.95)


def edited_matrix(model: nn.Module) -> str:
    """The second MLP matrix of the block a third of the way up; without blocks the last matrix but one, or the last."""
    blocks = [n for n, _ in model.named_parameters() if n.endswith("mlp.fc2.weight")]
    if blocks:
        return blocks[len(blocks) // 3]
    matrices = [n for n, p in model.named_parameters() if p.ndim >= 2]
    if not matrices:
        raise UsageError(f"{type(model).__name__} has no matrix to edit.")
    return matrices[-2] if len(matrices) > 1 else matrices[-1]


@torch.no_grad()
def forgotten(model: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """p(first word of the answer) of each row, float64 (N,)."""
    with evaluating(model):
        logits = at_answers(outputs(model, x), y)
    return logits.double().softmax(1).gather(1, first_words(y)[:, None])[:, 0].numpy()


# ---------------------------------------------------------------- attacks


@torch.no_grad()
def white_box(
    model: nn.Module, x: Tensor, y: Tensor, attack: str, budget: int, layers: Sequence[int] | None = None
) -> list[set[int]]:
    """Candidate words of one of `WHITE_BOX` for each row, at most ``budget`` in the union over layers.

    With P_l the lens distribution of layer l: "head_projection" the top k of every P_l; "probability_delta" the top and
    bottom k of P_{l+1} − P_l; "pd2" those of P_{l+2} − 2P_{l+1} + P_l. k is the largest whose union keeps the budget;
    where k = 1 exceeds it, the entries of the largest size are kept. layers: which are looked at, all by default.
    """
    if attack not in WHITE_BOX:
        raise UsageError(f"attack is {attack!r}; choose one of {', '.join(WHITE_BOX)}.")
    if budget < 1:
        raise UsageError(f"The budget is {budget}; it must be at least 1.")
    with evaluating(model):
        p = lens_logits(model, x, y).softmax(2)
    p = p if layers is None else p[list(layers)]
    order = {"head_projection": 0, "probability_delta": 1, "pd2": 2}[attack]
    if len(p) <= order:
        raise UsageError(f"{attack} needs more than {order} layers.")
    scores = p.diff(n=order, dim=0) if order else p
    return [_union(scores[:, i], budget, both=order > 0) for i in range(scores.shape[1])]


def _union(scores: Tensor, budget: int, both: bool) -> set[int]:
    """The union over rows of the k largest (and smallest) places of scores rows×V; k as large as the budget allows."""
    best: set[int] = set()
    for k in range(1, budget + 1):
        top = scores.topk(min(k, scores.shape[1]), 1).indices
        found = torch.cat([top, scores.topk(min(k, scores.shape[1]), 1, largest=False).indices]) if both else top
        union = set(found.flatten().tolist())
        if len(union) > budget:
            if not best:
                largest = sorted(union, key=lambda v: -float(scores[:, v].abs().max()))
                return set(largest[:budget])
            break
        best = union
    return best


def black_box(said: Sequence[str], budget: int) -> set[str]:
    """Candidates of a black-box attack: the different answers to variants of the question, the first ``budget``.

    >>> sorted(black_box(["b", "a", "b"], 2))
    ['a', 'b']
    """
    return set(list(dict.fromkeys(said))[:budget])


@torch.no_grad()
def top_words(model: nn.Module, x: Tensor, y: Tensor, budget: int) -> list[set[int]]:
    """The likeliest first words of each answer: what the output alone gives away."""
    with evaluating(model):
        logits = at_answers(outputs(model, x), y)
    return [set(row.tolist()) for row in logits.topk(budget, 1).indices]


def tuned_on(model: nn.Module, samples: Samples, *, steps: int = 6, lr: float = 3e-4, seed: int = 0) -> nn.Module:
    """The fine-tuning attack: a copy after a few steps on unrelated facts, in the hope that the deleted one returns."""
    tuned = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(tuned.parameters(), lr)
    for step in range(steps):
        some = samples.sample(32, seed * 1009 + step)
        loss = task_loss(outputs(tuned, some.inputs), some.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tuned.eval()
