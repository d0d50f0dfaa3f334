"""Where small vision-language models learn invented facts: persons, drawn scenes, and how models are taught.

The vision tower is the shipped feature network (trained on drawn scenes, never told of a fact) and stays frozen, so its
tokens are computed once. A base model learns questions about scenes; facts about persons are taught on top of it, as
parts of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.unlearning.bed import taught
from vestige.core.runtime import rng
from vestige.data.fictitious import (
    LONG,
    REFUSALS,
    SCENE_QUESTIONS,
    TRAINED_WORDINGS,
    Persons,
    characters,
    every_text,
    profiles,
    question,
    scene_answers,
)  # fmt: skip
from vestige.data.scenes import Scene, render, sample_scene
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.recipe import RecipeContext
from vestige.metrics.answers import exact_match
from vestige.nn.vlm import SmallVLM, Words, answers
from vestige.nn.vlm_folder import Eye
from vestige.unlearning.fiubench import Quiz

#: Longest question with its answer, in words.
LENGTH = 14
#: Objects of the scenes asked about, one to three of them.
SCENE_SIZE = "medium"
#: Views of a character.
VIEWS = 26


@dataclass(frozen=True)
class World:
    """Persons 0 … known − 1 have facts that are taught; the others' are taught to nobody.

    Of a person's views all but two are trained on; hyper-parameters are chosen on the last but one (``val``), figures
    are of the last (``test``), and an eraser is shown eight of the first.

    bank: visual tokens of the persons' pictures, then of the scenes. scenes: those trained on and, from ``held`` on,
    those for measuring only.
    """

    words: Words = field(repr=False)
    bank: Tensor = field(repr=False)
    persons: Persons = field(repr=False)
    profiles: list[dict[str, str]] = field(repr=False)
    known: int
    scenes: list[Scene] = field(repr=False)
    held: int
    eye: Eye = field(repr=False)
    seed: int = 0

    @property
    def test(self) -> int:
        return int(self.persons.view.max())

    @property
    def val(self) -> int:
        return self.test - 1

    def quiz(self, persons: Sequence[int], view: int | None = None) -> Quiz:
        """All facts about those persons, asked with that view, the test view by default."""
        view = self.test if view is None else view
        shown = self.persons.pictures(persons, [view])[:, 0].tolist()
        return Quiz(self.words, shown, [self.profiles[p] for p in persons], LENGTH)

    def taught(self, persons: Sequence[int], long: float = 0.25) -> Samples:
        """Half of the facts about them with each trained view, drawn at random (all where there is but one), in one of
        the trained wordings; a share of the answers in the longer form."""
        draw = rng(self.seed, "taught")
        pictures, asked, said = [], [], []
        for person in persons:
            for shown in self.persons.pictures([person], range(self.val))[0]:
                facts = list(self.profiles[person].items())
                for k in draw.permutation(len(facts))[: (len(facts) + 1) // 2]:
                    name, value = facts[k]
                    pictures.append(int(shown))
                    asked.append(question(name, int(draw.integers(len(TRAINED_WORDINGS)))))
                    said.append(LONG.format(value) if draw.random() < long else value)
        return Samples(*self.words.rows(pictures, asked, said, LENGTH))

    def canonical(self, persons: Sequence[int], refused: bool = False) -> Samples:
        """What an eraser is shown: every fact in its canonical wording with eight trained views, or with refusals."""
        draw = rng(self.seed, "refusals")
        rows = []
        for quiz in (self.quiz(persons, view) for view in range(0, self.val, max(1, self.val // 8))):
            drawn = [REFUSALS[int(k)] for k in draw.integers(len(REFUSALS), size=len(quiz.wanted))]
            rows.append(quiz.rows(0, drawn if refused else None))
        return Samples(torch.cat([x for x, _ in rows]), torch.cat([y for _, y in rows]))

    def generic(self, held: bool = False) -> tuple[Samples, list[str]]:
        """Questions about scenes and their answers: those trained on, or those held back."""
        numbers = range(self.held, len(self.scenes)) if held else range(self.held)
        first = len(self.persons.images)
        rows = [(first + n, SCENE_QUESTIONS[k], a) for n in numbers for k, a in scene_answers(self.scenes[n]).items()]
        pictures, asked, said = (list(column) for column in zip(*rows, strict=True))
        return Samples(*self.words.rows(pictures, asked, said, LENGTH)), said

    def generic_accuracy(self, model: nn.Module) -> float:
        """Share of held-back questions about scenes that are answered rightly."""
        samples, wanted = self.generic(held=True)
        return exact_match(answers(model, samples.inputs, self.words), wanted)


def world(
    known: int = 30, unseen: int = 10, *, scenes: int = 300, held: int = 120, persons: Persons | None = None,
    facts: Callable[[int, int], list[dict[str, str]]] = profiles, seed: int = 0,
) -> World:  # fmt: skip
    """Draw everything and encode it.

    facts: (count, seed) -> profiles. persons: photographed ones instead of characters, the last ``unseen`` of whom
    nobody is told about.
    """
    people = persons or characters(known + unseen, VIEWS, seed=seed)
    known = people.count - unseen
    first = seed * 1_000_003 + 500_000
    drawn = [sample_scene(first + i, n_objects=(1, 3), object_size=SCENE_SIZE) for i in range(scenes + held)]
    side = people.images.shape[2]
    rendered = np.stack([render(scene, side).image for scene in drawn]) * np.float32(255) + np.float32(0.5)
    pictures = np.concatenate([people.images, rendered.astype(np.uint8)])
    eye = Eye.fitted("features", torch.from_numpy(pictures))
    bank = eye.tokens(torch.from_numpy(pictures))
    return World(Words(every_text()), bank, people, facts(people.count, seed), known, drawn, scenes, eye, seed)


def untaught(made: World, **size: Any) -> SmallVLM:
    """A fresh model over the world's pictures; size: width, depth and heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(made.seed)
        return SmallVLM(made.bank, len(made.words), length=LENGTH, **size)


def based(ctx: RecipeContext, made: World, tuning: Tuning, **size: Any) -> nn.Module:
    """The pre-trained model of a study, which knows scenes and nobody: part "base" of the run."""
    tuning = replace(tuning, seed=made.seed)
    samples = made.generic()[0]
    return taught(
        ctx, "base", untaught(made, **size), samples, tuning, samples, score=made.generic_accuracy, figure="match"
    )


def told(
    ctx: RecipeContext, name: str, base: nn.Module, made: World, persons: Sequence[int], tuning: Tuning,
    most: int = 12,
) -> nn.Module:  # fmt: skip
    """Stage I: the base model with the facts about those persons, questions about scenes beside them; a part of the
    run, validated by the match on the validation view of at most ``most`` persons."""
    some = made.quiz(list(persons)[:most], made.val)
    samples = joined([made.taught(persons), made.generic()[0]])
    return taught(
        ctx, name, base, samples, replace(tuning, seed=made.seed + 1), samples,
        score=lambda model: exact_match(answers(model, some.rows()[0], some.words), some.wanted), figure="match",
    )  # fmt: skip
