"""The judges of the default examiner of generated pictures, and its threshold.

    vestige learn generated_image
    vestige learn generated_image --variant held --seed 1

Real and generated pictures are the published ones, levelled (see `vestige.data.published`); the default variant learns
from our own generators too, which re-make squares of photographs. The evidence is measured once, the training takes
seconds. The arms leave a third of the families and all sources of the judged pictures out, which third follows from the
seed. Without the packs, scenes and up-sampling stages stand in.

Options: held, labels, views and limit as in `vestige.recipes.forensics._published`; zoo, whether our generators are
learnt from as well; each, the squares that one of them re-makes; diffusion, the slow ones among them; rate, the share
of photographs that may be flagged: the threshold is set for half of it, because a threshold flags more of other
photographs than of those it was set on. The photographs are the validation half of the scenery pack, untouched and
after ordinary handling (`vestige.bench.forensics.corpus`); the claims count on its test half.

Figures: those of `vestige.bench.forensics.published_bed.report`, and "alone": AUROC of every group of evidence, of one
linear judge of all of it, and of linear judges of the spectrum and of frozen features, on the same pictures.

Result: generated_image.safetensors; a copy of it goes into the package's weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.forensics.examiner_threshold import threshold_on_photographs
from vestige.bench.forensics.plain_features import spectrum
from vestige.bench.forensics.published_bed import Squares, area, by_family, report, scored
from vestige.core.runtime import rng
from vestige.data.fakes import SOURCES, FakeSource, as_float, handled, squares
from vestige.data.stand_in import photographs_or_scenes
from vestige.engines.fakes import shipped_sources, zoo
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.forensics.generated_evidence import evidence, group_sizes
from vestige.forensics.generated_image import (
    TRAINING,
    EvidenceHead,
    GeneratedImage,
    evidence_of,
    head_training,
    weighed,
)
from vestige.forensics.learned import save_network
from vestige.nn.features import extract_features, load_feature_net
from vestige.recipes.forensics._published import HELD, SHUFFLED, THREE, bed_of, middle

SIZE = 64
Features = Callable[[np.ndarray], np.ndarray]


def build(ctx: RecipeContext) -> Job:
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
    if o["zoo"]:
        more, own, kinds = ours(ctx)
        real = np.concatenate([real, more])
        fakes, families = {**fakes, **own}, {**families, **kinds}
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

    def save(module: nn.Module, out: Path) -> None:
        if o["held"] != "nothing":
            return
        assert isinstance(module, EvidenceHead)
        head = module.settle(real).eval()
        facts: dict[str, Any] = {"learnt": families, "real squares": len(real)}
        makers = [*SOURCES.values(), *(s for s in shipped_sources(diffusion=False) if s.family == "autoencoder")]
        examiner, rate = GeneratedImage(head=head), float(o["rate"])
        facts |= threshold_on_photographs(examiner, makers, rate, limit=int(o["limit"]), seed=ctx.seed)
        save_network(out / "generated_image.safetensors", head, "generated_image", facts)

    head = EvidenceHead(group_sizes(), sorted(set(families.values()))).measure(real).match(real, fakes, families)
    return Job(head, step, batches, validate=validate, evaluate=evaluate, save=save)


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


def ours(ctx: RecipeContext) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, str]]:
    """(evidence of squares of photographs, {source: that of what it made of some}, families) of our own generators,
    in the size the photographs have and reduced by two, half of the squares handled."""
    o = ctx.options
    photographs = photographs_or_scenes("train", 256, limit=int(o["limit"]), seed=ctx.seed)
    apart = max(4, len(photographs) // 16)
    known = as_float(squares(photographs[:apart], SIZE, per_photo=4, seed=ctx.seed)[0])
    sources = zoo(known, size=SIZE, diffusion=bool(o["diffusion"]), seed=ctx.seed)
    real, fakes = _remade(photographs[apart:], sources, int(o["each"]), ctx.seed)
    return real, fakes, {source.name: source.family for source in sources}


def _remade(
    images: np.ndarray, sources: list[FakeSource], each: int, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    real: list[np.ndarray] = []
    fakes: dict[str, list[np.ndarray]] = {source.name: [] for source in sources}
    for reduce in (1, 2):
        cut = squares(images, SIZE, per_photo=1, reduce=reduce, seed=seed)[0]
        real += [*cut, *handled(cut, seed)]
        for source in sources:
            rows = rng(seed, "rows", source.name, reduce).permutation(len(cut))[:each]
            made = np.round(source(as_float(cut[rows]), seed=seed + reduce) * 255).astype(np.uint8)
            half = len(made) // 2  # as many untouched as handled ones, as of the real squares
            fakes[source.name] += [*made[:half], *handled(made[half:], seed)]
    return evidence_of(real), {name: evidence_of(pictures) for name, pictures in fakes.items()}


RECIPE = Recipe(
    name="generated_image",
    about="Judges of seven groups of evidence that a picture was generated, learnt from published pictures.",
    build=build,
    config=TRAINING,
    reach={"levelled, mean": "0.8 with families and sources left out in turn (vestige claims generated_image)"},
    options={
        "held": "nothing", "labels": "true", "views": 2, "limit": 0, "rate": 0.02, "zoo": True, "each": 120,
        "diffusion": True,
    },
    variants={
        "default": Variant("the examiner, learnt from all families and our own generators"),
        "held": Variant("a third of the families and sources left out", {**HELD, "zoo": False}, seeds=THREE),
        "sources": Variant("sources left out, families seen", {"held": "sources", "zoo": False}, seeds=THREE),
        "held_zoo": Variant("a third left out, with our own generators as further families", HELD),
        "shuffled_labels": Variant(SHUFFLED.about, {**SHUFFLED.options, "zoo": False}),
    },
    judged_by="auroc",
)  # fmt: skip
