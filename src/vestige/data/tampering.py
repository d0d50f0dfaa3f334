"""Tampered pictures with exact masks, for training and for testing forgery localisers.

Every operation changes pixels inside one region only: outside the mask the result equals the input in eight bits.
Regions vary in shape, cover 3 to 25 % of the picture and favour no place in it, so that a localiser that guesses the
centre gains nothing. Donor pixels keep their own scale where the donor is large enough, so that interpolation does
not give pasted regions away when it is not part of the edit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data import tampering_edits as edits
from vestige.data.tampering_regions import draw_region

#: Share of the mask that has to differ from the input before a stronger edit or another region is tried.
_ENOUGH = 0.6
_ATTEMPTS = 6


@dataclass
class Tampered:
    """A tampered picture.

    image: float32 in the shape of the input, eight-bit values. mask: bool 1×H×W. details: shape of the region, its
    share of the picture (``area``), share of mask pixels that differ from the input (``changed``), ``seam``, and what
    the operation drew; `copy_move` adds the source mask.
    """

    image: np.ndarray
    mask: np.ndarray
    operation: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """An editing operation and how it is carried out."""

    description: str
    edit: Callable[[edits.Edit], np.ndarray | None] = field(repr=False)
    needs_donor: bool = False
    pastes: bool = False


OPERATIONS: dict[str, Operation] = {
    "splice": Operation("a region of another photograph is pasted in", edits.splice, needs_donor=True, pastes=True),
    "copy_move": Operation(
        "a region of the same picture, sometimes rotated and scaled, covers another place", edits.copy_move, pastes=True
    ),
    "removal": Operation(
        "a region is filled by inpainting or covered with matching content", edits.removal, pastes=True
    ),
    "recolor": Operation("hue, saturation and brightness of a region change", edits.recolor),
    "local_blur": Operation("a region is blurred", edits.local_blur),
    "local_noise": Operation("noise is added to a region", edits.local_noise),
    "local_sharpen": Operation("a region is sharpened by an unsharp mask", edits.local_sharpen),
    "local_resample": Operation("a region is scaled down and up again", edits.local_resample),
    "text": Operation("text is written over the picture; the mask holds the letters", edits.text),
    "erase_fill": Operation("a region is filled with one colour", edits.erase_fill),
    "local_jpeg": Operation("a region went through JPEG at another quality and grid", edits.local_jpeg),
}


def tamper(
    image: np.ndarray,
    operation: str,
    *,
    donor: np.ndarray | None = None,
    seed: int = 0,
    blend: bool = False,
    placement: str = "uniform",
) -> Tampered:
    """Edit one region of a picture and say exactly which pixels were edited.

    image, donor: float 3×H×W or 1×3×H×W sRGB in [0, 1], at least 32 pixels a side (a donor may have any size).
    blend: hide the seam, by a feathered edge or, for pasted content, by Poisson blending; False leaves it hard.
    placement: "uniform" (regions may be cut by the border; no place is favoured) or "inside" (whole regions, which
    favour the centre). Where an edit leaves most of its region as it was, as a blur does in a flat sky, it is made
    stronger and then moved; ``details["changed"]`` tells how much differs in the end.
    Raises UsageError for an unknown operation or placement, a wrong shape or a missing donor; InputError for samples
    that are not finite and for pictures that are too small.

    >>> result = tamper(np.linspace(0, 1, 3 * 64 * 64, dtype=np.float32).reshape(3, 64, 64), "recolor", seed=1)
    >>> result.image.shape, result.mask.shape
    ((3, 64, 64), (1, 64, 64))
    """
    if operation not in OPERATIONS:
        raise UsageError(f"There is no operation {operation!r}; choose one of {', '.join(OPERATIONS)}.")
    if placement not in ("uniform", "inside"):
        raise UsageError(f"There is no placement {placement!r}; choose uniform or inside.")
    chosen = OPERATIONS[operation]
    if chosen.needs_donor and donor is None:
        raise UsageError(f"The operation {operation} needs a donor picture; pass donor=.")
    pixels = _pixels(image, "The picture", 32)
    other = _pixels(donor, "The donor", 1) if chosen.needs_donor and donor is not None else None
    best: tuple[float, np.ndarray, np.ndarray, dict[str, Any]] | None = None
    for attempt in range(_ATTEMPTS):
        where = rng(seed, "tamper", operation, "region", attempt // 3)
        if operation == "text":  # letters fill some two fifths of their box
            options: dict[str, Any] = {"shapes": ("rectangle",), "area": (0.08, 0.3), "upright": True}
        else:
            options = {}
        mask, shape = draw_region(where, *pixels.shape[:2], placement=placement, **options)
        generator = rng(seed, "tamper", operation, "edit", attempt)
        edit = edits.Edit(
            pixels, mask, other, generator, attempt, {"shape": "letters" if operation == "text" else shape}
        )
        patch = chosen.edit(edit)
        if patch is None:
            continue
        after = _seam(edit, patch, blend, chosen.pastes)
        changed = float((after != edit.before).any(2)[edit.inside].mean()) if edit.inside.any() else 0.0
        if best is None or changed > best[0]:
            mask = np.zeros_like(mask)
            box = np.s_[edit.top : edit.top + edit.height, edit.left : edit.left + edit.width]
            mask[box] = edit.inside
            result = pixels.copy()
            result[box] = after
            best = (changed, result, mask, edit.details)
        if changed >= _ENOUGH:
            break
    if best is None:
        raise InputError(f"No region of this picture can take the operation {operation}; use another operation.")
    changed, result, mask, details = best
    details |= {"area": float(mask.mean()), "changed": changed, "seed": seed}
    tampered = np.ascontiguousarray(result.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    return Tampered(tampered.reshape(image.shape), mask[None], operation, details)


def _seam(edit: edits.Edit, patch: np.ndarray, blend: bool, pastes: bool) -> np.ndarray:
    """The box with the patch inside the region: hard, feathered, or (pasted content only) Poisson-blended."""
    import cv2

    edit.details["seam"] = "hard"
    weight = edit.inside.astype(np.float32)
    if blend:
        if pastes and edit.generator.integers(2):
            edit.details["seam"] = "poisson"
            patch = _poisson(edit, patch)
        else:
            edit.details["seam"] = "feather"
            reach = edit.uniform(0.02, 0.08) * min(edit.height, edit.width) + 1
            distance = cv2.distanceTransform(edit.window(1, edit.mask.astype(np.uint8)), cv2.DIST_L2, 3)
            weight = np.minimum(edit.trim(distance, 1) / reach, 1)
    mixed = edit.before + weight[..., None] * (patch.astype(np.float32) - edit.before)
    return np.where(edit.inside[..., None], edits.to8(mixed), edit.before)


def _poisson(edit: edits.Edit, patch: np.ndarray) -> np.ndarray:
    """The patch plus the smooth correction that makes its edge meet the picture (Pérez et al., SIGGRAPH 2003).

    The correction is smooth, so a large region gets it from a reduced copy.
    """
    import cv2

    scale = min(1.0, math.sqrt(40_000 / (edit.height * edit.width)))
    size = (max(3, round(edit.width * scale)), max(3, round(edit.height * scale)))

    def reduced(pixels: np.ndarray) -> np.ndarray:
        small = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
        return cv2.copyMakeBorder(small, 3, 3, 3, 3, cv2.BORDER_REPLICATE)

    source = reduced(patch)
    mask = cv2.resize(edit.inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    mask = cv2.copyMakeBorder(mask * 255, 3, 3, 3, 3, cv2.BORDER_CONSTANT)
    left, top, width, height = cv2.boundingRect(mask)
    centre = (left + width // 2, top + height // 2)
    joined = cv2.seamlessClone(source, reduced(edit.before), mask, centre, cv2.NORMAL_CLONE)
    correction = (joined.astype(np.float32) - source)[3:-3, 3:-3]
    return patch + cv2.resize(correction, (edit.width, edit.height), interpolation=cv2.INTER_LINEAR)


def _pixels(image: np.ndarray, what: str, smallest: int) -> np.ndarray:
    """uint8 H×W×3 from float 3×H×W or 1×3×H×W."""
    shape = np.shape(image)
    if len(shape) not in (3, 4) or shape[-3] != 3 or (len(shape) == 4 and shape[0] != 1) or 0 in shape:
        raise UsageError(f"{what} must have shape 3×H×W or 1×3×H×W; got {shape}.")
    if image.dtype.kind != "f":
        raise UsageError(f"{what} must be floating point in [0, 1]; got {image.dtype}, so divide by 255 first.")
    if min(shape[-2:]) < smallest:
        raise InputError(f"{what} is {shape[-1]}×{shape[-2]}; tampering needs at least {smallest} pixels a side.")
    if not np.isfinite(image).all():
        raise InputError(f"{what} holds samples that are not finite (NaN or infinity); repair it first.")
    return np.ascontiguousarray(edits.to8(image.reshape(3, *shape[-2:]) * 255).transpose(1, 2, 0))
