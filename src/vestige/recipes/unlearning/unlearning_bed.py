"""The bed of the unlearning claims: a network on CIFAR-10, retrained models, and what every eraser makes of it.

    vestige learn unlearning_bed --variant tuning --seed 109
    vestige learn unlearning_bed --seed 0

"tuning" tries `vestige.bench.unlearning.tuning.GRIDS` on a seed whose pictures, class and networks appear nowhere else,
and chooses each eraser's parameters by the gap to retraining on validation pictures; "default" uses them. With
``--set tuned=false`` the benchmark's own parameters are taken. Everything is kept part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from vestige.bench.methods import Method
from vestige.bench.unlearning.bed import (
    OPTIONS,
    bed_settings,
    cost_of,
    fresh,
    retrained,
    row_of,
    taught,
    tried,
    with_gaps,
)
from vestige.bench.unlearning.bed import (
    RECIPE as NAME,
)
from vestige.bench.unlearning.parameters import PARAMETERS
from vestige.bench.unlearning.tuning import candidates
from vestige.bench.unlearning.world import KINDS, TUNING_SEED, posed, splits
from vestige.core.errors import UsageError
from vestige.data.packs import find_data_root
from vestige.engines import parts
from vestige.engines.forgetting.loop import Phase
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import joined
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.runs import finished
from vestige.engines.train import TrainConfig
from vestige.nn.access import head_name, inside
from vestige.unlearning.baselines import relabelled
from vestige.unlearning.repr_audit import silenced

#: Arms beside the erasers of the benchmark's table.
MORE = ("laf:repair=500", "random_labels:retain=0")


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Train, retrain, forget and measure; the rows of everything."""
    settings = bed_settings(ctx)
    sets = splits(settings, ctx.seed, find_data_root())
    tuning = replace(settings.training, seed=ctx.seed)
    original = taught(ctx, "original", fresh(settings, ctx.seed), sets[0], tuning, sets[1])
    rows: list[dict[str, Any]] = []
    chosen = {} if ctx.options["mode"] == "tuning" else parameters(ctx)
    for kind in KINDS:
        problem = posed(kind, ctx.seed, settings, original, sets)
        reference = retrained(ctx, f"{kind}/retrain", problem)
        named: dict[str, nn.Module] = {"retrain": reference, "original": original}
        if ctx.options["mode"] != "tuning":
            named["retrain, 2nd seed"] = retrained(ctx, f"{kind}/retrain, 2nd seed", problem, ctx.seed + 2000)
            named["untrained"] = fresh(settings, ctx.seed + 987_654)
            if kind == "class":
                for name, cheat in (("silenced head", silenced), ("tuned head", head_only)):
                    named[name] = of_problem(ctx, f"{kind}/{name}", problem, cheat)
        for name, model in named.items():
            row = row_of(ctx, f"{kind}/{name}", model, problem, reference)
            source = "original" if name == "original" else f"{kind}/{name}"
            rows.append({"problem": kind, "method": name, "seed": ctx.seed, **row, "cost": cost_of(ctx, source)})
        for method, own in arms(ctx, kind, chosen):
            rows.append(tried(ctx, kind, method, problem, reference, own))
    rows = with_gaps(rows)
    if ctx.options["mode"] == "tuning":
        chosen = best(rows)
    return {"rows": rows, "parameters": chosen, "settings": asdict(settings)}


def of_problem(
    ctx: RecipeContext, name: str, problem: ForgetProblem, change: Callable[[ForgetProblem], nn.Module]
) -> nn.Module:
    """A changed copy of the problem's model, as a part."""
    return parts.weights(ctx, name, problem.copy(), lambda model: change(problem))


def arms(ctx: RecipeContext, kind: str, chosen: Mapping[str, Any]) -> list[tuple[Method, dict[str, Any]]]:
    """What is tried on a problem: every candidate while tuning, otherwise every eraser with its parameters."""
    known = [slug for slug in PARAMETERS if not ctx.options["only"] or slug in str(ctx.options["only"]).split(",")]
    if ctx.options["mode"] == "tuning":
        after = {"unlearner": PARAMETERS["finetune"][kind]}
        return [(m, after if slug == "sparse_unlearn" else {}) for slug in known for m in candidates(slug)]
    found = [(Method(slug), own_parameters(chosen, slug, kind)) for slug in known]
    for label in MORE:
        slug, _, option = label.partition(":")
        name, _, value = option.partition("=")
        if slug in known:
            found.append((Method(slug, ((name, float(value) if "." in value else int(value)),)), chosen[slug][kind]))
    return found


def own_parameters(chosen: Mapping[str, Any], slug: str, kind: str) -> dict[str, Any]:
    """An eraser's parameters; pruning is followed by the table's own fine-tuning."""
    after = {"unlearner": chosen["finetune"][kind]} if slug == "sparse_unlearn" else {}
    return {**after, **chosen[slug][kind]}


def parameters(ctx: RecipeContext) -> dict[str, dict[str, dict[str, Any]]]:
    """Those that the tuning run chose, or the benchmark's. Raises UsageError without that run."""
    if not ctx.options["tuned"]:
        return PARAMETERS
    run = finished(NAME, "tuning", TUNING_SEED)
    if run is None:
        raise UsageError(f"First choose parameters: 'vestige learn {NAME} --variant tuning --seed {TUNING_SEED}'.")
    return {**PARAMETERS, **run.figures["parameters"]}


def best(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{slug: {kind: parameters}} of the smallest gap; the benchmark's own where every candidate failed."""
    chosen: dict[str, dict[str, dict[str, Any]]] = {}
    for slug, own in PARAMETERS.items():
        chosen[slug] = {}
        for kind in KINDS:
            labels = {m.label: dict(m.options) for m in candidates(slug)}
            found = [r for r in rows if r["problem"] == kind and r["method"] in labels and "gap" in r]
            smallest = min(found, key=lambda r: float(r["gap"]), default=None)
            chosen[slug][kind] = own[kind] if smallest is None else labels[smallest["method"]]
    return chosen


def head_only(problem: ForgetProblem) -> nn.Module:
    """Random labels for D_f, but the last layer alone learns them: everything before it stays as it was."""
    name = head_name(problem.model)
    tuning = problem.tuning(lr=0.05, epochs=2, trainable=lambda n: inside(n, [name]), freeze_bn=True)
    torch.manual_seed(problem.seed)
    samples = joined([relabelled(problem), problem.retain_sample(2000)])
    return problem.tune([Phase(samples, fit)], tuning).model


RECIPE = Recipe(
    name=NAME,
    about="The bed of the unlearning claims: original, retrained models, and what every eraser makes of the original.",
    perform=perform,
    config=TrainConfig(lr=0.1, batch_size=64),
    options={**OPTIONS, "mode": "table", "tuned": True, "only": ""},
    variants={
        "default": Variant("every eraser on a class and on a random tenth", seeds=(0, 1, 2)),
        "tuning": Variant(
            "every candidate for the erasers' parameters, on validation pictures", {"mode": "tuning"},
            seeds=(TUNING_SEED,),
        ),
    },
    judged_by="accuracy",
)  # fmt: skip
