"""UCF and the detectors it is compared with, on forged faces made here from photographs of many people.

    vestige learn ucf                      # all four forgeries, for use with `vestige find --only ucf`
    vestige learn ucf --variant unseen     # one forgery left out: that of the seed's number, in turn
    vestige learn ucf --for-claims

In the variants that are compared one of the four ways of forging is left out of the training, the one whose place is
the seed modulo four, and judged on; people are never shared. All arms see pictures handled alike, JPEG with halved
colours included (`vestige.data.forged_faces.handled`), in as many updates. Without data the faces are drawn, which
serves to try the recipe.

Options: method, what is trained; held_out, whether a forgery is left out; limit, of faces, 0 all that are used;
shuffled, whether the labels are dealt out anew; width and features of the encoders.

Result of the first variant: ucf.safetensors, with its threshold in what it knows of validation faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.forensics.face_bed import faces_of
from vestige.bench.forensics.face_detectors import PlainNet, core_loss, self_blended
from vestige.core.errors import UsageError
from vestige.data.forged_faces import METHODS, Faces, answers, by_method, handled, resaved
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.learned import calibration, save_network
from vestige.forensics.ucf import UCFNet, ucf_loss
from vestige.metrics.representation import linear_probe

SIDE, COUNTS = 48, {"train": 2400, "val": 200, "test": 500}
WAYS = ("ucf", "ce", "srm", "core", "sbi")


def network(o: Mapping[str, Any]) -> nn.Module:
    """The untrained network of the options."""
    if o["method"] not in WAYS:
        raise UsageError(f"method is one of {', '.join(WAYS)}; got {o['method']}.")
    width, features = int(o["width"]), int(o["features"])
    if o["method"] == "ucf":
        return UCFNet(n_methods=len(METHODS), width=width, features=features)
    return PlainNet(width, features, srm=o["method"] == "srm")


def build(ctx: RecipeContext) -> Job:
    """Faces with their forgeries and the network of the variant."""
    o, way = ctx.options, str(ctx.options["method"])
    limit = int(o["limit"])
    parts = {part: faces_of(part, SIDE, n, limit=limit, root=ctx.data) for part, n in COUNTS.items()}
    held = METHODS[ctx.seed % len(METHODS)] if o["held_out"] else ""
    known, val = (parts[name].without(held) if held else parts[name] for name in ("train", "val"))
    if o["shuffled"]:
        known = known.shuffled(ctx.seed)
    model = network(o)

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        chosen = known.paired(ctx.config.batch_size // 2, generator)
        return {"images": handled(chosen.images, generator), "methods": chosen.methods}

    def step(module: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        images, methods = batch["images"], batch["methods"]
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        if isinstance(module, UCFNet):
            return ucf_loss(module, images, methods, own)
        assert isinstance(module, PlainNet)
        fake = (methods > 0).float()
        if way == "core":
            return {"loss": core_loss(module, images, fake, own)}
        if way == "sbi":  # the forged half is made of the real one
            real = images[: len(images) // 2]
            images = torch.cat([real, self_blended(real, own)])
        return {"loss": F.binary_cross_entropy_with_logits(module(images), fake)}

    def validate(module: nn.Module) -> dict[str, float]:
        kinds = [m for m in METHODS if m != held]
        return {"auc": float(np.mean(list(by_method(val, answers(module, val.images), kinds).values())))}

    def evaluate(module: nn.Module) -> dict[str, Any]:
        test = parts["test"]
        found: dict[str, Any] = {"held": held}
        for name, images in (("auc", test.images), ("auc jpeg", resaved(test.images))):
            each = by_method(test, answers(module, images))
            seen = [v for m, v in each.items() if m != held]
            found |= {f"{name}, {m}": v for m, v in each.items()} | {f"{name}, seen": float(np.mean(seen))}
            found |= {f"{name}, left out": each[held]} if held else {}
        if isinstance(module, UCFNet):
            found |= probes(module, parts["train"], test) | who_is_seen(module, test)
        return found

    def save(module: nn.Module, out: Path) -> None:
        if ctx.variant != RECIPE.default or not isinstance(module, UCFNet):
            return
        scores, fake = answers(module, val.images), val.fake
        facts = {"side": SIDE, "pictures": len(known), "forgeries": list(METHODS)}
        save_network(
            out / "ucf.safetensors", module, "ucf", {**facts, **calibration(scores[~fake], scores[fake], 0.05)}
        )

    return Job(model, step, batches, validate=validate, evaluate=evaluate, save=save)


@torch.no_grad()
def probes(model: UCFNet, known: Faces, test: Faces, most: int = 3000) -> dict[str, float]:
    """Accuracy of a linear probe for the method of forged faces from each kind of features, and of the commonest."""
    found = {}
    parts = [p.take(p.methods > 0) for p in (known, test)]
    parts = [p.take(torch.arange(0, len(p), max(1, len(p) // most))) for p in parts]
    means: list[dict[str, np.ndarray]] = []
    for part in parts:
        each = [model.maps(x.float() / 255) for x in part.images.split(128)]
        means.append({k: torch.cat([m[k].mean((2, 3)) for m in each]).numpy() for k in each[0]})
    labels = [p.methods.numpy() for p in parts]
    for name in ("specific", "common", "content"):
        found[f"method from {name}"] = linear_probe(means[0][name], labels[0], means[1][name], labels[1])
    return found


@torch.no_grad()
def who_is_seen(model: UCFNet, test: Faces, most: int = 200) -> dict[str, float]:
    """Share of faces decoded from parts of two people whose nearest real face is the first, by pixels.

    The gallery holds one picture a person, so that the first person's picture is the one to be found.
    """
    real = test.take(test.methods == 0)
    real = real.take(torch.arange(min(most, len(real))))
    pictures = real.images.float() / 255
    maps = [model.maps(x) for x in pictures.split(64)]
    style = torch.cat([torch.cat([m["specific"], m["common"]], 1) for m in maps])
    content = torch.cat([m["content"] for m in maps])
    gallery, own = (2 * pictures - 1).flatten(1), torch.arange(len(real))
    found = {}
    for name, lent, kept in (
        ("own content, other features", style.roll(1, 0), content), ("own content and features", style, content),
        ("other content, own features", style, content.roll(1, 0)),
    ):  # fmt: skip
        decoded = torch.cat([model.decode(a, b).flatten(1) for a, b in zip(lent.split(64), kept.split(64))])
        found[f"person by {name}"] = float((torch.cdist(decoded, gallery).argmin(1) == own).float().mean())
    return {**found, "person by chance": 1 / len(real)}


_TWELVE = tuple(range(12))  # every forgery is left out three times
RECIPE = Recipe(
    name="ucf",
    about="Forged faces told by what forgeries have in common, apart from content and method.",
    build=build,
    config=TrainConfig(
        steps=1200, batch_size=16, lr=1e-3, betas=(0.9, 0.99), weight_decay=5e-4, warmup=50, clip=5.0, ema=0.99,
        log_every=20, validate_every=60, checkpoint_every=200,
    ),
    reach={"auc": "0.90 on validation people, forgeries that were learnt"},
    options={"method": "ucf", "held_out": False, "limit": 0, "shuffled": False, "width": 12, "features": 64},
    variants={
        "all": Variant("UCF on all four forgeries, for use"),
        "unseen": Variant("UCF, a forgery left out", {"held_out": True}, seeds=_TWELVE),
        "ce": Variant("the same encoder, cross-entropy", {"held_out": True, "method": "ce"}, seeds=_TWELVE),
        "srm": Variant("the same on SRM residuals", {"held_out": True, "method": "srm"}, seeds=_TWELVE[:4]),
        "core": Variant("two views kept alike", {"held_out": True, "method": "core"}, seeds=_TWELVE[:4]),
        "sbi": Variant("faces blended with themselves", {"held_out": True, "method": "sbi"}, seeds=_TWELVE[:4]),
        "shuffled": Variant("UCF on labels dealt out anew", {"held_out": True, "shuffled": True}),
    },
    judged_by="auc",
)  # fmt: skip
