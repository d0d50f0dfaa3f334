"""Entangled-D and -S: what counts as removed, kept and fitting in."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.core.errors import UsageError
from vestige.metrics.entangled import consistency, entangled, typical_replacement


@pytest.fixture
def pair():
    """(original with a bright square, background without it, mask) over a textured ground."""
    draw = np.random.default_rng(0)
    ground = 0.4 + 0.1 * draw.standard_normal((1, 3, 24, 24)).clip(-2, 2)
    mask = np.zeros((1, 1, 24, 24), bool)
    mask[..., 8:16, 8:16] = True
    return np.where(mask, 0.95, ground), ground, mask


def test_the_released_form_takes_an_untouched_picture_for_a_perfect_removal(pair):
    original, ground, mask = pair
    assert entangled(original, original, mask, variant="released")["S"][0] == pytest.approx(1, abs=1e-4)
    untouched, removed = (entangled(original, p, mask, variant="released")["S"][0] for p in (original, ground))
    assert untouched > removed  # the failure that the corrected form is there for


def test_the_corrected_form_orders_removal_and_damage(pair):
    original, ground, mask = pair
    replaced = typical_replacement(original, ground, mask)
    assert replaced == pytest.approx(0.55, abs=0.05)
    half = mask.copy()
    half[..., 12:] = False
    noise = np.random.default_rng(1).normal(0, 0.2, ground.shape)
    series = [original, np.where(half, ground, original), ground]
    scores = [entangled(original, p, mask, replaced=replaced)["D"][0] for p in series]
    assert scores[0] < scores[1] < scores[2]
    assert scores[0] == pytest.approx(0, abs=1e-3)
    damaged = np.where(mask, ground, (ground + noise).clip(0, 1))
    assert entangled(original, damaged, mask, replaced=replaced)["S"][0] < scores[2]
    blank = entangled(original, np.ones_like(original), mask, replaced=replaced)
    assert blank["D"][0] < 0.01


def test_consistency_is_blind_to_the_order_of_pixels(pair):
    _, ground, mask = pair
    shuffled = ground.copy()
    inside = shuffled[0][:, mask[0, 0]]
    shuffled[0][:, mask[0, 0]] = np.random.default_rng(0).permuted(inside, axis=1)
    assert consistency(shuffled, mask)[0] == pytest.approx(consistency(ground, mask)[0])
    assert consistency(ground, mask)[0] > 0.95


def test_masks_of_nothing_or_everything_and_other_shapes_are_refused(pair):
    original, ground, mask = pair
    for bad in (np.zeros_like(mask), np.ones_like(mask)):
        with pytest.raises(UsageError, match="cover some"):
            entangled(original, ground, bad)
    for call in (
        lambda: consistency(ground, mask[..., 1:]),
        lambda: entangled(original[..., 1:], ground, mask),
        lambda: entangled(original, ground, mask, variant="new"),
        lambda: entangled(original, ground, mask, replaced=0),
    ):
        with pytest.raises(UsageError):
            call()
