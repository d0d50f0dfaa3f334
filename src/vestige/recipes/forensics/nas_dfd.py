"""Cells searched for forged faces, the network made of them, and the networks it is compared with.

    vestige learn nas_dfd                     # searched across forgeries, for `vestige find --only nas_dfd`
    vestige learn nas_dfd --variant random    # the seed draws the cells
    vestige learn nas_dfd --for-claims

The search learns weights on swaps and warps and scores candidates on re-rendered faces of other people; networks learn
from these three; nobody sees re-synthesised ones before the test. All networks have as many updates on faces handled
alike, JPEG included. Without data the faces are drawn.

Options: cells, "across", "same" (scored on the forgeries of the training), "random", "standard" (the same search
without central differences and pruning, as PC-DARTS), "resnet" or "xception"; search_steps; limit, of faces;
shuffled. A search is done anew after a kill; the training goes on.

Result of the first variant: nas_dfd.safetensors, with its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.forensics.face_bed import faces_of
from vestige.bench.forensics.face_detectors import KNOWN
from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.forged_faces import METHODS, Faces, answers, by_method, handled, resaved
from vestige.engines import parts
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.learned import calibration, save_network
from vestige.forensics.nas_dfd import Batches, CDCSpace, build, search
from vestige.nn.darts import Genotype

SIDE, COUNTS = 40, {"train": 2000, "val": 200, "test": 500}
ONE, TWO, JUDGED = ("swap", "warp"), ("rerender",), "resynthesise"
CHANNELS, LAYERS = 6, 4
SEARCHES = ("across", "same", "standard")


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Search or draw the cells, train the network, judge it."""
    o, limit = ctx.options, int(ctx.options["limit"])
    faces = {p: faces_of(p, SIDE, n, limit=limit, root=ctx.data) for p, n in COUNTS.items()}
    known = faces["train"].without(JUDGED)
    if o["shuffled"]:
        known = known.shuffled(ctx.seed)
    cells = str(o["cells"])
    genotype = ""
    if cells not in KNOWN:
        genotype = str(parts.figures(ctx, "cells", lambda: _cells(ctx, cells, faces["train"])))
    torch.manual_seed(ctx.seed)
    network = KNOWN[cells]() if cells in KNOWN else build(Genotype.from_json(genotype), CHANNELS, LAYERS)
    draw = drawn(known, ctx.config.batch_size)
    val = faces["val"].without(JUDGED)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": nn.functional.binary_cross_entropy_with_logits(model(batch[0]).flatten(), batch[1])}

    def validate(model: nn.Module) -> dict[str, float]:
        kinds = [m for m in METHODS if m != JUDGED]
        return {"auc": float(np.mean(list(by_method(val, answers(model, val.images), kinds).values())))}

    trained = parts.trained(ctx, "network", Job(network, step, draw, validate=validate)).cpu()
    test, found = faces["test"], dict[str, Any]()
    for name, images in (("auc", test.images), ("auc jpeg", resaved(test.images))):
        each = by_method(test, answers(trained, images))
        found |= {f"{name}, {m}": v for m, v in each.items()}
        found[f"{name}, left out"] = each[JUDGED]
        found[f"{name}, seen"] = float(np.mean([v for m, v in each.items() if m != JUDGED]))
    found |= {"updates": ctx.config.steps, "parameters": sum(p.numel() for p in trained.parameters())}
    if genotype:
        found |= {"cells": genotype, "central differences": CDCSpace().differences(Genotype.from_json(genotype))}
    if ctx.variant == RECIPE.default:
        scores, fake = answers(trained, val.images), val.fake
        facts = {"side": SIDE, "cells": genotype, **calibration(scores[~fake], scores[fake], 0.05)}
        save_network(ctx.out / "nas_dfd.safetensors", trained, "nas_dfd", facts)
    return found


def drawn(faces: Faces, size: int) -> Batches:
    """Batches of real and forged faces, handled."""

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = faces.paired(size // 2, generator)
        return handled(chosen.images, generator), (chosen.methods > 0).float()

    return batches


def _cells(ctx: RecipeContext, cells: str, known: Faces) -> str:
    """The genotype as JSON."""
    if cells == "random":
        return Genotype.random(CDCSpace().names, rng(ctx.seed, "genotypes")).to_json()
    if cells not in SEARCHES:
        raise UsageError(f"cells is one of {', '.join((*SEARCHES, 'random', *KNOWN))}; got {cells}.")
    steps, half = int(ctx.options["search_steps"]), known.people < (int(known.people.max()) + 1) // 2
    a, b = known.take(half).only(*ONE), known.take(~half).only(*(TWO if cells == "across" else ONE))
    space = CDCSpace((0.0,) if cells == "standard" else CDCSpace().thetas)
    warm, size = max(1, steps // 3), min(16, ctx.config.batch_size)
    # one candidate is left on every edge when the search is over; without pruning α and β alone choose at the end
    every = steps if cells == "standard" else max(1, (steps - warm) // len(space.names))
    found = search(
        space, drawn(a, size), drawn(b, size), channels=8, cells=2, k=4, steps=steps, warmup=warm, prune_every=every,
        lr=0.05, seed=ctx.seed,
    )  # fmt: skip
    return found.to_json()


_THREE = (0, 1, 2)
RECIPE = Recipe(
    name="nas_dfd",
    about="Cells of central differences searched for forged faces, and the network made of them.",
    perform=perform,
    config=TrainConfig(
        steps=900, batch_size=16, optimizer="sgd", lr=0.025, weight_decay=3e-4, warmup=50, clip=5.0, log_every=15,
        validate_every=45, checkpoint_every=150,
    ),
    reach={"auc, left out": "above the median of random cells with the same training"},
    options={"cells": "across", "search_steps": 330, "limit": 0, "shuffled": False},
    variants={
        "across": Variant("searched across forgeries", seeds=_THREE),
        "same": Variant("searched on the forgeries of the training", {"cells": "same"}, seeds=_THREE),
        "random": Variant("random cells of the same space", {"cells": "random"}, seeds=tuple(range(8))),
        "standard": Variant("PC-DARTS, without central differences", {"cells": "standard"}),
        "resnet": Variant("ResNet-18, a quarter wide", {"cells": "resnet"}),
        "xception": Variant("Xception, small", {"cells": "xception"}),
        "shuffled": Variant("random cells, labels dealt out anew", {"cells": "random", "shuffled": True}),
    },
    judged_by="auc",
)  # fmt: skip
