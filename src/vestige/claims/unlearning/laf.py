"""Claims of Label-Agnostic Forgetting: without any label it forgets a class and undoes wrong labels."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from vestige.bench.methods import Method
from vestige.bench.unlearning.protocol import eraser, parameters_of
from vestige.bench.unlearning.world import FOLDER, kept, splits
from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.unlearning.cells import SEEDS, cells, settings_of, shown
from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.engines.forgetting.evaluate import represent, say
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import retrain, train
from vestige.metrics.representation import linear_probe
from vestige.unlearning.laf import LAF

#: Labels of this share of the samples of the first classes are drawn anew.
NOISE, NOISY_CLASSES = 0.6, 4
REPAIR = "laf:repair=500"
PEERS = f"laf,{REPAIR},grad_ascent,random_labels:retain=0,neggrad_plus,bad_teacher,boundary_shrink,ssd,random_labels"


@claim("noisy labels: without any label it recovers at least half of the test accuracy between original and retrained")
def undoes_wrong_labels(context: ClaimContext) -> Evidence:
    table, shares = [], []
    for seed in range(SEEDS):
        problem, test = noisy_problem(context, context.seed + seed)
        settings = settings_of(context)
        recipe = {"settings": asdict(settings), "seed": problem.seed, "noise": [NOISE, NOISY_CLASSES], "retrain": True}
        reference, _ = kept(FOLDER, recipe, settings.build, partial(retrain, problem))
        chosen = LAF(**{**parameters_of(Method("laf"), "random"), "temperature": 5.0})
        models: dict[str, nn.Module] = {
            "original": problem.model,
            "retrain": reference,
            "laf": chosen.erase(problem.without_labels()),
            **{
                name: eraser(Method(name), "random").erase(problem)
                for name in ("neggrad_plus", "bad_teacher", "grad_ascent", "ssd")
            },
        }
        rows = {name: _noisy_row(model, problem, test) for name, model in models.items()}
        table += [{"seed": seed, "method": name, **row} for name, row in rows.items()]
        gap = rows["retrain"]["TA"] - rows["original"]["TA"]
        shares.append((rows["laf"]["TA"] - rows["original"]["TA"]) / gap if gap > 0 else float("nan"))
    mean = sum(shares) / len(shares)
    return Evidence(mean >= 0.5, table, f"share of the gap recovered, by seed: {', '.join(f'{s:.2f}' for s in shares)}")


@claim(
    "class forgetting: forget accuracy at most 10 %, test accuracy of the other classes within 10 points of retraining "
    "without labels and within 5 after repair with 500 labelled samples"
)
def forgets_a_class(context: ClaimContext) -> Evidence:
    found = cells(context, ["class"], PEERS)
    aim = found["class", "retrain"]["TA"]
    plain, repaired = found["class", "laf"], found["class", REPAIR]
    low = all(row["UA"] >= 0.9 for row in (plain, repaired))
    near = abs(plain["TA"] - aim) <= 0.10 and abs(repaired["TA"] - aim) <= 0.05
    note = (
        f"forget accuracy {1 - plain['UA']:.3f} and {1 - repaired['UA']:.3f} after repair; test {plain['TA']:.3f} and "
        f"{repaired['TA']:.3f}, retrained {aim:.3f}; a new head {_probe(context)}"
    )
    return Evidence(low and near, shown(found), note)


@claim("its average gap to retraining is at most that of gradient ascent and of random labels without retained data")
def no_worse_than_with_labels(context: ClaimContext) -> Evidence:
    found = cells(context, ["class", "random"], PEERS)
    gaps = {
        name: sum(found[kind, name]["gap"] for kind in ("class", "random")) / 2
        for name in ("laf", "grad_ascent", "random_labels:retain=0")
    }
    note = "mean gap over both problems: " + ", ".join(f"{name} {100 * gap:.1f}" for name, gap in gaps.items())
    return Evidence(gaps["laf"] <= min(gaps.values()), shown(found), note)


def noisy_problem(context: ClaimContext, seed: int) -> tuple[ForgetProblem, Samples]:
    """Training labels of four classes randomised for 60 % of their samples; what became wrong is to be forgotten."""
    settings = settings_of(context)
    samples, val, test = splits(settings, seed, context.data)
    labels, draw = samples.labels.clone(), rng(seed, "noisy labels")
    hit = torch.from_numpy(draw.random(len(labels)) < NOISE) & (labels < NOISY_CLASSES)
    labels[hit] = torch.from_numpy(draw.integers(0, settings.classes, int(hit.sum())))
    wrong = labels != samples.labels
    noisy = samples.with_targets(labels)

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = settings.build()
        return train(fresh, noisy, replace(settings.training, seed=seed))

    recipe: dict[str, object] = {"settings": asdict(settings), "seed": seed, "noise": [NOISE, NOISY_CLASSES]}
    model, _ = kept(FOLDER, recipe, settings.build, make)
    problem = ForgetProblem(
        model, noisy, wrong.nonzero()[:, 0], (~wrong).nonzero()[:, 0], val, test, kind="random", seed=seed,
        training=replace(settings.training, seed=seed), build=settings.build, augment=settings.augment,
    )  # fmt: skip
    return problem, test


def _noisy_row(model: nn.Module, problem: ForgetProblem, test: Samples) -> dict[str, Any]:
    parts = {"wrong labels kept": problem.forget, "RA": problem.retain, "TA": test}
    return {name: round(_accuracy(model, samples), 4) for name, samples in parts.items()}


def _accuracy(model: nn.Module, samples: Samples) -> float:
    """0 for a model whose weights diverged: it answers nothing."""
    try:
        return say(model, samples).accuracy
    except InputError:
        return 0.0


def _probe(context: ClaimContext) -> str:
    """What a new head on LAF's features still says about the forgotten class, beside retrained features."""
    from vestige.claims.unlearning.cells import world_of

    found = world_of(context, "class", 0)
    problem, figures = found.problem, []
    assert problem.test is not None
    assert problem.test_forget is not None
    for model in (eraser(Method("laf"), "class").erase(problem.without_labels()), found.reference):
        x, y = represent(model, problem.train), problem.train.labels.numpy()
        z, t = represent(model, problem.test_forget), problem.test_forget.labels.numpy()
        figures.append(linear_probe(x, y, z, t))
    return f"names {figures[0]:.2f} of the forgotten class (retrained features: {figures[1]:.2f})"
