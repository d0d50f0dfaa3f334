"""Wrong labels and Label-Agnostic Forgetting: 60 % of the labels of four classes are drawn anew, then forgotten.

    vestige learn laf --seed 0

The original learned the wrong labels; retraining leaves those samples out. LAF sees no label at all, the others see
the wrong ones. Parameters of the erasers are the bed's for random forgetting, so its tuning run is needed, and the
bed's run of the same seed for the probe of LAF's features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from vestige.bench.methods import Method
from vestige.bench.unlearning.bed import OPTIONS, bed_settings, erased, fresh, load_bed, made, retrained, taught
from vestige.bench.unlearning.world import Settings, splits
from vestige.core.errors import InputError, VestigeError
from vestige.core.roles import Unlearner
from vestige.core.runtime import rng
from vestige.data.packs import find_data_root
from vestige.engines import parts
from vestige.engines.forgetting.evaluate import represent, say
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.metrics.representation import linear_probe
from vestige.unlearning.laf import LAF

#: Labels of this share of the samples of the first classes are drawn anew.
NOISE, NOISY_CLASSES = 0.6, 4
PEERS = ("neggrad_plus", "bad_teacher", "grad_ascent", "ssd", "finetune")


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Accuracies of every model on wrong labels, right ones and test pictures."""
    settings, bed = bed_settings(ctx), load_bed(ctx.seed)
    sets = splits(settings, ctx.seed, find_data_root())
    noisy, wrong = with_noise(settings, sets[0], ctx.seed)
    tuning = replace(settings.training, seed=ctx.seed)
    original = taught(ctx, "original", fresh(settings, ctx.seed), noisy, tuning, sets[1])
    problem = ForgetProblem(
        original, noisy, wrong.nonzero()[:, 0], (~wrong).nonzero()[:, 0], sets[1], sets[2], kind="random",
        seed=ctx.seed, training=tuning, build=settings.build, augment=settings.augment,
    )  # fmt: skip
    models: dict[str, nn.Module] = {"original": original, "retrain": retrained(ctx, "retrain", problem)}
    rows: list[dict[str, Any]] = []
    chosen: dict[str, Unlearner] = {"laf": LAF(**{**bed.parameters["laf"]["random"], "temperature": 5.0})}
    chosen |= {name: made(Method(name), bed.parameters[name]["random"]) for name in PEERS}
    for name, eraser in chosen.items():
        try:
            models[name] = erased(ctx, name, problem, eraser)
        except VestigeError as error:
            rows.append({"method": name, "seed": ctx.seed, "error": str(error)})
    for name, model in models.items():
        row = parts.figures(ctx, f"{name}.row", partial(noisy_row, model, problem, sets[2]))
        rows.append({"method": name, "seed": ctx.seed, **row})
    known = bed.problems["class"], bed.references["class"], bed.model("class", "laf")
    probe = parts.figures(ctx, "probe", partial(probes, *known))
    return {"rows": rows, "probe": probe}


def with_noise(settings: Settings, samples: Samples, seed: int) -> tuple[Samples, torch.Tensor]:
    """The samples with some labels drawn anew, and which became wrong."""
    labels, draw = samples.labels.clone(), rng(seed, "noisy labels")
    hit = torch.from_numpy(draw.random(len(labels)) < NOISE) & (labels < NOISY_CLASSES)
    labels[hit] = torch.from_numpy(draw.integers(0, settings.classes, int(hit.sum())))
    return samples.with_targets(labels), labels != samples.labels


def noisy_row(model: nn.Module, problem: ForgetProblem, test: Samples) -> dict[str, float]:
    """Shares of wrong labels still said, of right training labels and of test labels."""
    sets = {"wrong labels kept": problem.forget, "RA": problem.retain, "TA": test}
    return {name: round(accuracy(model, samples), 4) for name, samples in sets.items()}


def accuracy(model: nn.Module, samples: Samples) -> float:
    """0 for a model whose weights diverged: it answers nothing."""
    try:
        return say(model, samples).accuracy
    except InputError:
        return 0.0


def probes(problem: ForgetProblem, reference: nn.Module, model: nn.Module) -> dict[str, float]:
    """What a new head on LAF's features still says about the forgotten class, beside retrained features."""
    assert problem.test_forget is not None
    found = {}
    for name, one in (("laf", model), ("retrain", reference)):
        x, y = represent(one, problem.train), problem.train.labels.numpy()
        z, t = represent(one, problem.test_forget), problem.test_forget.labels.numpy()
        found[name] = linear_probe(x, y, z, t)
    return found


RECIPE = Recipe(
    name="laf",
    about="Wrong labels, and what erasers with and without labels make of the network that learned them.",
    perform=perform,
    config=TrainConfig(lr=0.1, batch_size=64),
    options=OPTIONS,
    variants={"default": Variant("60 % wrong labels in four classes", seeds=(0, 1, 2))},
    judged_by="accuracy",
)
