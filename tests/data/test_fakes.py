"""Re-made pictures: repeatable, of the photograph's size, as sharp as it, and with the pattern of their making."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.core.errors import InputError, UsageError
from vestige.data.fakes import (
    FAMILIES,
    SOURCES,
    UPSAMPLERS,
    FakeSource,
    UpsamplingStage,
    as_float,
    fake_set,
    fitted_sources,
    saved,
    squares,
)
from vestige.metrics.detection import auroc
from vestige.metrics.quality import psnr


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """uint8 2×3×426×640."""
    from sklearn.datasets import load_sample_image

    return np.stack([load_sample_image(n)[:426].transpose(2, 0, 1) for n in ("china.jpg", "flower.jpg")])


@pytest.fixture(scope="module")
def real(photographs) -> np.ndarray:
    return squares(photographs, 64, per_photo=6, seed=3)[0]


@pytest.fixture(scope="module")
def sources(real) -> list[FakeSource]:
    return [*SOURCES.values(), *fitted_sources(as_float(real))]


def block_pattern(images: np.ndarray) -> np.ndarray:
    """(N,): how differently neighbours inside and across blocks of 2×2 differ; near 0 where there are no blocks."""
    scores = []
    for axis in (2, 3):
        step = np.abs(np.diff(images, axis=axis)).mean(1)
        step = step if axis == 3 else step.swapaxes(1, 2)
        scores.append(np.abs(np.log((step[:, :, ::2].mean((1, 2)) + 1e-4) / (step[:, :, 1::2].mean((1, 2)) + 1e-4))))
    return np.mean(scores, 0)


def test_squares_come_from_their_photographs_and_repeat(photographs):
    cut, photo = squares(photographs, 32, per_photo=3, seed=1)
    assert cut.shape == (6, 3, 32, 32)
    assert cut.dtype == np.uint8
    assert photo.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(cut, squares(photographs, 32, per_photo=3, seed=1)[0])
    assert (cut != squares(photographs, 32, per_photo=3, seed=2)[0]).any()
    with pytest.raises(UsageError, match="at least 300"):
        squares(photographs, 300)


def test_every_source_repeats_and_shows_the_photograph(real, sources):
    x = as_float(real[:4])
    for source in sources:
        made = source(x, seed=5)
        assert made.shape == x.shape
        assert made.dtype == np.float32
        np.testing.assert_array_equal(made, np.round(made * 255) / np.float32(255))
        np.testing.assert_array_equal(made, source(x, seed=5))
        assert (made != source(x, seed=6)).any(), source.name
        np.testing.assert_array_equal(made[:2], source(x[:2], seed=5))  # rows do not depend on the batch
        assert 15 < psnr(x, made).mean() < 40, source.name
        assert source.family in FAMILIES


def test_sources_leave_the_pattern_of_their_making(real, sources):
    clean = block_pattern(as_float(real))
    for source in sources:
        scores = np.concatenate([clean, block_pattern(source(as_float(real)))])
        found = auroc(np.arange(len(scores)) >= len(clean), scores)
        assert found > (0.65 if source.name == "up_transposed" else 0.85), (source.name, found)


def test_upsampled_pictures_are_as_sharp_as_their_photographs(real):
    x = as_float(real)

    def sharpness(images: np.ndarray) -> float:
        return float(np.abs(np.diff(images, axis=3)).mean())

    for kind in UPSAMPLERS:
        made = UpsamplingStage(kind)(x, 0)
        assert 0.65 < sharpness(made) / sharpness(x) < 1.35, kind
        assert abs(made.mean() - x.mean()) < 0.02


def test_variants_are_different_generators(real):
    x = as_float(real[:1])
    assert np.abs(UpsamplingStage("nearest", 0)(x, 0) - UpsamplingStage("nearest", 1)(x, 0)).mean() > 1e-3


def test_saving_is_the_same_for_real_and_generated(real):
    kinds = [(a != b).any() for a, b in zip(saved(real, 4), real, strict=True)]
    again = [(a != b).any() for a, b in zip(saved(real[:, ::-1], 4), real[:, ::-1], strict=True)]
    assert kinds == again  # the codec of a row is its own, whatever the picture
    assert 0 < sum(kinds) < len(kinds)
    np.testing.assert_array_equal(saved(real, 4, lossless=1), real)


def test_a_set_pairs_rows_and_names_families(real, sources):
    found = fake_set(real, sources[:2], np.arange(len(real)) // 6, seed=2)
    assert found.real.shape == found.fakes["up_nearest"].shape == real.shape
    assert found.of("upsampling") == ["up_nearest", "up_bilinear"]
    pictures, generated = found.both(["up_bilinear"])
    assert pictures.shape == (2 * len(real), 3, 64, 64)
    assert generated.sum() == len(real)
    assert found.photo.tolist() == [0] * 6 + [1] * 6
    with pytest.raises(UsageError, match="different names"):
        fake_set(real, [sources[0], sources[0]])


def test_refusals(real):
    source = SOURCES["up_nearest"]
    with pytest.raises(UsageError, match="float array"):
        source(real)
    with pytest.raises(UsageError, match="multiples of 4"):
        source(np.zeros((1, 3, 30, 32), np.float32))
    with pytest.raises(InputError, match="not finite"):
        source(np.full((1, 3, 32, 32), np.nan, np.float32))
    with pytest.raises(UsageError, match="up-sampler"):
        UpsamplingStage("lanczos")
    with pytest.raises(UsageError, match="family"):
        FakeSource("x", "painting", lambda x, seed: x)
    with pytest.raises(UsageError, match="not \\(3, 16, 16\\)"):
        FakeSource("x", "gan", lambda x, seed: x[:, :, :8, :8])(np.zeros((1, 3, 16, 16), np.float32))
    with pytest.raises(InputError, match="damaged"):
        FakeSource("x", "gan", lambda x, seed: x * np.float32(np.nan))(np.ones((1, 3, 16, 16), np.float32))
    with pytest.raises(UsageError, match="too few"):
        fitted_sources(as_float(real[:1, :, :16, :16]))
