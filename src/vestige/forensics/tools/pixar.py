"""What an edit truly changed, pixel by pixel, and how far a mask or a map of it is right."""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.image_io import save_image
from vestige.core.subjects import ImageSubject
from vestige.core.work import Result, Work
from vestige.metrics.pixel_labels import TAU, TAUS, audit_ladder, audit_masks, pixar_report, pixel_labels


def measure(work: Work) -> Result:
    """Inputs: the picture before and after. Their difference D = mean over R, G, B of |before - after|, and its mask
    D > tau (``--set tau=0.05``).

    With ``--mask``, what somebody calls the edited region: how much of it is untouched and how much of the edit it
    misses. With ``--reference``, a map that a detector gave (white where it sees an edit): IoU, F1 and AUC against the
    true labels. With ``-o`` the difference is written as a picture, brightened to its largest value.
    """
    before, after = (work.only(2).picture(i, "the picture before and after") for i in (0, 1))
    tau = work.option("tau", TAU)
    out = None if work.out is None else work.out_file()
    labels = pixel_labels(before.image, after.image, tau)
    difference = labels.difference
    figures: dict[str, float | int | str] = {
        "largest difference": float(difference.max()), "mean difference": float(difference.mean()),
        "changed pixels": float(labels.masks.mean()),
    }  # fmt: skip
    rows: list[dict[str, Any]] = [{"tau": t, "changed pixels": float((difference > t).mean())} for t in TAUS]
    said = []
    if work.mask is not None:
        mask = work.masked(before)
        figures |= audit_masks(labels.masks, difference, mask)
        rows = [{**row, **more} for row, more in zip(rows, audit_ladder(difference, mask), strict=True)]
        said.append(
            f"{figures['over_label_rate']:.0%} of the mask did not change; {figures['missed_share']:.0%} of what "
            "changed lies outside it."
        )
    if work.reference is not None:
        map_ = _map(ImageSubject.open(work.needed("reference", "a map of the same size")), before)
        if not labels.masks.any():
            raise UsageError(f"No pixel differs by more than {tau}, so a map cannot be judged; lower --set tau.")
        judged = pixar_report({"masks": map_}, {"masks": labels.masks, "difference": difference})
        figures |= {f"map {name}": value for name, value in judged.items() if np.isfinite(value)}
    if out is not None:
        shown = difference[0, 0] / max(float(difference.max()), 1e-6)
        save_image(out, (shown * 255 + 0.5).astype(np.uint8)[..., None].repeat(3, 2))
    if (before.format, after.format) != ("PNG", "PNG"):
        said.append("Saving alone makes pixels differ: compare pictures that were stored alike, best without loss.")
    return Result(figures, [] if out is None else [out], said, rows)


def _map(subject: ImageSubject, before: ImageSubject) -> np.ndarray:
    """float32 1×1×H×W in [0, 1]."""
    if subject.pixels.shape != before.pixels.shape:
        raise UsageError(
            f"The map is {subject.width}×{subject.height} and the pictures {before.width}×{before.height}; they must "
            "have the same size."
        )
    return (subject.pixels.mean(axis=2, dtype=np.float32) / np.float32(255))[None, None]
