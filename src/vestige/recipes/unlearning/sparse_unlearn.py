"""Sparsity-aware unlearning on the bed: the same erasers on the dense original, on a pruned one, and on a control.

    vestige learn sparse_unlearn --seed 0

Arms: "dense", the original; "95 % sparse", pruned and trained on under its mask; "dense, as long", not pruned but
trained on just as long: what the extra training alone does. Each is compared with a model retrained at its own
sparsity. Needs the bed's run of that seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vestige.bench.methods import Method
from vestige.bench.unlearning.bed import erased, load_bed, made, retrained, row_of, with_gaps
from vestige.bench.unlearning.world import KINDS
from vestige.core.errors import VestigeError
from vestige.engines import parts
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.nn.pruning import density, magnitude_mask
from vestige.unlearning.baselines import FineTune
from vestige.unlearning.sparse_unlearn import SparseUnlearn

ERASERS = ("finetune", "grad_ascent", "fisher_forget", "influence")


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Rows of every eraser on every network and problem."""
    bed = load_bed(ctx.seed)
    rows: list[dict[str, Any]] = []
    rate = float(ctx.options["rate"])
    for network, share in (("dense", None), ("dense, as long", 0.0), (f"{rate:.0%} sparse", rate)):
        for kind in KINDS:
            problem, reference = bed.problems[kind], bed.references[kind]
            if share is not None:
                own = {k: v for k, v in bed.parameters["sparse_unlearn"][kind].items() if k.startswith("recover")}
                problem = sparse(ctx, f"{network}/{kind}/pruned", problem, SparseUnlearn(rate=share, **own))
                if share:
                    reference = retrained(ctx, f"{network}/{kind}/retrain", problem)
            about = {"network": network, "problem": kind, "seed": ctx.seed}
            kept = density(problem.mask) if problem.mask else {"all": 1.0, "least": 1.0}
            about |= {"density": round(kept["all"], 4), "least_density": round(kept["least"], 4)}
            models = {"retrain": reference, "original": problem.model}
            found = [
                {**about, "method": m, **row_of(ctx, f"{network}/{kind}/{m}", model, problem, reference), "cost": {}}
                for m, model in models.items()
            ]
            for name, eraser in erasers(bed.parameters, kind).items():
                where = f"{network}/{kind}/{name}"
                try:
                    model = erased(ctx, where, problem, eraser)
                    found.append({**about, "method": name, **row_of(ctx, where, model, problem, reference), "cost": {}})
                except VestigeError as error:
                    found.append({**about, "method": name, "error": str(error)})
            rows += with_gaps([{**r, "cost": r.get("cost") or {"seconds": 0, "backward": 0}} for r in found])
    return {"rows": rows}


def erasers(parameters: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The erasers with the bed's parameters, and fine-tuning at the paper's own rate."""
    found: dict[str, Any] = {name: made(Method(name), parameters[name][kind]) for name in ERASERS}
    return {"finetune 0.01": FineTune(lr=0.01, epochs=2), **found}


def sparse(ctx: RecipeContext, name: str, problem: ForgetProblem, method: SparseUnlearn) -> ForgetProblem:
    """The problem of the pruned original, which is a part of the run."""
    model = parts.weights(ctx, name, problem.copy(), lambda _: method.sparse(replace(problem)).model)
    return replace(problem, model=model, mask=magnitude_mask(problem.model, method.rate), statistics={})


RECIPE = Recipe(
    name="sparse_unlearn",
    about="Erasers on a dense and on a pruned network, each against retraining at its own sparsity.",
    perform=perform,
    config=TrainConfig(),
    options={"rate": 0.95},
    variants={"default": Variant("dense, 95 % sparse, and dense with as much extra training", seeds=(0, 1, 2))},
    judged_by="accuracy",
)
