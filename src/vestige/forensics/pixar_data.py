"""What the small PIXAR network learns from and is judged by: tampered, untouched and redrawn scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.runtime import rng
from vestige.data.scene_edits import OBJECTS, Redraw, SceneEdits
from vestige.engines.fakes import autoencoder_source
from vestige.forensics.learned import WEIGHTS
from vestige.forensics.pixar import REDRAWN, UNCHANGED, PixarModel, answers, pixar_loss, sentence_ids
from vestige.metrics.pixel_labels import CLASSES, pixar_report


def redrawing(folder: str = "") -> Redraw:
    """Round trips through an autoencoder, by default the package's scenes_vae; softening where there is none."""
    place = Path(folder) if folder else WEIGHTS / "scenes_vae"
    if folder or (place / "config.json").is_file():
        source = autoencoder_source(place)
        return lambda images: source(images)
    return lambda images: np.stack(
        [cv2.GaussianBlur(x.transpose(1, 2, 0), (0, 0), 0.8).transpose(2, 0, 1) for x in images]
    )


def examples(edits: SceneEdits, redraw: Redraw) -> dict[str, Any]:
    """The edited pictures, the first half of the originals and the other half redrawn, with all that is true of them.

    images uint8 2N×3×S×S, and what `pixar_report` takes as ``target`` but for "masks"; see `masks_of`.
    """
    count = len(edits)
    half = count // 2
    synthetic = np.round(redraw(edits.before[half:].astype(np.float32) / 255) * 255).clip(0, 255).astype(np.uint8)
    none = [np.zeros((count, *x.shape[1:]), x.dtype) for x in (edits.difference, edits.object_masks)]
    objects = np.zeros((2 * count, len(OBJECTS)), bool)
    objects[np.arange(count), edits.touched] = True
    return {
        "images": np.concatenate([edits.after, edits.before[:half], synthetic]),
        "classes": np.repeat([2, 0, 1], [count, half, count - half]),
        "difference": np.concatenate([edits.difference, none[0]]),
        "object_masks": np.concatenate([edits.object_masks, none[1]]),
        "objects": objects,
        "texts": [*edits.captions, *[UNCHANGED] * half, *[REDRAWN] * (count - half)],
    }


def masks_of(found: dict[str, Any], labels: str, tau: float) -> np.ndarray:
    """bool N×1×H×W: difference above tau for "pixels", else object masks."""
    return found["difference"] > np.float32(tau) if labels == "pixels" else found["object_masks"]


def pixar_training(
    found: dict[str, Any], model: PixarModel, batch_size: int, *, labels: str = "pixels", tau: float = 0.05,
    semantic: float = 0.5, text: float = 3.0,
) -> tuple[
    Callable[[int, torch.Generator], dict[str, Tensor]],
    Callable[[nn.Module, dict[str, Tensor], torch.Generator], dict[str, Tensor]],
]:  # fmt: skip
    """(batches, step) for `Trainer` on what `examples` gave: half of a batch tampered, mirrored at random."""
    tensors = {
        "images": torch.from_numpy(found["images"]), "classes": torch.from_numpy(found["classes"]),
        "objects": torch.from_numpy(found["objects"]).float(),
        "masks": torch.from_numpy(masks_of(found, labels, tau)), "ids": sentence_ids(model, found["texts"]),
    }  # fmt: skip
    groups = [np.flatnonzero(found["classes"] == k) for k in range(len(CLASSES))]

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "pixar batch")
        quarter = batch_size // 4
        rows = np.concatenate([draw.choice(g, n) for g, n in zip(groups, (quarter, quarter, 2 * quarter), strict=True)])
        flips = torch.from_numpy(draw.random(len(rows)) < 0.5)[:, None, None, None]
        batch = {name: values[rows] for name, values in tensors.items()}
        return batch | {key: torch.where(flips, batch[key].flip(3), batch[key]) for key in ("images", "masks")}

    def step(module: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        answer = module(batch["images"].float() / 255, batch["ids"])
        parts = pixar_loss(answer, batch, semantic=semantic, text=text, pad=model.tokenizer.pad_token_id)
        return parts | {"classes_right": (answer.classes.argmax(1) == batch["classes"]).float().mean()}

    return batches, step


def report_of(model: PixarModel, found: dict[str, Any], tau: float, labels: str = "pixels") -> dict[str, float]:
    """`pixar_report` of the network, localisation scored on pixel labels or on object masks."""
    return pixar_report(answers(model, found["images"]), {**found, "masks": masks_of(found, labels, tau)})
