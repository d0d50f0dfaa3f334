"""Judges of groups of evidence as a baseline of the examiner of generated pictures.

The evidence is measured once, the training takes seconds. Figures: those of
`vestige.bench.forensics.published_bed.report`, and "alone": AUROC of every group of evidence, of one linear judge of
all of it, and of linear judges of the spectrum and of frozen features, on the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.forensics.plain_features import spectrum
from vestige.bench.forensics.published_bed import Squares, area, by_family, report, scored
from vestige.engines.recipe import Job, RecipeContext
from vestige.forensics.generated_evidence import evidence, group_sizes
from vestige.forensics.generated_judges import EvidenceHead, head_training, weighed
from vestige.nn.features import extract_features, load_feature_net
from vestige.recipes.forensics._published import bed_of, middle

Features = Callable[[np.ndarray], np.ndarray]


def judges_job(ctx: RecipeContext) -> Job:
    """The judges and the evidence that they learn from."""
    o = ctx.options
    made, measured = bed_of(ctx), remembered(evidence)
    pictures = np.concatenate([middle(made.train, view=v) for v in range(made.train.images.shape[1])])
    found = measured(pictures)
    labels = np.tile(made.train.labels, made.train.images.shape[1])
    names = np.tile(made.train.made.family, made.train.images.shape[1])
    real = found[~labels]
    fakes = {f"published: {name}": found[labels & (names == name)] for name in sorted(set(names[labels].tolist()))}
    families = {name: name for name in fakes}
    batches, step = head_training(real, fakes, families, ctx.config.batch_size)
    held = measured(middle(made.apart))

    def validate(module: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            odds = module(torch.from_numpy(held)).mean(1).double().numpy()
        return {"auroc": area(made.apart, odds)}

    def evaluate(module: nn.Module) -> dict[str, Any]:
        assert isinstance(module, EvidenceHead)
        head = module.settle(real).eval()
        whole = report(made, lambda images: weighed(head.judged(measured(images))), float(o["rate"]))
        test, net = made.test("levelled"), load_feature_net()
        alone = {}
        for part in (*group_sizes(), "judges", "distance", "family"):
            alone[part] = mean_area(test, partial(_of, head, measured, part))
        for name, features in (
            ("one linear judge", measured),
            ("spectrum, linear", spectrum),
            ("frozen features, linear", lambda images: extract_features(net, images)),
        ):
            alone[name] = mean_area(test, linear(features, pictures, labels))
        return {**whole, "alone": alone}

    head = EvidenceHead(group_sizes(), sorted(set(families.values()))).measure(real).match(real, fakes, families)
    return Job(head, step, batches, validate=validate, evaluate=evaluate)


def remembered(measure: Features) -> Features:
    """The same features of pictures, each set of pictures measured once."""
    known: dict[bytes, np.ndarray] = {}

    def found(images: np.ndarray) -> np.ndarray:
        key = hashlib.blake2b(np.ascontiguousarray(images).tobytes(), digest_size=16).digest()
        if key not in known:
            known[key] = measure(images)
        return known[key]

    return found


def _of(head: EvidenceHead, measured: Features, part: str, images: np.ndarray) -> np.ndarray:
    return head.judged(measured(images))[part]


def mean_area(test: Squares, score: Features) -> float:
    """The mean over families of AUROC."""
    areas = by_family(test, scored(test, score))
    return float(np.mean(list(areas.values()))) if areas else 0.5


def linear(features: Features, pictures: np.ndarray, labels: np.ndarray) -> Features:
    """The score of a regularised linear judge."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    judge = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, class_weight="balanced", max_iter=300))
    judge.fit(features(pictures), labels)
    return lambda images: judge.decision_function(features(images))
