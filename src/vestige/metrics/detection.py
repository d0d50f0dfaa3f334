"""How well scores tell two classes apart: areas under curves, operating points, their uncertainty.

labels: bool or 0/1 (N,), True for what is sought. scores: (N,), higher means more of it; a sample is flagged when its
score is at or above the threshold. Every function raises UsageError for wrong shapes or when one class is missing,
and InputError for scores that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.metrics.arrays import binary, finite, rate


class OperatingPoint(NamedTuple):
    """A threshold with the rates it gives: flagged share of the sought (tpr) and of the others (fpr)."""

    threshold: float
    tpr: float
    fpr: float


class Best(NamedTuple):
    """The best value of a measure over all thresholds, and the highest threshold that gives it."""

    value: float
    threshold: float


class Interval(NamedTuple):
    """A value with its confidence interval."""

    value: float
    low: float
    high: float


def _pair(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    scores = finite(scores, "Scores", 1)
    labels = binary(labels, "Labels", len(scores))
    if labels.all() or not labels.any():
        missing = "negatives" if labels.all() else "positives"
        raise UsageError(f"Detection is measured on both classes; these {len(labels)} labels hold no {missing}.")
    return labels, scores


def auroc(labels: Any, scores: Any) -> float:
    """Area under the ROC curve: P(s⁺ > s⁻) + ½ P(s⁺ = s⁻) for one score of each class.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 1982.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    labels, scores = _pair(labels, scores)
    sought, others = scores[labels], np.sort(scores[~labels])
    below = others.searchsorted(sought, "left").sum(dtype=np.int64)
    not_above = others.searchsorted(sought, "right").sum(dtype=np.int64)
    return float((below + not_above) / (2 * len(sought) * len(others)))


def average_precision(labels: Any, scores: Any) -> float:
    """Σ_n (R_n − R_{n−1}) P_n over falling thresholds, with recall R and precision P; chance level: share of positives.

    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_pair(labels, scores)))


def _roc(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.metrics import roc_curve  # seconds to import

    return roc_curve(*_pair(labels, scores), drop_intermediate=False)


def fpr_at_tpr(labels: Any, scores: Any, tpr: float = 0.95) -> OperatingPoint:
    """Lowest false-positive rate among thresholds whose true-positive rate is at least ``tpr`` (no interpolation).

    >>> fpr_at_tpr([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], tpr=1.0).fpr
    0.5
    """
    rate(tpr, "The true-positive rate")
    fprs, tprs, thresholds = _roc(labels, scores)
    index = int(np.argmax(tprs >= tpr - 1e-12))
    return OperatingPoint(float(thresholds[index]), float(tprs[index]), float(fprs[index]))


def null_threshold(null: Any, fpr: float) -> float:
    """Lowest threshold t at which at most ``fpr`` of the null scores are flagged: #{s ≥ t} ≤ ⌊fpr·n⌋.

    null: scores (n,) of samples without what is sought. With fpr < 1/n the threshold lies just above all of them: the
    sample is too small to show a rate that low, and the true rate may be higher.

    >>> null = [0.1, 0.2, 0.3, 0.4]
    >>> 0.2 < null_threshold(null, 0.5) < 0.3
    True
    """
    values = np.sort(finite(null, "Null scores", 1))[::-1]
    rate(fpr, "The false-positive rate")
    allowed = int(np.floor(fpr * len(values) + 1e-9))
    return float(np.nextafter(values[allowed], np.inf)) if allowed < len(values) else float(values[-1])


def tpr_at_fpr(labels: Any, scores: Any, fpr: float = 0.01, *, null: Any = None) -> OperatingPoint:
    """True-positive rate at the threshold that the empirical null gives for ``fpr``, with the rate it really has.

    null: held-out null scores to take the threshold from; without them it comes from the negatives at hand, and the
    measured false-positive rate is at most ``fpr`` by construction.

    >>> tpr_at_fpr([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.01).tpr
    0.5
    """
    labels, scores = _pair(labels, scores)
    threshold = null_threshold(scores[~labels] if null is None else null, fpr)
    flagged = scores >= threshold
    return OperatingPoint(threshold, float(flagged[labels].mean()), float(flagged[~labels].mean()))


def empirical_p_value(scores: Any, null: Any) -> np.ndarray:
    """Share of null scores as high as each score, counting itself: p = (1 + #{null ≥ s}) / (1 + n), float64 (N,).

    Valid for exchangeable scores: P(p ≤ α) ≤ α. Source: Davison and Hinkley, Bootstrap methods, 1997, section 4.2.

    >>> empirical_p_value([5.0, 0.0], [1, 2, 3, 4]).tolist()
    [0.2, 1.0]
    """
    values = np.sort(finite(null, "Null scores", 1))
    below = np.searchsorted(values, finite(scores, "Scores", 1), side="left")
    return (1.0 + len(values) - below) / (1.0 + len(values))


def equal_error(labels: Any, scores: Any) -> Best:
    """Error rate where false-positive and false-negative rates meet, on the ROC polyline, and a threshold near it.

    >>> equal_error([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]).value
    0.5
    """
    fprs, tprs, thresholds = _roc(labels, scores)
    gap = fprs - (1 - tprs)  # rises from -1 to 1 along the curve
    right = int(np.argmax(gap >= 0))
    left = right - 1
    share = -gap[left] / (gap[right] - gap[left])
    value = fprs[left] + share * (fprs[right] - fprs[left])
    return Best(float(value), float(thresholds[right]))


def best_f1(labels: Any, scores: Any) -> Best:
    """Largest F1 = 2TP / (2TP + FP + FN) over all thresholds: an upper bound, because the labels choose the threshold.

    >>> round(best_f1([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]).value, 3)
    0.8
    """
    labels, scores = _pair(labels, scores)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.append(np.diff(scores) != 0, True)  # equal scores are flagged together
    hits = np.cumsum(labels[order])[last]
    flagged = np.flatnonzero(last) + 1
    f1 = 2 * hits / (flagged + labels.sum())
    index = int(np.argmax(f1))
    return Best(float(f1[index]), float(scores[last][index]))


def bootstrap_interval(
    measure: Callable[[np.ndarray, np.ndarray], float],
    labels: Any,
    scores: Any,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of ``measure(labels, scores)``, resampling the two classes separately.

    Samples count as independent: crops or versions of one picture must be averaged first. Raises UsageError for a
    level outside (0, 1), fewer than 2 resamples or fewer than 2 samples of a class. Source: Efron and Tibshirani, An
    introduction to the bootstrap, 1993.

    >>> labels, scores = np.repeat([0, 1], 50), np.arange(100) % 67
    >>> interval = bootstrap_interval(auroc, labels, scores, resamples=50)
    >>> interval.low <= interval.value <= interval.high
    True
    """
    from scipy.stats import bootstrap

    if not 0 < level < 1 or resamples < 2:
        raise UsageError(f"An interval needs a level in (0, 1) and 2 resamples; got {level} and {resamples}.")
    labels, scores = _pair(labels, scores)

    def statistic(negatives: np.ndarray, positives: np.ndarray) -> float:
        return measure(np.repeat([False, True], [len(negatives), len(positives)]), np.append(negatives, positives))

    negatives, positives = scores[~labels], scores[labels]
    value = statistic(negatives, positives)
    if min(len(negatives), len(positives)) < 2:
        raise UsageError("An interval needs at least two samples of each class.")
    found = bootstrap(
        (negatives, positives), statistic, n_resamples=resamples, vectorized=False, confidence_level=level,
        method="percentile", rng=rng(seed, "bootstrap"),
    ).confidence_interval  # fmt: skip
    return Interval(float(value), float(found.low), float(found.high))


def detection_summary(labels: Any, scores: Any) -> dict[str, float]:
    """The row that tables of detectors print: auroc, ap, best_f1, fpr@95tpr, tpr@1fpr, eer.

    >>> detection_summary([0, 1], [0.0, 1.0])["auroc"]
    1.0
    """
    return {
        "auroc": auroc(labels, scores),
        "ap": average_precision(labels, scores),
        "best_f1": best_f1(labels, scores).value,
        "fpr@95tpr": fpr_at_tpr(labels, scores, 0.95).fpr,
        "tpr@1fpr": tpr_at_fpr(labels, scores, 0.01).tpr,
        "eer": equal_error(labels, scores).value,
    }
