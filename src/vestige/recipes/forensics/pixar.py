"""The small PIXAR network on drawn scenes that are edited and drawn anew by an autoencoder, and its rivals.

    vestige learn pixar
    vestige learn pixar --variant objects --seed 1

Half of the pictures are tampered: edited scenes whose frame went through the autoencoder, of whose change ``spread``
stays off the object. Of the others half are untouched and half went through the autoencoder whole. Options: labels,
"pixels" (difference above ``tau``), "objects" (object masks) or "shuffled" (pixel labels of other edits, the control).
network: "pixar", or a localiser without classes and words of `PEERS`. vae: a diffusers folder, by default the package's
scenes_vae; without one frames are softened instead. semantic, text: weights of these parts of the loss. count: edits to
learn from, judged: edits to judge by at the end, which nobody learns from.

Figures: those of `vestige.metrics.pixel_labels.pixar_report`, scored on pixel labels ("pixels c_iou") and on object
masks ("objects c_iou"). Result: pixar.safetensors, for `vestige find --only pixar --model`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.controls import shuffled
from vestige.bench.forensics.localisers import PlainUNet, TruForLite
from vestige.core.errors import UsageError
from vestige.data.scene_edits import edit_scenes
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.learned import save_network
from vestige.forensics.pixar import PixarModel
from vestige.forensics.pixar_data import examples, masks_of, pixar_training, redrawing, report_of
from vestige.forensics.tripinet import TriPINet, tripinet_loss
from vestige.metrics.pixel_labels import CLASSES, pixar_report

#: Far from the seeds of trainings.
JUDGED_SEED = 5_001
#: Localisers that see the masks of the tampered pictures of the same batches.
PEERS: dict[str, Callable[[], nn.Module]] = {
    "unet": PlainUNet,
    "tripinet": lambda: TriPINet(0.125, "small"),
    "trufor": TruForLite,
}
_TAMPERED = CLASSES.index("tampered")


def build(ctx: RecipeContext) -> Job:
    """Edits to train, to validate and to judge by, and the network."""
    o = ctx.options
    if o["labels"] not in ("pixels", "objects", "shuffled") or o["network"] not in ("pixar", *PEERS):
        raise UsageError(f"labels is pixels, objects or shuffled, and network pixar, {' or '.join(PEERS)}.")
    train, val = (scenes(ctx, n, ctx.seed + i) for i, n in enumerate((o["count"], max(8, o["count"] // 12))))
    if o["labels"] == "shuffled":
        rows = np.flatnonzero(train["classes"] == _TAMPERED)
        train["difference"][rows] = train["difference"][shuffled(rows, ctx.seed)]
    words = PixarModel(o["size"], fusion=o["fusion"])
    model = words if o["network"] == "pixar" else PEERS[o["network"]]()
    labels = "objects" if o["labels"] == "objects" else "pixels"
    batches, step = pixar_training(
        train, words, ctx.config.batch_size, labels=labels, tau=o["tau"], semantic=o["semantic"], text=o["text"]
    )

    def validate(module: nn.Module) -> dict[str, float]:
        found = judged(module, val, o["tau"], labels)
        return {key: found[key] for key in ("accuracy", "c_iou", "g_iou", "pixel_f1", "top1") if key in found}

    def evaluate(module: nn.Module) -> dict[str, float]:
        held = scenes(ctx, o["judged"], JUDGED_SEED + ctx.seed)
        found: dict[str, float] = {}
        for scored_on in ("pixels", "objects"):
            found |= {f"{scored_on} {k}": v for k, v in judged(module, held, o["tau"], scored_on).items()}
        shares = held["objects"][held["classes"] == _TAMPERED].mean(0)
        return {**found, "most frequent object": float(max(shares.max(), 1 / len(shares)))}

    def save(module: nn.Module, out: Path) -> None:
        if isinstance(module, PixarModel) and o["labels"] == "pixels" and o["semantic"]:
            facts = {key: o[key] for key in ("labels", "tau", "spread", "semantic", "text", "count")}
            save_network(out / "pixar.safetensors", module, "pixar", {**facts, **validate(module)})

    return Job(model, step if model is words else peer_step, batches, validate=validate, evaluate=evaluate, save=save)


def scenes(ctx: RecipeContext, count: int, seed: int) -> dict[str, Any]:
    """Edited, untouched and redrawn scenes of a seed, as `examples` gives them."""
    redraw = redrawing(ctx.options["vae"])
    return examples(edit_scenes(count, ctx.options["size"], seed, redraw=redraw, spread=ctx.options["spread"]), redraw)


def peer_step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """The loss of a localiser on the tampered pictures."""
    rows = batch["classes"] == _TAMPERED
    return tripinet_loss(model(batch["images"][rows].float() / 255), batch["masks"][rows].float())


@torch.no_grad()
def judged(module: nn.Module, found: dict[str, Any], tau: float, labels: str) -> dict[str, float]:
    """`pixar_report` of a network, localisation scored on pixel labels or on object masks."""
    if isinstance(module, PixarModel):
        return report_of(module, found, tau, labels)
    was, device = module.training, next(module.parameters()).device
    module.eval()
    parts = torch.from_numpy(found["images"]).split(60)
    maps = torch.cat([module(part.to(device).float() / 255)[0].sigmoid().cpu() for part in parts]).numpy()
    module.train(was)
    return pixar_report({"masks": maps}, {**found, "masks": masks_of(found, labels, tau)})


_OBJECTS = {"labels": "objects"}
RECIPE = Recipe(
    name="pixar",
    about="Tampered or not, where by the pixel, what, and in words: the small PIXAR network on edited scenes.",
    build=build,
    config=TrainConfig(
        steps=1100, batch_size=24, lr=1e-3, weight_decay=0.01, warmup=0.05, clip=1.0, log_every=25, validate_every=55,
        checkpoint_every=250,
    ),
    reach={
        "pixels c_iou": "0.10 above the variant objects, both scored on pixel labels",
        "pixels top1": "twice the share of the most frequent object, at no more than 0.01 of c_iou lost to bare",
    },
    options={
        "size": 64, "count": 1200, "judged": 480, "labels": "pixels", "tau": 0.05, "spread": 0.3, "fusion": "fuse",
        "semantic": 0.5, "text": 3.0, "vae": "", "network": "pixar",
    },
    variants={
        "default": Variant("labels by the pixel", seeds=(0, 1, 2)),
        "objects": Variant("object masks instead", _OBJECTS, seeds=(0, 1, 2)),
        "bare": Variant("without objects and words", {"semantic": 0.0, "text": 0.0}),
        **{name: Variant(f"{name} on object masks", {**_OBJECTS, "network": name}) for name in PEERS},
        "shuffled_labels": Variant("the pixel labels of other edits", {"labels": "shuffled"}),
    },
    judged_by="c_iou",
)  # fmt: skip
