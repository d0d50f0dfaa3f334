"""The identity-unlearning benchmark on photographs of people: age groups are the task, some people ask to be forgotten.

    vestige learn mufac --seed 0

Every eraser is tried with each of its candidates; the one with the best NoMUS on validation people, who are in no other
part, is measured on test and unseen people. Beside the original and the retrained model stand three controls: untrained
weights, the original stopped after a fifth of its training, and erasers that forget other people than those who asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.unlearning.bed import erased, taught
from vestige.core.errors import VestigeError
from vestige.core.roles import Unlearner
from vestige.core.runtime import rng
from vestige.data.aged_people import COUNTS, aged_people
from vestige.data.identity_task import IdentityTask
from vestige.engines import parts
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.metrics.unlearning import mia_forget_vs_test
from vestige.nn.backbone import save_backbone
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.baselines import BadTeacher, CFk, FineTune, GradAscent, NegGradPlus, Scrub, Unsir
from vestige.unlearning.mufac import Mufac, identity_problem, samples_of
from vestige.unlearning.ssd import SSD

#: Three candidates for every eraser.
METHODS: dict[str, tuple[Unlearner, ...]] = {
    "FT": tuple(FineTune(lr=r, epochs=4) for r in (0.005, 0.02, 0.05)),
    "CF-3": tuple(CFk(k=3, lr=r, epochs=4) for r in (0.005, 0.02, 0.05)),
    "NegGrad": tuple(GradAscent(lr=r, epochs=3) for r in (3e-4, 1e-3, 3e-3)),
    "Advanced NegGrad": tuple(NegGradPlus(weight=0.7, lr=r, epochs=4) for r in (0.005, 0.02, 0.05)),
    "UNSIR": tuple(Unsir(impair_lr=r, retain_samples=600) for r in (2e-3, 6e-3, 0.02)),
    "SCRUB": tuple(Scrub(lr=r, epochs=4, msteps=2) for r in (3e-4, 1e-3, 3e-3)),
    "SSD": tuple(SSD(alpha=a) for a in (2.0, 5.0, 10.0)),
    "bad teacher": tuple(BadTeacher(lr=r, epochs=4) for r in (3e-4, 1e-3, 3e-3)),
}
#: Those that are also told to forget people who did not ask.
ELSEWHERE = ("FT", "Advanced NegGrad", "SCRUB")


def network(ctx: RecipeContext, outputs: int, seed: int) -> ResNet:
    """A fresh network; same seed, same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet(ResNetConfig(18, "imagenet", float(ctx.options["net_width"]), outputs))


class Study:
    """One parting of the people, the models trained on it, and what is measured with."""

    def __init__(self, ctx: RecipeContext) -> None:
        o, c = ctx.options, ctx.config
        counts = {name: max(8, round(n * float(o["share"]))) for name, n in COUNTS.items()}
        self.task: IdentityTask = aged_people(counts, size=int(o["size"]), seed=ctx.seed)
        outputs = len(self.task.class_names)
        tuning = Tuning(int(o["passes"]), c.lr, batch_size=c.batch_size, schedule="onecycle", seed=ctx.seed)
        val = self.task.where("val")
        self.chosen_on, self.chosen_unseen = (samples_of(self.task, part) for part in np.array_split(val, 2))
        self.problem, self.unseen = identity_problem(
            network(ctx, outputs, ctx.seed), self.task, seed=ctx.seed, training=tuning, val=self.chosen_on
        )
        problem = self.problem

        def train(name: str, samples: Samples, seed: int, passes: int) -> nn.Module:
            start, how = network(ctx, outputs, seed), replace(tuning, seed=seed, epochs=passes)
            return taught(ctx, name, start, samples, how, self.chosen_on)

        self.retrained = train("retrain", problem.retain, ctx.seed + 1000, tuning.epochs)
        self.stopped = train("stopped", problem.train, ctx.seed, max(1, tuning.epochs // 5))
        problem.model = train("original", problem.train, ctx.seed, tuning.epochs)
        self.untrained = network(ctx, outputs, ctx.seed + 987_654).eval()

    def elsewhere(self) -> ForgetProblem:
        """The same model, asked to forget as many people as asked, drawn from those who did not."""
        kept = self.problem.retain_idx.numpy()
        drawn = rng(self.problem.seed, "people who did not ask").permutation(kept)
        count = min(len(self.problem.forget_idx), len(kept) // 2)
        gone = np.sort(drawn[:count])
        rest = np.setdiff1d(np.arange(len(self.problem.train)), gone)
        return replace(self.problem, forget_idx=gone, retain_idx=rest, statistics={})

    def row(self, model: nn.Module) -> dict[str, float]:
        """The benchmark's figures on test and unseen people."""
        return Mufac(seed=self.problem.seed).measure(model, self.problem, self.unseen)

    def scores(self, models: Sequence[nn.Module | None]) -> list[float]:
        """NoMUS of each on validation people, −1 for a candidate that could not be used."""
        problem, measure = replace(self.problem, test=self.chosen_on), Mufac(seed=self.problem.seed, splits=5)
        return [
            -1.0 if model is None else measure.measure(model, problem, self.chosen_unseen)["NoMUS"] for model in models
        ]

    def nothing(self) -> float:
        """M of two halves of the unseen people: what the attack finds where there is nothing to find."""
        losses = say(self.problem.model, self.unseen).losses
        assert losses is not None
        one, other = np.array_split(rng(self.problem.seed, "halves").permutation(losses), 2)
        return abs(mia_forget_vs_test(one, other, seed=self.problem.seed) - 0.5)


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Train, choose, erase and measure: a row for every model."""
    study = Study(ctx)
    rows: list[dict[str, Any]] = []

    def add(name: str, model: nn.Module, **more: Any) -> None:
        rows.append({"model": name, **more, **parts.figures(ctx, f"{name}.row", lambda: study.row(model))})

    add("original", study.problem.model)
    add("retrain", study.retrained)
    add("untrained", study.untrained)
    add("stopped early", study.stopped)
    for name, candidates in METHODS.items():
        models = [_tried(ctx, f"{name}/{n}", study.problem, eraser) for n, eraser in enumerate(candidates)]
        scores = parts.figures(ctx, f"{name}/scores", partial(study.scores, models))
        best = int(np.argmax(scores))
        chosen = models[best]
        if chosen is None:
            continue
        add(name, chosen, candidate=best)
        if name in ELSEWHERE:
            other = erased(ctx, f"{name}/elsewhere", study.elsewhere(), candidates[best])
            add(f"{name}, other people", other, candidate=best)
    model = study.problem.model
    assert isinstance(model, ResNet)
    save_backbone(model, ctx.out / "classifier.safetensors")
    return {"rows": rows, "M of nothing": study.nothing(), "classes": list(study.task.class_names)}


def _tried(ctx: RecipeContext, name: str, problem: ForgetProblem, eraser: Unlearner) -> nn.Module | None:
    """What a candidate makes of the model; None where it cannot be used, as a strength that chooses no weight."""
    try:
        return erased(ctx, name, problem, eraser)
    except VestigeError:
        return None


RECIPE = Recipe(
    name="mufac",
    about="MUFAC on photographs of people: age groups, people who ask to be forgotten, eight erasers, three controls.",
    perform=perform,
    config=TrainConfig(lr=0.1, batch_size=64),
    options={"size": 48, "net_width": 0.25, "passes": 20, "share": 1.0},
    reach={"original": "M at least 0.1 above that of the retrained model, which is at that of nothing"},
    variants={"default": Variant("750 people asked, 2,250 did not", seeds=(0, 1, 2))},
    judged_by="accuracy",
)  # fmt: skip
