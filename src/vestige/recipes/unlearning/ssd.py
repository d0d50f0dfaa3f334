"""What Selective Synaptic Dampening's claims ask beyond the bed: a curve over α, and dampening of other weights.

    vestige learn ssd --seed 0

Needs the bed's run of that seed. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vestige.bench.unlearning.bed import load_bed
from vestige.engines import parts
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.unlearning.ssd import SSD

CURVE = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
Score = Callable[[nn.Module], Iterator[Tensor]]


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Rows of the curve and of the three ways to choose as many weights."""
    bed = load_bed(ctx.seed)
    problem = bed.problems["class"]
    chosen = SSD(**bed.parameters["ssd"]["class"])
    rows = parts.figures(ctx, "curve", lambda: curve(problem))
    rows += parts.figures(ctx, "selection", lambda: selection(problem, chosen, ctx.seed))
    return {"rows": [{**row, "seed": ctx.seed} for row in rows]}


def curve(problem: ForgetProblem) -> list[dict[str, Any]]:
    """Accuracies by α; strengths that choose no weight are left out."""
    found = []
    for alpha in CURVE:
        everything, forget = SSD(alpha).importances(problem)
        if any(bool((forget[n] > alpha * everything[n]).any()) for n in forget):
            row = accuracies(SSD(alpha).erase(problem), problem)
            found.append({"arm": "curve", "method": f"ssd:alpha={alpha:g}", **row})
    return found


def selection(problem: ForgetProblem, method: SSD, seed: int) -> list[dict[str, Any]]:
    """SSD's weights, as many of the largest, and as many random ones, dampened to an equal forget accuracy."""
    everything, forget = method.importances(problem)
    alpha = method.chosen_alpha(problem, everything, forget)
    count = sum(int((forget[n] > alpha * everything[n]).sum()) for n in forget)
    ours = accuracies(method.erase(problem), problem)
    table: list[dict[str, Any]] = [{"arm": "selection", "method": "ssd", "weights": count, "factor": None, **ours}]
    for name, score in (("largest weights", magnitude), ("random weights", random(seed))):
        factor, row = equal_forgetting(problem, score, count, 1 - ours["UA"])
        about = {"arm": "selection", "method": name, "weights": count, "factor": factor}
        table.append({**about, "reached": row["UA"] >= ours["UA"] - 0.02, **row})
    return table


def accuracies(model: nn.Module, problem: ForgetProblem) -> dict[str, float]:
    """UA on what is to be forgotten, RA on 2,000 retained samples."""
    kept = say(model, problem.retain_sample(2000)).accuracy
    return {"UA": round(1 - say(model, problem.forget).accuracy, 4), "RA": round(kept, 4)}


def magnitude(model: nn.Module) -> Iterator[Tensor]:
    return (p.detach().abs() for p in model.parameters())


def random(seed: int) -> Score:
    generator = torch.Generator().manual_seed(seed)
    return lambda model: (torch.rand(p.shape, generator=generator) for p in model.parameters())


def equal_forgetting(problem: ForgetProblem, score: Score, count: int, aim: float) -> tuple[float, dict[str, Any]]:
    """The weakest uniform factor on the ``count`` weights of highest score whose forget accuracy is at most ``aim``
    (plus 2 points), and what it leaves; factor 0 when none reaches that."""
    scores = list(score(problem.model))
    threshold = torch.cat([s.flatten() for s in scores]).topk(count).values[-1]

    def dampened(factor: float) -> dict[str, Any]:
        model = problem.copy()
        with torch.no_grad():
            for parameter, s in zip(model.parameters(), scores, strict=True):
                parameter.copy_(torch.where(s >= threshold, factor * parameter, parameter))
        return accuracies(model, problem)

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


RECIPE = Recipe(
    name="ssd",
    about="Selective Synaptic Dampening on the bed: a curve over alpha, and as many other weights dampened.",
    perform=perform,
    config=TrainConfig(),
    variants={"default": Variant("curve and selection of weights", seeds=(0, 1, 2))},
)
