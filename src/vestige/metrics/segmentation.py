"""How well maps outline regions: F1 and IoU at a fixed or the best threshold, per-region overlap, pixel curves.

masks: bool N×1×H×W, or a sequence of N bool arrays of any sizes. maps: float of the same shapes, higher means more
likely inside. A pixel is predicted when its value is at or above the threshold. Empty masks (pictures with nothing to
find) follow one rule, stated by each function. Every function raises UsageError for shapes that do not match or no
pictures, InputError for maps that are not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from vestige.core.errors import UsageError
from vestige.metrics import detection
from vestige.metrics.arrays import finite, rate
from vestige.metrics.detection import Best

Empty = Literal["skip", "score"]
Arrays = np.ndarray | Sequence[np.ndarray]


def centre_prior(height: int, width: int) -> np.ndarray:
    """float32 H×W, 1 in the middle and 0 in the corners: what a localiser is worth that only knows where edits lie.

    1 − (x² + y²) / 2 with x, y from −1 to 1.

    >>> centre_prior(3, 3)[1].tolist()
    [0.5, 1.0, 0.5]
    """
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) if n > 1 else np.zeros(1, np.float32) for n in (height, width))
    return np.asarray(1 - (y[:, None] ** 2 + x**2) / 2, np.float32)


class OverlapCurve(NamedTuple):
    """Mean overlap of the true regions against the false-positive rate, float64 (T,) each, rising from (0, 0)."""

    fpr: np.ndarray
    overlap: np.ndarray


def _pictures(masks: Arrays, maps: Arrays) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(masks) == 0 or len(masks) != len(maps):
        raise UsageError(f"Each picture needs a mask and a map; got {len(masks)} masks and {len(maps)} maps.")
    pairs = []
    for index, (mask, map_) in enumerate(zip(masks, maps, strict=True)):
        mask, map_ = np.asarray(mask), np.asarray(map_)
        flat = mask.ndim == 2 or (mask.ndim == 3 and len(mask) == 1)
        if mask.dtype != bool or mask.shape != map_.shape or mask.size == 0 or not flat:
            raise UsageError(
                f"Mask {index} must be bool 1×H×W or H×W with its map in the same shape; "
                f"got {mask.dtype} {mask.shape} and {map_.shape}."
            )
        plane = mask.shape[-2:]
        pairs.append((mask.reshape(plane), finite(map_.reshape(plane), f"The values of map {index}", 2)))
    return pairs


def _fixed(masks: Arrays, maps: Arrays, threshold: float, empty: Empty, weight: int) -> np.ndarray:
    if empty not in ("skip", "score"):
        raise UsageError(f"Empty masks are treated by 'skip' or 'score'; got {empty!r}.")
    values = []
    for mask, map_ in _pictures(masks, maps):
        predicted = map_ >= threshold
        hits, wrong = (predicted & mask).sum(), (predicted ^ mask).sum()
        if not mask.any():
            values.append(np.nan if empty == "skip" else float(not predicted.any()))
        else:
            values.append(weight * hits / (weight * hits + wrong))
    return np.array(values, np.float64)


def f1_at_threshold(masks: Arrays, maps: Arrays, threshold: float = 0.5, *, empty: Empty = "skip") -> np.ndarray:
    """Pixel F1 = 2TP / (2TP + FP + FN) of every picture at one fixed threshold, float64 (N,).

    empty: "skip" gives nan for a picture whose mask is empty (average with `numpy.nanmean`); "score" gives 1 when
    nothing is predicted there and 0 otherwise.

    >>> f1_at_threshold(np.array([[[True, False]]]), np.array([[[0.9, 0.8]]])).round(3).tolist()
    [0.667]
    """
    return _fixed(masks, maps, threshold, empty, 2)


def iou_at_threshold(masks: Arrays, maps: Arrays, threshold: float = 0.5, *, empty: Empty = "skip") -> np.ndarray:
    """Intersection over union TP / (TP + FP + FN) of every picture at one fixed threshold, float64 (N,).

    empty: as in `f1_at_threshold`.

    >>> iou_at_threshold(np.array([[[True, False]]]), np.array([[[0.9, 0.8]]])).tolist()
    [0.5]
    """
    return _fixed(masks, maps, threshold, empty, 1)


def f1_curve(mask: np.ndarray, map_: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Pixel F1 of one picture at each of rising thresholds, float64 (T,); averaged over pictures, its maximum is the
    best that one threshold can do for all of them. All nan for an empty mask.

    >>> f1_curve(np.array([[True, False]]), np.array([[0.9, 0.8]]), (0.5, 0.85, 0.95)).round(3).tolist()
    [0.667, 1.0, 0.0]
    """
    ((inside, values),) = _pictures([mask], [map_])
    steps = np.asarray(thresholds, np.float64)
    if not len(steps) or (np.diff(steps) <= 0).any():
        raise UsageError(f"Thresholds must rise, and there must be one at least; got {list(thresholds)}.")
    if not inside.any():
        return np.full(len(steps), np.nan)
    reached = np.searchsorted(steps, values.ravel(), side="right")  # how many thresholds each pixel reaches
    flat = inside.ravel()
    counts = [np.bincount(reached[chosen], minlength=len(steps) + 1) for chosen in (flat, ~flat)]
    hits, wrong = (np.cumsum(c[:0:-1])[::-1] for c in counts)
    return 2 * hits / (hits + wrong + flat.sum())


def f1_best_threshold_per_image(masks: Arrays, maps: Arrays) -> np.ndarray:
    """Pixel F1 with a threshold chosen for every picture by its own mask, float64 (N,): an oracle's upper bound.

    nan for an empty mask, 1 for a full one (the lowest threshold predicts every pixel). Never compare it with figures
    at a fixed threshold.

    >>> f1_best_threshold_per_image(np.array([[[True, False]]]), np.array([[[0.9, 0.8]]])).tolist()
    [1.0]
    """
    values = []
    for mask, map_ in _pictures(masks, maps):
        full, none = mask.all(), not mask.any()
        values.append(np.nan if none else 1.0 if full else detection.best_f1(mask.ravel(), map_.ravel()).value)
    return np.array(values, np.float64)


def _pooled(masks: Arrays, maps: Arrays) -> tuple[np.ndarray, np.ndarray]:
    pairs = _pictures(masks, maps)
    return np.concatenate([m.ravel() for m, _ in pairs]), np.concatenate([v.ravel() for _, v in pairs])


def f1_best_threshold_pooled(masks: Arrays, maps: Arrays) -> Best:
    """Pixel F1 of all pictures' pixels together at the one threshold that is best for them, and that threshold.

    Empty masks add their false positives. Raises UsageError when no mask, or every mask, is full.

    >>> f1_best_threshold_pooled(np.array([[[True, False]]]), np.array([[[0.9, 0.8]]]))
    Best(value=1.0, threshold=0.9)
    """
    return detection.best_f1(*_pooled(masks, maps))


def pixel_auroc(masks: Arrays, maps: Arrays) -> float:
    """Area under the ROC curve over the pixels of all pictures; empty masks add negatives.

    >>> pixel_auroc(np.array([[[True, False]]]), np.array([[[0.9, 0.8]]]))
    1.0
    """
    return detection.auroc(*_pooled(masks, maps))


def pixel_average_precision(masks: Arrays, maps: Arrays) -> float:
    """Average precision over the pixels of all pictures; empty masks add negatives. Chance: share of true pixels.

    >>> pixel_average_precision(np.array([[[True, False]]]), np.array([[[0.9, 0.8]]]))
    1.0
    """
    return detection.average_precision(*_pooled(masks, maps))


def overlap_curve(masks: Arrays, maps: Arrays) -> OverlapCurve:
    """Per-region overlap (PRO) against the pixel false-positive rate, at every threshold that occurs.

    PRO(t) = mean over the regions C_k of |{map ≥ t} ∩ C_k| / |C_k|, where regions are the 8-connected components of
    all masks; FPR(t) is the share of all pixels outside the masks with map ≥ t. Empty masks add false positives only.
    Raises UsageError when no picture has a region or no pixel lies outside one.

    >>> overlap_curve(np.array([[[True, False]]]), np.array([[[0.9, 0.8]]])).overlap.tolist()
    [0.0, 1.0, 1.0]
    """
    from scipy.ndimage import label

    values, gains, outside = [], [], []
    regions = 0
    for mask, map_ in _pictures(masks, maps):
        parts, count = label(mask, np.ones((3, 3)))
        share = np.zeros(count + 1)
        share[1:] = 1.0 / np.bincount(parts.ravel(), minlength=count + 1)[1:]
        regions += count
        values.append(map_.ravel())
        gains.append(share[parts].ravel())
        outside.append(~mask.ravel())
    value, gain, normal = np.concatenate(values), np.concatenate(gains), np.concatenate(outside)
    if regions == 0 or not normal.any():
        raise UsageError("The overlap of regions needs at least one true pixel and one pixel outside the masks.")
    order = np.argsort(-value, kind="stable")
    last = np.append(np.diff(value[order]) != 0, True)  # equal values are predicted together
    fpr = np.cumsum(normal[order])[last] / normal.sum()
    overlap = np.minimum(np.cumsum(gain[order])[last] / regions, 1.0)
    return OverlapCurve(np.append(0.0, fpr), np.append(0.0, overlap))


def aupro(masks: Arrays, maps: Arrays, *, fpr_limit: float = 0.3) -> float:
    """Area under the overlap curve up to a false-positive rate, divided by it: (1/L) ∫₀ᴸ PRO d FPR, in [0, 1].

    Linear between thresholds, so a random map has about L/2. Maps that are one constant everywhere order nothing and
    have 0 by convention. Source: Bergmann et al., The MVTec anomaly detection dataset, IJCV 2021.

    >>> aupro(np.array([[[True, False]]]), np.array([[[0.9, 0.8]]]))
    1.0
    """
    rate(fpr_limit, "The limit of the false-positive rate")
    fpr, overlap = overlap_curve(masks, maps)
    if len(fpr) == 2:
        return 0.0
    inside = fpr < fpr_limit
    x = np.append(fpr[inside], fpr_limit)
    # np.interp would take the last of several points at one rate; the curve is cut on the segment that crosses it.
    right = int(np.argmax(fpr >= fpr_limit))
    left = right - 1
    share = (fpr_limit - fpr[left]) / (fpr[right] - fpr[left])
    y = np.append(overlap[inside], overlap[left] + share * (overlap[right] - overlap[left]))
    return float(np.trapezoid(y, x) / fpr_limit)
