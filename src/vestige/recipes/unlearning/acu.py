"""An analytic head over a frozen network that learns and forgets exactly; and the stream its claims rest on.

    vestige learn acu --data PICTURES --set backbone=classifier.safetensors
    vestige learn acu --data MORE --set start=out/learn/acu/head/head.safetensors --out out/learned-more
    vestige learn acu --variant stream --seed 0

"head" reads a folder class/*.png and writes head.safetensors, from which 'vestige erase HEAD --forget FOLDER --method
acu' takes pictures out again. Without a backbone one is trained on rendered scenes; without pictures it learns some.
"stream" trains a backbone on CIFAR-10's first five classes and serves requests of all ten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vestige.bench.unlearning.analytic_stream import BASE, Stream, best_gamma, compared, costs, served
from vestige.bench.unlearning.bed import settings_of, taught
from vestige.bench.unlearning.world import OBJECTS, splits
from vestige.core.errors import InputError, UsageError
from vestige.data.labelled import read_pictures, usual_side
from vestige.data.packs import find_data_root
from vestige.engines import parts
from vestige.engines.forgetting.evaluate import represent
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.samples import Samples
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.nn.classifier import load_classifier
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.acu_file import begun, load_head, numbered, save_head


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """The head of a user's pictures, or the figures of the stream."""
    return streamed(ctx) if ctx.options["mode"] == "stream" else learned(ctx)


def learned(ctx: RecipeContext) -> Mapping[str, Any]:
    """Begin a head, or go on with one, on the user's pictures; write head.safetensors."""
    o = ctx.options
    if o["start"]:
        if o["backbone"]:
            raise UsageError("A head that is gone on with has its network; leave out backbone.")
        made = load_head(Path(str(o["start"])))
    else:
        made = begun(*network(ctx), width=int(o["width"]), gamma=float(o["gamma"]), seed=ctx.seed)
    images, words = pictures(ctx, made.side)
    held = made.head.ridge.count
    made.head.learn(Samples(images, numbered(made, words, learn=True)))
    save_head(made, ctx.out / "head.safetensors")
    seen = made.head.predict(Samples(images)) == numbered(made, words, learn=False)
    return {
        "learned": len(words), "held": held + len(words), "classes": len(made.head.classes),
        "training accuracy": float(seen.double().mean()), "digest": made.head.digest(),
    }  # fmt: skip


def network(ctx: RecipeContext) -> tuple[nn.Module, int]:
    """The frozen network and the side of its pictures. Raises InputError for a model that is not one of our ResNets."""
    named = str(ctx.options["backbone"])
    if named:
        classifier = load_classifier(named)
        if not isinstance(classifier.model, ResNet):
            raise InputError(f"{named} is not a ResNet as vestige writes them, which a head is kept with.")
        side = usual_side(ctx.pictures) if ctx.pictures is not None else 32
        return classifier.model, classifier.size or side
    settings = replace(settings_of(ctx.options, ctx.config.lr, ctx.config.batch_size), data="scenes")
    train_set, val, _ = splits(settings, ctx.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.seed)
        start = settings.build()
    return taught(ctx, "backbone", start, train_set, replace(settings.training, seed=ctx.seed), val), 32


def pictures(ctx: RecipeContext, side: int) -> tuple[torch.Tensor, list[str]]:
    """The user's pictures with the names of their classes, or rendered scenes."""
    if ctx.pictures is None:
        settings = replace(settings_of(ctx.options, ctx.config.lr, ctx.config.batch_size), data="scenes")
        test = splits(settings, ctx.seed)[2]
        return test.inputs, [OBJECTS[int(i)] for i in test.labels]
    read = read_pictures(ctx.pictures, side)
    if None in read.labels:
        raise InputError(f"{ctx.pictures} has pictures without a class; put them into a folder for each class.")
    return torch.from_numpy(read.images), [str(label) for label in read.labels]


def streamed(ctx: RecipeContext) -> Mapping[str, Any]:
    """Exactness over a random sequence, the cost of a request, and gradient methods under the same stream."""
    o = ctx.options
    settings = settings_of(o, ctx.config.lr, ctx.config.batch_size)
    if settings.data != "cifar10" and o["source"] != "scenes":
        raise InputError("The stream needs the pack cifar10 in the folder of data packs.")
    learned_set, val, test = splits(settings, ctx.seed, find_data_root())
    base = learned_set.take(learned_set.labels < BASE)

    def build() -> nn.Module:
        return ResNet(ResNetConfig(18, settings.stem, settings.width, BASE))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.seed)
        start = build()
    training: Tuning = replace(settings.training, seed=ctx.seed)
    seen = base.take(range(min(int(o["base_images"]), len(base))))
    backbone = taught(ctx, "backbone", start, seen, training, val.take(val.labels < BASE))
    features = {
        name: replace(s, inputs=torch.from_numpy(represent(backbone, s)).float())
        for name, s in (("learned", learned_set), ("val", val), ("test", test))
    }
    width = int(o["width"])
    known = features["learned"], features["val"]
    gamma = float(parts.figures(ctx, "gamma", partial(best_gamma, *known, width, ctx.seed)))
    stream = Stream(features["learned"], features["test"], width, gamma, ctx.seed)
    least = int(o["least"])
    after = parts.figures(ctx, "compared", partial(compared, stream, least // 3))
    return {
        "gamma": gamma,
        "exactness": parts.figures(ctx, "exactness", partial(served, stream, int(o["requests"]), least)),
        "costs": parts.figures(ctx, "costs", partial(costs, backbone, learned_set, width, gamma, ctx.seed, least // 3)),
        "rows": [{**r, "seed": ctx.seed} for r in after],
    }


RECIPE = Recipe(
    name="acu",
    about="An analytic head over a frozen network: learned from pictures, and served a stream of requests.",
    perform=perform,
    config=TrainConfig(lr=0.1, batch_size=64),
    options={
        "mode": "head", "backbone": "", "start": "", "width": 1024, "gamma": 1.0, "source": "auto", "images": 1200,
        "held": 200, "tested": 300, "net_width": 0.125, "passes": 8, "base_images": 5000, "requests": 60,
        "least": 1500,
    },
    variants={
        "head": Variant("a head over a network, of the user's pictures", seeds=()),
        "stream": Variant(
            "requests of ten classes to a backbone of five",
            {"mode": "stream", "images": 19000, "held": 1000, "tested": 2000, "net_width": 0.25, "passes": 20},
            seeds=(0, 1, 2),
        ),
    },
    takes_pictures=True,
    judged_by="accuracy",
)  # fmt: skip
