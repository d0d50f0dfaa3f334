"""Plain features that detectors of generated pictures are held against."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.bench.forensics.plain_features import (
    areas,
    gradient_distance,
    logistic,
    metadata,
    rounded,
    spectrum,
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)


def test_areas_count_ties_as_one_half():
    assert areas(np.zeros(4), {"x": np.ones(4), "y": np.zeros(4)}) == {"x": 1.0, "y": 0.5}


def test_the_spectrum_finds_a_pattern_and_shuffled_labels_do_not(images):
    marked = images.copy()
    marked[:, :, ::2] = marked[:, :, 1::2]
    features = [spectrum(x) for x in (images[:20], marked[:20], images[20:], marked[20:])]
    assert features[0].shape == (20, 256)
    assert logistic(*features[:3], {"rows": features[3]})["rows"] > 0.95
    shuffled = [logistic(*features[:3], {"rows": features[3]}, shuffled=s)["rows"] for s in range(6)]
    assert 0.2 < np.mean(shuffled) < 0.8


def test_metadata_sees_the_size_of_the_file_and_colours(images):
    flat = np.full_like(images[:2], 60)
    found = metadata(np.concatenate([images[:2], flat]))
    assert found.shape == (4, 7)
    assert (found[:2, 0] > found[2:, 0]).all()
    np.testing.assert_allclose(found[2:, 1:4], 60 / 255, rtol=1e-5)
    assert (found[2:, 4:] == 0).all()


def test_gradient_distance_ignores_brightness(images):
    x = torch.from_numpy(images[:3]).float() / 255
    assert gradient_distance(x, x + 0.1) == pytest.approx(0, abs=1e-6)
    assert (gradient_distance(x, torch.zeros_like(x)) > 0.05).all()
    assert rounded([{"a": 0.123456, "b": "x"}]) == [{"a": 0.1235, "b": "x"}]
