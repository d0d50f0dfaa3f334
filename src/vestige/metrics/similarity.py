"""How alike two representations of the same samples are: CKA, Procrustes, shared neighbours.

x: N×p and y: N×q are features of the same N samples, row for row. Features are centred here. All values lie in [0, 1]
(debiased CKA may fall slightly below 0), 1 meaning equal up to what the measure ignores. Every function raises
UsageError for shapes that do not match or too few samples, InputError for features that are not finite or constant.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.metrics.arrays import finite


def _pair(x: Any, y: Any, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = finite(x, "Features", 2), finite(y, "Features", 2)
    if len(x) != len(y) or len(x) < fewest:
        raise UsageError(
            f"Representations are compared on the same samples, at least {fewest}; got {len(x)} and {len(y)} rows."
        )
    return x - x.mean(0), y - y.mean(0)


def _positive(value: float) -> float:
    if not value > 0:
        raise InputError("A representation is constant over the samples, so its similarity is undefined.")
    return value


def linear_cka(x: Any, y: Any) -> float:
    """Centred kernel alignment with the linear kernel: ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) for centred X, Y.

    Unchanged by rotation and by one scale for all features, not by scaling features separately. Rises towards 1 with
    p, q > N even for unrelated features: use `debiased_cka` there, and bracket with two retrained models. Source:
    Kornblith et al., Similarity of neural network representations revisited, ICML 2019.

    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(linear_cka(x, 2 * x[:, ::-1] + 1), 6)
    1.0
    """
    x, y = _pair(x, y, 2)
    if max(x.shape[1], y.shape[1]) > len(x):  # the Gram form costs N² instead of pq
        k, m = x @ x.T, y @ y.T
        cross, own = (k * m).sum(), np.linalg.norm(k) * np.linalg.norm(m)
    else:
        cross, own = np.linalg.norm(y.T @ x) ** 2, np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(cross / _positive(float(own)))


def _unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Unbiased estimate of HSIC from Gram matrices n×n whose diagonals are zero (Song et al., JMLR 2012)."""
    n = len(k)
    rows, columns = k.sum(1), m.sum(1)
    value = (k * m).sum() + rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 * rows @ columns / (n - 2)
    return float(value / (n * (n - 3)))


def _hsic_terms(x: Any, y: Any) -> np.ndarray:
    x, y = _pair(x, y, 4)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return np.array([_unbiased_hsic(k, m), _unbiased_hsic(k, k), _unbiased_hsic(m, m)])


def _aligned(terms: np.ndarray) -> float:
    return float(terms[0] / np.sqrt(_positive(float(terms[1])) * _positive(float(terms[2]))))


def debiased_cka(x: Any, y: Any) -> float:
    """Linear CKA from unbiased estimates, HSIC₁(K, M) / √(HSIC₁(K, K) HSIC₁(M, M)); about 0 for unrelated features.

    N ≥ 4; HSIC₁ = [tr(K̃M̃) + 1ᵀK̃1·1ᵀM̃1 / ((n−1)(n−2)) − 2·1ᵀK̃M̃1 / (n−2)] / (n(n−3)), K̃ and M̃ being Gram matrices with a
    zero diagonal. Sources: Song et al., Feature selection via dependence maximization, JMLR 2012; Nguyen et al., Do
    wide and deep networks learn the same things?, ICLR 2021.

    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(debiased_cka(x, 2 * x + 1), 6)
    1.0
    """
    return _aligned(_hsic_terms(x, y))


class MinibatchCKA:
    """`debiased_cka` for sets too large for a Gram matrix: unbiased HSIC terms are averaged over batches.

    Converges to the figure of the full set as batches are added, whatever their size ≥ 4. Source: Nguyen et al., Do
    wide and deep networks learn the same things?, ICLR 2021.

    >>> cka, x = MinibatchCKA(), np.random.default_rng(0).normal(size=(20, 3))
    >>> cka.update(x[:10], x[:10])
    >>> cka.update(x[10:], x[10:])
    >>> round(cka.value(), 6)
    1.0
    """

    def __init__(self) -> None:
        self._terms = np.zeros(3)
        self._batches = 0

    def update(self, x: Any, y: Any) -> None:
        """Add one batch: features n×p and n×q of the same n ≥ 4 samples."""
        self._terms += _hsic_terms(x, y)
        self._batches += 1

    def value(self) -> float:
        """The similarity over the batches so far; raises UsageError before the first."""
        if not self._batches:
            raise UsageError("No batch was added yet, so there is no similarity.")
        return _aligned(self._terms / self._batches)


def procrustes_similarity(x: Any, y: Any) -> float:
    """Nuclear norm ‖XᵀY‖_* of centred features with unit Frobenius norm: 1 − d²/2 for the best rotation's distance d.

    d² = min over orthogonal R of ‖X − YR‖²_F; narrower features count as padded with zeros. Unchanged by rotation,
    mirroring and one scale. Source: Ding et al., Grounding representation similarity through statistical testing,
    NeurIPS 2021.

    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(procrustes_similarity(x, 2 * x[:, ::-1] + 1), 6)
    1.0
    """
    x, y = _pair(x, y, 2)
    norm = _positive(float(np.linalg.norm(x) * np.linalg.norm(y)))
    return float(np.linalg.svd(x.T @ y, compute_uv=False).sum() / norm)


def knn_overlap(x: Any, y: Any, *, k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine") -> float:
    """Mean share of the k nearest neighbours (the sample itself left out) that both representations agree on.

    Chance level: k / (N − 1). Cosine is taken from the mean feature. Source: Huh et al., The Platonic representation
    hypothesis, ICML 2024 (mutual nearest neighbours).

    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> knn_overlap(x, 2 * x, k=3)
    1.0
    """
    from sklearn.neighbors import NearestNeighbors

    x, y = _pair(x, y, 2)
    if not 1 <= k < len(x) or metric not in ("cosine", "euclidean"):
        raise UsageError(
            f"Neighbours need 1 ≤ k < N = {len(x)} and metric 'cosine' or 'euclidean'; got {k}, {metric!r}."
        )
    sets = [NearestNeighbors(n_neighbors=k, metric=metric).fit(f).kneighbors(return_distance=False) for f in (x, y)]
    shared = [len(np.intersect1d(a, b)) for a, b in zip(*sets, strict=True)]
    return float(np.mean(shared) / k)
