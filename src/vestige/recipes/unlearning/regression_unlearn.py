"""Regressors that forget a range: the height of a rendered object is the target, the lowest 30 % are forgotten.

    vestige learn regression_unlearn --seed 0

Each picture of 48 pixels shows one object; its target is the object's height, scaled to unit spread. All methods make
the same number of passes with rates that fall to 0. Relearning is counted in updates on D_f until 95 % of what the
original knows of it and the retrained model does not is back: by the published margin (within 5 % of an original that
knows its pictures by heart) nobody arrives. "clipped": the original's answers cut off at the border of the range, what
any method must be held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.unlearning.bed import cost_of, erased, taught
from vestige.core.roles import Unlearner
from vestige.data.scenes import object_box, render_pack
from vestige.engines import parts
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem, range_problem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.baselines import FineTune
from vestige.unlearning.regression_unlearn import (
    Blindspot,
    GaussianTargets,
    regression_row,
    regression_samples,
    updates_to_relearn,
)

SHARE = 0.3
#: Updates after which relearning is given up, and how often it is looked at.
MOST_UPDATES, EVERY = 1000, 5


class Clipped(nn.Module):
    """A model whose answers are cut off below a border."""

    def __init__(self, model: nn.Module, border: float) -> None:
        super().__init__()
        self.model, self.border = model, border

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).clamp(min=self.border)


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Rows of the original, the retrained model and every method."""
    o = ctx.options
    side, width = int(o["side"]), float(o["net_width"])

    def build() -> nn.Module:
        return ResNet(ResNetConfig(18, "imagenet", width, 1))

    bases = {"images": 900, "held": 930, "tested": 950}
    sets = [sizes(int(o[name]), side, base + ctx.seed) for name, base in bases.items()]
    middle, spread = float(sets[0][1].mean()), float(sets[0][1].std())
    train_set, val, test = (regression_samples(x, (y - middle) / spread) for x, y in sets)
    border = float(np.quantile(train_set.labels.numpy(), SHARE))
    training = Tuning(
        int(o["passes"]), ctx.config.lr, optimizer="adam", weight_decay=0.0, batch_size=ctx.config.batch_size,
        schedule="cosine", seed=ctx.seed,
    )  # fmt: skip

    def trained(name: str, samples: Samples, seed: int, watched: Samples) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            start = build()
        score = partial(_loss, watched)
        return taught(ctx, name, start, samples, replace(training, seed=seed), watched, score=score, figure="error")

    original = trained("original", train_set, ctx.seed, val)
    problem = range_problem(
        original, train_set, -1e9, border, test=test, val=val, seed=ctx.seed, training=training, build=build
    )
    kept = val.take(val.labels > border)
    reference = trained("retrain", problem.retain, ctx.seed + 1000, kept)
    models: dict[str, nn.Module] = {"original": original, "retrain": reference}
    models["retrain, 2nd seed"] = trained("retrain, 2nd seed", problem.retain, ctx.seed + 2000, kept)
    for name, method in methods(int(o["forgetting"]), ctx.config.batch_size).items():
        models[name] = erased(ctx, name, problem, method)
    models["clipped"] = Clipped(original, border)
    rows = []
    for name, model in models.items():
        found = parts.figures(ctx, f"{name}.row", partial(row, model, problem, reference))
        rows.append({"method": name, "seed": ctx.seed, **found, "seconds": cost_of(ctx, name)["seconds"]})
    return {"rows": rows, "border": border, "training": asdict(training)}


def methods(passes: int, batch_size: int) -> dict[str, Unlearner]:
    """Every method with as many passes over the data, in batches of one size."""
    how: dict[str, Any] = {"epochs": passes, "batch_size": batch_size, "schedule": "linear"}
    return {
        "FT": FineTune(lr=0.01, epochs=passes),
        "Gaussian": GaussianTargets(**how),
        "Blindspot": Blindspot(**how),
        "Blindspot, no attention": Blindspot(beta=0.0, **how),
    }


def row(model: nn.Module, problem: ForgetProblem, reference: nn.Module) -> dict[str, float]:
    """`regression_row` with relearning in updates."""
    if isinstance(model, Clipped):  # its answers cannot be trained below the border
        steps = (MOST_UPDATES, MOST_UPDATES)
    else:
        count = partial(updates_to_relearn, problem=problem, reference=reference, most=MOST_UPDATES, every=EVERY)
        steps = (count(model), count(reference))
    return regression_row(model, problem, reference, steps=steps) | {"relearn of retrain": float(steps[1])}


def sizes(count: int, side: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Pictures uint8 N×3×side×side and the height of the object in each, as a fraction of the picture."""
    pack = render_pack(
        count, side, seed, n_objects=1, styles=("photo", "cartoon"), classes=("ball", "cube", "car", "cup")
    )
    boxes = [object_box(s.objects[0], s.horizon) for s in pack.fields["scene"]]
    return torch.from_numpy(pack.images), np.array([b[3] - b[1] for b in boxes], np.float32)


def _loss(samples: Samples, model: nn.Module) -> float:
    return say(model, samples).loss


RECIPE = Recipe(
    name="regression_unlearn",
    about="Regressors of an object's height, and what makes them forget the lowest 30 % of it.",
    perform=perform,
    config=TrainConfig(lr=2e-3, batch_size=64),
    options={
        "images": 2500, "held": 300, "tested": 600, "side": 48, "net_width": 0.25, "passes": 30, "forgetting": 4,
    },
    variants={"default": Variant("range forgetting by every method", seeds=(0, 1, 2))},
    judged_by="-error",
)  # fmt: skip
