"""Claims of the search on forged faces made here: swaps, warps and re-rendered faces to learn from, re-synthesised ones
to judge by. Neither the search nor the training sees these; people are never shared. Sizes are far below the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.forensics.faces_study import Faces, faces_by_person, flipped, log_odds
from vestige.core.runtime import rng
from vestige.engines.fitting import fit
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.nas_dfd import Batches, CDCSpace, build, search
from vestige.metrics.detection import auroc
from vestige.nn.darts import Genotype
from vestige.nn.resnet import ResNet, ResNetConfig

ONE, TWO, JUDGED = ("swap", "warp"), ("rerender",), "resynthesise"
RANDOM, SEEDS = 8, 3
SEARCH: dict[str, Any] = {"channels": 8, "cells": 2, "k": 4, "steps": 70, "warmup": 20, "prune_every": 5}
CHANNELS, LAYERS, STEPS, BATCH = 6, 4, 100, 24
ALL, PLAIN = CDCSpace().thetas, (0.0,)  # strengths of central differences: those of the method, and none


class _Separable(nn.Module):
    """Separable convolutions beside a residual link; ``halve`` halves the size."""

    def __init__(self, widths: Sequence[int], halve: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.ReLU(), nn.Conv2d(a, a, 3, padding=1, groups=a, bias=False)]
            layers += [nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b)]
        self.body = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1)) if halve else nn.Sequential(*layers)
        self.link: nn.Module = nn.Identity()
        if halve:
            ends = widths[0], widths[-1]
            self.link = nn.Sequential(nn.Conv2d(*ends, 1, 2, bias=False), nn.BatchNorm2d(widths[-1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.link(x)


class XceptionSmall(nn.Module):
    """N×3×H×W in [0, 1] -> logits N×1, with about as many parameters as the networks that are found here.

    Source: Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017; a fifth of its width, one block in
    the middle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), _Separable((24, 48, 48), True),
            _Separable((48, 96, 96), True), _Separable((96, 144, 144), True), _Separable((144,) * 4, False), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(144, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body((images - 0.5) / 0.25).mean((2, 3)))


#: Networks that nobody searched for.
KNOWN: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18": lambda: ResNet(ResNetConfig(18, width=0.25, classes=1)),
    "Xception, small": XceptionSmall,
}


def _batches(faces: Faces) -> Batches:
    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = faces.paired(BATCH // 2, generator)
        return flipped(chosen.images, generator), (chosen.methods > 0).float()

    return batches


@lru_cache(maxsize=12)
def _searched(
    context: ClaimContext, across: bool, seed: int, thetas: tuple[float, ...] = ALL, pruned: bool = True
) -> Genotype:
    """across: the architecture is scored on other forgeries than the weights see, otherwise on other people.

    pruned: candidates go one by one; otherwise α and β alone choose at the end, as in PC-DARTS.
    """
    known = faces_by_person(context)["train"]
    people = known.people.unique()
    first = torch.isin(known.people, people[: len(people) // 2])
    a, b = known.take(first).only(*ONE), known.take(~first).only(*(TWO if across else ONE))
    settings = {**SEARCH, "steps": 4, "warmup": 1, "prune_every": 1} if context.limit else SEARCH
    if not pruned:
        settings = {**settings, "prune_every": settings["steps"]}
    return search(CDCSpace(thetas), _batches(a), _batches(b), seed=seed, **settings)


@lru_cache(maxsize=32)
def _judged(context: ClaimContext, cells: Genotype | str, seed: int) -> dict[str, float]:
    """AUC on the forgery left out and on those of the training, of a genotype or of one of `KNOWN`."""
    known, test = faces_by_person(context)["train"].without(JUDGED), faces_by_person(context)["test"]
    torch.manual_seed(seed)
    network = KNOWN[cells]() if isinstance(cells, str) else build(cells, CHANNELS, LAYERS)
    batches = _batches(known)

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": F.binary_cross_entropy_with_logits(model(batch[0]).flatten(), batch[1])}

    config = TrainConfig(
        steps=3 if context.limit else STEPS,
        optimizer="sgd",
        lr=0.025,
        weight_decay=3e-4,
        warmup=10,
        clip=5.0,
        seed=seed,
    )
    network = fit(network, step, batches, config)
    found = {}
    for name, part in (("auc, left out", test.only(JUDGED)), ("auc, seen", test.without(JUDGED))):
        found[name] = auroc(part.fake, log_odds(network, part).ravel())
    return found


def _randoms(context: ClaimContext) -> list[Genotype]:
    draw = rng(context.seed, "genotypes")
    return [Genotype.random(CDCSpace().names, draw) for _ in range(2 if context.limit else RANDOM)]


@claim(
    "the cells found beat the median of 8 random ones of the same space by >= 0.02 AUC on the forgery left out, with "
    "the same training"
)
def better_than_random_cells(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    for across in (True, False):
        found = _searched(context, across, context.seed)
        name = "searched across forgeries" if across else "searched on the same forgeries"
        rows.append({"cells": name, **_judged(context, found, context.seed)})
    drawn = [_judged(context, g, context.seed) for g in _randoms(context)]
    rows += [{"cells": f"random {i + 1}", **found} for i, found in enumerate(drawn)]
    rows += [{"cells": name, **_judged(context, name, context.seed)} for name in KNOWN]
    for pruned, way in ((True, "the same search"), (False, "PC-DARTS")):
        for across in (True, False):
            found = _searched(context, across, context.seed, PLAIN, pruned)
            name = f"{way} without central differences, {'across' if across else 'on the same'} forgeries"
            rows.append({"cells": name, **_judged(context, found, context.seed)})
    median = float(np.median([d["auc, left out"] for d in drawn]))
    note = f"median of the random cells {median:.3f}; {STEPS} updates of {BATCH} faces each"
    return Evidence(rows[0]["auc, left out"] >= median + 0.02, rows, note)


@claim("searching across forgeries is at least as good on the forgery left out as searching on the same (three seeds)")
def across_is_no_worse(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    for seed in range(context.seed, context.seed + (1 if context.limit else SEEDS)):
        for across in (True, False):
            rows.append({"seed": seed, "across": across, **_judged(context, _searched(context, across, seed), seed)})
    means = {a: float(np.mean([r["auc, left out"] for r in rows if r["across"] is a])) for a in (True, False)}
    rows += [{"seed": "mean", "across": a, "auc, left out": value} for a, value in means.items()]
    return Evidence(means[True] >= means[False], rows)


@claim("at least 40 % of what is chosen are central differences with strength above 0, and more than chance has")
def central_differences_are_chosen(context: ClaimContext) -> Evidence:
    space, rows = CDCSpace(), []
    for seed in range(context.seed, context.seed + (1 if context.limit else SEEDS)):
        for across in (True, False):
            found = _searched(context, across, seed)
            rows.append({"seed": seed, "across": across, "share": space.differences(found), "cells": found.to_json()})
    usable = [name for name in space.names if name != "none"]
    chance = sum(name[-2:] != "_0" and name[:3] in ("sep", "dil") for name in usable) / len(usable)
    mean = float(np.mean([float(row["share"]) for row in rows]))  # type: ignore[arg-type]
    rows.append({"seed": "mean", "share": mean, "chance": chance})
    return Evidence(mean >= max(0.4, chance + 1e-9), rows)
