"""Whether probabilities mean what they say: calibration errors, Brier score, reliability plot, temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vestige.core.errors import UsageError
from vestige.metrics.arrays import binary, classes, finite, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bins = Literal["width", "mass"]


@dataclass(frozen=True)
class Reliability:
    """Bins of a reliability curve that hold samples: mean confidence, accuracy and number of samples of each (B,)."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def top_label(probs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of the most probable class and whether it is right: float64 (N,), bool (N,).

    probs: N×K. labels: int (N,). Raises UsageError and InputError as the other measures do.

    >>> top_label([[0.2, 0.8]], [1])
    (array([0.8]), array([ True]))
    """
    probs = probabilities(probs, "Probabilities")
    labels = classes(labels, "Labels", len(probs), probs.shape[1])
    return probs.max(1), probs.argmax(1) == labels


def reliability_curve(confidence: Any, correct: Any, *, n_bins: int = 15, bins: Bins = "width") -> Reliability:
    """Accuracy against confidence. confidence: (N,) in [0, 1]; correct: bool or 0/1 (N,).

    For a detector, confidence is the probability of the positive class and ``correct`` its label. bins: "width" cuts
    [0, 1] into equal parts (left, right], "mass" at quantiles of the confidence (equal values share a bin). Empty
    bins are left out. Raises UsageError for values outside [0, 1], shapes that differ or no bins.

    >>> reliability_curve([0.1, 0.9, 0.9], [0, 1, 0], n_bins=2).accuracy.tolist()
    [0.0, 0.5]
    """
    confidence = finite(confidence, "Confidences", 1)
    correct = binary(correct, "Outcomes", len(confidence))
    if confidence.min() < 0 or confidence.max() > 1 or n_bins < 1 or bins not in ("width", "mass"):
        raise UsageError(
            "A reliability curve needs confidences in [0, 1], at least one bin, and bins 'width' or 'mass'."
        )
    if bins == "width":
        inner = np.linspace(0, 1, n_bins + 1)[1:-1]
    else:
        inner = np.unique(np.quantile(confidence, np.linspace(0, 1, n_bins + 1)[1:-1], method="lower"))
    index = np.searchsorted(inner, confidence, side="left")
    count = np.bincount(index, minlength=len(inner) + 1)
    filled = count > 0
    means = [np.bincount(index, v, len(count))[filled] / count[filled] for v in (confidence, correct)]
    return Reliability(means[0], means[1], count[filled])


def expected_calibration_error(confidence: Any, correct: Any, *, n_bins: int = 15, bins: Bins = "width") -> float:
    """ECE = Σ_b (n_b / N) |accuracy_b − confidence_b|, arguments as in `reliability_curve`.

    Grows with the number of bins and shrinks with N even for a calibrated model: compare at equal N and bins.
    Source: Guo et al., On calibration of modern neural networks, ICML 2017.

    >>> expected_calibration_error([0.75] * 4, [1, 1, 1, 0])
    0.0
    """
    curve = reliability_curve(confidence, correct, n_bins=n_bins, bins=bins)
    return float((curve.count * np.abs(curve.accuracy - curve.confidence)).sum() / curve.count.sum())


def maximum_calibration_error(confidence: Any, correct: Any, *, n_bins: int = 15, bins: Bins = "width") -> float:
    """MCE = max_b |accuracy_b − confidence_b| over bins that hold samples, arguments as in `reliability_curve`.

    >>> maximum_calibration_error([0.75] * 4, [1, 1, 0, 0])
    0.25
    """
    curve = reliability_curve(confidence, correct, n_bins=n_bins, bins=bins)
    return float(np.abs(curve.accuracy - curve.confidence).max())


def brier_score(probs: Any, labels: Any) -> float:
    """Mean squared error of probabilities.

    N×K probabilities with int labels: mean of Σ_k (p_k − [k = y])², in [0, 2]. (N,) probabilities of the positive
    class with 0/1 labels: mean of (p − y)², in [0, 1], half of the former for K = 2. Source: Brier, Verification of
    forecasts expressed in terms of probability, Monthly Weather Review 1950.

    >>> brier_score([0.5, 1.0], [1, 1])
    0.125
    """
    if np.ndim(probs) == 1:
        p = finite(probs, "Probabilities", 1)
        if p.min() < 0 or p.max() > 1:
            raise UsageError("Probabilities must lie in [0, 1].")
        return float(np.mean((p - binary(labels, "Labels", len(p))) ** 2))
    p = probabilities(probs, "Probabilities")
    labels = classes(labels, "Labels", len(p), p.shape[1])
    return float(np.mean(((p - np.eye(p.shape[1])[labels]) ** 2).sum(1)))


def negative_log_likelihood(logits: Any, labels: Any, temperature: float = 1.0) -> float:
    """Mean of −log softmax(z / T)_y in nats. logits: N×K; labels: int (N,).

    >>> round(negative_log_likelihood([[0.0, 0.0]], [1]), 4)
    0.6931
    """
    from scipy.special import log_softmax

    logits = finite(logits, "Logits", 2)
    labels = classes(labels, "Labels", len(logits), logits.shape[1])
    if not temperature > 0:
        raise UsageError(f"A temperature is positive; got {temperature}.")
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


@dataclass(frozen=True)
class TemperatureScaling:
    """softmax(z / T): one number fitted on validation data; the ranking of the classes stays as it is.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017.
    """

    temperature: float

    @classmethod
    def fit(cls, validation_logits: Any, validation_labels: Any) -> TemperatureScaling:
        """The T in [0.01, 100] of lowest negative log-likelihood on validation data.

        validation_logits: N×K, of samples used neither for training nor for the reported figures; fitted on test data
        the calibration error is an optimistic one. validation_labels: int (N,). Where every validation sample is
        right, or the logits are noise, T runs to a bound. Raises UsageError and InputError for wrong arrays.

        >>> scaling = TemperatureScaling.fit([[4.0, 0], [4.0, 0], [4.0, 0], [4.0, 0]], [0, 0, 0, 1])
        >>> scaling.probabilities([[4.0, 0]]).round(2).tolist()
        [[0.75, 0.25]]
        """
        from scipy.optimize import minimize_scalar

        # The likelihood is convex in 1/T, hence has one minimum in log T as well.
        found = minimize_scalar(
            lambda t: negative_log_likelihood(validation_logits, validation_labels, float(np.exp(t))),
            bounds=(np.log(0.01), np.log(100.0)), method="bounded", options={"xatol": 1e-6},
        )  # fmt: skip
        return cls(float(np.exp(found.x)))

    def probabilities(self, logits: Any) -> np.ndarray:
        """Calibrated probabilities, float64 N×K."""
        from scipy.special import softmax

        return softmax(finite(logits, "Logits", 2) / self.temperature, axis=1)


def plot_reliability(curve: Reliability, path: str | Path | None = None, *, title: str = "Reliability") -> Figure:
    """Accuracy over confidence with the diagonal of perfect calibration and the share of samples in every bin.

    path: write a PNG there (atomically). Returns the matplotlib figure; no window and no global state.

    >>> len(plot_reliability(reliability_curve([0.2, 0.8], [0, 1])).axes)
    2
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 5.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], linestyle="--", color="0.5", label="perfectly calibrated")
    top.plot(curve.confidence, curve.accuracy, marker="o", color="#1f5fa8", label="measured")
    top.vlines(curve.confidence, curve.confidence, curve.accuracy, color="#c4512d", linewidth=1.5, label="gap")
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy", title=title)
    top.legend(loc="upper left", frameon=False)
    share = curve.count / curve.count.sum()
    bottom.bar(curve.confidence, share, width=0.02, color="#1f5fa8")
    bottom.set(xlabel="Confidence", ylabel="Share of samples")
    if path is not None:
        from io import BytesIO

        from vestige.core.files import write_atomic

        buffer = BytesIO()
        canvas.print_png(buffer)
        write_atomic(path, buffer.getvalue())
    return figure
