import cv2
import numpy as np
import pytest
from skimage import data
from skimage.exposure import match_histograms

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.recolouring import HELD_OUT, LEAST_SHIFT, METHODS, TRAINING, lab_shift, recolour, versions
from vestige.data.recolouring_methods import Work, from_lab, histogram_matching, statistics_transfer, to_lab


def planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32).transpose(2, 0, 1) / 255


def eight(image: np.ndarray) -> np.ndarray:
    return np.round(image * 255).astype(np.uint8).transpose(1, 2, 0)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return cv2.resize(data.astronaut(), (120, 96), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return cv2.resize(data.coffee(), (100, 80), interpolation=cv2.INTER_AREA)


def test_the_two_groups_share_no_method() -> None:
    assert not set(TRAINING) & set(HELD_OUT)
    assert set(TRAINING) | set(HELD_OUT) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_colours_move_and_shapes_stay(photo: np.ndarray, reference: np.ndarray, method: str) -> None:
    found = recolour(planes(photo), method, planes(reference), seed=3)
    assert found.image.shape == (3, 96, 120)
    assert found.image.dtype == np.float32
    pixels = eight(found.image)
    np.testing.assert_array_equal(planes(pixels), found.image)
    assert found.counts
    assert found.shift == pytest.approx(lab_shift(photo, pixels, found.mask[0]))
    np.testing.assert_array_equal(pixels[~found.mask[0]], photo[~found.mask[0]])
    light = [to_lab(p)[..., 0].ravel() for p in (photo, pixels)]
    assert np.corrcoef(light)[0, 1] > 0.6
    again = recolour(planes(photo), method, planes(reference), seed=3)
    np.testing.assert_array_equal(found.image, again.image)
    other = recolour(planes(photo), method, planes(reference), seed=4)
    if method not in ("reinhard", "histogram", "bands"):  # those draw nothing
        assert (other.image != found.image).any()


def test_only_the_painted_part_changes(photo: np.ndarray) -> None:
    found = recolour(planes(photo), "painted", seed=0)
    assert 0.1 < found.mask.mean() < 0.9
    assert all(recolour(planes(photo), m, planes(photo[::-1]), least=0).mask.all() for m in METHODS if m != "painted")


@pytest.mark.parametrize("method", ["reinhard", "histogram", "palette", "bands"])
def test_with_itself_as_reference_a_picture_is_not_recoloured(photo: np.ndarray, method: str) -> None:
    found = recolour(planes(photo), method, planes(photo), least=0)
    assert found.shift < 1.5
    assert not found.counts
    with pytest.raises(InputError, match="another reference"):
        recolour(planes(photo), method, planes(photo))


def test_histograms_are_matched_as_scikit_image_matches_them(photo: np.ndarray, reference: np.ndarray) -> None:
    found = histogram_matching(Work(photo, reference, rng(0)))
    wanted = match_histograms(photo, reference, channel_axis=2)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_statistics_are_the_references(photo: np.ndarray, reference: np.ndarray) -> None:
    # muted colours, so that nothing is clipped
    mine, other = (
        from_lab(to_lab(p) * np.float32([0.4, 0.4, 0.4]) + np.float32([30, 0, 0])) for p in (photo, reference)
    )
    found = to_lab(statistics_transfer(Work(mine, other, rng(0))))
    np.testing.assert_allclose(found.mean((0, 1)), to_lab(other).mean((0, 1)), atol=0.5)
    np.testing.assert_allclose(found.std((0, 1)), to_lab(other).std((0, 1)), atol=0.5)


def test_lightness_survives_dyeing_and_turning(photo: np.ndarray) -> None:
    muted = from_lab(to_lab(photo) * np.float32([0.5, 0.4, 0.4]) + np.float32([25, 0, 0]))
    for method in ("segments", "painted"):
        found = eight(recolour(planes(muted), method, seed=1).image)
        assert np.abs(to_lab(found)[..., 0] - to_lab(muted)[..., 0]).mean() < 1.5


def test_versions_are_balanced_and_treated_alike(photo: np.ndarray, reference: np.ndarray) -> None:
    pictures = np.stack([cv2.resize(p, (64, 64)).transpose(2, 0, 1) for p in (photo, reference, photo[:, ::-1])])
    made = versions(pictures, TRAINING, each=3, seed=5)
    assert made.images.shape[1:] == (3, 56, 56)
    assert made.images.dtype == np.uint8
    assert made.recoloured.sum() == (~made.recoloured).sum() == 9
    assert set(np.unique(made.sources)) == {0, 1, 2}
    assert sum(kind.startswith("identity") for kind in made.kinds) == 3
    assert all((kind in METHODS) == flag for kind, flag in zip(made.kinds, made.recoloured, strict=True))
    assert made.of("as it is").sum() == 6
    one = made.take(made.of("as it is"))
    assert len(one) == 6
    assert not one.recoloured.any()
    np.testing.assert_array_equal(made.images, versions(pictures, TRAINING, each=3, seed=5).images)
    assert (made.images != versions(pictures, TRAINING, each=3, seed=6).images).any()


def test_wrong_input_is_refused_in_one_sentence(photo: np.ndarray) -> None:
    image = planes(photo)
    with pytest.raises(UsageError, match="no recolouring method"):
        recolour(image, "sepia")
    with pytest.raises(UsageError, match="reference="):
        recolour(image, "reinhard")
    with pytest.raises(UsageError, match="3×H×W"):
        recolour(photo, "curves")
    with pytest.raises(InputError, match="32 pixels"):
        recolour(image[:, :20], "curves")
    with pytest.raises(InputError, match="not finite"):
        recolour(np.full((3, 40, 40), np.nan, np.float32), "curves")
    grey = np.repeat(planes(photo).mean(0, keepdims=True), 3, 0)
    with pytest.raises(InputError, match=f"less than {LEAST_SHIFT:g}"):
        recolour(grey, "histogram", grey)
    with pytest.raises(UsageError, match="among"):
        versions(np.zeros((2, 3, 64, 64), np.uint8), ["sepia"])
    with pytest.raises(UsageError, match="at least two"):
        versions(np.zeros((1, 3, 64, 64), np.uint8), TRAINING)
    with pytest.raises(UsageError, match="sides of 32"):
        versions(np.zeros((2, 3, 64, 64), np.uint8), TRAINING, size=64)
