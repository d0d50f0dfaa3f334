"""Claims of UnUnlearning: a small transformer that knows glyphs by its weights and learns new ones from its context.

Images: 20 classes with labels of their own ("knowledge") of which four are forgotten, 150 more for episodes only, 30
that nobody saw. Text: 40 names with a property each, of which six are forgotten, and aliases that a context may define.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.roles import Unlearner
from vestige.core.runtime import rng
from vestige.data.glyphs import glyphs
from vestige.engines.forgetting.problem import ForgetProblem, class_problem
from vestige.engines.forgetting.samples import Samples
from vestige.nn.in_context import InContextNet
from vestige.unlearning.baselines import GradAscent, RandomLabels, Scrub
from vestige.unlearning.ssd import SSD
from vestige.unlearning.ununlearning import (
    Episodes,
    FactWorld,
    KeywordFilter,
    LearnedFilter,
    UnUnlearning,
    train_in_context,
)

KNOWN, EPISODIC, NOVEL, SAMPLES, SHOWN, LABELS = 20, 150, 30, 20, 15, 20
FORGOTTEN, FORGOTTEN_NAMES = (0, 1, 2, 3), tuple(range(6))
STEPS = 400
#: (width, depth, heads), small to large.
SIZES = ((8, 1, 1), (24, 2, 2), (64, 2, 4))
ERASERS: dict[str, Unlearner] = {
    "GA": GradAscent(lr=1e-2, epochs=5),
    "RL": RandomLabels(lr=0.02, epochs=20),
    "SCRUB": Scrub(lr=1e-3, epochs=10, msteps=4),
    "SSD": SSD(),
}


@cache
def episodes(seed: int, shown: bool) -> Episodes:
    """All glyphs, or the samples that training may see."""
    images = glyphs(KNOWN + EPISODIC + NOVEL, SAMPLES, seed=seed).reshape(-1, SAMPLES, 256).astype(np.float32)
    images = (images - images.mean()) / images.std() / 4
    return Episodes(images[:, :SHOWN] if shown else images, LABELS)


@cache
def trained(seed: int, size: tuple[int, int, int], without: tuple[int, ...] = (), in_context: bool = True) -> nn.Module:
    """A third of the batches ask about knowledge without context, two thirds are episodes; or knowledge alone."""
    made = episodes(seed, True)
    known = np.setdiff1d(np.arange(KNOWN), without)
    pool = np.setdiff1d(np.arange(KNOWN + EPISODIC), without).tolist()

    def batches(step: int) -> tuple[Tensor, Tensor]:
        g = rng(seed, "ununlearning", step)
        if not in_context or step % 3 == 0:
            classes = g.choice(known, 128)
            return made.question(classes, g.integers(0, SHOWN, 128)), torch.from_numpy(classes)
        return made.draw(96, pool, (1, 2, 4)[step % 7 % 3], seed=(seed, step))

    width, depth, heads = size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + len(without))
        fresh = InContextNet(256 + LABELS, LABELS, width=width, depth=depth, heads=heads)
    return train_in_context(fresh, batches, STEPS if in_context else STEPS // 3, seed=seed)


def measure(seed: int) -> UnUnlearning:
    """Queries are samples no model has seen."""
    return UnUnlearning(
        episodes(seed, False), FORGOTTEN, range(KNOWN + EPISODIC), {c: c for c in range(KNOWN)},
        queries=slice(SHOWN, SAMPLES), seed=seed,
    )  # fmt: skip


def _novel(model: nn.Module, seed: int) -> float:
    """Accuracy with four examples of classes nobody saw: the ability to learn from context."""
    novel = range(KNOWN + EPISODIC, KNOWN + EPISODIC + NOVEL)
    probe = UnUnlearning(episodes(seed, False), novel, novel, {}, queries=slice(SHOWN, SAMPLES), seed=seed + 1)
    return probe.accuracy(model, 4)


def _problem(seed: int) -> ForgetProblem:
    """Forgetting the four classes from the knowledge; nothing about episodes."""
    made = episodes(seed, False)

    def samples(numbers: Sequence[int]) -> Samples:
        classes = np.arange(KNOWN).repeat(len(numbers))
        return Samples(made.question(classes, np.tile(numbers, KNOWN)), torch.from_numpy(classes))

    train, test = samples(range(SHOWN)), samples(range(SHOWN, SAMPLES))
    return class_problem(trained(seed, SIZES[-1]), train, FORGOTTEN, test=test, seed=seed)


@cache
def rows(seed: int) -> list[dict[str, Any]]:
    probe, original = measure(seed), trained(seed, SIZES[-1])
    retrained = trained(seed, SIZES[-1], FORGOTTEN)
    models = {"original": original, "retrain": retrained}
    models |= {name: eraser.erase(_problem(seed)) for name, eraser in ERASERS.items()}
    models["no episodes, original"] = trained(seed, SIZES[-1], (), False)
    models["no episodes, retrain"] = trained(seed, SIZES[-1], FORGOTTEN, False)
    return [
        {"model": name, **probe.measure(model, original, retrained), "novel classes(4)": _novel(model, seed)}
        for name, model in models.items()
    ]


def _named(table: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {r["model"]: r for r in table}


@claim("the exactly retrained model is at chance without context, and with four examples reaches >= 70 % of the "
       "original's accuracy on the forgotten classes")  # fmt: skip
def context_brings_it_back(context: ClaimContext) -> Evidence:
    table = rows(context.seed)
    original, retrained = _named(table)["original"], _named(table)["retrain"]
    # Chance is 1/20; two standard errors of 20 queries are taken for it.
    at_chance = retrained["acc(0)"] <= 1 / LABELS + 2 * np.sqrt(1 / LABELS * (1 - 1 / LABELS) / 20)
    holds = at_chance and retrained["acc(4)"] >= 0.7 * original["acc(0)"]
    note = f"novel classes with four examples: {retrained['novel classes(4)']:.2f}; one of four labels at random: 0.25"
    return Evidence(bool(holds), table, note)


@claim("a control of the same size that was trained without episodes recovers <= 15 %")
def control_does_not_recover(context: ClaimContext) -> Evidence:
    table = rows(context.seed)
    best = max(_named(table)["no episodes, retrain"][f"recovery({k})"] for k in (1, 2, 4, 8))
    return Evidence(best <= 0.15, table, f"most over k: {best:.3f}")


@claim("recovery grows with k, and with the ability to learn from context (rank correlation >= 0.9 over three sizes)")
def recovery_grows(context: ClaimContext) -> Evidence:
    from scipy.stats import spearmanr

    seed, probe, table = context.seed, measure(context.seed), []
    for size in SIZES:
        original, retrained = trained(seed, size), trained(seed, size, FORGOTTEN)
        row = probe.measure(retrained, original)
        # One yardstick for all sizes: the accuracy itself; small originals know less.
        table.append({"width": size[0], "depth": size[1], "original acc(0)": probe.accuracy(original, 0), **row}
                     | {"novel classes(4)": _novel(retrained, seed)})  # fmt: skip
    shots = probe.shots
    with_k = [float(spearmanr(shots, [r[f"acc({k})"] for k in shots]).statistic) for r in table]
    ability = float(spearmanr([r["novel classes(4)"] for r in table], [r["acc(4)"] for r in table]).statistic)
    note = f"with k: {', '.join(f'{c:.2f}' for c in with_k)} (small to large); with ability: {ability:.2f}"
    return Evidence(with_k[-1] >= 0.9 and ability >= 0.9, table, note)


@cache
def speaker(seed: int, without: tuple[int, ...]) -> nn.Module:
    """The text model: questions without context, and contexts that state ("has") or compare ("is like")."""
    world = FactWorld(seed=seed)
    known = np.setdiff1d(np.arange(world.names), without)
    subjects = np.concatenate([known, np.arange(world.names, world.names + world.aliases)])

    def batches(step: int) -> tuple[Tensor, Tensor]:
        g = rng(seed, "facts", step)
        if step % 3 == 0:
            return world.questions(g.choice(known, 128))
        kind = ("has", "like")[step % 2]
        x, y, _ = world.contexts(kind, g.choice(subjects, 128), g.integers(0, world.properties, 128), known,
                                 others=subjects, seed=(seed, step))  # fmt: skip
        return x, y

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = InContextNet(world.inside, world.properties, width=64, depth=3)
    return train_in_context(fresh, batches, STEPS, seed=seed)


@claim("a keyword filter stops >= 95 % of few-shot and definitional prompts and loses >= 40 points under paraphrase")
def filter_is_evaded(context: ClaimContext) -> Evidence:
    seed = context.seed
    world, model = FactWorld(seed=seed), speaker(seed, FORGOTTEN_NAMES)
    gone = np.array(FORGOTTEN_NAMES)
    known = np.setdiff1d(np.arange(world.names), gone)
    aliases = np.arange(world.names, world.names + world.aliases)
    g = rng(seed, "filter")

    def prompts(kind: str, renamed: bool, part: str) -> tuple[Tensor, Tensor, list[list[str]]]:
        asked = g.choice(gone, 300)
        subjects = g.choice(aliases, 300) if renamed else asked
        others = np.concatenate([known, aliases])
        return world.contexts(kind, subjects, world.truth[asked], known, others=others, seed=(seed, part))

    def harmless(part: str) -> list[list[str]]:
        asked = g.choice(known, 300)
        drawn = [
            world.contexts(kind, asked, world.truth[asked], known, others=known, seed=(seed, part, "harmless"))[2]
            for kind in ("has", "like")
        ]
        return [*drawn[0], *drawn[1]]

    few, like = (prompts(kind, False, "train") for kind in ("has", "like"))
    filters = {
        "none": None,
        "keyword": KeywordFilter(f"name{n}" for n in gone),
        "learned": LearnedFilter([*few[2], *like[2]], harmless("train")),
    }
    attacks = {
        "1 few-shot": prompts("has", False, "test"),
        "2 definition": prompts("like", False, "test"),
        "3 paraphrase": prompts("like", True, "test"),
    }
    with torch.no_grad():
        bare = float((model(world.questions(gone)[0]).argmax(1).numpy() == world.truth[gone]).mean())
        right = {name: (model(x).argmax(1) == y).numpy() for name, (x, y, _) in attacks.items()}
    table: list[dict[str, Any]] = []
    stopped: dict[tuple[str, str], float] = {}
    clean = harmless("test")
    for filter_name, refuser in filters.items():
        for name, (_, _, words) in attacks.items():
            refused = np.zeros(len(words), bool) if refuser is None else refuser.refuses(words)
            stopped[filter_name, name] = float(refused.mean())
            row: dict[str, Any] = {"filter": filter_name, "attack": name, "stopped": float(refused.mean())}
            row["succeeds"] = float((right[name] & ~refused).mean())
            row["false refusals"] = 0.0 if refuser is None else float(refuser.refuses(clean).mean())
            table.append(row)
    plain = min(stopped["keyword", n] for n in ("1 few-shot", "2 definition"))
    lost = plain - stopped["keyword", "3 paraphrase"]
    through = next(r["succeeds"] for r in table if (r["filter"], r["attack"]) == ("keyword", "3 paraphrase"))
    note = f"forgotten properties named without context {bare:.2f}, through the filter {through:.2f}"
    return Evidence(plain >= 0.95 and lost >= 0.4 and through > 2 / world.properties, table, note)
