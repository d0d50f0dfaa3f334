"""WSCL and what it is compared with, from labels of whole pictures alone; one rival learns from masks.

    vestige learn wscl                     # for `vestige find --only wscl`
    vestige learn wscl --for-claims

Training shows splices and removals, the test copy-moves and recolouring as well. Half of the pictures is not edited,
and three of five are saved as JPEG with halved colours. All arms, the one with masks included, see the same pictures
in as many updates; maps are cut where validation pictures serve best. Without data the photographs are rendered scenes.

Options: net, "wscl", "cam" (Grad-CAM of a classifier) or "masks" (TriPINet trained with masks); streams, pool, msc and
ipc, see `WSCLNet` and `wscl_loss`; size, count, limit and shuffled as in the recipe tripinet.

Result of the first variant: wscl.safetensors, with its threshold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.controls import untrained
from vestige.bench.forensics.edits import (
    bed,
    floors,
    image_auc,
    image_scores,
    judged,
    maps_of,
    turned,
    with_masks_of_others,
)
from vestige.bench.forensics.localisers import GradCAM
from vestige.core.errors import UsageError
from vestige.engines.fitting import rows_of
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.learned import calibration, save_network
from vestige.forensics.tripinet import TriPINet, tripinet_loss
from vestige.forensics.wscl import WSCLNet, wscl_loss
from vestige.recipes.forensics.tripinet import saved_as_jpeg

SEEN, UNSEEN = ("splice", "removal"), ("copy_move", "recolor")
NET: dict[str, Any] = {"depth": 18, "width": 0.25, "stages": 2}


def build(ctx: RecipeContext) -> Job:
    """Edited squares with labels and the network of the variant."""
    o, limit, size = ctx.options, int(ctx.options["limit"]), int(ctx.options["size"])
    if o["net"] not in ("wscl", "cam", "masks"):
        raise UsageError(f"net is wscl, cam or masks; got {o['net']}.")

    def squares(part: str, operations: tuple[str, ...], number: int, lossless: bool = False) -> Any:
        few = min(number, 16) if limit else number
        return bed(part, operations, few, size, unedited=0.5, lossless=lossless, limit=limit)

    known = bed("train", SEEN, int(o["count"]), size, unedited=0.5, limit=limit)
    val = squares("val", SEEN, 200)
    if o["shuffled"]:
        known = with_masks_of_others(known, ctx.seed)
    images, masks = torch.from_numpy(known.images), torch.from_numpy(known.masks)
    labels = torch.tensor([bool(name) for name in known.operations]).float()

    def fresh() -> nn.Module:
        if o["net"] == "masks":
            return TriPINet(0.125, "small")
        if o["net"] == "cam":
            return GradCAM(**NET)
        return WSCLNet(tuple(str(o["streams"]).split(",")), str(o["pool"]), **NET)

    model = fresh()

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
        rows = rows_of(len(images), ctx.config.batch_size, generator)
        x, y = turned(images[rows], masks[rows], generator)
        return x, y, labels[rows], number / ctx.config.steps

    def step(module: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        x, mask, label, progress = batch
        if isinstance(module, WSCLNet):
            return wscl_loss(module, x, label, progress, msc=float(o["msc"]), ipc=float(o["ipc"]))
        return module.loss(x, label) if isinstance(module, GradCAM) else tripinet_loss(module(x), mask)

    def validate(module: Any) -> dict[str, float]:
        found = judged(maps_of(module.localize, module), val, {"val": val})
        return {"image_auc": image_auc(module.score, val)[""], "f1": found["f1, val"]}

    def evaluate(module: Any) -> dict[str, Any]:
        tests = {
            "seen": squares("test", SEEN, 300, lossless=True), "other": squares("test", UNSEEN, 300, lossless=True),
        }  # fmt: skip
        tests |= {f"{name}, jpeg": saved_as_jpeg(made) for name, made in list(tests.items())}
        found = all_figures(module, val, tests)
        if ctx.variant == RECIPE.default and ctx.seed == 0:
            found |= {f"floor: {name}": figures for name, figures in floors(val, tests).items()}
            found["untrained"] = all_figures(untrained(fresh, ctx.seed), val, tests)
        return found

    def save(module: nn.Module, out: Path) -> None:
        if ctx.variant == RECIPE.default and isinstance(module, WSCLNet):
            with torch.no_grad():
                scores = [module.score(x.float() / 255) for x in torch.from_numpy(val.images).split(48)]
            odds = torch.cat(scores).clamp(1e-6, 1 - 1e-6).logit().numpy()
            edited = np.array([bool(name) for name in val.operations])
            facts: dict[str, Any] = {"side": size, "operations": list(SEEN), "count": len(images)}
            if edited.any() and not edited.all():
                facts |= calibration(odds[~edited], odds[edited], 0.05)
            save_network(out / "wscl.safetensors", module, "wscl", {**facts, **validate(module)})

    return Job(model, step, batches, validate=validate, evaluate=evaluate, save=save)


def all_figures(module: Any, val: Any, tests: dict[str, Any]) -> dict[str, Any]:
    """`judged` maps and the AUC of whole pictures on every test."""
    found = judged(maps_of(module.localize, module), val, tests)
    for name, made in tests.items():
        found |= {
            f"image auc{f', {kind}' if kind else ''}, {name}": value
            for kind, value in image_auc(module.score, made).items()
        }
        found[f"scores, {name}"] = np.round(image_scores(module.score, made).astype(float), 5).tolist()
        found[f"edited, {name}"] = [bool(kind) for kind in made.operations]
    return found


_THREE = (0, 1, 2)
RECIPE = Recipe(
    name="wscl",
    about="Was it edited, and roughly where? Learnt from labels of whole pictures alone.",
    build=build,
    config=TrainConfig(
        steps=2400, batch_size=20, lr=2e-3, betas=(0.9, 0.99), weight_decay=5e-4, warmup=50, clip=5.0, ema=0.99,
        log_every=20, validate_every=120, checkpoint_every=120,
    ),
    reach={"image_auc": "above that of colours alone"},
    options={
        "net": "wscl", "streams": "rgb,srm,bayar", "pool": "otsu", "msc": 0.1, "ipc": 0.1, "size": 64, "count": 3000,
        "limit": 0, "shuffled": False,
    },
    variants={
        "wscl": Variant("three streams, both consistencies", seeds=_THREE),
        "mil": Variant("three streams, no consistency", {"msc": 0.0, "ipc": 0.0}, seeds=_THREE),
        "rgb": Variant("colours alone, no consistency", {"streams": "rgb", "msc": 0.0, "ipc": 0.0}, seeds=_THREE),
        "max": Variant("highest place, no consistency", {"pool": "max", "msc": 0.0, "ipc": 0.0}),
        "top": Variant("highest tenth, no consistency", {"pool": "top", "msc": 0.0, "ipc": 0.0}),
        "no_msc": Variant("without the consistency of streams", {"msc": 0.0}),
        "no_ipc": Variant("without the consistency of places", {"ipc": 0.0}),
        "cam": Variant("Grad-CAM of a classifier on colours", {"net": "cam"}),
        "masks": Variant("TriPINet trained with masks", {"net": "masks"}),
        "shuffled": Variant("three streams, labels dealt out anew", {"shuffled": True}),
    },
    judged_by="image_auc",
)  # fmt: skip
