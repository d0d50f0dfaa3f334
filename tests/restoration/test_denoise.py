import numpy as np
import pytest
from skimage import data

from vestige.core.errors import UsageError
from vestige.core.image_io import to_float
from vestige.core.roles import Restorer
from vestige.core.runtime import rng
from vestige.restoration import denoise
from vestige.restoration.denoise import NonLocalMeans, noise_level


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def noisy(image, sigma, seed=0):
    return (image + sigma / 255 * rng(seed).standard_normal(image.shape)).clip(0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def photo():
    return to_float(data.coffee()[100:228, 200:328])


@pytest.mark.parametrize("sigma", [5, 10, 20, 35])
def test_the_noise_level_is_measured(photo, sigma):
    assert 255 * noise_level(noisy(photo, sigma)[0]) == pytest.approx(sigma, rel=0.25)


def test_noise_of_flat_and_odd_pictures():
    assert noise_level(np.zeros((3, 9, 9), np.float32)) == 0
    for shape in ((1, 1), (3, 1), (3, 1, 5), (3, 2, 2), (2, 3)):
        assert noise_level(np.full(shape, 0.3, np.float32)) == 0
    half = np.zeros((64, 128), np.float32)
    half[:, 64:] = 0.5 + 0.04 * rng(1).standard_normal((64, 64))
    assert noise_level(half) == pytest.approx(0.04, rel=0.2)


@pytest.mark.parametrize(("sigma", "gain"), [(10, 2.0), (20, 4.0), (35, 5.5)])
def test_noise_goes_and_the_picture_stays(photo, sigma, gain):
    degraded = noisy(photo, sigma)
    restored = NonLocalMeans().restore(degraded)
    assert (restored.dtype, restored.shape) == (np.float32, photo.shape)
    assert psnr(restored, photo) > psnr(degraded, photo) + gain
    assert np.array_equal(restored, NonLocalMeans().restore(degraded))


def test_clean_and_flat_pictures_are_left_alone():
    smooth = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32), (1, 3, 64, 64)).copy()
    assert np.array_equal(NonLocalMeans().restore(smooth), smooth)
    for shape in ((1, 3, 1, 1), (1, 3, 3, 5), (0, 3, 8, 8)):
        image = np.full(shape, 0.37, np.float32)
        assert np.array_equal(NonLocalMeans().restore(image), image)
        assert NonLocalMeans(strength=10).restore(image).shape == shape


def test_strength_and_mask(photo):
    degraded = noisy(photo, 20)
    weak, strong = (NonLocalMeans(strength=s).restore(degraded) for s in (3, 30))
    assert np.abs(np.diff(strong)).mean() < 0.6 * np.abs(np.diff(weak)).mean()
    assert np.array_equal(NonLocalMeans(strength=0).restore(degraded), degraded)
    mask = np.zeros((1, 1, 128, 128), bool)
    mask[..., :64] = True
    part = NonLocalMeans(strength=14).restore(degraded, mask)
    assert np.array_equal(part[..., 64:], degraded[..., 64:])
    assert not np.array_equal(part[..., :64], degraded[..., :64])


def test_strips_leave_no_seam(photo, monkeypatch):
    degraded = noisy(photo, 15)
    whole = NonLocalMeans(strength=10).restore(degraded)
    monkeypatch.setattr(denoise, "_STRIP", 37)
    assert np.abs(NonLocalMeans(strength=10).restore(degraded) - whole).max() <= 1.01 / 255


def test_role_and_usage_errors(photo):
    assert isinstance(NonLocalMeans(), Restorer)
    assert NonLocalMeans.slug == "nlm"
    for options in ({"strength": -1}, {"strength": 999}, {"patch": 4}, {"search": 20}, {"patch": 9, "search": 7}):
        with pytest.raises(UsageError):
            NonLocalMeans(**options)
    with pytest.raises(UsageError):
        NonLocalMeans().restore(photo[0])
    for mask in (np.zeros((1, 1, 5, 128), bool), np.zeros((1, 1, 128, 128), np.uint8)):
        with pytest.raises(UsageError):
            NonLocalMeans().restore(photo, mask)
