import numpy as np
import pytest
from skimage import data, metrics

from vestige.core.errors import UsageError
from vestige.metrics.quality import psnr, ssim


@pytest.fixture(scope="module")
def pair():
    image = data.astronaut()[100:260, 100:300].transpose(2, 0, 1)[None].astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(0, 0.05, image.shape).astype(np.float32)
    return image, np.clip(image + noise, 0, 1)


def test_psnr_agrees_with_scikit_image(pair):
    a, b = pair
    assert psnr(a, b)[0] == pytest.approx(metrics.peak_signal_noise_ratio(a[0], b[0], data_range=1.0), abs=1e-5)


def test_ssim_agrees_with_scikit_image(pair):
    a, b = pair
    reference = metrics.structural_similarity(
        a[0].astype(float), b[0].astype(float), channel_axis=0, data_range=1.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(a, b)[0] == pytest.approx(reference, abs=1e-6)


def test_equal_images_are_perfect_and_batches_are_independent(pair):
    a, b = pair
    both = np.concatenate([a, a]), np.concatenate([a, b])
    assert np.isinf(psnr(*both)[0])
    assert ssim(*both)[0] == pytest.approx(1.0)
    assert psnr(*both)[1] == psnr(a, b)[0]
    assert ssim(*both)[1] == ssim(a, b)[0] < 0.95


def test_shapes_are_checked(pair):
    a, _ = pair
    for wrong in (a[0], a[:, :, 1:]):
        with pytest.raises(UsageError, match="one shape"):
            psnr(a, wrong)
    with pytest.raises(UsageError, match="11 pixels"):
        ssim(a[..., :10], a[..., :10])
