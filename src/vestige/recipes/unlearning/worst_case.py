"""Worst-case forget sets of the bed's original: chosen, retrained without, and unlearned, beside plain choices.

    vestige learn worst_case --seed 0

The random set is the bed's. Every set has its own retrained model, from which every method's gap is taken: what the
rest of the data teaches anyway is not counted as the method's failure. Needs the bed's run of that seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from vestige.bench.methods import Method
from vestige.bench.unlearning.bed import Bed, cost_of, erased, load_bed, made, retrained, row_of, with_gaps
from vestige.core.errors import VestigeError
from vestige.engines import parts
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.unlearning.worst_case import WorstCase, duplicates, heuristic, jaccard

#: A weaker lower level leaves the network as it was, and the choice is then that of the lowest loss.
ATTACK = WorstCase(rounds=3, epochs=3, beta=3e-3)
#: Methods that never show a wrong label, and methods that do.
FAMILIES = {"relabelling-free": ("finetune", "cfk", "euk", "l1_sparse"), "relabelling": ("random_labels", "salun")}
SETS = ("random", "worst", "lowest loss", "moderate")


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Rows of the retrained model and of every method on every set."""
    bed = load_bed(ctx.seed)
    random = bed.problems["random"]
    chosen = {"random": random.forget_idx.numpy()}
    for name in SETS[1:]:
        chosen[name] = np.array(parts.figures(ctx, f"sets/{name}", partial(choice, name, random, ctx.seed)))
    rows: list[dict[str, Any]] = []
    for name in SETS:
        rows += on_set(ctx, name, bed, chosen[name], SETS.index(name) < 3)
    twin = np.array(parts.figures(ctx, "sets/worst, 2nd seed", lambda: choice("worst", random, ctx.seed + 1)))
    about = {
        "overlap of two seeds": jaccard([chosen["worst"], twin]),
        "overlap with lowest loss": jaccard([chosen["worst"], chosen["lowest loss"]]),
        "duplicated": len(duplicates(random.train, chosen["worst"])),
    }
    return {"rows": rows, "about": about}


def choice(name: str, problem: ForgetProblem, seed: int) -> list[int]:
    """Positions of a set as large as the random one."""
    n = len(problem.forget_idx)
    if name == "worst":
        return [int(i) for i in replace(ATTACK, seed=seed).attack(problem.model, problem.train, n)[0]]
    return [int(i) for i in heuristic(name, problem.model, problem.train, n, seed)]


def on_set(ctx: RecipeContext, name: str, bed: Bed, where: np.ndarray, methods: bool) -> list[dict[str, Any]]:
    """Retraining without the set, and the methods with their gaps to it."""
    base = bed.problems["random"]
    rest = np.setdiff1d(np.arange(len(base.train)), where)
    problem = replace(base, forget_idx=torch.from_numpy(where), retain_idx=torch.from_numpy(rest), statistics={})
    again = bed.references["random"] if name == "random" else retrained(ctx, f"{name}/retrain", problem)
    about = {"problem": name, "seed": ctx.seed}
    nothing: dict[str, Any] = {"family": "", "cost": {"seconds": 0, "backward": 0}}
    rows = [
        {**about, "method": m, **nothing, **row_of(ctx, f"{name}/{m}", model, problem, again)}
        for m, model in (("retrain", again), ("original", problem.model))
    ]
    for family, members in FAMILIES.items() if methods else ():
        for member in members:
            try:
                model = erased(ctx, f"{name}/{member}", problem, made(Method(member), bed.parameters[member]["random"]))
                row = row_of(ctx, f"{name}/{member}", model, problem, again)
                kept = {"family": family, **row, "cost": cost_of(ctx, f"{name}/{member}")}
                rows.append({**about, "method": member, **kept})
            except VestigeError as error:
                rows.append({**about, "method": member, "family": family, "error": str(error)})
    return with_gaps(rows)


RECIPE = Recipe(
    name="worst_case",
    about="Worst-case, random and plainly chosen forget sets: retrained without, and unlearned.",
    perform=perform,
    config=TrainConfig(),
    variants={"default": Variant("four sets of a tenth of the pictures", seeds=(0, 1, 2))},
    judged_by="accuracy",
)
