"""Entangled-D and Entangled-S: was the masked part of a picture removed, the rest kept, and does the fill fit in?

Source: Prompt-Driven and Training-Free Forgetting Approach and Dataset for Large Language Models (ForgetMe), 2025. The
corrected variant is this project's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.core.errors import UsageError

EPSILON = 1e-6
VARIANTS = ("corrected", "released")


def consistency(edited: Any, masks: Any, *, near: bool = False) -> np.ndarray:
    """Entangled-S: C = [2μ_in μ_out / (μ_in² + μ_out² + ε)]·[2σ_in σ_out / (σ_in² + σ_out² + ε)], float64 (N,).

    in: what the mask covers, out: the rest, all channels pooled; near: only what of the rest lies within half the
    square root of the mask's area, so that other things in the picture do not count. It needs the edited picture
    alone, and is blind to colour and to the order of pixels: shuffled ones score as well; flat regions score 0.
    edited: N×C×H×W in [0, 1]; masks: bool N×1×H×W. Raises UsageError for shapes that do not fit and for masks of
    nothing or everything.

    >>> picture = np.tile([0.2, 0.8], (1, 3, 4, 2))
    >>> consistency(picture, np.arange(4)[None, None, :, None].repeat(4, 3) < 2).round(3).tolist()
    [1.0]
    """
    edited, masks = _checked(edited, masks)
    return np.array([_consistency(e, m[0], near) for e, m in zip(edited, masks, strict=True)])


def entangled(
    original: Any, edited: Any, masks: Any, *, variant: str = "corrected", replaced: float = 0.25
) -> dict[str, np.ndarray]:
    """{"D", "S", "consistency"}: Entangled-D, its part S that compares with the original, and C = Entangled-S; (N,).

    "released": C over the whole rest of the picture, S = 2 S_in (1 − S_out) / (S_in + 1 − S_out + ε) with
    S_in = 1 − RMSE_in and S_out = RMSE_out. It gives 1 to a picture that was not edited at all. "corrected": C over
    what is near the mask, S = 2 F B / (F + B + ε), F = min(1, RMSE_in / replaced), B = 1 − RMSE_out; ``replaced``
    is the RMSE between an object and what takes its place (the median over real pairs). Both:
    D = S C / (C/2 + S/2 + ε). Pictures N×C×H×W in [0, 1], masks bool N×1×H×W; errors as in `consistency`.

    >>> picture = np.random.default_rng(0).random((1, 3, 8, 8))
    >>> hole = np.zeros((1, 1, 8, 8), bool)
    >>> hole[..., 2:6, 2:6] = True
    >>> [round(float(entangled(picture, picture, hole, variant=v)["S"][0]), 3) for v in ("released", "corrected")]
    [1.0, 0.0]
    """
    if variant not in VARIANTS:
        raise UsageError(f"variant is {variant!r}; choose one of {', '.join(VARIANTS)}.")
    if not replaced > 0:
        raise UsageError(f"replaced is {replaced}; the RMSE of a replacement is above 0.")
    edited, masks = _checked(edited, masks)
    original, _ = _checked(original, masks)
    if original.shape != edited.shape:
        raise UsageError(f"Original {original.shape} and edited pictures {edited.shape} differ in shape.")
    found: dict[str, list[float]] = {"D": [], "S": [], "consistency": []}
    for before, after, mask in zip(original, edited, masks, strict=True):
        inside, outside = (float(np.sqrt(np.square(v).mean())) for v in _parts(after - before, mask))
        changed = 1 - inside if variant == "released" else min(1.0, inside / replaced)
        kept = 1 - outside
        s = 2 * changed * kept / (changed + kept + EPSILON)
        c = _consistency(after, mask[0], near=variant == "corrected")
        for name, value in (("D", s * c / (c / 2 + s / 2 + EPSILON)), ("S", s), ("consistency", c)):
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def typical_replacement(original: Any, filled: Any, masks: Any) -> float:
    """Median over pairs of the RMSE inside the mask: `entangled`'s ``replaced``."""
    filled, masks = _checked(filled, masks)
    original, _ = _checked(original, masks)
    rows = zip(original, filled, masks, strict=True)
    return float(np.median([np.sqrt(np.square(_parts(f - o, m)[0]).mean()) for o, f, m in rows]))


def _checked(images: Any, masks: Any) -> tuple[np.ndarray, np.ndarray]:
    images, masks = np.asarray(images, np.float64), np.asarray(masks)
    if images.ndim != 4 or masks.dtype != np.bool_ or masks.shape != (len(images), 1, *images.shape[2:]):
        raise UsageError(f"Pictures are N×C×H×W with masks bool N×1×H×W; got {images.shape} and {masks.shape}.")
    share = masks.mean((1, 2, 3))
    if (share == 0).any() or (share == 1).any():
        raise UsageError("A mask must cover some of its picture, and not all of it.")
    return images, masks


def _parts(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image[:, mask[0]], image[:, ~mask[0]]


def _consistency(image: np.ndarray, mask: np.ndarray, near: bool) -> float:
    rest = ~mask
    if near:
        from scipy.ndimage import distance_transform_edt

        rest &= distance_transform_edt(rest) <= max(2.0, np.sqrt(mask.sum()) / 2)
    inside, outside = image[:, mask], image[:, rest]
    pairs = ((inside.mean(), outside.mean()), (inside.std(), outside.std()))
    return float(np.prod([2 * a * b / (a * a + b * b + EPSILON) for a, b in pairs]))
