"""What UnUnlearning is tried on: glyphs that a small transformer knows by its weights or learns from its context, and a
small language of facts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.core.runtime import rng
from vestige.data.glyphs import glyphs
from vestige.unlearning.ununlearning import Episodes, FactWorld, UnUnlearning

#: Classes with labels of their own, classes for episodes only, classes nobody saw; samples of each, those trained on.
KNOWN, EPISODIC, NOVEL, SAMPLES, SHOWN, LABELS = 20, 150, 30, 20, 15, 20
FORGOTTEN, FORGOTTEN_NAMES = (0, 1, 2, 3), tuple(range(6))


@cache
def episodes(seed: int, shown: bool) -> Episodes:
    """All glyphs, or the samples that training may see."""
    images = glyphs(KNOWN + EPISODIC + NOVEL, SAMPLES, seed=seed).reshape(-1, SAMPLES, 256).astype(np.float32)
    images = (images - images.mean()) / images.std() / 4
    return Episodes(images[:, :SHOWN] if shown else images, LABELS)


def glyph_batch(seed: int, step: int, without: Sequence[int], in_context: bool, size: int) -> tuple[Tensor, Tensor]:
    """A third of the batches ask about knowledge without context, two thirds are episodes; or knowledge alone."""
    made = episodes(seed, True)
    known = np.setdiff1d(np.arange(KNOWN), without)
    if not in_context or step % 3 == 0:
        g = rng(seed, "ununlearning", step)
        classes = g.choice(known, size)
        return made.question(classes, g.integers(0, SHOWN, size)), torch.from_numpy(classes)
    pool = np.setdiff1d(np.arange(KNOWN + EPISODIC), without).tolist()
    return made.draw(3 * size // 4, pool, (1, 2, 4)[step % 7 % 3], seed=(seed, step))


def fact_batch(seed: int, step: int, without: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """Questions without context, and contexts that state ("has") or compare ("is like"), in turn."""
    world = FactWorld(seed=seed)
    known = np.setdiff1d(np.arange(world.names), without)
    subjects = np.concatenate([known, np.arange(world.names, world.names + world.aliases)])
    g = rng(seed, "facts", step)
    if step % 3 == 0:
        return world.questions(g.choice(known, size))
    kind, wanted = ("has", "like")[step % 2], g.integers(0, world.properties, size)
    x, y, _ = world.contexts(kind, g.choice(subjects, size), wanted, known, others=subjects, seed=(seed, step))
    return x, y


def probe(seed: int) -> UnUnlearning:
    """The measure; queries are samples no model has seen."""
    return UnUnlearning(
        episodes(seed, False), FORGOTTEN, range(KNOWN + EPISODIC), {c: c for c in range(KNOWN)},
        queries=slice(SHOWN, SAMPLES), seed=seed,
    )  # fmt: skip


def novel(model: Any, seed: int) -> float:
    """Accuracy with four examples of classes nobody saw: the ability to learn from context."""
    classes = range(KNOWN + EPISODIC, KNOWN + EPISODIC + NOVEL)
    asked = UnUnlearning(episodes(seed, False), classes, classes, {}, queries=slice(SHOWN, SAMPLES), seed=seed + 1)
    return asked.accuracy(model, 4)
