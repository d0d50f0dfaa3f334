"""Drawn screens follow from their seeds and look like their kind; screenshots have the sizes they say."""

import numpy as np
import pytest

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.screens import KINDS, Shot, covered, draw_shot, render_screens

POOL = np.random.default_rng(0).integers(0, 256, (20, 3, 40, 50), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_screens_follow_from_seed_and_number(kind):
    two = render_screens(kind, 2, (130, 160), 5, pool=POOL)
    assert two.shape == (2, 3, 130, 160)
    assert two.dtype == np.uint8
    np.testing.assert_array_equal(render_screens(kind, 1, (130, 160), 5, pool=POOL)[0], two[0])
    assert (two[0] != two[1]).mean() > 0.02
    assert (render_screens(kind, 1, (130, 160), 6, pool=POOL)[0] != two[0]).mean() > 0.02


def test_text_pages_are_paper_with_ink_and_boxes_are_flat():
    for page in render_screens("text", 6, 128, 1):
        levels, counts = np.unique(page.reshape(3, -1).T, axis=0, return_counts=True)
        assert 0.5 < counts.max() / counts.sum() < 0.99
        assert np.ptp(levels.astype(int)) > 80
    for screen in render_screens("ui", 6, 128, 1).astype(int):
        steps = np.abs(np.diff(screen, axis=2)).max(0)
        assert (steps == 0).mean() > 0.6


def test_photographs_come_from_the_pool():
    flat = np.zeros((1, 3, 8, 8), np.uint8)
    flat[:, 0] = 200
    for screen in render_screens("photos", 4, 128, 2, pool=flat):
        red = (screen == np.array([200, 0, 0])[:, None, None]).all(0)
        assert red.mean() > 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("film", 1), "one of"),
        (("text", 0), "at least 1"),
        (("text", 1, (20, 64)), "32 pixels"),
        (("photos", 1), "need a pool"),
    ],
)
def test_screens_that_cannot_be_drawn_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        render_screens(*arguments)


def test_a_pool_of_another_type_is_refused():
    with pytest.raises(UsageError, match="uint8"):
        render_screens("mix", 1, 64, pool=POOL.astype(np.float32))


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_window_covers_its_share_and_leaves_the_rest(share):
    screens = np.full((3, 3, 120, 160), -1, np.float32)
    hidden = covered(screens, share, 4)
    replaced = (hidden >= 0).all(1)
    assert np.allclose(replaced.mean((1, 2)), share, atol=0.02)
    assert (hidden[(~replaced)[:, None].repeat(3, 1)] == -1).all()
    assert (screens == -1).all()
    assert (replaced[0] != replaced[1]).any()


def test_screenshots_have_their_size_and_eight_bits():
    screens = render_screens("ui", 2, (96, 128), 3).astype(np.float32) / 255
    np.testing.assert_allclose(Shot()(screens), screens, atol=1e-7)
    shot = Shot(crop=0.25, scale=1.5, quality=70, cover=0.2)(screens, seed=1)
    assert shot.shape == (2, 3, 72, 96)
    assert shot.dtype == np.float32
    np.testing.assert_allclose(np.round(shot * 255), shot * 255, atol=1e-3)
    assert np.abs(Shot(quality=50)(screens) - screens).max() > 0.02
    assert Shot(crop=0.25, scale=1.5, quality=70).name == "crop 0.25, scale 1.5, JPEG 70, cover 0"


@pytest.mark.parametrize("wrong", [{"crop": 0}, {"scale": 9}, {"quality": 0}, {"cover": 1.0}])
def test_impossible_screenshots_are_refused(wrong):
    with pytest.raises(UsageError, match="out of range"):
        Shot(**wrong)


def test_drawn_screenshots_cover_the_ranges():
    shots = [draw_shot(rng(0, "shots", i)) for i in range(200)]
    for values, low, high in (
        ([s.crop for s in shots], 0.4, 1), ([s.scale for s in shots], 0.5, 2), ([s.quality for s in shots], 50, 95),
    ):  # fmt: skip
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
    assert 0.3 < np.mean([s.cover > 0 for s in shots]) < 0.7
    assert max(s.cover for s in shots) <= 0.3
