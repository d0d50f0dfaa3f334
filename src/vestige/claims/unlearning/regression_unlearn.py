"""Claims of Blindspot: the size of a rendered object is the target, the lowest 30 % of the range is forgotten.

Each picture of 48 pixels shows one object; its target is the object's height in the picture, scaled to unit spread. The
original and the retrained model are small residual networks with one output. Relearning runs on training pictures,
as published, in epochs over a fixed quarter of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.unlearning.world import FOLDER, kept
from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.roles import Unlearner
from vestige.data.scenes import object_box, render_pack
from vestige.engines.forgetting.cost import measured
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem, range_problem
from vestige.engines.forgetting.train import retrain, train
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.baselines import FineTune
from vestige.unlearning.regression_unlearn import (
    Blindspot,
    GaussianTargets,
    regression_row,
    regression_samples,
    relearning_steps,
)

IMAGES, TEST, SIDE = 2500, 600, 48
TRAINING = Tuning(30, 2e-3, optimizer="adam", weight_decay=0.0, batch_size=64, schedule="onecycle")
METHODS: dict[str, Unlearner] = {
    "FT": FineTune(lr=0.01, epochs=2),
    "Gaussian": GaussianTargets(batch_size=64),
    "Blindspot": Blindspot(batch_size=64),
    "Blindspot, no attention": Blindspot(beta=0.0, batch_size=64),
}


def build() -> nn.Module:
    return ResNet(ResNetConfig(18, "imagenet", 0.25, 1))


def sizes(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures uint8 N×3×32×32 and the height of the object in each, as a fraction of the picture."""
    pack = render_pack(
        count, SIDE, seed, n_objects=1, styles=("photo", "cartoon"), classes=("ball", "cube", "car", "cup")
    )
    boxes = [object_box(s.objects[0], s.horizon) for s in pack.fields["scene"]]
    return torch.from_numpy(pack.images), np.array([b[3] - b[1] for b in boxes], np.float32)


@cache
def problem(seed: int) -> tuple[ForgetProblem, nn.Module, dict[str, float]]:
    """The problem with the trained original, the retrained reference, and the seconds of both."""
    (x, y), (tx, ty) = sizes(IMAGES, 900 + seed), sizes(TEST, 950 + seed)
    middle, spread = float(y.mean()), float(y.std())
    train_set, test = (regression_samples(i, (t - middle) / spread) for i, t in ((x, y), (tx, ty)))
    high = float(np.quantile(train_set.labels.numpy(), 0.3))
    tuning = replace(TRAINING, seed=seed)

    def first() -> nn.Module:
        torch.manual_seed(seed)
        return train(build(), train_set, tuning)

    recipe: dict[str, object] = {"regression": [IMAGES, SIDE, seed], "training": repr(TRAINING)}
    model, seconds = kept(FOLDER, recipe, build, first)
    made = range_problem(model, train_set, -1e9, high, test=test, seed=seed, training=tuning, build=build)
    reference, again = kept(FOLDER, recipe | {"retrain": True}, build, lambda: retrain(made))
    return made, reference, {"original": seconds, "retrain": again}


@cache
def rows(seed: int) -> list[dict[str, Any]]:
    made, reference, seconds = problem(seed)
    relearning = Tuning(lr=1e-3, optimizer="adam", weight_decay=0.0, batch_size=128, seed=seed)

    def steps(model: nn.Module) -> int:
        return relearning_steps(model, made, most=IMAGES // 4, epochs=20, tuning=relearning)

    slow = steps(reference)

    def row(name: str, model: nn.Module, took: float) -> dict[str, Any]:
        figures = regression_row(model, made, reference, steps=(steps(model), slow))
        return {"model": name, **figures, "seconds": took}

    table = [row("original", made.model, seconds["original"]), row("retrain", reference, seconds["retrain"])]
    for name, method in METHODS.items():
        with measured() as cost:
            model = method.erase(made)
        table.append(row(name, model, cost.seconds))
    return table


def named(table: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {r["model"]: r for r in table}


@claim("Blindspot's W1 to retrain on D_f is at most half of FT's and less than Gaussian's")
def nearest_predictions(context: ClaimContext) -> Evidence:
    table = rows(context.seed)
    w1 = {name: r["W1"] for name, r in named(table).items()}
    return Evidence(w1["Blindspot"] <= w1["FT"] / 2 and w1["Blindspot"] < w1["Gaussian"], table)


@claim("MAE on D_r is within 10 % of retrain's")
def keeps_the_rest(context: ClaimContext) -> Evidence:
    table = rows(context.seed)
    mae = {name: r["MAE D_r"] for name, r in named(table).items()}
    return Evidence(
        abs(mae["Blindspot"] / mae["retrain"] - 1) <= 0.1, table, f"{mae['Blindspot']:.3f} against {mae['retrain']:.3f}"
    )


@claim("AIN lies in [0.3, 3] while FT's is below 0.2")
def relearns_as_slowly(context: ClaimContext) -> Evidence:
    table = rows(context.seed)
    ain = {name: r["AIN"] for name, r in named(table).items()}
    note = "relearning on a fixed quarter of the training pictures, at most 20 passes"
    return Evidence(0.3 <= ain["Blindspot"] <= 3 and ain["FT"] < 0.2, table, note)


@claim("wall time is at most 15 % of retrain's")
def is_quick(context: ClaimContext) -> Evidence:
    table = rows(context.seed)
    share = named(table)["Blindspot"]["seconds"] / named(table)["retrain"]["seconds"]
    return Evidence(share <= 0.15, table, f"{100 * share:.1f} % of retraining")
