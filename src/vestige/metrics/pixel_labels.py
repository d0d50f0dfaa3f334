"""Labels of tampering by what truly changed, and how well answers match them: where, what, and in words.

An object mask calls pixels tampered that the edit left alone and misses those that changed elsewhere, as generative
editors do to the whole frame. Here a pixel's label is its difference: D = mean over R, G, B of |original - edited| and
M_τ = D > τ. Both pictures must be registered and stored alike: D of an identical re-save is the noise floor.

Source: From Masks to Pixels and Meaning: A New Taxonomy, Benchmark, and Metrics for VLM Image Tampering, arXiv
2603.20193, 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn import metrics as sk

from vestige.core.errors import InputError, UsageError
from vestige.metrics.arrays import classes
from vestige.metrics.segmentation import iou_at_threshold, pixel_auroc

#: From tiny edits to large ones alone; the second is the default.
TAUS = (0.01, 0.05, 0.1, 0.2)
TAU = 0.05
CLASSES = ("real", "synthetic", "tampered")

Embedder = Callable[[list[str]], np.ndarray]


class PixelLabels(NamedTuple):
    """masks: bool N×1×H×W, M_τ. difference: float32 N×1×H×W, D, from which any other τ can be taken."""

    masks: np.ndarray
    difference: np.ndarray


def pixel_labels(orig: np.ndarray, edited: np.ndarray, tau: float = TAU) -> PixelLabels:
    """D = mean_c |orig - edited| and M = D > τ (strictly) of float pictures N×3×H×W in [0, 1].

    Raises UsageError for other shapes or sizes that differ (a resized edit differs everywhere), or a τ outside [0, 1];
    InputError for samples that are not finite.

    >>> pixel_labels(np.zeros((1, 3, 2, 2), np.float32), np.full((1, 3, 2, 2), 0.1, np.float32)).masks.all()
    np.True_
    """
    pair = [np.asarray(x) for x in (orig, edited)]
    if any(x.ndim != 4 or x.shape[1] != 3 or x.dtype.kind != "f" or not x.size for x in pair):
        raise UsageError(f"Pictures must be floating point N×3×H×W in [0, 1]; got {pair[0].shape} and {pair[1].shape}.")
    if pair[0].shape != pair[1].shape:
        raise UsageError(
            f"Original and edited picture must have one size; got {pair[0].shape} and {pair[1].shape}. Resizing one of "
            "them would make every pixel differ."
        )
    _check_tau(tau)
    difference = np.abs(pair[0].astype(np.float32) - pair[1]).mean(1, keepdims=True, dtype=np.float32)
    if not np.isfinite(difference).all():
        raise InputError("Some pictures hold samples that are not finite (NaN or infinity); repair or leave them out.")
    return PixelLabels(difference > np.float32(tau), difference)


def audit_masks(M: np.ndarray, D: np.ndarray, object_mask: np.ndarray) -> dict[str, float]:
    """How far object masks are from the labels M, with D as weights; all arrays N×1×H×W, bool but for D.

    over_label_rate: share of object-mask pixels outside M. off_mask_share: share of the pixels outside the object masks
    that are in M. missed_share: share of M outside the object masks, and missed_intensity: of ΣD. iou: of M and the
    object masks, all pictures together. A share of nothing is 0. Raises UsageError for shapes or types that differ.

    >>> M, mask = np.array([[[[True, False]]]]), np.array([[[[True, True]]]])
    >>> audit_masks(M, M.astype(np.float32), mask)["over_label_rate"]
    0.5
    """
    labels, mask, difference = _planes(M, "M"), _planes(object_mask, "The object mask"), np.asarray(D)
    if labels.shape != mask.shape or difference.shape != mask.shape:
        raise UsageError(f"M, D and object masks need one shape; got {labels.shape}, {difference.shape}, {mask.shape}.")
    return {
        "over_label_rate": _share((mask & ~labels).sum(), mask.sum()),
        "off_mask_share": _share((labels & ~mask).sum(), (~mask).sum()),
        "missed_share": _share((labels & ~mask).sum(), labels.sum()),
        "missed_intensity": _share(difference[~mask].sum(dtype=np.float64), difference.sum(dtype=np.float64)),
        "iou": _share((labels & mask).sum(), (labels | mask).sum()),
    }


def audit_ladder(D: np.ndarray, object_mask: np.ndarray, taus: Sequence[float] = TAUS) -> list[dict[str, float]]:
    """`audit_masks` at every τ; off_mask_share falls and over_label_rate rises with τ."""
    for tau in taus:
        _check_tau(tau)
    return [{"tau": tau, **audit_masks(np.asarray(D) > np.float32(tau), D, object_mask)} for tau in taus]


class Overlaps(NamedTuple):
    """g_iou: mean over pictures of their IoU, 1 where nothing is marked nor to be found; ``empty`` counts those, since
    blank answers earn there. c_iou: all intersections over all unions."""

    g_iou: float
    c_iou: float
    empty: int


def overlaps(masks: np.ndarray, maps: np.ndarray, threshold: float = 0.5) -> Overlaps:
    """gIoU and cIoU of maps at a threshold; bool and float N×1×H×W.

    >>> overlaps(np.array([[[[True, False]]], [[[False, False]]]]), np.array([[[[1.0, 1.0]]], [[[0.0, 0.0]]]]))
    Overlaps(g_iou=0.75, c_iou=0.5, empty=1)
    """
    each = iou_at_threshold(masks, maps, threshold, empty="score")
    predicted = np.asarray(maps) >= threshold
    union = (predicted | masks).sum((1, 2, 3))
    return Overlaps(float(each.mean()), _share((predicted & masks).sum(), union.sum()), int((union == 0).sum()))


def pixar_report(
    pred: Mapping[str, Any],
    target: Mapping[str, Any],
    *,
    threshold: float = 0.5,
    embed: Embedder | None = None,
) -> dict[str, float]:
    """Everything that is said about tampered pictures, measured; a part whose keys are missing in ``pred`` is left out.

    pred, target: "classes", int N of `CLASSES` each; "masks", probabilities and M_τ N×1×H×W; "objects", probabilities
    and bool N×K, the classes of what was touched; "texts", N sentences. target may have "difference" (D, N×1×H×W) and
    "object_masks" (bool N×1×H×W). Localisation, objects and sentences are judged on pictures that truly are tampered
    (all of them without target classes).

    accuracy, and precision, recall and F1 by class; g_iou, c_iou, empty, pixel precision, recall, F1 and AUC; intensity
    recall ΣD·p / ΣD, off-mask recall (of M outside the object mask) and over-label rate (marked pixels outside M, as a
    share of the marked); micro and macro precision, recall and F1 of objects, exact_match, top1, top5; text_cosine, by
    ``embed`` (N sentences -> N×E) or else TF-IDF; combined_f1, harmonic mean of c_iou and accuracy.

    Raises UsageError for shapes that do not match or when no picture is tampered.
    """
    report: dict[str, float] = {}
    tampered: np.ndarray | None = None
    if "classes" in target:
        truth = classes(target["classes"], "Target classes", len(target["classes"]), len(CLASSES))
        tampered = truth == CLASSES.index("tampered")
        if "classes" in pred:
            said = classes(pred["classes"], "Predicted classes", len(truth), len(CLASSES))
            report |= _of_classes(truth, said)
    if tampered is not None and not tampered.any() and set(pred) - {"classes"}:
        raise UsageError("Localisation, objects and sentences are judged on tampered pictures, and there is none.")

    def chosen(values: Any) -> np.ndarray:
        array = np.asarray(values)
        if tampered is not None and len(array) != len(tampered):
            raise UsageError(f"Every part needs one row a picture; got {len(array)} rows for {len(tampered)} pictures.")
        return array if tampered is None else array[tampered]

    if "masks" in pred:
        marked, labels = chosen(pred["masks"]), _planes(chosen(target["masks"]), "M")
        report |= _of_masks(marked, labels, threshold)
        extra = {key: chosen(target[key]) for key in ("difference", "object_masks") if key in target}
        report |= _beyond_masks(marked >= threshold, labels, **extra)
    if "objects" in pred:
        report |= _of_objects(chosen(pred["objects"]), chosen(target["objects"]), threshold)
    if "texts" in pred:
        said_texts, true_texts = (list(map(str, chosen(side["texts"]))) for side in (pred, target))
        report["text_cosine"] = _text_cosine(said_texts, true_texts, embed)
    if {"accuracy", "c_iou"} <= report.keys():
        total = report["accuracy"] + report["c_iou"]
        report["combined_f1"] = 2 * report["accuracy"] * report["c_iou"] / total if total else 0.0
    return report


def _of_classes(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth, said, labels=range(len(CLASSES)), zero_division=0
    )
    found = {"accuracy": float((truth == said).mean())}
    for index, name in enumerate(CLASSES):
        if (truth == index).any() or (said == index).any():
            found |= {f"{name}_precision": float(precision[index]), f"{name}_recall": float(recall[index]),
                      f"{name}_f1": float(f1[index])}  # fmt: skip
    return found


def _of_masks(maps: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    found = overlaps(labels, maps, threshold)
    marked = maps >= threshold
    hits, all_marked, all_true = (marked & labels).sum(), marked.sum(), labels.sum()
    one_sided = labels.all() or not labels.any()
    return {
        "g_iou": found.g_iou, "c_iou": found.c_iou, "empty": float(found.empty),
        "pixel_precision": _share(hits, all_marked), "pixel_recall": _share(hits, all_true),
        "pixel_f1": _share(2 * hits, all_marked + all_true),
        "pixel_auc": float("nan") if one_sided else pixel_auroc(labels, maps),
    }  # fmt: skip


def _beyond_masks(
    marked: np.ndarray, labels: np.ndarray, difference: np.ndarray | None = None, object_masks: np.ndarray | None = None
) -> dict[str, float]:
    found = {"over_label_rate": _share((marked & ~labels).sum(), marked.sum())}
    if difference is not None:
        total = difference.sum(dtype=np.float64)
        found["intensity_recall"] = _share((difference * marked).sum(dtype=np.float64), total)
    if object_masks is not None:
        outside = labels & ~_planes(object_masks, "The object mask")
        found["off_mask_recall"] = _share((outside & marked).sum(), outside.sum())
    return found


def _of_objects(scores: np.ndarray, truth: np.ndarray, threshold: float) -> dict[str, float]:
    if scores.shape != truth.shape or truth.dtype != bool or truth.ndim != 2 or truth.shape[1] < 2:
        raise UsageError(f"Objects must be N×K, probabilities and bool; got {scores.shape} and {truth.shape}.")
    said = scores >= threshold
    found: dict[str, float] = {"exact_match": float((said == truth).all(1).mean())}
    present = truth.any(0) | said.any(0)  # classes that nobody names say nothing
    for average in ("micro", "macro"):
        values = sk.precision_recall_fscore_support(
            truth[:, present], said[:, present], average=average, zero_division=0
        ) if present.any() else (0.0, 0.0, 0.0)  # fmt: skip
        found |= {f"object_{average}_{key}": float(v) for key, v in zip(("precision", "recall", "f1"), values)}
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(truth, order, 1)
    with_object = truth.any(1)
    for k in (1, 5):
        found[f"top{k}"] = float(hits[with_object, :k].any(1).mean()) if with_object.any() else float("nan")
    return found


def _text_cosine(said: list[str], true: list[str], embed: Embedder | None) -> float:
    """Mean cosine of each pair's embeddings; the vocabulary of TF-IDF is that of the true sentences."""
    if len(said) != len(true) or not true:
        raise UsageError(f"There must be one sentence for each; got {len(said)} and {len(true)}.")
    if embed is None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectoriser = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit(true)
        one, other = (vectoriser.transform(texts).toarray() for texts in (said, true))
    else:
        one, other = (np.asarray(embed(texts), np.float64) for texts in (said, true))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(1) / np.maximum(lengths, 1e-12)).mean())


def _planes(values: Any, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype != bool or array.ndim != 4 or array.shape[1] != 1 or not array.size:
        raise UsageError(f"{what} must be bool N×1×H×W; got {array.dtype} {array.shape}.")
    return array


def _check_tau(tau: float) -> None:
    if not 0 <= tau <= 1:
        raise UsageError(f"The threshold of the difference lies in [0, 1]; got {tau}.")


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
