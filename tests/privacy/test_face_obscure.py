import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from vestige.core.errors import MissingDependencyError, UsageError
from vestige.core.image_io import to_float
from vestige.core.roles import Eraser
from vestige.core.runtime import rng
from vestige.privacy.face_obscure import FaceObscure, _merge

HAS_CASCADE = hasattr(cv2, "CascadeClassifier")
needs_cascade = pytest.mark.skipif(not HAS_CASCADE, reason="this OpenCV has no cascade classifier")
EYES = slice(105, 120), slice(135, 195)  # rows, columns of the astronaut's eyes


@pytest.fixture(scope="module")
def astronaut():
    return to_float(data.astronaut()[:300, 60:360])


def ellipse(size=96, at=(20, 30), shape=(40, 30)):
    mask = np.zeros((1, 1, size, size), bool)
    v, u = np.ogrid[:size, :size]
    cy, cx = at[0] + shape[0] / 2, at[1] + shape[1] / 2
    mask[0, 0] = ((v - cy) / (shape[0] / 2)) ** 2 + ((u - cx) / (shape[1] / 2)) ** 2 < 1
    return mask


def test_it_is_an_eraser():
    assert isinstance(FaceObscure(), Eraser)
    assert FaceObscure.slug == "face_obscure"


@needs_cascade
def test_the_face_is_found_once(astronaut):
    faces = FaceObscure().detect(astronaut[0])
    assert len(faces) == 1
    x, y, w, h = faces[0]
    assert x < 135 < 195 < x + w
    assert y < 105 < 120 < y + h
    assert 60 < w < 150


@needs_cascade
@pytest.mark.parametrize("angle", [-25, 20])
def test_a_leaning_face_is_found(astronaut, angle):
    turn = cv2.getRotationMatrix2D((165.0, 112.0), angle, 1.0)
    pixels = cv2.warpAffine(data.astronaut()[:300, 60:360], turn, (300, 300), borderMode=cv2.BORDER_REPLICATE)
    faces = FaceObscure().detect(to_float(pixels)[0])
    assert any(x < 165 < x + w and y < 112 < y + h for x, y, w, h in faces)


@needs_cascade
def test_pictures_without_people_stay_as_they_are():
    for picture in (
        data.coffee()[:200, :300],
        data.chelsea()[:200, :300],
        np.zeros((40, 50, 3), np.uint8),
        np.zeros((1, 3, 3), np.uint8),
    ):
        image = to_float(picture)
        erased, mask = FaceObscure().erase(image)
        assert not mask.any()
        assert np.array_equal(erased, image)


@needs_cascade
@pytest.mark.parametrize("mode", ["blur", "pixelate", "fill"])
def test_eyes_are_gone_and_the_rest_is_untouched(astronaut, mode):
    before = astronaut.copy()
    erased, mask = FaceObscure(mode=mode).erase(astronaut)
    assert np.array_equal(astronaut, before)
    assert (erased.dtype, erased.shape) == (np.float32, astronaut.shape)
    assert (mask.dtype, mask.shape) == (np.bool_, (1, 1, 300, 300))
    assert mask[0, 0][EYES].all()
    assert 0.05 < mask.mean() < 0.3
    outside = np.broadcast_to(~mask, astronaut.shape)
    assert np.array_equal(erased[outside], astronaut[outside])
    eyes, covered = astronaut[0][:, *EYES].mean(0), erased[0][:, *EYES].mean(0)
    assert np.abs(np.diff(covered, axis=1)).mean() < 0.4 * np.abs(np.diff(eyes, axis=1)).mean()
    assert erased.min() >= 0
    assert erased.max() <= 1
    assert FaceObscure().detect(erased[0]) == []


@needs_cascade
def test_size_and_margin(astronaut):
    assert FaceObscure(min_size=200).detect(astronaut[0]) == []
    small = FaceObscure(margin=0.0).erase(astronaut)[1]
    large = FaceObscure(margin=0.6).erase(astronaut)[1]
    assert (small & ~large).sum() == 0
    assert large.sum() > 2 * small.sum()


@needs_cascade
def test_a_batch_and_a_face_at_the_border(astronaut):
    empty = np.full_like(astronaut, 0.5)
    erased, masks = FaceObscure().erase(np.concatenate([empty, astronaut]))
    assert not masks[0].any()
    assert np.array_equal(masks[1:], FaceObscure().erase(astronaut)[1])
    corner = astronaut[..., 55:, 100:].copy()  # forehead and one cheek touch the border
    erased, mask = FaceObscure(margin=1.0).erase(corner)
    assert mask[0, 0, 0].any()
    assert mask[0, 0, :, 0].any()
    assert np.isfinite(erased).all()


@pytest.mark.skipif(HAS_CASCADE, reason="this OpenCV has a cascade classifier")
def test_without_a_cascade_the_remedy_is_named(astronaut):
    with pytest.raises(MissingDependencyError, match="opencv-python-headless>=4"):
        FaceObscure().erase(astronaut)


@pytest.mark.parametrize("mode", ["blur", "pixelate", "fill"])
def test_marked_areas_are_obscured_instead(mode):
    images = rng(0, "faces").random((2, 3, 96, 96), np.float32)
    masks = np.concatenate([ellipse(), ellipse(at=(0, 60), shape=(50, 36)) | ellipse(at=(60, 5), shape=(20, 20))])
    erased, covered = FaceObscure(mode=mode).erase(images, masks)
    assert np.array_equal(covered, masks)
    outside = np.broadcast_to(~masks, images.shape)
    assert np.array_equal(erased[outside], images[outside])
    assert erased[~outside].std() < 0.3 * images[~outside].std()
    if mode == "fill":
        assert all(len(np.unique(erased[0, c][masks[0, 0]])) == 1 for c in range(3))
        assert erased[0, 0][masks[0, 0]][0] == pytest.approx(images[0, 0][masks[0, 0]].mean(), abs=1e-5)


@pytest.mark.parametrize("size", [96, 384])
def test_what_remains_does_not_grow_with_the_face(size):
    """Two pictures that agree when seen 8 cells across stay alike, however many pixels the face has."""
    v, u = np.mgrid[:size, :size] / size
    fine = 0.5 + 0.4 * np.sin(2 * np.pi * 24 * u) * np.sin(2 * np.pi * 24 * v)
    image = np.broadcast_to(fine.astype(np.float32), (1, 3, size, size)).copy()
    for mode in ("blur", "pixelate", "fill"):
        erased, _ = FaceObscure(mode=mode).erase(image, np.ones((1, 1, size, size), bool))
        assert np.abs(erased - 0.5).max() < 0.06


@settings(max_examples=30, deadline=None)
@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    mode=st.sampled_from(["blur", "pixelate", "fill"]),
    seed=st.integers(0, 99),
)
def test_tiny_images_with_any_mask(h, w, mode, seed):
    random = rng(seed)
    image, mask = random.random((1, 3, h, w), np.float32), random.random((1, 1, h, w)) < 0.5
    erased, covered = FaceObscure(mode=mode).erase(image, mask)
    assert np.array_equal(covered, mask)
    assert np.array_equal(erased[:, :, ~mask[0, 0]], image[:, :, ~mask[0, 0]])
    assert np.isfinite(erased).all()


def test_overlapping_boxes_are_joined():
    assert _merge([(0, 0, 10, 10), (2, 2, 10, 10), (50, 50, 8, 8)]) == [(0, 0, 12, 12), (50, 50, 8, 8)]
    assert _merge([(0, 0, 10, 10), (9, 9, 10, 10)]) == [(0, 0, 10, 10), (9, 9, 10, 10)]
    assert _merge([]) == []


@pytest.mark.parametrize("options", [{"mode": "smear"}, {"margin": -0.1}, {"min_size": 2}, {"neighbours": 0}])
def test_bad_options(options):
    with pytest.raises(UsageError):
        FaceObscure(**options)


def test_bad_shapes():
    image = np.zeros((1, 3, 8, 8), np.float32)
    for images, masks in (
        (image[0], None),
        (image[:, :1], None),
        (image, np.zeros((1, 1, 8, 7), bool)),
        (image, image),
    ):
        with pytest.raises(UsageError):
            FaceObscure().erase(images, masks)
