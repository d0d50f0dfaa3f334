"""Distance between sets of pictures, on arrays of their features N×d.

All of these depend on the feature network, on the number of samples and on how pictures were resized: compare only
figures with the same features and the same N on both sides, and print the figure for two halves of the real set (the
floor) beside them. Every function raises UsageError for wrong shapes or too few samples and InputError for features
that are not finite.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.metrics.arrays import finite


class KernelDistance(NamedTuple):
    """Mean and standard deviation of the estimate over the subsets."""

    mean: float
    std: float


class FidelityDiversity(NamedTuple):
    """Fidelity (precision, density) and diversity (recall, coverage), in [0, 1] but for density, which may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def _pair(real: Any, generated: Any) -> tuple[np.ndarray, np.ndarray]:
    real, generated = finite(real, "Real features", 2), finite(generated, "Generated features", 2)
    if real.shape[1] != generated.shape[1]:
        raise UsageError(f"Features of {real.shape[1]} and {generated.shape[1]} dimensions cannot be compared.")
    return real, generated


def gaussian_frechet_distance(mean_a: Any, cov_a: Any, mean_b: Any, cov_b: Any) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians.

    d² = ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a^½ Σ_b Σ_a^½)^½), with μ: (d,), Σ: d×d symmetric positive semi-definite.
    Both roots come from symmetric eigen-decompositions, so the result is real and survives singular covariances.
    Source: Dowson and Landau, The Fréchet distance between multivariate normal distributions, 1982.

    >>> gaussian_frechet_distance([0.0], [[1.0]], [3.0], [[4.0]])
    10.0
    """
    means = finite(mean_a, "Means", 1), finite(mean_b, "Means", 1)
    covariances = finite(cov_a, "Covariances", 2), finite(cov_b, "Covariances", 2)
    d = len(means[0])
    if means[1].shape != (d,) or any(c.shape != (d, d) for c in covariances):
        raise UsageError(f"Two Gaussians need means of one length d and d×d covariances; the first mean has d = {d}.")
    if any(np.abs(c - c.T).max() > 1e-8 * max(np.abs(c).max(), 1e-300) for c in covariances):
        raise UsageError("A covariance must be symmetric.")
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = root @ covariances[1] @ root
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    distance = np.square(means[0] - means[1]).sum() + sum(np.trace(c) for c in covariances) - 2 * cross
    return float(max(distance, 0.0))


def frechet_distance(real: Any, generated: Any) -> float:
    """Fréchet distance between Gaussian fits of two feature sets (FID on the features that are given).

    real: N×d, generated: M×d, with N, M > d: below, the covariances are singular and the figure mostly measures the
    sample size. Biased upwards by about 1/N. Source: Heusel et al., GANs trained by a two time-scale update rule
    converge to a local Nash equilibrium, NeurIPS 2017.

    >>> features = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(frechet_distance(features, features + [3, 4, 0, 0]), 6)
    25.0
    """
    real, generated = _pair(real, generated)
    fewest, d = min(len(real), len(generated)), real.shape[1]
    if fewest <= d:
        raise UsageError(
            f"The Fréchet distance of {d}-dimensional features needs more than {d} samples on each side; "
            f"got {fewest}, so add samples or use the kernel distance."
        )
    return gaussian_frechet_distance(
        real.mean(0), np.atleast_2d(np.cov(real.T)), generated.mean(0), np.atleast_2d(np.cov(generated.T))
    )


def squared_mmd(x: Any, y: Any, *, degree: int = 3) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel k(a, b) = (aᵀb / d + 1)^degree.

    mmd² = Σ_{i≠j} k(x_i, x_j) / (n(n−1)) + Σ_{i≠j} k(y_i, y_j) / (m(m−1)) − 2 Σ_{ij} k(x_i, y_j) / (nm); it may be
    negative. x: n×d, y: m×d, n, m ≥ 2. Source: Gretton et al., A kernel two-sample test, JMLR 2012.

    >>> squared_mmd([[0.0], [0.0]], [[1.0], [1.0]])
    7.0
    """
    x, y = _pair(x, y)
    if min(len(x), len(y)) < 2 or degree < 1:
        raise UsageError("The kernel distance needs two samples on each side and a degree of at least 1.")

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1.0) ** degree

    def within(a: np.ndarray) -> float:
        k = kernel(a, a)
        return (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def kernel_distance(
    real: Any, generated: Any, *, subsets: int = 100, subset_size: int = 1000, degree: int = 3, seed: int = 0
) -> KernelDistance:
    """KID: `squared_mmd` averaged over random subsets, drawn without replacement from either side.

    Unbiased, so it can be used at any N, also below the dimension. Raises UsageError when a side has fewer than
    ``subset_size`` samples. Source: Bińkowski et al., Demystifying MMD GANs, ICLR 2018.

    >>> features = np.random.default_rng(0).normal(size=(60, 4))
    >>> kernel_distance(features, features + 1, subsets=5, subset_size=50).mean > 0.1
    True
    """
    real, generated = _pair(real, generated)
    fewest = min(len(real), len(generated))
    if subset_size < 2 or subsets < 1 or fewest < subset_size:
        raise UsageError(
            f"The kernel distance draws subsets of {subset_size} (at least 2) from {fewest} samples; choose a smaller "
            "subset_size or add samples."
        )
    generator = rng(seed, "kernel distance")
    values = [
        squared_mmd(
            *(s[generator.choice(len(s), subset_size, replace=False)] for s in (real, generated)), degree=degree
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def _blocks(a: np.ndarray, b: np.ndarray, size: int = 512) -> Iterator[np.ndarray]:
    """Distances of rows of ``a`` to all of ``b`` in blocks: exact differences, so that equal rows are at 0."""
    from scipy.spatial.distance import cdist

    for start in range(0, len(a), size):
        yield cdist(a[start : start + size], b)


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Distance of every sample to its k-th nearest neighbour, itself not counted."""
    return np.concatenate([np.partition(block, k, axis=1)[:, k] for block in _blocks(x, x)])


def fidelity_diversity(real: Any, generated: Any, *, k: int = 3) -> FidelityDiversity:
    """Improved precision and recall, density and coverage, from balls that reach to the k-th nearest neighbour.

    precision: share of generated samples in some real ball. recall: share of real samples in some generated ball.
    density: mean number of real balls around a generated sample, over k. coverage: share of real balls that hold a
    generated sample. real: N×d, generated: M×d, both with more than k samples. Cost: O((N + M)² d).
    Sources: Kynkäänniemi et al., Improved precision and recall metric, NeurIPS 2019; Naeem et al., Reliable fidelity
    and diversity metrics for generative models, ICML 2020.

    >>> features = np.random.default_rng(0).normal(size=(30, 2))
    >>> fidelity_diversity(features, features + 100)
    FidelityDiversity(precision=0.0, recall=0.0, density=0.0, coverage=0.0)
    """
    real, generated = _pair(real, generated)
    if k < 1 or min(len(real), len(generated)) <= k:
        raise UsageError(
            f"Balls to the {k}-th neighbour need more than {max(k, 1)} samples on each side; "
            f"got {len(real)} and {len(generated)}."
        )
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)
    around = np.zeros(len(generated))
    recalled, covered = [], []
    for start, block in zip(range(0, len(real), 512), _blocks(real, generated), strict=True):
        inside = block <= real_radii[start : start + len(block), None]
        around += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((block <= generated_radii).any(1))
    return FidelityDiversity(
        float((around > 0).mean()),
        float(np.concatenate(recalled).mean()),
        float(around.mean() / k),
        float(np.concatenate(covered).mean()),
    )
