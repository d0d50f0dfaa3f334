import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes

from vestige.core.errors import InputError, UsageError
from vestige.metrics.similarity import MinibatchCKA, debiased_cka, knn_overlap, linear_cka, procrustes_similarity

EVERY = [linear_cka, debiased_cka, procrustes_similarity, knn_overlap]


def sample(seed, n=30, p=6, q=4):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, p))
    return x, x @ generator.normal(size=(p, q)) + generator.normal(size=(n, q))


@given(st.integers(0, 10**6), st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_rotation_shift_and_scale_change_nothing(seed, scale):
    x, y = sample(seed)
    generator = np.random.default_rng(seed + 1)
    turned = scale * x @ np.linalg.qr(generator.normal(size=(6, 6)))[0]
    for measure in (linear_cka, debiased_cka, procrustes_similarity):
        value = measure(x, y)
        assert measure(turned + 3, y - 2) == pytest.approx(value, abs=1e-9)
        assert measure(y, x) == pytest.approx(value, abs=1e-9)
        assert value <= 1 + 1e-9
        assert measure(x, turned) == pytest.approx(1, abs=1e-9)
    assert knn_overlap(scale * x, y, k=5) == knn_overlap(y, x, k=5)
    assert knn_overlap(x, turned, k=5, metric="euclidean") == 1


@pytest.mark.parametrize("n", [30, 8])
def test_linear_cka_is_the_normalised_hsic_of_gram_matrices(n):
    x, y = sample(0, n=n, p=9)
    centre = np.eye(n) - 1 / n
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    reference = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert linear_cka(x, y) == pytest.approx(reference)


def test_debiased_cka_is_the_sum_over_distinct_samples():
    x, y = sample(2, n=9)
    k, m = x @ x.T, y @ y.T

    def hsic(a, b):  # the U-statistic, term by term over ordered tuples of distinct samples
        n, total = len(a), np.zeros(3)
        for i in range(n):
            for j in set(range(n)) - {i}:
                total[0] += a[i, j] * b[i, j]
                rest = [q for q in range(n) if q not in (i, j)]
                total[1] += sum(a[i, j] * b[q, r] for q in rest for r in rest if q != r)
                total[2] += sum(a[i, j] * b[i, q] for q in rest)
        pairs = n * (n - 1)
        return total[0] / pairs + total[1] / (pairs * (n - 2) * (n - 3)) - 2 * total[2] / (pairs * (n - 2))

    reference = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert debiased_cka(x, y) == pytest.approx(reference)


def test_only_the_debiased_figure_stays_near_zero_for_unrelated_wide_features():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 60, 500))
    assert linear_cka(x, y) > 0.8
    assert abs(debiased_cka(x, y)) < 0.05


def test_minibatches_approach_the_full_figure():
    x, y = sample(3, n=1200, p=10, q=8)
    cka = MinibatchCKA()
    with pytest.raises(UsageError, match="No batch"):
        cka.value()
    for start in range(0, 1200, 40):
        cka.update(x[start : start + 40], y[start : start + 40])
    assert cka.value() == pytest.approx(debiased_cka(x, y), abs=0.02)
    one = MinibatchCKA()
    one.update(x[:50], y[:50])
    assert one.value() == pytest.approx(debiased_cka(x[:50], y[:50]))


def test_procrustes_agrees_with_scipy():
    x, y = sample(4, p=5, q=5)
    disparity = procrustes(x, y)[2]  # 1 - similarity², optimal scale included
    assert procrustes_similarity(x, y) == pytest.approx(np.sqrt(1 - disparity))
    narrow = procrustes_similarity(x, y[:, :3])
    assert narrow == pytest.approx(procrustes_similarity(x, np.pad(y[:, :3], ((0, 0), (0, 2)))))


def test_neighbour_overlap_of_related_and_unrelated_features():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 300, 5))
    assert knn_overlap(x, y, k=10) == pytest.approx(10 / 299, abs=0.02)
    assert knn_overlap(x, x + 0.01 * y, k=10) > 0.9
    line = np.arange(6.0)[:, None] ** 2
    assert knn_overlap(line, -line, k=2, metric="euclidean") == 1
    far = knn_overlap(line, line[[0, 2, 4, 1, 3, 5]], k=1, metric="euclidean")
    nearest = [{1}, {0}, {1}, {2}, {3}, {4}]
    order = [0, 2, 4, 1, 3, 5]
    position = {v: i for i, v in enumerate(order)}
    other = [{position[next(iter(nearest[v]))]} for v in order]
    assert far == pytest.approx(np.mean([len(a & b) for a, b in zip(nearest, other, strict=True)]))


def test_refusals():
    x, y = sample(0)
    for measure in EVERY:
        with pytest.raises(UsageError, match="same samples"):
            measure(x, y[:-1])
        with pytest.raises(InputError, match="not finite"):
            measure(x, y * np.inf)
        with pytest.raises(UsageError, match="2 axes"):
            measure(x[:, 0], y)
    for measure in (linear_cka, debiased_cka, procrustes_similarity):
        with pytest.raises(InputError, match="constant"):
            measure(x, np.ones_like(y))
    with pytest.raises(UsageError, match="at least 4"):
        debiased_cka(x[:3], y[:3])
    with pytest.raises(UsageError, match="1 ≤ k"):
        knn_overlap(x, y, k=30)
