"""Manipulated training sets of which a part is found: a backdoor with a 3×3 trigger, or two classes confused.

    vestige learn corrective --variant poison --seed 0
    vestige learn corrective --variant confusion

The eraser sees the known share γ of what was manipulated; the rest stays among what it may retain. Its strength is
chosen without an oracle, by `selection_score` on validation pictures; the strength that an oracle would choose on half
of the test pictures is printed as an upper bound. Everything is judged on the other half. Control: SSD shown as many
clean pictures in place of the known manipulated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.unlearning.bed import BedSettings, cost_of, erased, fresh, retrained, settings_of, taught
from vestige.bench.unlearning.world import splits
from vestige.core.errors import VestigeError
from vestige.core.roles import Unlearner
from vestige.core.runtime import rng
from vestige.data.packs import CIFAR10, find_data_root
from vestige.data.poisons import backdoored, confused
from vestige.engines import parts
from vestige.engines.forgetting.problem import ForgetProblem, corrective_problem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.unlearning.baselines import BadTeacher, FineTune, Scrub
from vestige.unlearning.corrective import Corrective, trigger_success, triggered

#: On the tenth of the pictures whose corner is as bright as the patch, the patch is no trigger: grey levels it must
#: change on average.
SEEN = 64.0
PAIR = CIFAR10.index("cat"), CIFAR10.index("dog")
SHARES = {"poison": (0.1, 1.0), "confusion": (0.25, 1.0)}
METHODS: dict[str, Unlearner] = {
    "CF": FineTune(lr=0.02, epochs=2),
    "SCRUB": Scrub(lr=1e-3, epochs=3, msteps=2),
    "bad teacher": BadTeacher(lr=1e-3, epochs=3),
}
#: Strengths tried: of the published grid those that change something here, finer around 1.
OURS = Corrective(alphas=(0.5, 1.0, 1.5, 2.0, 5.0), lambdas=(0.1, 0.25, 0.5, 1.0, 5.0), batch_size=16, most=4000)
CONTROL = "SSD, shown clean pictures"


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Rows of every method at every share: "Acc_corr" on the affected domain, "Acc_retain" on clean test pictures."""
    o, task = ctx.options, str(ctx.options["task"])
    settings = settings_of(o, ctx.config.lr, ctx.config.batch_size, stem=str(o["stem"]))
    samples, where, val, test = manipulated(settings, task, int(o["count"]), ctx.seed)
    training = replace(settings.training, seed=ctx.seed)
    model = taught(ctx, "original", fresh(settings, ctx.seed), samples, training, val)
    judged, told = (test.take(torch.arange(len(test)) % 2 == half) for half in (0, 1))
    more: dict[str, Any] = {"val": val, "test": test, "seed": ctx.seed, "training": training, "build": settings.build}
    rows: list[dict[str, Any]] = []
    for share in SHARES[task]:
        problem = corrective_problem(model, samples, where, share, **more)
        found: dict[str, nn.Module] = {"no unlearning": model, "EU (retrain)": retrained(ctx, f"{share}/EU", problem)}
        for name, method in METHODS.items():
            found[name] = erased(ctx, f"{share}/{name}", problem, method)
        for name, given, score in (
            ("SSD", problem, None), ("SSD, oracle's strength", problem, partial(oracle, task, told)),
            (CONTROL, shown_clean(problem, ctx.seed), None),
        ):  # fmt: skip
            try:
                found[name] = dampened(ctx, f"{share}/{name}", given, score)
            except VestigeError as error:
                rows.append({"known": share, "method": name, "seed": ctx.seed, "error": str(error)})
        for name, one in found.items():
            row = parts.figures(ctx, f"{share}/{name}.row", partial(measured_on, task, one, judged))
            cost = cost_of(ctx, f"{share}/{'EU' if name.startswith('EU') else name}")
            rows.append({"known": share, "method": name, "seed": ctx.seed, **row, "seconds": cost["seconds"]})
    return {"rows": rows, "source": settings.data}


def manipulated(
    settings: BedSettings, task: str, count: int, seed: int
) -> tuple[Samples, np.ndarray, Samples, Samples]:
    """Training samples with the manipulation, its positions, validation (clean) and test samples."""
    clean, val, test = splits(settings, seed, find_data_root())
    images, labels = clean.inputs.numpy(), clean.labels.numpy()
    if task == "poison":
        images, labels, where = backdoored(images, labels, count, seed=seed)
    else:
        labels, where = confused(labels, *PAIR, count, seed=seed)
    return Samples(torch.from_numpy(images), torch.from_numpy(labels)), where, val, test


def affected(task: str, test: Samples) -> Samples:
    """The domain the manipulation hurts, with true labels: pictures with the trigger where it can be seen, or the two
    classes."""
    if task == "poison":
        return triggered(test, least=SEEN)
    return test.take(torch.isin(test.labels, torch.tensor(PAIR)))


def oracle(task: str, told: Samples, model: nn.Module) -> float:
    """What an oracle chooses strengths by."""
    return sum(Corrective.measure(model, affected(task, told), told).values())


def shown_clean(problem: ForgetProblem, seed: int) -> ForgetProblem:
    """The same problem with as many clean pictures in place of the known manipulated ones."""
    clean = rng(seed, "shown clean").permutation(problem.retain_idx.numpy())[: len(problem.known_idx)]
    rest = np.setdiff1d(np.arange(len(problem.train)), clean)
    return replace(problem, forget_idx=np.sort(clean), retain_idx=rest, known_idx=None, statistics=problem.statistics)


def dampened(
    ctx: RecipeContext, name: str, problem: ForgetProblem, score: Callable[[nn.Module], float] | None
) -> nn.Module:
    """SSD at the strength that scores best, as a part."""
    return parts.weights(ctx, name, problem.copy(), lambda _: OURS.chosen(problem, score)[1])


def measured_on(task: str, model: nn.Module, judged: Samples) -> dict[str, float]:
    """Accuracies on the judged half of the test pictures."""
    hurt = affected(task, judged)
    found = Corrective.measure(model, hurt, judged)
    row = {"Acc_corr": found["corrected"], "Acc_retain": found["retained"]}
    if task == "poison":
        row["trigger success"] = trigger_success(model, hurt)
        row["on bright corners too"] = trigger_success(model, triggered(judged))
    return row


RECIPE = Recipe(
    name="corrective",
    about="Networks trained on manipulated pictures, and what erasers make of them when a part of these is known.",
    perform=perform,
    config=TrainConfig(lr=0.1, batch_size=64),
    options={
        "source": "auto", "images": 8000, "held": 1000, "tested": 2000, "net_width": 0.125, "passes": 14,
        "task": "poison", "stem": "cifar", "count": 400,
    },
    variants={
        # Full resolution, and epochs until the training pictures are known by heart: before, the trigger shares its
        # weights with everything else, and dampening them costs accuracy.
        "poison": Variant("a 3×3 trigger in 5 % of the pictures", seeds=(0, 1, 2)),
        "confusion": Variant(
            "800 labels of cats and dogs swapped",
            {"task": "confusion", "stem": "imagenet", "net_width": 0.25, "count": 800},
        ),
    },
    judged_by="accuracy",
)  # fmt: skip
