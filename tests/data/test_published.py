"""Published pictures: both sides handled alike, families and sources left out together."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.data.published import Published, folds, kept_apart, levelled, published, published_or_scenes, shares


@pytest.fixture(scope="module")
def made() -> Published:
    """The stand-in that takes the pack's place."""
    import os

    before = os.environ.pop("VESTIGE_DATA", None)
    here = os.getcwd()
    os.chdir("/")
    try:
        return published_or_scenes(limit=36)
    finally:
        os.chdir(here)
        if before is not None:
            os.environ["VESTIGE_DATA"] = before


def test_the_stand_in_has_both_sides_and_both_parts(made):
    assert len(made) == 36
    assert 0 < made.generated.sum() < 36
    assert set(made.part.tolist()) == {"train", "validation"}
    assert set(made.format.tolist()) == {"png", "jpeg"}


def test_a_missing_pack_is_named(tmp_path):
    with pytest.raises(InputError, match="data pack 'generated'"):
        published(root=tmp_path)


@pytest.mark.parametrize("by", ["families", "sources"])
def test_nothing_that_is_judged_was_seen(made, by):
    judged = []
    for fold in folds(made, 3, by=by):
        train, test = made.take(fold.train), made.take(fold.test)
        assert not set(train.source.tolist()) & set(test.source.tolist())
        if by == "families":
            assert not set(train.family[train.generated].tolist()) & set(test.family[test.generated].tolist())
        judged += fold.test.tolist()
    assert sorted(judged) == list(range(len(made)))
    with pytest.raises(UsageError, match="families or sources"):
        folds(made, 1)


def test_parts_for_thresholds_share_no_picture(made):
    known, apart = kept_apart(made, np.arange(len(made)), 0.3)
    assert not set(known) & set(apart)
    assert len(known) + len(apart) == len(made)


def test_levelling_follows_from_the_seed_and_has_one_size():
    picture = encode(np.random.default_rng(0).integers(0, 256, (90, 200, 3), dtype=np.uint8), "PNG")
    first = levelled(picture, 64, 3)
    assert first.shape == (3, 64, 64)
    assert (levelled(picture, 64, 3) == first).all()
    assert any((levelled(picture, 64, s) != first).any() for s in range(4, 8))
    plain = levelled(picture, 64, 3, quality=0, scale=1.0)
    assert (levelled(picture, 64, 3, quality=70, scale=1.0) != plain).any()
    assert levelled(picture, 128, 0).shape == (3, 128, 128)  # enlarged


def test_both_sides_are_drawn_alike_and_in_the_same_mix_of_formats(made):
    chances = shares(made)
    assert chances.sum() == pytest.approx(1)
    jpeg = made.format == "jpeg"
    for side in (False, True):
        own = made.generated == side
        assert chances[own].sum() == pytest.approx(0.5)
        assert chances[own & jpeg].sum() == pytest.approx(jpeg.mean() / 2)
