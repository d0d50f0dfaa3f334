"""The small PIXAR network on drawn scenes that are edited and drawn anew by an autoencoder.

    vestige learn pixar
    vestige learn pixar --set labels=objects      # what pixel labels are compared with
    vestige learn pixar --set semantic=0 --set text=0   # mask and class alone

Half of the pictures are tampered: edited scenes whose frame went through the autoencoder, of whose change ``spread``
stays off the object. Of the others half are untouched and half went through the autoencoder whole. labels: "pixels"
(difference above ``tau``) or "objects" (object masks). vae: a diffusers folder, by default the package's scenes_vae;
without one frames are softened instead. semantic, text: weights of these parts of the loss. count: edits.

Result: pixar.safetensors in the run's folder. The claims train smaller runs of all three themselves.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vestige.core.errors import UsageError
from vestige.data.scene_edits import edit_scenes
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.forensics.learned import save_network
from vestige.forensics.pixar import PixarModel
from vestige.forensics.pixar_data import examples, pixar_training, redrawing, report_of


def build(ctx: RecipeContext) -> Job:
    """Edits to train and to judge by, and the network."""
    o = ctx.options
    if o["labels"] not in ("pixels", "objects"):
        raise UsageError(f"labels is pixels or objects; got {o['labels']}.")
    redraw = redrawing(o["vae"])
    sets = {
        name: examples(edit_scenes(count, o["size"], ctx.seed + number, redraw=redraw, spread=o["spread"]), redraw)
        for number, (name, count) in enumerate((("train", o["count"]), ("val", max(8, o["count"] // 12))))
    }
    model = PixarModel(o["size"], fusion=o["fusion"])
    batches, step = pixar_training(
        sets["train"], model, ctx.config.batch_size, labels=o["labels"], tau=o["tau"], semantic=o["semantic"],
        text=o["text"],
    )  # fmt: skip

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, PixarModel)
        report = report_of(module, sets["val"], o["tau"])
        return {key: report[key] for key in ("accuracy", "g_iou", "c_iou", "pixel_f1", "top1", "text_cosine")}

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, PixarModel)
        facts = {key: o[key] for key in ("labels", "tau", "spread", "semantic", "text", "count")}
        save_network(out / "pixar.safetensors", module, "pixar", {**facts, **validate(module)})

    return Job(model, step, batches, validate=validate, save=save)


RECIPE = Recipe(
    name="pixar",
    about="Tampered or not, where by the pixel, what, and in words: the small PIXAR network on edited scenes.",
    build=build,
    config=TrainConfig(
        steps=800, batch_size=32, lr=1e-3, weight_decay=0.01, warmup=0.05, clip=1.0, log_every=25, validate_every=400,
        checkpoint_every=200,
    ),
    reach={
        "c_iou": "0.10 above training with labels=objects, both scored on pixel labels",
        "top1": "twice the share of the most frequent class, at no more than 0.01 of c_iou lost to semantic=0 text=0",
    },
    options={
        "size": 64, "count": 2400, "labels": "pixels", "tau": 0.05, "spread": 0.3, "fusion": "fuse", "semantic": 0.5,
        "text": 3.0, "vae": "",
    },
)  # fmt: skip
