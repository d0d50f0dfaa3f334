"""Synthesised detail, ordinary handling, simulated cameras: repeatable by row, with the traces they claim."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.core.errors import UsageError
from vestige.data.cameras import CAMERAS, Camera
from vestige.data.fakes import as_float, handled, squares
from vestige.data.fakes_synthesis import BorrowedDetail, drawn_bands, synthesis_sources
from vestige.metrics.quality import psnr


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    from sklearn.datasets import load_sample_image

    photographs = np.stack([load_sample_image(n)[:426].transpose(2, 0, 1) for n in ("china.jpg", "flower.jpg")])
    return squares(photographs, 64, per_photo=8, seed=3)[0]


def test_sources_show_the_photograph_and_repeat(real):
    x = as_float(real)
    for source in synthesis_sources(x):
        made = source(x[:3], seed=1)
        np.testing.assert_array_equal(made, source(x[:3], seed=1))
        np.testing.assert_array_equal(made[:2], source(x[:2], seed=1))
        assert (made != source(x[:3], seed=2)).any()
        assert 15 < psnr(x[:3], made).mean() < 40, source.name
        assert source.family == "synthesis"


def test_drawn_bands_keep_the_energy_and_the_coarse_picture(real):
    x = as_float(real)
    made = drawn_bands(x, 0)
    detail = [np.abs(np.diff(images, axis=3)).mean() for images in (x, made)]
    assert 0.7 < detail[1] / detail[0] < 1.5
    coarse = [images.reshape(len(x), 3, 8, 8, 8, 8).mean((3, 5)) for images in (x, made)]
    assert np.abs(coarse[0] - coarse[1]).mean() < 0.02


def test_a_bank_needs_patches(real):
    with pytest.raises(UsageError, match="at least 100"):
        BorrowedDetail(as_float(real[:1, :, :16, :16]))


def test_handling_is_the_same_for_real_and_generated(real):
    found, again = handled(real, 4), handled(real[:, :, ::-1], 4)
    assert [x.shape for x in found] == [x.shape for x in again]
    sides = {x.shape[1] for x in found}
    assert sides <= {48, 56, 64}
    assert len(sides) > 1
    assert all((a == b).all() for a, b in zip(found[:4], handled(real[:4], 4), strict=True))
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(found, real, strict=True))


def test_cameras_leave_patterns_of_their_own(real):
    picture = np.full((3, 64, 64), 120, np.uint8)
    noise = {}
    for name, camera in CAMERAS.items():
        shots = np.stack([camera.take(picture, seed)[1].astype(float) for seed in range(6)])
        noise[name] = shots.mean(0) - shots.mean()
        assert shots.shape == (6, 64, 64)
        np.testing.assert_array_equal(shots[0], camera.take(picture, 0)[1])
        assert (shots[0] != shots[1]).any()
    own = Camera(pattern=0.03, quality=97, seed=1)
    shots = [own.take(picture, seed)[1].astype(float).ravel() for seed in (11, 12)]
    other = Camera(pattern=0.03, quality=97, seed=2).take(picture, 13)[1].astype(float).ravel()
    assert np.corrcoef(*shots)[0, 1] > 0.5
    assert abs(np.corrcoef(shots[0], other)[0, 1]) < 0.2
    assert psnr(as_float(real[:1]), as_float(Camera().take(real[0])[None]))[0] > 18
    with pytest.raises(UsageError, match="RGGB"):
        Camera("XTRANS").take(picture)
