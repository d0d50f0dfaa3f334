"""Claims of Selective Synaptic Dampening: a class is gone in a moment, and it matters which weights are dampened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vestige.bench.methods import Method
from vestige.bench.unlearning.protocol import eraser
from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.unlearning.cells import SEEDS, cells, shown, world_of
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.unlearning.ssd import SSD

#: The settings of SSD that the benchmark has, then a curve around them.
CURVE = (1.5, 2, 3, 4, 5, 6, 7, 8, 9)
PEERS = "ssd,finetune,grad_ascent,bad_teacher,random_labels,unsir"


@claim(
    "class forgetting: forget accuracy at most 5 %, retain accuracy within 3 points of the original, in under 5 % of "
    "the time of retraining"
)
def forgets_a_class(context: ClaimContext) -> Evidence:
    found = cells(context, ["class"], PEERS)
    row, original = found["class", "ssd"], found["class", "original"]
    holds = row["UA"] >= 0.95 and row["RA"] >= original["RA"] - 0.03 and row["of retraining"] < 0.05
    problem = world_of(context, "class", 0).problem
    curve: list[dict[str, Any]] = [
        {
            "problem": "class",
            "method": f"ssd:alpha={alpha:g}",
            "seeds": 1,
            **_accuracies(SSD(alpha).erase(problem), problem),
        }
        for alpha in CURVE
        if _chooses(alpha, problem)
    ]
    note = f"forget accuracy {1 - row['UA']:.3f}, retain {row['RA']:.3f} (original {original['RA']:.3f})"
    return Evidence(holds, [*shown(found), *curve], f"{note}, {100 * row['of retraining']:.1f} % of the time")


@claim("the entropy attack calls as many forgotten samples members as on the retrained model, nearer than FT and GA")
def hides_membership(context: ClaimContext) -> Evidence:
    found = cells(context, ["class", "random"], PEERS)
    nearer, notes = [], []
    for kind in ("class", "random"):
        aim = found[kind, "retrain"]["mia_entropy"]
        ssd, *peers = (abs(found[kind, m]["mia_entropy"] - aim) for m in ("ssd", "finetune", "grad_ascent"))
        nearer.append(ssd < min(peers))
        notes.append(f"{kind}: SSD {ssd:.3f} off, FT {peers[0]:.3f}, GA {peers[1]:.3f}")
    return Evidence(all(nearer), shown(found), "; ".join(notes))


@claim(
    "dampening as many of the largest, or of random, weights to an equal forget accuracy leaves a retain accuracy "
    "lower by at least 10 points"
)
def selection_matters(context: ClaimContext) -> Evidence:
    table, margins = [], []
    for seed in range(SEEDS):
        problem = world_of(context, "class", seed).problem
        method: SSD = eraser(Method("ssd"), "class")
        everything, forget = method.importances(problem)
        alpha = method.chosen_alpha(problem, everything, forget)
        count = sum(int((forget[n] > alpha * everything[n]).sum()) for n in forget)
        ours = _accuracies(method.erase(problem), problem)
        table.append({"seed": seed, "method": "ssd", "weights": count, "factor": None, **ours})
        for name, score in (("largest weights", _magnitude), ("random weights", _random(seed))):
            factor, row = _equal_forgetting(problem, score, count, 1 - ours["UA"])
            table.append({"seed": seed, "method": name, "weights": count, "factor": factor, **row})
            # A control that cannot forget as much even at factor 0 is not ahead of SSD at equal forgetting.
            margins.append(ours["RA"] - row["RA"] if row["UA"] >= ours["UA"] - 0.02 else None)
    reached = [m for m in margins if m is not None]
    note = f"{len(margins) - len(reached)} of {len(margins)} controls never forget as much"
    if reached:
        note += f"; the smallest margin of the others is {100 * min(reached):.1f} points"
    return Evidence(bool(reached) and min(reached) >= 0.10, table, note)


def _accuracies(model: nn.Module, problem: ForgetProblem) -> dict[str, float]:
    """UA on what is to be forgotten, RA on 2,000 retained samples."""
    kept = say(model, problem.retain_sample(2000)).accuracy
    return {"UA": round(1 - say(model, problem.forget).accuracy, 4), "RA": round(kept, 4)}


def _chooses(alpha: float, problem: ForgetProblem) -> bool:
    everything, forget = SSD(alpha).importances(problem)
    return any(bool((forget[n] > alpha * everything[n]).any()) for n in forget)


def _magnitude(model: nn.Module) -> Iterator[Tensor]:
    return (p.detach().abs() for p in model.parameters())


def _random(seed: int) -> Callable[[nn.Module], Iterator[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return lambda model: (torch.rand(p.shape, generator=generator) for p in model.parameters())


def _equal_forgetting(
    problem: ForgetProblem, score: Callable[[nn.Module], Iterator[Tensor]], count: int, aim: float
) -> tuple[float, dict[str, Any]]:
    """The weakest uniform factor on the ``count`` weights of highest score whose forget accuracy is at most ``aim``
    (plus 2 points), and what it leaves; factor 0 when none reaches that."""
    scores = list(score(problem.model))
    threshold = torch.cat([s.flatten() for s in scores]).topk(count).values[-1]

    def dampened(factor: float) -> dict[str, Any]:
        model = problem.copy()
        with torch.no_grad():
            for parameter, s in zip(model.parameters(), scores, strict=True):
                parameter.copy_(torch.where(s >= threshold, factor * parameter, parameter))
        return _accuracies(model, problem)

    low, high = 0.0, 1.0
    best = dampened(0.0)
    if 1 - best["UA"] > aim + 0.02:
        return 0.0, best
    for _ in range(7):
        middle = (low + high) / 2
        row = dampened(middle)
        if 1 - row["UA"] <= aim + 0.02:
            low, best = middle, row
        else:
            high = middle
    return low, best
