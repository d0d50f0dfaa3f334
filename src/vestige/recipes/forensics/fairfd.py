"""Detectors of forged faces to audit by group: biased on purpose, and trained by fair losses.

    vestige learn fairfd
    vestige learn fairfd --for-claims

Faces and groups are those of the people pack (the collection's own words and labels; everybody else is left out); seven
of ten training faces are of the first group, so that the detector is biased on purpose. Parts share nobody: training,
pruning, validation, test. Without data the faces are drawn and the groups are tones of skin.

Options: over, what a fair loss takes the tail over: "pictures" (DAG-FDD), "groups" (DAW-FDD) or nothing; tail, the
share of the worst losses that is averaged; share, of the first group in training; limit, of faces; shuffled.

Source of the fair losses: Improving Fairness in Deepfake Detection, WACV 2024; the inner tail of DAW-FDD over the
pictures of a group answers few real ones, and is their mean here, where batches hold as many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.forensics.face_detectors import small_detector
from vestige.bench.forensics.fairness import audited, groups_of, people_of, skewed
from vestige.core.errors import UsageError
from vestige.data.forged_faces import METHODS, answers, by_method, handled
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig


def build(ctx: RecipeContext) -> Job:
    """Faces with their forgeries, mostly of one group, and the detector."""
    o, limit = ctx.options, int(ctx.options["limit"])
    over, tail = str(o["over"]), float(o["tail"])
    if over not in ("", "pictures", "groups") or not 0 < tail <= 1:
        raise UsageError(f"over is pictures, groups or nothing, and tail in (0, 1]; got {over!r} and {tail}.")
    parts = people_of(limit, ctx.data)
    known = skewed(parts["train"], float(o["share"]), ctx.seed)
    val = parts["val"]
    if o["shuffled"]:
        known = known.shuffled(ctx.seed)

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        chosen = known.paired(ctx.config.batch_size // 2, generator)
        fake = (chosen.methods > 0).float()
        return {"images": handled(chosen.images, generator), "fake": fake, "groups": chosen.groups}

    def step(module: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        logits = module(batch["images"]).squeeze(1)
        each = F.binary_cross_entropy_with_logits(logits, batch["fake"], reduction="none")
        if over == "groups":
            each = torch.stack([each[batch["groups"] == g].mean() for g in batch["groups"].unique()])
        return {"loss": cvar(each, tail) if tail < 1 else each.mean()}

    def validate(module: nn.Module) -> dict[str, float]:
        return {"auc": float(np.mean(list(by_method(val, answers(module, val.images)).values())))}

    def evaluate(module: nn.Module) -> dict[str, Any]:
        found = audited(module, parts)
        return {**found, "groups": list(groups_of(parts["test"])), "forgeries": list(METHODS)}

    return Job(small_detector(), step, batches, validate=validate, evaluate=evaluate)


def cvar(values: Tensor, share: float) -> Tensor:
    """Mean of the largest ``share`` of the values N: the least of λ + mean [v - λ]₊ / share, which a value attains."""
    return (values + (values - values[:, None]).relu().mean(1) / share).min()


_THREE = (0, 1, 2)
RECIPE = Recipe(
    name="fairfd",
    about="A small detector of forged faces, biased on purpose, to audit by group and to prune.",
    build=build,
    config=TrainConfig(
        steps=1500, batch_size=24, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-2, warmup=50, log_every=25,
        validate_every=75, checkpoint_every=150,
    ),
    reach={"auc": "0.80 on validation people"},
    options={"over": "", "tail": 1.0, "share": 0.7, "limit": 0, "shuffled": False},
    variants={
        "plain": Variant("cross-entropy, seven of ten faces of one group", seeds=(0, 1, 2)),
        "dag": Variant("the worst half of the pictures (DAG-FDD)", {"over": "pictures", "tail": 0.5}, seeds=_THREE),
        "daw": Variant("the worst half of the groups (DAW-FDD)", {"over": "groups", "tail": 0.5}, seeds=_THREE),
        "even": Variant("cross-entropy, as many faces of every group", {"share": 0.25}),
        "shuffled": Variant("labels dealt out anew", {"shuffled": True}),
    },
    judged_by="auc",
)  # fmt: skip
