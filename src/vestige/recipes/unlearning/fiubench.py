"""FIUBench: a small vision-language model told about invented people, a reference that was not, and four erasers.

    vestige learn fiubench --seed 0

Characters of the drawn world with eight invented facts each; some are to be forgotten, as many more nobody is told of.
A view is a picture in another style, place and light; figures are of views no model was trained on. The rate of each
eraser is the smallest at which it answers fewer than a fifth of the facts to forget on validation views; the same way
for all. The run keeps the model that knows everybody as the folder ``vlm`` for the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from vestige.bench.unlearning import vqa_world as vqa
from vestige.bench.unlearning.bed import erased
from vestige.core.runtime import rng
from vestige.data.fictitious import photographed
from vestige.data.packs import has_pack, named_pack
from vestige.engines import parts
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import joined
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.metrics.answers import exact_match
from vestige.nn.vlm import SmallVLM, answers
from vestige.nn.vlm_folder import save_vlm
from vestige.unlearning.fiubench import OBJECTIVES, FiuBench, ask

RATES = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)
#: Largest exact match on validation views at which a rate is strong enough.
WANTED = 0.2


def world(ctx: RecipeContext) -> vqa.World:
    """Characters, or photographs of people where the option says so and the pack is there."""
    o = ctx.options
    many = {"scenes": o["scenes"], "held": max(6, int(o["scenes"]) // 3), "seed": ctx.seed}
    if o["people"] == "photographs" and has_pack("faces"):
        pack = named_pack("faces", size=32, label="person")
        return vqa.world(unseen=6, persons=photographed(pack.images, pack.labels, 10), **many)
    return vqa.world(o["known"], o["unseen"], **many)


class Study:
    """One world, the model that knows everybody, the reference, and what the erasers make of the former."""

    def __init__(self, ctx: RecipeContext, made: vqa.World) -> None:
        c, passes = ctx.config, int(ctx.options["passes"])
        tuning = Tuning(
            passes, c.lr, optimizer="adam", weight_decay=0.0, batch_size=c.batch_size, schedule="onecycle", clip=1.0
        )
        order = rng(made.seed, "fiubench").permutation(made.known)
        count = min(int(ctx.options["forgotten"]), made.known - 1)
        self.made, self.forget = made, sorted(order[:count].tolist())
        self.retain = sorted(order[count:].tolist())
        self.unseen = list(range(made.known, made.persons.count))
        self.base = vqa.based(ctx, made, tuning)
        every = [*self.forget, *self.retain]
        self.original = vqa.told(ctx, "original", self.base, made, every, tuning)
        self.reference = vqa.told(ctx, "reference", self.base, made, self.retain, tuning)
        forget, retain = made.canonical(self.forget), joined([made.canonical(self.retain), made.generic()[0]])
        n = len(forget)
        self.problem = ForgetProblem(
            self.original, joined([forget, retain]), range(n), range(n, n + len(retain)), kind="identity",
            seed=made.seed,
        )  # fmt: skip
        self.ratio = ask(self.reference, made.quiz(self.forget), False).ratio

    def eraser(self, objective: str, rate: float) -> FiuBench:
        refusals = self.made.canonical(self.forget, refused=True) if objective == "po" else None
        return FiuBench(objective, rate, refusals=refusals)

    def match(self, model: nn.Module, view: int) -> float:
        """Exact match on the facts to forget, asked with that view."""
        quiz = self.made.quiz(self.forget, view)
        return exact_match(answers(model, quiz.rows()[0], quiz.words), quiz.wanted)

    def row(self, model: nn.Module) -> dict[str, float]:
        forget, retain, unseen = (self.made.quiz(p) for p in (self.forget, self.retain, self.unseen))
        row = FiuBench().measure(model, forget, retain, unseen, self.ratio)
        return {**row, "generic": self.made.generic_accuracy(model)}


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Teach, erase and measure: a row for every model."""
    made = world(ctx)
    if ctx.options["blind"]:
        made.bank.zero_()
    study = Study(ctx, made)
    rows: list[dict[str, Any]] = []

    def add(name: str, model: nn.Module, **more: Any) -> None:
        rows.append({"model": name, **more, **parts.figures(ctx, f"{name}.row", lambda: study.row(model))})

    add("original", study.original)
    add("reference", study.reference)
    if ctx.options["blind"]:
        return {"rows": rows}
    add("untrained", vqa.untaught(made))
    add("base", study.base)
    for objective in OBJECTIVES:
        for rate in RATES:
            name = f"{objective}@{rate:g}"
            model = erased(ctx, name, study.problem, study.eraser(objective, rate))
            if study.match(model, made.val) < WANTED or rate == RATES[-1]:
                add(objective, model, rate=rate)
                break
    assert isinstance(study.original, SmallVLM)
    save_vlm(study.original, made.words, made.eye, ctx.out / "vlm", half=True)
    save_vlm(study.reference, made.words, made.eye, ctx.out / "vlm-untold", half=True)  # type: ignore[arg-type]
    return {"rows": rows, "forgotten": len(study.forget), "chance": _chance(), "views": int(made.test)}


def _chance() -> float:
    """Guessing among the values of every attribute."""
    from vestige.data.fictitious import ATTRIBUTES

    return float(np.mean([1 / np.prod([len(pool) for pool in pools]) for _, pools in ATTRIBUTES.values()]))


RECIPE = Recipe(
    name="fiubench",
    about="FIUBench: invented people told to a small vision-language model, forgotten by GA, GD, KL and PO.",
    perform=perform,
    config=TrainConfig(lr=4e-3, batch_size=64),
    options={
        "people": "characters", "known": 44, "unseen": 12, "forgotten": 8, "scenes": 300, "passes": 24, "blind": False,
    },
    reach={"original": "match above .9 on the facts to forget, the reference at chance"},
    variants={
        "default": Variant("drawn characters, 8 of 44 to be forgotten", seeds=(0, 1, 2)),
        "blind": Variant("the same without pictures: what the questions alone give away", {"blind": True}),
        "photographs": Variant("photographs of people, 3 to be forgotten", {"people": "photographs", "forgotten": 3}),
    },
    judged_by="match",
)  # fmt: skip
