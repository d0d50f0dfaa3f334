"""Self-contrastive features of generated pictures and their calibrated judge, and what they are compared with.

    vestige learn imaginet
    vestige learn imaginet --variant entropy --seed 1

All arms have one encoder, see the same levelled squares of published pictures, and get as many updates: the contrastive
ones first those of the encoder, then those of the judge on the frozen features. What the pictures show is balanced by
drawing every kind and every family alike. The default variant learns from the training part of the pack; the others
leave a third of the families and all sources of the judged pictures out, which third follows from the seed. Without the
pack, scenes and up-sampling stages stand in.

Options: loss "contrast", "views" (supervised contrast of two views) or "entropy"; width of the encoder; judge, updates
of the judge; the others are those of `vestige.recipes.forensics._published`. Validation: AUROC of a linear judge on the
features of pictures kept apart, the same for every arm.

Result: imaginet.safetensors, for `vestige find --only imaginet --model`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.forensics.published_bed import Bed, Squares, area, batches
from vestige.core.errors import UsageError
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.generated import TraceDetector
from vestige.forensics.imaginet import Calibrator, SelfConDetector, contrast_step, entropy_step, views_step
from vestige.recipes.forensics._published import HELD, OPTIONS, SHUFFLED, THREE, detector_job, middle

STEPS, JUDGE = 1000, 200
_LOSSES = {"contrast": contrast_step, "views": views_step, "entropy": entropy_step}
_FEW = 400  # training pictures that the linear judge of the validation learns from


def build(ctx: RecipeContext) -> Job:
    """The encoder and what it learns from."""
    o = ctx.options
    if o["loss"] not in _LOSSES:
        raise UsageError(f"loss is one of {', '.join(_LOSSES)}; got {o['loss']!r}.")

    def judge(module: nn.Module, made: Bed) -> TraceDetector:
        assert isinstance(module, SelfConDetector)
        if o["loss"] == "entropy":
            return module
        taught = Calibrator(int(o["judge"]), batch_size=ctx.config.batch_size, seed=ctx.seed)
        return taught.fit(module, batches(made.train, ctx.config.batch_size, crop=int(o["crop"])))

    detector = SelfConDetector(width=float(o["width"]))
    return detector_job(
        ctx, detector, "imaginet", _LOSSES[o["loss"]], judge=judge, watch=probed, extra=named
    )  # fmt: skip


@torch.no_grad()
def features(module: nn.Module, squares: Squares, rows: np.ndarray | None = None) -> np.ndarray:
    """float32 N×d of the middle squares of pictures."""
    assert isinstance(module, SelfConDetector)
    was = module.training
    module.eval()
    images = middle(squares) if rows is None else middle(squares)[rows]
    device = next(module.parameters()).device
    parts = torch.from_numpy(np.ascontiguousarray(images)).split(64)
    found = torch.cat([module.encoder.features(part.to(device).float() / 255).cpu() for part in parts])
    module.train(was)
    return found.numpy()


def _linear(known: np.ndarray, labels: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=300)).fit(known, labels)


def probed(module: nn.Module, made: Bed) -> float:
    """AUROC of a linear judge, learnt from the features of some training pictures, on the pictures kept apart."""
    rows = np.linspace(0, len(made.train.labels) - 1, min(_FEW, len(made.train.labels))).astype(int)
    labels = made.train.labels[rows]
    if labels.all() or not labels.any():
        return 0.5
    judge = _linear(features(module, made.train, rows), labels)
    return area(made.apart, judge.decision_function(features(module, made.apart)))


def named(module: nn.Module, made: Bed) -> dict[str, float]:
    """ "generator named": share of the generated pictures kept apart whose family a linear judge of the features names,
    and "chance", that of the commonest one."""
    known, asked = (np.flatnonzero(part.made.generated) for part in (made.train, made.apart))
    truth, answers = made.train.made.family[known], made.apart.made.family[asked]
    if len(set(truth.tolist())) < 2 or not len(asked):
        return {}
    judge = _linear(features(module, made.train, known), truth)
    said = judge.predict(features(module, made.apart, asked))
    commonest = max(set(truth.tolist()), key=truth.tolist().count)
    return {"generator named": float((said == answers).mean()), "chance": float((answers == commonest).mean())}


RECIPE = Recipe(
    name="imaginet",
    about="Features of generated pictures by self-contrast, with a calibrated judge, learnt from published pictures.",
    build=build,
    config=TrainConfig(
        steps=STEPS, batch_size=48, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=50, clip=1.0, log_every=25,
        validate_every=60, checkpoint_every=200,
    ),
    reach={"levelled, mean": "above cross-entropy of the same encoder, families and sources left out"},
    options={**OPTIONS, "loss": "contrast", "width": 0.25, "crop": 40, "judge": JUDGE},
    variants={
        "default": Variant("the examiner, learnt from all families"),
        "held": Variant("a third of the families and sources left out", HELD, seeds=THREE),
        "entropy": Variant(
            "the same encoder by cross-entropy", {**HELD, "loss": "entropy"}, {"steps": STEPS + JUDGE}, seeds=THREE
        ),
        "views": Variant("supervised contrast of two views", {**HELD, "loss": "views"}),
        "known_entropy": Variant(
            "cross-entropy, all families learnt from", {"loss": "entropy"}, {"steps": STEPS + JUDGE}
        ),
        "shuffled_labels": SHUFFLED,
    },
    judged_by="auroc",
)  # fmt: skip
