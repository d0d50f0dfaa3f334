import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from vestige.core.errors import InputError, LimitError, UsageError
from vestige.data.distortions import DISTORTIONS, compose, distort, distort_with_mask
from vestige.data.straight_through import straight_through

EVERY = [(name, strength) for name, d in DISTORTIONS.items() for strength in (d.ladder[0], d.ladder[-1])]


@pytest.fixture(scope="module")
def photos():
    pictures = [data.astronaut()[60:188, 160:320], data.coffee()[100:228, 200:360]]
    return np.stack(pictures).astype(np.float32).transpose(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def masks():
    mask = np.zeros((2, 1, 128, 160), bool)
    mask[0, :, 30:70, 40:90] = mask[1, :, 60:110, 100:150] = True
    return mask


def psnr(a, b):
    return -10 * np.log10(max(((np.asarray(a, np.float64) - np.asarray(b)) ** 2).mean(), 1e-10))


@pytest.mark.parametrize(("name", "strength"), EVERY)
def test_twins_agree_and_gradients_reach_the_input(photos, masks, name, strength):
    real, real_mask = distort_with_mask(photos, masks, name, strength, seed=5)
    x = torch.from_numpy(photos).requires_grad_()
    soft, soft_mask = distort_with_mask(x, torch.from_numpy(masks), name, strength, seed=5)
    assert real.dtype == np.float32
    assert soft.dtype == torch.float32
    assert real.shape == tuple(soft.shape)
    uses_jpeg = name in ("jpeg", "screenshot", "print_scan")
    assert psnr(real, soft.detach()) > (34 if uses_jpeg else 50)
    for result in (real, soft.detach().numpy()):
        assert result.min() >= 0
        assert result.max() <= 1
        np.testing.assert_allclose(result * 255, np.round(result * 255), atol=1e-3)
    assert real_mask.dtype == bool
    assert real_mask.shape == (2, 1, *real.shape[2:])
    assert (real_mask == soft_mask.numpy()).all()
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal(soft.shape).astype(np.float32))
    (soft * weights).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("quality", [50, 70, 90])
def test_differentiable_jpeg_is_close_to_the_codec(photos, quality):
    real = distort(photos, "jpeg", quality)
    soft = distort(torch.from_numpy(photos), "jpeg", quality).numpy()
    assert psnr(real, soft) > 37
    assert psnr(real, soft) > psnr(real, photos) + 6  # it predicts the loss, not merely the picture


def test_gradient_predicts_the_effect_of_a_small_change(photos):
    x = torch.from_numpy(photos * 0.6 + 0.2).requires_grad_()
    for name, strength in (
        ("blur", 1), ("contrast", 0.7), ("gamma", 1.4), ("rotate", 10), ("resize", 0.5), ("saturation", 0.5),
        ("motion_blur", 5), ("perspective", 0.2), ("hue", 0.05), ("sharpen", 0.5), ("jpeg", 90),
    ):  # fmt: skip
        weights = torch.from_numpy(
            np.random.default_rng(2).standard_normal(distort(photos, name, strength).shape).astype(np.float32)
        )

        def value(images, name=name, strength=strength, weights=weights):
            return (distort(images, name, strength) * weights).double().sum()

        (gradient,) = torch.autograd.grad(value(x), x)
        step = 0.01 * gradient.sign()
        with torch.no_grad():
            change = (value(x + step) - value(x - step)) / 2
        # soft rounding of block coefficients only points in the right direction
        tolerance = 0.6 if name == "jpeg" else 0.05
        assert (gradient * step).double().sum().item() == pytest.approx(change.item(), rel=tolerance), name


def test_jpeg_is_what_pillow_writes(photos):
    import io

    pixels = np.round(photos[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    expected = np.asarray(Image.open(buffer)).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(distort(photos[:1], "jpeg", 60)[0], expected)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_lower_quality_costs_more(photos, name):
    figures = [psnr(distort(photos, name, q), photos) for q in DISTORTIONS[name].ladder]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > figures[-1] + 5


def test_rotation_direction_and_resampling_match_pillow(photos):
    pixels = Image.fromarray(np.round(photos[0].transpose(1, 2, 0) * 255).astype(np.uint8))
    rotated = np.asarray(pixels.rotate(20, Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    inner = np.s_[:, 40:90, 50:110]  # Pillow treats the outer pixel row differently
    assert psnr(distort(photos[:1], "rotate", 20)[0][inner], rotated[inner]) > 45
    smaller = np.asarray(pixels.resize((80, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1) / 255
    assert psnr(distort(photos[:1], "resize", 0.5)[0], smaller) > 50


def test_sizes(photos):
    shapes = {
        ("resize", 0.25): (32, 40), ("crop", 0.25): (64, 80), ("crop_resize", 0.25): (128, 160),
        ("resize_back", 0.3): (128, 160), ("aspect", 4): (64, 320), ("rotate", 45): (128, 160),
        ("resize", 0.01): (1, 2),
    }  # fmt: skip
    for (name, strength), shape in shapes.items():
        assert distort(photos, name, strength).shape[2:] == shape, name
    assert distort(photos, "border", 0.1, seed=None).shape[2:] == (154, 160)


@pytest.mark.parametrize("name", [n for n, d in DISTORTIONS.items() if d.geometric])
def test_masks_follow_their_pixels(name):
    """A picture painted with its own mask still shows it after the distortion."""
    mask = np.zeros((1, 1, 96, 128), bool)
    cv2.ellipse(mask.view(np.uint8)[0, 0], (60, 45), (35, 25), 20, 0, 360, 1, -1)
    picture = np.full((1, 3, 96, 128), 0.4, np.float32)
    picture[:, :1][mask] = 0.9
    for strength in DISTORTIONS[name].ladder[:3]:
        seen, moved = distort_with_mask(picture, mask, name, strength, seed=3)
        red = seen[:, :1] - seen[:, 1:2]
        shown = red > red.max() / 2
        assert (shown & moved).sum() / max((shown | moved).sum(), 1) > 0.85, strength


def test_replaced_pixels_leave_the_mask(photos):
    whole = np.ones((2, 1, 128, 160), bool)
    for name, strength in (("overlay", 0.2), ("dropout", 0.3), ("cropout", 0.3)):
        seen, kept = distort_with_mask(photos, whole, name, strength)
        assert 1 - kept.mean() == pytest.approx(strength, abs=0.03), name
        np.testing.assert_array_equal(np.where(kept, seen, 0), np.where(kept, photos, 0))
    assert distort_with_mask(photos, whole, "salt_pepper", 0.2)[1].all()


def test_cover_fills_what_is_dropped(photos):
    cover = np.full_like(photos, 102 / 255)
    for name in ("dropout", "cropout"):
        seen = distort(photos, name, 0.5, cover=cover)
        from_cover = (seen == cover).all(1)
        assert from_cover.mean() == pytest.approx(0.5, abs=0.03)
        soft = distort(torch.from_numpy(photos), name, 0.5, cover=torch.from_numpy(cover))
        np.testing.assert_array_equal(seen, soft.numpy())


def test_seeds(photos):
    for name, d in DISTORTIONS.items():
        strength = d.ladder[len(d.ladder) // 2]
        first = distort(photos, name, strength, seed=1)
        np.testing.assert_array_equal(first, distort(photos, name, strength, seed=1))
        others = [distort(photos, name, strength, seed=s) for s in (2, 3)]
        differs = any(first.shape != o.shape or (first != o).any() for o in others)
        assert differs == d.randomised, name
    centred = distort(photos, "crop", 0.25, seed=None)
    np.testing.assert_array_equal(centred, photos[:, :, 32:96, 40:120])


def test_noise_has_its_strength():
    grey = np.full((1, 3, 128, 128), 0.5, np.float32)
    assert distort(grey, "noise", 0.05).std() == pytest.approx(0.05, rel=0.03)
    assert (distort(grey, "salt_pepper", 0.1) != distort(grey, "identity", 0)).all(1).mean() == pytest.approx(
        0.1, abs=0.01
    )


def test_tone_and_colour(photos):
    grey = distort(photos, "grayscale", 1)
    assert np.ptp(grey, axis=1).max() == 0
    assert len(np.unique(distort(photos, "quantize", 2))) == 4
    np.testing.assert_allclose(distort(photos, "brightness", 0.5), photos / 2, atol=0.5 / 255 + 1e-6)
    red = np.zeros((1, 3, 4, 4), np.float32)
    red[:, 0] = 1
    assert distort(red, "hue", 1 / 3)[0, :, 0, 0].tolist() == pytest.approx([0, 1, 0])


def test_straight_through(photos):
    x = torch.from_numpy(photos).requires_grad_()
    result = straight_through(x, "jpeg", 40)
    np.testing.assert_allclose(result.detach().numpy(), distort(photos, "jpeg", 40), atol=1e-6)
    result.sum().backward()
    assert (x.grad == 1).all()
    with pytest.raises(UsageError, match="changes the size"):
        straight_through(x, "resize", 0.5)


def test_chains(photos, masks):
    chain = compose([("noise", 0.05), ("crop", 0.5), ("noise", 0.05)])
    assert chain.name == "noise:0.05+crop:0.5+noise:0.05"
    one, moved = chain.with_mask(photos, masks, seed=4)
    np.testing.assert_array_equal(one, chain(photos, seed=4))
    assert moved.shape == (2, 1, 91, 113)
    twice = compose([("noise", 0.05), ("noise", 0.05)])(np.full((1, 3, 64, 64), 0.5, np.float32))
    assert twice.std() == pytest.approx(0.05 * 2**0.5, rel=0.1)  # the two fields are independent
    with pytest.raises(UsageError, match="no distortion 'sepia'"):
        compose([("sepia", 1)])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVERY), st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_any_size_works(case, height, width, flat):
    name, strength = case
    picture = np.random.default_rng(height * 31 + width).random((1, 3, height, width), np.float32)
    picture = picture * 0 if flat else picture
    seen, mask = distort_with_mask(picture, np.ones((1, 1, height, width), bool), name, strength)
    assert seen.shape[2:] == mask.shape[2:]
    assert np.isfinite(seen).all()
    soft = distort(torch.from_numpy(picture), name, strength)
    assert tuple(soft.shape) == seen.shape
    assert torch.isfinite(soft).all()


def test_half_precision_keeps_its_type(photos):
    assert distort(torch.from_numpy(photos).to(torch.bfloat16), "blur", 1).dtype == torch.bfloat16
    assert distort(photos.astype(np.float64), "blur", 1).dtype == np.float32


def test_refusals(photos, masks):
    with pytest.raises(UsageError, match="from 1 to 100; got 0"):
        distort(photos, "jpeg", 0)
    with pytest.raises(UsageError, match="strength of jpeg"):
        distort(photos, "jpeg", float("nan"))
    with pytest.raises(UsageError, match="N×3×H×W"):
        distort(photos[0], "jpeg", 50)
    with pytest.raises(UsageError, match="divide by 255"):
        distort((photos * 255).astype(np.uint8), "jpeg", 50)
    with pytest.raises(UsageError, match="numpy array or a torch tensor"):
        distort([[0.0]], "jpeg", 50)
    with pytest.raises(UsageError, match="Masks must"):
        distort_with_mask(photos, masks[:, :, :10], "crop", 0.5)
    with pytest.raises(UsageError, match="cover must"):
        distort(photos, "dropout", 0.5, cover=photos[:1])
    with pytest.raises(InputError, match="not finite"):
        distort(np.full((1, 3, 8, 8), np.nan, np.float32), "blur", 1)
    with pytest.raises(LimitError, match="megapixels"):
        distort(np.zeros((1, 3, 4000, 500), np.float32), "resize", 8)
    with pytest.raises(UsageError, match="WEBP cannot hold"):
        distort(np.zeros((1, 3, 1, 17000), np.float32), "webp", 50)


def test_the_real_twin_does_not_import_torch():
    code = (
        "import sys, numpy as np; from vestige.data.distortions import distort;"
        "distort(np.zeros((1, 3, 8, 8), np.float32), 'jpeg', 50); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
