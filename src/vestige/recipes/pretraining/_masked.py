"""What the recipes of the masked models share: the pictures, one training, and what is measured afterwards.

Learns from CIFAR-10, from a folder of the user's pictures (``--data FOLDER``), or, where there is neither, from drawn
scenes. Options: size and patch of the pictures in pixels; width, depth, heads, decoder_*: of the networks; limit of
the pictures (0: all); scale, the least share of the area that a crop keeps (0: the method's own); labels, judged:
labelled pictures to fit probes with and to judge by; tune: passes of fine-tuning over 2,000 labelled pictures, from the
trained and from random weights; timing: rounds in which the updates of ``timed`` are timed.

Results: encoder.safetensors (read by `load_backbone`), and figures of the frozen features beside the same figures of
the network before its first update ("untrained ...").
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from vestige.bench.masked.measure import fine_tuned, measure
from vestige.bench.masked.systems import OPTIMISATION, SIZES, build_method, crop_scale
from vestige.bench.masked.timing import Stepper, fresh, update_times
from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.data.packs import Pack, has_pack, load_pack, named_pack
from vestige.data.scenes import render_pack
from vestige.engines.masked.evaluate import extract, fit_linear, knn_accuracy
from vestige.engines.masked.job import masked_job
from vestige.engines.masked.model import MaskedModel
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig

#: Updates of every arm, but for those that compare at equal tokens.
STEPS = 1500
SEEDS = (0, 1, 2)
#: Labelled pictures that fine-tuning gets.
TUNED = 2000
#: Pictures held out to follow a training by, where the packs have plenty.
FOLLOWED = 1500


class Pictures(NamedTuple):
    """train, followed: to learn from and to follow by. labelled, test: for frozen probes; None without labels."""

    train: Pack
    followed: Pack
    labelled: Pack | None
    test: Pack | None
    cifar: bool


def pictures_of(ctx: RecipeContext) -> Pictures:
    """The user's pictures, CIFAR-10, or drawn scenes, cut into parts.

    Raises InputError for a folder of fewer than eight pictures.
    """
    o = ctx.options
    size, limit = int(o["size"]), int(o["limit"]) or None
    if ctx.pictures is None and has_pack("cifar10"):
        parts = {p: named_pack("cifar10", p, size=size, limit=limit) for p in ("train", "val", "test")}
        order = rng(0, "labelled pictures").permutation(len(parts["train"]))
        labelled = parts["train"].take(order[: int(o["labels"])])
        test = parts["test"].take(range(min(len(parts["test"]), int(o["judged"]))))
        followed = parts["val"].take(range(min(len(parts["val"]), FOLLOWED)))
        return Pictures(parts["train"], followed, labelled, test, True)
    if ctx.pictures is not None:
        pack = load_pack(ctx.pictures, size, limit)
        if len(pack) < 8:
            raise InputError(f"{ctx.pictures} has {len(pack)} pictures; learning needs at least 8.")
    else:
        pack = render_pack(limit or 2000, size, ctx.seed, n_objects=1, object_size="large")
    order = rng(0, "held out").permutation(len(pack))
    count = min(FOLLOWED, max(2, len(pack) // 10))
    train, held = pack.take(order[count:]), pack.take(order[:count])
    known = len(pack.class_names) > 1 and pack.labels.min() >= 0
    return Pictures(train, held, train.take(range(min(len(train), int(o["labels"])))) if known else None,
                    held if known else None, False)  # fmt: skip


def build(ctx: RecipeContext, timed: tuple[str, ...] = ()) -> Job:
    """The method of the option "system" on the pictures."""
    o = ctx.options
    name = str(o["system"])
    pictures = pictures_of(ctx)
    model = build_method(name, o)
    scale = float(o["scale"]) or crop_scale(name)
    return masked_job(
        ctx, model, pictures.train, validation=pictures.followed, scale=(scale, 1.0),
        evaluate=partial(evaluated, ctx, name, pictures, timed),
    )  # fmt: skip


def evaluated(
    ctx: RecipeContext, name: str, pictures: Pictures, timed: tuple[str, ...], model: MaskedModel
) -> Mapping[str, Any]:
    """What is measured of the trained network and, as "untrained ...", of the same one before its first update."""
    o = ctx.options
    before = fresh(name, o, ctx.seed).to(ctx.device)
    both = {"": model, "untrained ": before.eval()}
    figures: dict[str, Any] = {"system": name}
    for label, network in both.items():
        if pictures.cifar:
            assert pictures.labelled is not None
            assert pictures.test is not None
            network = network.cpu()
            found = measure(network, name, pictures.labelled, pictures.test)
            if o["tune"]:
                few = pictures.labelled.take(range(min(TUNED, len(pictures.labelled))))
                found |= fine_tuned(
                    network, few, pictures.test, epochs=int(o["tune"]), seed=ctx.seed, scratch=bool(label)
                )
        else:
            found = probes(network, pictures)
        figures |= {f"{label}{key}": value for key, value in found.items()}
    if o["timing"] and timed and pictures.cifar:
        figures |= update_times(timed, pictures.train, int(o["timing"]), o)
    stepper = Stepper(name, pictures.train, o, {"batch_size": ctx.config.batch_size})
    updates = ctx.config.steps
    figures["million tokens"] = stepper.tokens()["tokens"] * updates / 1e6
    return figures


def probes(model: MaskedModel, pictures: Pictures) -> dict[str, float]:
    """k-NN and linear probe on pictures held out, where the folder has classes."""
    if pictures.labelled is None or pictures.test is None:
        return {}
    x, test = extract(model, pictures.labelled.images), extract(model, pictures.test.images)
    y, truth = torch.from_numpy(pictures.labelled.labels), torch.from_numpy(pictures.test.labels)
    fitted = fit_linear(x, y, int(max(y.max(), truth.max())) + 1)
    return {
        "knn": knn_accuracy(x, y, test, truth, k=min(20, len(x))), "linear": fitted.accuracy(test, truth),
        "commonest class": float(np.bincount(pictures.test.labels).max() / len(truth)),
    }  # fmt: skip


def arm(about: str, system: str, *, seeds: tuple[int, ...] = (0,), steps: int = STEPS, **options: Any) -> Variant:
    """One arm: a system or baseline of `vestige.bench.masked.systems`, and its updates."""
    config = {} if steps == STEPS else {"steps": steps, "validate_every": max(1, steps // 20)}
    return Variant(about, {"system": system, **options}, config, seeds)


def masked_recipe(
    slug: str, about: str, variants: Mapping[str, Variant], *, timed: tuple[str, ...] = (), reach: str
) -> Recipe:
    """The recipe of a masked model. timed: whose updates are timed where the option "timing" says so."""
    config = TrainConfig(steps=STEPS, validate_every=STEPS // 20, checkpoint_every=100, **OPTIMISATION)
    options = {"system": slug, "limit": 0, "scale": 0.0, "labels": 4000, "judged": 2500, "tune": 0, "timing": 0}
    return Recipe(
        name=slug, about=about, build=partial(build, timed=timed), config=config, reach={"linear": reach},
        options={**options, **SIZES}, variants=variants, takes_pictures=True, judged_by="-error",
    )  # fmt: skip
