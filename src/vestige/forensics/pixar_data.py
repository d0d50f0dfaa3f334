"""What the small PIXAR network learns from and is judged by: tampered, untouched and redrawn scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vestige.data.scene_edits import OBJECTS, Redraw, SceneEdits
from vestige.engines.fakes import autoencoder_source
from vestige.forensics.learned import WEIGHTS
from vestige.forensics.pixar import REDRAWN, UNCHANGED, PixarModel, answers
from vestige.metrics.pixel_labels import pixar_report


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


def report_of(model: PixarModel, found: dict[str, Any], tau: float, labels: str = "pixels") -> dict[str, float]:
    """`pixar_report` of the network, localisation scored on pixel labels or on object masks."""
    return pixar_report(answers(model, found["images"]), {**found, "masks": masks_of(found, labels, tau)})
