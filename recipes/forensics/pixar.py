"""The small PIXAR network on drawn scenes that are edited and drawn anew by an autoencoder.

    vestige learn recipes/forensics/pixar
    vestige learn recipes/forensics/pixar --set labels=objects      # what pixel labels are compared with
    vestige learn recipes/forensics/pixar --set semantic=0 --set text=0   # mask and class alone

Half of the pictures are tampered: edited scenes whose frame went through the autoencoder, of whose change ``spread``
stays off the object. Of the others half are untouched and half went through the autoencoder whole. labels: "pixels"
(difference above ``tau``) or "objects" (object masks). vae: a diffusers folder, by default the package's scenes_vae;
without one frames are softened instead. semantic, text: weights of these parts of the loss. count: edits.

Results: pixar.safetensors in the run's folder; for the claims, copies go to the package's weights folder as
pixar.safetensors, pixar_objects.safetensors and pixar_mask.safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.scene_edits import edit_scenes
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.forensics.learned import save_network
from vestige.forensics.pixar import PixarModel, pixar_loss, sentence_ids
from vestige.forensics.pixar_data import examples, masks_of, redrawing, report_of
from vestige.metrics.pixel_labels import CLASSES


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
    train = sets["train"]
    tensors = tensors_of(train, model, o["labels"], o["tau"])
    groups = [np.flatnonzero(train["classes"] == k) for k in range(len(CLASSES))]

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "pixar batch")
        quarter = ctx.config.batch_size // 4
        rows = np.concatenate([draw.choice(g, n) for g, n in zip(groups, (quarter, quarter, 2 * quarter))])
        flips = torch.from_numpy(draw.random(len(rows)) < 0.5)[:, None, None, None]
        batch = {name: values[rows] for name, values in tensors.items()}
        return batch | {key: torch.where(flips, batch[key].flip(3), batch[key]) for key in ("images", "masks")}

    def step(module: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        answer = module(batch["images"].float() / 255, batch["ids"])
        found = pixar_loss(answer, batch, semantic=o["semantic"], text=o["text"], pad=model.tokenizer.pad_token_id)
        return found | {"classes_right": (answer.classes.argmax(1) == batch["classes"]).float().mean()}

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, PixarModel)
        report = report_of(module, sets["val"], o["tau"])
        return {key: report[key] for key in ("accuracy", "g_iou", "c_iou", "pixel_f1", "top1", "text_cosine")}

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, PixarModel)
        facts = {key: o[key] for key in ("labels", "tau", "spread", "semantic", "text", "count")}
        save_network(out / "pixar.safetensors", module, "pixar", {**facts, **validate(module)})

    return Job(model, step, batches, validate=validate, save=save)


def tensors_of(found: dict[str, Any], model: PixarModel, labels: str, tau: float) -> dict[str, Tensor]:
    """What a batch is taken from."""
    masks = masks_of(found, labels, tau)
    return {
        "images": torch.from_numpy(found["images"]), "classes": torch.from_numpy(found["classes"]),
        "objects": torch.from_numpy(found["objects"]).float(), "masks": torch.from_numpy(masks),
        "ids": sentence_ids(model, found["texts"]),
    }  # fmt: skip


RECIPE = Recipe(
    name="forensics/pixar",
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
