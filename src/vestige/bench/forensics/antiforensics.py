"""What hides edits from localisers beside a trained concealer: signed gradients, filters, compression, and how they are
matched in PSNR; figures of every picture.

Source of the generator with a hinge: Generating Adversarial Examples with Adversarial Networks, IJCAI 2018; its critic
is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.data.edited_photographs import jpeg_70
from vestige.engines.adversarial import Budget, Maximise, pgd
from vestige.forensics.sear import give_away, mask_logits, sear_loss
from vestige.metrics.quality import psnr
from vestige.metrics.segmentation import f1_at_threshold

SIGMAS = tuple(round(0.30 + 0.025 * k, 3) for k in range(31))


def quality(images: Tensor, changed: Tensor) -> float:
    """Mean PSNR over pictures that were changed at all, at most 60 dB each."""
    return float(np.mean(np.minimum(psnr(images.numpy(), changed.numpy()), 60.0)))


def astray(localiser: nn.Module, images: Tensor, masks: Tensor | None, level: int, steps: int, seed: int = 0) -> Tensor:
    """Pictures moved by at most ``level`` grey levels so that the map is as wrong as signed gradients can make it.

    masks: of the edits; without them the map that the localiser itself draws of the picture takes their place, as for
    somebody who does not know where the edit is.
    """
    with torch.no_grad():
        wanted = (mask_logits(localiser, images) > 0).float() if masks is None else masks.float()

    def wrong(x: Tensor, chosen: Tensor) -> Tensor:
        logits = mask_logits(localiser, x)
        return F.binary_cross_entropy_with_logits(logits, wanted[chosen], reduction="none").mean((1, 2, 3))

    budget, step = Budget("linf", level / 255), level / 255 if steps == 1 else None
    return pgd(
        images, Maximise(wrong), budget, steps=steps, step_size=step, random_start=False, early_stop=False,
        batch_size=24, seed=seed,
    ).images  # fmt: skip


def level_for(target: float, run: Callable[[int], Tensor], images: Tensor) -> int:
    """The grey levels for which ``run`` comes nearest to a PSNR."""
    least = max(1, round(255 * 10 ** (-min(target, 48.0) / 20)))  # what every pixel moved by has that PSNR
    tried = {level: abs(quality(images, run(level)) - target) for level in range(least, 2 * least + 1)}
    return min(tried, key=lambda x: tried[x])


def blur_for(target: float, images: Tensor) -> float:
    """The strongest Gaussian blur of `SIGMAS` that keeps that PSNR."""
    kept = [s for s in SIGMAS if quality(images, blurred(images, s)) >= target]
    return kept[-1] if kept else SIGMAS[0]


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Eight-bit pictures through a Gaussian blur."""
    return _each(images, lambda x: cv2.GaussianBlur(x, (0, 0), sigma))


def median(images: Tensor) -> Tensor:
    """Eight-bit pictures through a median filter of 3×3."""
    return _each(images, lambda x: cv2.medianBlur(x, 3))


def jpeg(images: Tensor) -> Tensor:
    """Saved as JPEG 70 with halved colours."""
    return torch.from_numpy(jpeg_70((images * 255).round().to(torch.uint8).numpy())).float() / 255


def _each(images: Tensor, by: Callable[[np.ndarray], Any]) -> Tensor:
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(np.stack([by(np.ascontiguousarray(x)) for x in pixels])).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def seen_by(localiser: nn.Module, images: Tensor, masks: Tensor, cut: float) -> dict[str, Any]:
    """F1 of maps at a threshold, of every picture too, and whether an inverted map gives the edit away."""
    maps = torch.cat([mask_logits(localiser, x).sigmoid() for x in images.split(48)])
    each = f1_at_threshold(masks.numpy(), maps.numpy(), cut)
    both = give_away(masks, maps)
    return {
        "f1": float(np.mean(each)), "each f1": np.round(each, 4).tolist(), "f1 inverted": both["f1 inverted"],
        "auc": both["auc"],
    }  # fmt: skip


def hinge_loss(localiser: nn.Module, images: Tensor, masks: Tensor, change: Tensor, kept: float) -> Tensor:
    """Leads a localiser astray; only what is added beyond a PSNR of ``kept`` decibels costs anything."""
    most = 2 * 10 ** (-kept / 20)  # in units of [-1, 1]
    adversarial = sear_loss(localiser, images, masks, change, weights=(10.0, 0.0, 0.0))["loss"]
    deviation = change.square().flatten(1).mean(1).clamp_min(1e-12).sqrt()
    return adversarial + 1000.0 * F.relu(deviation - most).mean()
