import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from vestige.core.errors import InputError, UsageError
from vestige.metrics.distribution import (
    fidelity_diversity,
    frechet_distance,
    gaussian_frechet_distance,
    kernel_distance,
    squared_mmd,
)


class Flat(torch.nn.Module):
    """Stands in for a feature network: the first pixels of a picture are its features."""

    num_features = 8

    def forward(self, images):
        return images.flatten(1)[:, :8].double()


def as_pictures(features):
    images = torch.zeros(len(features), 3, 8, 8, dtype=torch.float64)
    images.view(len(features), -1)[:, :8] = torch.from_numpy(features)
    return images


@pytest.fixture(scope="module")
def pair():
    generator = np.random.default_rng(0)
    mix = generator.normal(size=(8, 8))
    return generator.normal(size=(300, 8)), generator.normal(0.3, 1.2, (200, 8)) @ mix


def random_covariance(generator, d, rank=None):
    root = generator.normal(size=(d, rank or d))
    return root @ root.T


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_distance_of_gaussians_agrees_with_the_matrix_square_root(seed, d):
    generator = np.random.default_rng(seed)
    a, b = random_covariance(generator, d), random_covariance(generator, d)
    means = generator.normal(size=(2, d))
    reference = ((means[0] - means[1]) ** 2).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    ours = gaussian_frechet_distance(means[0], a, means[1], b)
    assert ours == pytest.approx(reference, rel=1e-6, abs=1e-6)
    assert gaussian_frechet_distance(means[1], b, means[0], a) == pytest.approx(ours, rel=1e-9, abs=1e-9)
    assert gaussian_frechet_distance(means[0], a, means[0], a) == pytest.approx(0, abs=1e-9 * np.trace(a))


def test_commuting_covariances_have_the_closed_form():
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 1.0, 2.0])  # one of them singular
    expected = 4 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert gaussian_frechet_distance([0, 0, 0], np.diag(a), [2, 0, 0], np.diag(b)) == pytest.approx(expected)


def test_singular_covariances_stay_real_and_exact():
    generator = np.random.default_rng(3)
    low = random_covariance(generator, 40, rank=3)
    turned = np.linalg.qr(generator.normal(size=(40, 40)))[0]
    assert gaussian_frechet_distance(np.zeros(40), low, np.zeros(40), low) == pytest.approx(0, abs=1e-6)
    value = gaussian_frechet_distance(np.zeros(40), low, np.zeros(40), 1e-12 * turned @ turned.T)
    assert value == pytest.approx(np.trace(low), rel=1e-3)


def test_frechet_distance_agrees_with_torchmetrics(pair):
    fid = FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    for features, real in zip(pair, (True, False), strict=True):
        fid.update(as_pictures(features), real=real)
    assert frechet_distance(*pair) == pytest.approx(float(fid.compute()), rel=1e-6)


def test_frechet_distance_is_unchanged_by_rotation_and_order(pair):
    generator = np.random.default_rng(1)
    turned = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    value = frechet_distance(*pair)
    assert frechet_distance(pair[0] @ turned + 5, pair[1] @ turned + 5) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(generator.permutation(pair[0]), pair[1]) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(3 * pair[0], 3 * pair[1]) == pytest.approx(9 * value, rel=1e-9)


def test_kernel_distance_agrees_with_torchmetrics(pair):
    x, y = pair[0][:100], pair[1][:100]
    kernel = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert squared_mmd(x, y) == pytest.approx(float(kernel), rel=1e-9)
    kid = KernelInceptionDistance(feature=Flat(), subsets=3, subset_size=100).set_dtype(torch.float64)
    kid.update(as_pictures(x), real=True)
    kid.update(as_pictures(y), real=False)
    ours = kernel_distance(x, y, subsets=3, subset_size=100)  # every subset is the whole set
    assert ours.mean == pytest.approx(float(kid.compute()[0]), rel=1e-6)
    assert ours.std == pytest.approx(0, abs=1e-9 * ours.mean)


def test_kernel_distance_is_unbiased_and_seeded():
    generator = np.random.default_rng(4)
    values = [squared_mmd(generator.normal(size=(20, 5)), generator.normal(size=(20, 5))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0
    x, y = generator.normal(size=(60, 5)), generator.normal(size=(50, 5))
    runs = [kernel_distance(x, y, subsets=4, subset_size=30, seed=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def brute_force(real, fake, k):
    def radius(x):
        return np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, k]

    between = np.linalg.norm(real[:, None] - fake, axis=2)
    in_real = between <= radius(real)[:, None]
    return (
        in_real.any(0).mean(), (between <= radius(fake)).any(1).mean(), in_real.sum() / (k * len(fake)),
        in_real.any(1).mean(),
    )  # fmt: skip


@given(st.integers(0, 10**6), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_fidelity_and_diversity_equal_the_brute_force(seed, k):
    generator = np.random.default_rng(seed)
    real, fake = generator.integers(0, 4, (20, 2)) * 1.0, generator.integers(0, 5, (13, 2)) * 1.0  # many ties
    assert tuple(fidelity_diversity(real, fake, k=k)) == pytest.approx(brute_force(real, fake, k))


def test_fidelity_and_diversity_tell_dropped_modes_from_outliers():
    generator = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [20, 0], [0, 20], [20, 20]])
    real = np.repeat(centres, 150, 0) + generator.normal(size=(600, 2))
    dropped = np.repeat(centres[:1], 600, 0) + generator.normal(size=(600, 2))
    found = fidelity_diversity(real, dropped)
    assert found.precision > 0.9
    assert found.recall < 0.3
    assert found.coverage < 0.3
    outliers = np.concatenate([real[::2] + 0.01, generator.uniform(100, 200, (300, 2))])
    found = fidelity_diversity(real, outliers)
    assert found.precision == pytest.approx(0.5, abs=0.02)
    assert found.coverage > 0.7
    same = fidelity_diversity(real, real)  # more than one block of rows
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)


def test_refusals(pair):
    x, y = pair
    with pytest.raises(UsageError, match="more than 8 samples on each side; got 8"):
        frechet_distance(x[:8], y)
    with pytest.raises(UsageError, match="smaller subset_size"):
        kernel_distance(x, y, subset_size=250)
    with pytest.raises(UsageError, match="3-th neighbour need more than 3"):
        fidelity_diversity(x[:3], y)
    with pytest.raises(UsageError, match="two samples"):
        squared_mmd(x[:1], y)
    for measure in (frechet_distance, kernel_distance, fidelity_diversity, squared_mmd):
        with pytest.raises(UsageError, match="8 and 7 dimensions"):
            measure(x, y[:, :7])
        with pytest.raises(InputError, match="not finite"):
            measure(x, y * np.nan)
        with pytest.raises(UsageError, match="2 axes"):
            measure(x[0], y)
    with pytest.raises(UsageError, match="symmetric"):
        gaussian_frechet_distance([0, 0], [[1, 1], [0, 1]], [0, 0], np.eye(2))
    with pytest.raises(UsageError, match="d×d"):
        gaussian_frechet_distance([0, 0], np.eye(3), [0, 0], np.eye(2))
