"""The sampling constraint of the paper, pictures that fill their frame, and classes that can be told apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import UsageError
from vestige.data.fractals import IFS, density, orbit, plasma, render_fractal, render_several, sample_ifs

SIERPINSKI = IFS(np.array([[[0.5, 0, x], [0, 0.5, y]] for x, y in ((0, 0), (0.5, 0), (0.25, 0.5))]))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 2, 3, 4, 5, 8]))
def test_sigma_factor_lies_in_the_interval_of_the_paper(seed, n):
    ifs = sample_ifs(seed, n)
    values = ifs.singular_values
    count = len(ifs.maps)
    assert count == (n or count)
    assert 2 <= count <= 8
    factor = (values[:, 0] + 2 * values[:, 1]).sum()
    assert (5 + count) / 2 - 1e-4 <= factor <= (6 + count) / 2 + 1e-4
    assert values.max() < 1
    assert values.min() >= 0
    assert ifs.probabilities.sum() == pytest.approx(1)


def test_orbit_of_a_known_attractor_stays_on_it():
    points = orbit(SIERPINSKI, 20_000)
    assert points.shape[0] >= 20_000
    # The triangle's middle, of half its width, is empty, and its three corners are reached.
    x, y = points.T
    assert not ((np.abs(x - 0.5) < 0.02) & (np.abs(y - 0.25) < 0.02)).any()
    for corner in ((0, 0), (1, 0), (0.5, 1)):
        assert np.abs(points - corner).sum(axis=1).min() < 0.02
    box_counts = [len(np.unique((points * 2**k).astype(int), axis=0)) for k in (3, 6)]
    dimension = np.log2(box_counts[1] / box_counts[0]) / 3
    assert dimension == pytest.approx(np.log2(3), abs=0.1)


def test_most_systems_fill_the_picture():
    fill = np.array([(density(sample_ifs(seed), 32, seed) > 0).mean() for seed in range(60)])
    assert (fill > 0.05).mean() > 0.9


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_render_is_seeded_and_in_range(colour, background):
    ifs = sample_ifs(3)
    first = render_fractal(ifs, 40, 7, colour=colour, background=background)
    assert first.shape == (3, 40, 40)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert first.tobytes() == render_fractal(ifs, 40, 7, colour=colour, background=background).tobytes()
    assert first.tobytes() != render_fractal(ifs, 40, 8, colour=colour, background=background).tobytes()
    if not background:
        assert (first.sum(axis=0) == 0).mean() > 0.1
    if not colour:
        np.testing.assert_allclose(first[0], first[1], atol=1e-6)


def test_pictures_of_one_system_resemble_each_other_more_than_others():
    """The shape is the class: a nearest neighbour among un-augmented densities finds it."""
    bank = np.stack([density(sample_ifs(c), 32, 1) > 0 for c in range(20)]).reshape(20, -1)
    queries = np.stack([density(sample_ifs(c), 32, 2) > 0 for c in range(20)]).reshape(20, -1)
    overlap = (queries[:, None] & bank).sum(-1) / (queries[:, None] | bank).sum(-1)
    assert (overlap.argmax(axis=1) == np.arange(20)).mean() > 0.9


def test_jitter_stays_contractive_and_changes_one_map():
    for seed in range(50):
        ifs = sample_ifs(seed)
        changed = ifs.jitter(seed)
        assert changed.singular_values.max() < 1
        assert (np.abs(changed.maps - ifs.maps).max(axis=(1, 2)) > 0).sum() <= 1
        assert np.isfinite(orbit(changed, 500)).all()


def test_several_in_one_picture():
    systems = [sample_ifs(s) for s in range(4)]
    image, boxes = render_several(systems, 64, 5)
    assert image.shape == (3, 64, 64)
    assert boxes.shape == (4, 4)
    assert (boxes[:, 2:] <= 64).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 8).all()
    empty, none = render_several([], 64, 5)
    assert none.shape == (0, 4)
    x0, y0, x1, y1 = boxes[-1]
    changed = np.abs(image - empty).max(axis=0) > 0
    assert changed[y0:y1, x0:x1].any()
    outside = changed.copy()
    for x0, y0, x1, y1 in boxes:
        outside[y0:y1, x0:x1] = False
    assert not outside.any()


@pytest.mark.parametrize("size", [2, 3, 17, 64])
def test_plasma(size):
    field = plasma(size, 1)
    assert field.shape == (size, size)
    assert field.min() == 0
    assert field.max() == 1
    if size == 64:  # smooth at small distance, varied over the whole
        assert np.abs(np.diff(field, axis=0)).mean() < field.std() / 2


def test_refused_values():
    with pytest.raises(UsageError):
        sample_ifs(0, 1)
    with pytest.raises(UsageError):
        density(sample_ifs(0), 4)
    with pytest.raises(UsageError):
        render_several([], 8)
