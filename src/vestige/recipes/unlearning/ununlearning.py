"""UnUnlearning: a small transformer that knows glyphs by its weights and learns new ones from its context.

    vestige learn ununlearning --variant retrain --seed 0

Twenty classes have labels of their own, of which four are forgotten: "retrain" was never told them. Arms without
episodes cannot learn from a context; "small" and "middle" are worse at it. "text" arms know names with properties in
place of glyphs. The original's run also holds what four erasers make of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.unlearning.in_context import (
    FORGOTTEN,
    FORGOTTEN_NAMES,
    KNOWN,
    LABELS,
    SAMPLES,
    SHOWN,
    episodes,
    fact_batch,
    glyph_batch,
    novel,
    probe,
)
from vestige.core.roles import Unlearner
from vestige.engines.forgetting.problem import ForgetProblem, class_problem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.nn.in_context import InContextNet
from vestige.unlearning.baselines import GradAscent, RandomLabels, Scrub
from vestige.unlearning.ssd import SSD
from vestige.unlearning.ununlearning import FactWorld

ERASERS: dict[str, Unlearner] = {
    "GA": GradAscent(lr=1e-2, epochs=5),
    "RL": RandomLabels(lr=0.02, epochs=20),
    "SCRUB": Scrub(lr=1e-3, epochs=10, msteps=4),
    "SSD": SSD(),
}


def network(options: Mapping[str, Any], seed: int = 0) -> InContextNet:
    """The network of an arm, with fresh weights."""
    inside, outside = 256 + LABELS, LABELS
    if options["text"]:
        world = FactWorld(seed=seed)
        inside, outside = world.inside, world.properties
    width, depth, heads = (int(options[n]) for n in ("width", "depth", "heads"))
    return InContextNet(inside, outside, width=width, depth=depth, heads=heads)


def build(ctx: RecipeContext) -> Job:
    """Train an arm; its evaluation is the curve over k, and of the original those of four erasers too."""
    o, seed, size = ctx.options, ctx.seed, ctx.config.batch_size
    forgotten = FORGOTTEN_NAMES if o["text"] else FORGOTTEN
    without = forgotten if o["without"] else ()

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if o["text"]:
            return fact_batch(seed, number, without, size)
        return glyph_batch(seed, number, without, o["episodes"], size)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(model(batch[0]), batch[1])}

    # Batches of numbers that training does not reach, of all three kinds.
    held = [batches(10_000_000 + k, torch.Generator()) for k in range(6)]

    def validate(model: nn.Module) -> dict[str, float]:
        hits = torch.cat([model(x).argmax(1) == y for x, y in held])
        return {"accuracy": float(hits.float().mean())}

    def evaluate(model: nn.Module) -> dict[str, Any]:
        if o["text"]:
            return {}
        found: dict[str, Any] = curve(model, seed)
        if o["erasers"]:
            found["erased"] = {name: curve(e.erase(problem(model, seed)), seed) for name, e in ERASERS.items()}
        return found

    return Job(network(o, seed), step, batches, validate=validate, evaluate=evaluate)


def curve(model: nn.Module, seed: int) -> dict[str, float]:
    """{"acc(k)"} on the forgotten classes and "novel(4)" on classes nobody saw."""
    found = {f"acc({k})": a for k, a in probe(seed).attack(model).items()}
    return {**found, "novel(4)": novel(model, seed)}


def problem(model: nn.Module, seed: int) -> ForgetProblem:
    """Forgetting the four classes from the knowledge; nothing about episodes."""
    made = episodes(seed, False)

    def samples(numbers: range) -> Samples:
        classes = np.arange(KNOWN).repeat(len(numbers))
        return Samples(made.question(classes, np.tile(numbers, KNOWN)), torch.from_numpy(classes))

    train, test = samples(range(SHOWN)), samples(range(SHOWN, SAMPLES))
    return class_problem(model, train, FORGOTTEN, test=test, seed=seed)


_SMALL, _MIDDLE = {"width": 8, "depth": 1, "heads": 1}, {"width": 24, "depth": 2, "heads": 2}
RECIPE = Recipe(
    name="ununlearning",
    about="Transformers that know by their weights and learn from their context, told and never told four classes.",
    build=build,
    config=TrainConfig(
        steps=2400, batch_size=128, lr=2e-3, weight_decay=0.0, warmup=0.1, log_every=20, validate_every=120,
        checkpoint_every=200,
    ),
    options={
        "without": False, "episodes": True, "text": False, "width": 64, "depth": 2, "heads": 4, "erasers": False,
    },
    reach={"accuracy": "flat, and far above a guess among four"},
    variants={
        "retrain": Variant("never told the four classes", {"without": True}, seeds=(0, 1, 2)),
        "original": Variant("told everything, and four erasers of it", {"erasers": True}, seeds=(0, 1, 2)),
        "no_episodes": Variant("told everything, without episodes", {"episodes": False}),
        "no_episodes_retrain": Variant(
            "never told the four, without episodes", {"episodes": False, "without": True}, seeds=(0, 1, 2)
        ),
        "small": Variant("told everything, one layer of width 8", _SMALL),
        "small_retrain": Variant("never told the four, one layer of width 8", {**_SMALL, "without": True}),
        "middle": Variant("told everything, two layers of width 24", _MIDDLE),
        "middle_retrain": Variant("never told the four, two layers of width 24", {**_MIDDLE, "without": True}),
        "text_retrain": Variant(
            "names with properties, never told six", {"text": True, "without": True, "depth": 3}, seeds=(0, 1, 2)
        ),
    },
    judged_by="accuracy",
)  # fmt: skip
