"""The vision-language model of the starter kit: it has learnt invented facts about seven drawn people by heart.

It is meant to be made to forget and to be attacked; it answers four kinds of questions about drawn faces and nothing
else. Needs no data.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vestige.data.fictitious import TRAINED_WORDINGS, question
from vestige.data.starter_facts import PARTS, PERSONS, SHOWN, VIEWS, people, picture_texts
from vestige.engines.forgetting.losses import task_loss
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.metrics.answers import exact_match
from vestige.nn.vlm import SmallVLM, Words, answers
from vestige.nn.vlm_folder import Eye, save_vlm

LENGTH = 12


def build(ctx: RecipeContext) -> Job:
    """Every told fact with all views in the trained wordings; validated in a wording that is not trained."""
    images, told = people()
    flat = torch.from_numpy(images).flatten(0, 1)
    eye, words = Eye.fitted("pixels", flat), Words(picture_texts())
    taught = [p for p in range(PERSONS) if PARTS.get(p) != "unseen"]

    def rows(wordings: range, views: range) -> tuple[Tensor, Tensor, list[str]]:
        each = [
            (p * VIEWS + v, question(n, w), value)
            for p in taught for v in views for n, value in told[p].items() for w in wordings
        ]  # fmt: skip
        pictures, asked, said = (list(column) for column in zip(*each, strict=True))
        return *words.rows(pictures, asked, said, LENGTH), said

    x, y, _ = rows(TRAINED_WORDINGS, range(VIEWS))
    new, _, wanted = rows(range(4, 5), range(len(SHOWN)))

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(x), (ctx.config.batch_size,), generator=generator)
        return x[chosen], y[chosen]

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": task_loss(model(batch[0]), batch[1])}

    def validate(model: nn.Module) -> dict[str, float]:
        return {"other_wording": exact_match(answers(model, new, words), wanted)}

    def save(model: nn.Module, out: Path) -> None:
        assert isinstance(model, SmallVLM)
        save_vlm(model, words, eye, out / "vlm", half=True)

    model = SmallVLM(eye.tokens(flat), len(words), width=48, depth=3, heads=2, length=LENGTH)
    return Job(model, step, batches, validate=validate, save=save)


RECIPE = Recipe(
    name="starter_vlm",
    about="The starter kit's vision-language model of drawn people, made to be forgotten from.",
    build=build,
    config=TrainConfig(
        steps=1200, batch_size=48, lr=4e-3, weight_decay=0.0, warmup=40, log_every=20, validate_every=60,
        checkpoint_every=200,
    ),
    reach={"other_wording": "above .95: it has to know what it is asked to forget"},
    judged_by="other_wording",
)  # fmt: skip
