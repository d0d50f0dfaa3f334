"""ZK-APEX: a provider's model, a client's copy of it, and what forgetting a class costs the client.

    vestige learn zk_apex --seed 0

The client mixes its own pictures with the provider's; on its own alone the class would be forgotten by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vestige.bench.unlearning.bed import cost_of, taught
from vestige.bench.unlearning.personal import METHOD, Pictures, Scene, network, pictures, scene
from vestige.engines import parts
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.nn.access import evaluating, outputs
from vestige.unlearning.ssd import SSD
from vestige.unlearning.zk_apex import Update


def trained(ctx: RecipeContext, made: Pictures) -> dict[str, nn.Module]:
    """The provider's model and its retrained twin, and the client's copies of both."""
    o, c = ctx.options, ctx.config
    first = Tuning(
        int(o["passes"]), c.lr, optimizer="adam", weight_decay=0.0, batch_size=c.batch_size, schedule="onecycle",
        augment="flip", seed=ctx.seed,
    )  # fmt: skip
    second = replace(first, epochs=int(o["own_passes"]), lr=c.lr / 5, schedule="cosine")
    models: dict[str, nn.Module] = {}
    for name, samples, seed in (("original", made.known, ctx.seed), ("retrain", made.rest, ctx.seed + 1000)):
        val = made.val if name == "original" else made.val.take(made.val.labels != 0)
        models[name] = taught(ctx, name, network(made.classes, seed), samples, replace(first, seed=seed), val)
        mine = "personal" if name == "original" else "personal retrain"
        mixed = joined([made.own, samples.sample(len(made.own), ctx.seed)])
        models[mine] = taught(ctx, mine, models[name], mixed, second, made.own)
    return models


def zeroed(model: nn.Module, mask: Mapping[str, torch.Tensor]) -> nn.Module:
    """The client's model with masked weights at zero and nothing else changed."""
    new = copy.deepcopy(model)
    with torch.no_grad():
        for name, chosen in mask.items():
            new.get_parameter(name)[chosen] = 0
    return new


def shuffled(mask: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """As many masked weights in every matrix, elsewhere."""
    found = {}
    for number, (name, chosen) in enumerate(mask.items()):
        order = torch.randperm(chosen.numel(), generator=torch.Generator().manual_seed(seed * 1009 + number))
        found[name] = chosen.flatten()[order].view_as(chosen)
    return found


@torch.no_grad()
def hits(model: nn.Module, samples: Samples) -> list[int]:
    """1 where the model is right, picture by picture."""
    with evaluating(model):
        return [int(v) for b in samples.batches(512) for v in (outputs(model, b.x).argmax(1) == b.labels).tolist()]


def measured(s: Scene, ctx: RecipeContext) -> dict[str, Any]:
    """Rows of all models, the client's hits picture by picture, and how far the update moved."""
    mask = METHOD.mask(s.problem.model, s.problem.forget, s.problem.retain_sample(METHOD.gradients))
    update: Update = METHOD.compensate(s.model, s.own, mask, request="class 0")
    masked, random = zeroed(s.model, mask), shuffled(mask, ctx.seed)
    once = Tuning(
        1, ctx.config.lr / 5, optimizer="adam", weight_decay=0.0, batch_size=64, augment="flip", seed=ctx.seed
    )
    models = {
        "original (personalised)": s.model,
        "mask only": masked,  # and mask + diagonal OBS: a diagonal F couples no weight to another
        "ZK-APEX": update.model,
        "random mask, made up for": METHOD.compensate(s.model, s.own, random).model,
        "FT on personal data": tune(s.model, [Phase(s.own, fit)], once).model,
        "mask, then FT on personal data": tune(masked, [Phase(s.own, fit)], once, mask={
            n: (~m).float() for n, m in mask.items()}).model,
        "SSD": SSD(most=1500).erase(replace(s.problem, model=s.model, statistics={})),
        "retrain, personalised": s.retrained,
        "untrained": network(int(say(s.model, s.test.take(range(2))).outputs.shape[1]), ctx.seed + 987_654),
    }  # fmt: skip
    return {
        "rows": [{"model": name, **s.row(model)} for name, model in models.items()],
        "hits": {name: hits(models[name], s.test) for name in ("original (personalised)", "mask only", "ZK-APEX")},
        "growth": update.growth,
    }


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Train, personalise, forget and measure."""
    made = pictures(ctx.options, ctx.seed)
    models = trained(ctx, made)
    found = parts.figures(ctx, "measured", lambda: measured(scene(made, models, ctx.seed), ctx))
    return {**found, "retraining": cost_of(ctx, "retrain")}


RECIPE = Recipe(
    name="zk_apex",
    about="ZK-APEX: a vision transformer of a provider, a client's copy, and forgetting a class in the copy.",
    perform=perform,
    config=TrainConfig(lr=1e-3, batch_size=64),
    options={"images": 6000, "own": 1200, "tested": 2000, "passes": 30, "own_passes": 6},
    reach={"original (personalised)": "knows the class to be forgotten, and the client's"},
    variants={"default": Variant("class 0 forgotten by a client of five other classes", seeds=(0, 1, 2))},
    judged_by="accuracy",
)  # fmt: skip
