import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from vestige.core.errors import UsageError
from vestige.core.image_io import to_float
from vestige.core.roles import Eraser, Restorer
from vestige.core.runtime import rng
from vestige.restoration.inpaint import ClassicInpaint

METHODS = ["telea", "navier-stokes"]


@pytest.fixture(scope="module")
def photo():
    return to_float(data.coffee()[100:260, 200:400])


def scratches(shape):
    mask = np.zeros((1, 1, *shape), bool)
    for k in range(6):
        mask[0, 0, 10 + 22 * k : 13 + 22 * k, 15:-15] = True
    return mask


def test_roles():
    assert isinstance(ClassicInpaint(), Restorer)
    assert isinstance(ClassicInpaint(), Eraser)
    assert ClassicInpaint.slug == "inpaint_classic"


@pytest.mark.parametrize("method", METHODS)
def test_scratches_are_filled_and_nothing_else_changes(photo, method):
    mask = scratches(photo.shape[2:])
    damaged = np.where(mask, np.float32(1), photo)
    restored = ClassicInpaint(method=method).restore(damaged, mask)
    hole = np.broadcast_to(mask, photo.shape)
    assert (restored.dtype, restored.shape) == (np.float32, photo.shape)
    assert np.array_equal(restored[~hole], damaged[~hole])
    before, after = ((x - photo)[hole] ** 2 for x in (damaged, restored))
    assert 10 * np.log10(before.mean() / after.mean()) > 12
    assert np.array_equal(restored, ClassicInpaint(method=method).restore(damaged, mask))


@pytest.mark.parametrize("method", METHODS)
def test_smooth_shades_are_continued(method):
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 64, dtype=np.float32), (2, 3, 64, 64)).copy()
    mask = np.zeros((2, 1, 64, 64), bool)
    mask[0, 0, 28:36, 28:36] = True
    damaged = np.where(mask, np.float32(0), ramp)
    restored = ClassicInpaint(method=method).restore(damaged, mask)
    assert np.abs(restored - ramp).max() < 0.05
    assert np.array_equal(restored[1], ramp[1])


def test_erase_returns_what_changed(photo):
    mask = scratches(photo.shape[2:])
    erased, changed = ClassicInpaint().erase(photo, mask)
    assert np.array_equal(changed, mask)
    assert np.array_equal(erased, ClassicInpaint().restore(photo, mask))


def test_a_small_hole_in_a_big_picture_is_filled_as_in_a_small_one(photo):
    mask = np.zeros((1, 1, *photo.shape[2:]), bool)
    mask[..., 80:90, 90:100] = True
    near = np.s_[..., 50:120, 60:130]
    big = np.pad(photo, ((0, 0), (0, 0), (300, 300), (300, 300)), mode="reflect")
    big_mask = np.pad(mask, ((0, 0), (0, 0), (300, 300), (300, 300)))
    for method in METHODS:
        alone = ClassicInpaint(method=method).restore(photo[near], mask[near])
        inside = ClassicInpaint(method=method).restore(big, big_mask)[..., 350:420, 360:430]
        assert np.abs(alone - inside).max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(h=st.integers(1, 12), w=st.integers(1, 12), method=st.sampled_from(METHODS), seed=st.integers(0, 99))
def test_any_mask_on_tiny_pictures(h, w, method, seed):
    random = rng(seed)
    image, mask = random.random((1, 3, h, w), np.float32), random.random((1, 1, h, w)) < 0.4
    mask[0, 0, 0, 0] = False
    restored = ClassicInpaint(method=method).restore(image, mask)
    assert np.array_equal(restored[:, :, ~mask[0, 0]], image[:, :, ~mask[0, 0]])
    assert restored.min() >= 0
    assert restored.max() <= 1


def test_usage_errors(photo):
    mask = np.zeros((1, 1, *photo.shape[2:]), bool)
    for options in ({"method": "magic"}, {"radius": 0}, {"radius": 1e9}):
        with pytest.raises(UsageError):
            ClassicInpaint(**options)
    for masks in (None, ~mask, mask[..., 1:], mask.astype(np.float32)):
        with pytest.raises(UsageError):
            ClassicInpaint().restore(photo, masks)
    with pytest.raises(UsageError):
        ClassicInpaint().restore(photo[0], mask)
