"""Bounds hold against measurement, the substitute carries over, spoofing forges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.schedules import cosine
from vestige.metrics.detection import auroc
from vestige.nn.resnet import ResNetConfig
from vestige.watermark.robust_limits import (
    RobustLimits,
    Substitute,
    auroc_bound,
    coupling_distance,
    error_bound,
    least_errors,
    level_at,
    sample_distance,
)


def test_distances_agree_with_what_is_known():
    rng = np.random.default_rng(0)
    clean = rng.random((40, 1, 2, 2))
    shift = np.full((40, 1, 2, 2), 0.05)
    assert coupling_distance(clean, clean + shift) == pytest.approx(0.1)
    assert sample_distance(clean, clean + shift) == pytest.approx(0.1)
    assert sample_distance(clean, (clean + shift)[::-1]) == pytest.approx(0.1)  # pairing is found, not given
    assert coupling_distance(clean, (clean + shift)[::-1]) > 0.15
    with pytest.raises(UsageError):
        coupling_distance(clean, clean[:3])


def test_the_bound_is_met_by_the_best_detector_and_by_no_better_one():
    """Two points a distance W apart under Gaussian noise: the matched filter attains the bound exactly."""
    rng = np.random.default_rng(1)
    w, alpha, sigma = 0.8, 0.9, 0.5
    clean, marked = rng.normal(0, sigma, 40_000), alpha * w + rng.normal(0, sigma, 40_000)
    at_best = (marked < alpha * w / 2).mean() + (clean >= alpha * w / 2).mean()
    assert at_best == pytest.approx(error_bound(w, alpha, sigma), abs=0.01)
    assert least_errors(marked[:800], clean[:800]) == pytest.approx(at_best, abs=0.06)
    clean, marked = rng.normal(0, sigma, 4000), w + rng.normal(0, sigma, 4000)
    labels = np.repeat([True, False], 4000)
    assert auroc(labels, np.concatenate([marked, clean])) <= auroc_bound(w, sigma)
    bounds = [error_bound(d, alpha, sigma) for d in (0, 0.2, 1, 5)]
    assert bounds == sorted(bounds, reverse=True)
    with pytest.raises(UsageError):
        error_bound(-1, alpha, sigma)


def test_levels_follow_the_schedule():
    table = cosine()
    alpha, sigma = level_at(table, 0.2)
    assert alpha**2 + sigma**2 == pytest.approx(1)
    assert alpha == pytest.approx(np.cos(0.2 * np.pi / 2), abs=0.02)
    assert level_at(table, 1.0)[0] < 0.01


def test_purification_and_its_bound_share_their_units(tiny_model, picture):
    from vestige.core.image_io import to_float

    limits = RobustLimits(tiny_model, strength=0.3, steps=10)
    clean = to_float(picture)[:, :, :16, :16]
    marked = (clean + 0.02).clip(0, 1)
    found = limits.measure(clean, marked, sigma=0.1)
    assert found["model distance"] == pytest.approx(2 * found["distance"], rel=0.01)  # the model works on [-1, 1]
    assert 0 < found["errors at least"] < 1
    purified = limits.attack(marked)
    assert purified.shape == marked.shape
    assert not np.array_equal(purified, marked)
    with pytest.raises(UsageError, match="diffusion model"):
        RobustLimits().attack(clean)


def test_the_substitute_moves_the_detector_it_never_saw():
    """A broad sine pattern is the mark, its correlation the detector; the substitute sees only examples."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    pattern = (0.15 * np.sin(2 * np.pi * (x + y) / 16)).astype(np.float32)
    base = np.kron(rng.random((328, 3, 4, 4)), np.ones((4, 4))).astype(np.float32) * 0.5 + 0.25
    clean, marked, held = base[:160], base[160:320] + pattern, base[320:] + pattern
    substitute = Substitute(ResNetConfig(18, width=0.125, classes=1), seed=1)
    assert substitute.fit(marked, clean, epochs=6)["accuracy"] > 0.8

    def detector(images):
        return ((images - images.mean((2, 3), keepdims=True)) * pattern).sum((1, 2, 3))

    attacked = substitute.attack(held, epsilon=24 / 255, steps=15, passes=1)
    assert np.abs(attacked - np.round(held * 255) / 255).max() <= 24 / 255 + 1e-6
    random = held + rng.choice([-1, 1], held.shape).astype(np.float32) * 24 / 255
    plain = detector(held).mean()  # over ten seeds the attack leaves 0.76 to 0.88 of it, random signs 0.98 to 1.02
    assert detector(attacked).mean() < 0.95 * plain
    assert detector(attacked).mean() < detector(random).mean() - 0.05 * plain
    with torch.no_grad():
        assert substitute.logits(torch.from_numpy(attacked)).mean() < substitute.logits(torch.from_numpy(held)).mean()
    np.testing.assert_array_equal(attacked, substitute.attack(held, epsilon=24 / 255, steps=15, passes=1))
    with pytest.raises(UsageError, match="at least 10"):
        substitute.fit(marked[:3], clean[:3])


def test_spoofing_plants_the_mark():
    pattern = np.where(np.random.default_rng(3).random((3, 32, 32)) < 0.5, -1, 1).astype(np.float32)
    clean = np.random.default_rng(4).random((2, 3, 32, 32)).astype(np.float32) * 0.5 + 0.2
    forged = RobustLimits().spoof(clean, lambda x: (x + 0.1 * pattern).clip(0, 1))
    assert ((forged - clean) * pattern).mean() > 0.01
    assert forged.mean() != clean.mean()
