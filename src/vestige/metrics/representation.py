"""What a representation still holds: similarity layer by layer, nearest neighbours, a new head.

Features are N×width arrays; labels int (N,). Figures are bracketed by two retrained models: they differ too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.metrics.arrays import finite
from vestige.metrics.similarity import debiased_cka, linear_cka


def layerwise_cka(first: Mapping[str, Any], second: Mapping[str, Any], *, debiased: bool = True) -> dict[str, float]:
    """CKA of two models at every layer both name: {layer: similarity}. Activations N×… are flattened, feature maps
    N×C×h×w averaged over space first. Raises UsageError when no layer is shared.

    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(layerwise_cka({"a": x}, {"a": 2 * x})["a"], 6)
    1.0
    """
    shared = [name for name in first if name in second]
    if not shared:
        raise UsageError("The two models share no layer names.")
    measure = debiased_cka if debiased else linear_cka
    return {name: measure(pooled(first[name]), pooled(second[name])) for name in shared}


def pooled(activations: Any) -> np.ndarray:
    """N×C×h×w -> N×C by averaging, N×tokens×C -> N×C likewise, N×C as it is."""
    array = np.asarray(activations, np.float64)
    if array.ndim == 4:
        return array.mean((2, 3))
    return array.mean(1) if array.ndim == 3 else array.reshape(len(array), -1)


def _checked(train: Any, train_labels: Any, test: Any, test_labels: Any) -> tuple[np.ndarray, ...]:
    x, z = finite(train, "Features", 2), finite(test, "Features", 2)
    y, t = np.asarray(train_labels), np.asarray(test_labels)
    if x.shape[1] != z.shape[1] or len(y) != len(x) or len(t) != len(z):
        raise UsageError(
            f"Probes need features of one width and a label each; got {x.shape}, {z.shape}, {y.shape}, {t.shape}."
        )
    return x, y, z, t


def knn_probe(
    train: Any, train_labels: Any, test: Any, test_labels: Any, *, k: int = 5, of_class: int | None = None
) -> float:
    """Accuracy of the k nearest training features by cosine; of_class: on test samples of that class alone.

    >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> knn_probe(x, [0, 0, 1, 1], x, [0, 0, 1, 1], k=1)
    1.0
    """
    from sklearn.neighbors import KNeighborsClassifier

    x, y, z, t = _checked(train, train_labels, test, test_labels)
    said = KNeighborsClassifier(n_neighbors=min(k, len(x)), metric="cosine").fit(x, y).predict(z)
    return _share(said == t, t, of_class)


def linear_probe(
    train: Any, train_labels: Any, test: Any, test_labels: Any, *, of_class: int | None = None, strength: float = 1.0
) -> float:
    """Accuracy of a new linear head (logistic regression on standardised features); of_class: on that class alone.

    strength: the inverse of the regularisation. A head trained anew that names the forgotten class again shows that
    the class was hidden, not deleted.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y, z, t = _checked(train, train_labels, test, test_labels)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300)).fit(x, y)
    return _share(probe.predict(z) == t, t, of_class)


def _share(right: np.ndarray, labels: np.ndarray, of_class: int | None) -> float:
    chosen = right if of_class is None else right[labels == of_class]
    if not len(chosen):
        raise UsageError(f"There is no test sample of class {of_class}.")
    return float(chosen.mean())
