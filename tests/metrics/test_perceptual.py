import numpy as np
import pytest
import torch
from kornia.metrics import ssim as kornia_ssim
from scipy.ndimage import gaussian_filter
from skimage import data
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from vestige.core.errors import UsageError
from vestige.data.distortions import distort
from vestige.metrics.perceptual import SCALE_WEIGHTS, ms_ssim, perceptual_distance
from vestige.metrics.quality import ssim
from vestige.nn.features import FeatureNet


@pytest.fixture(scope="module")
def pair():
    image = data.astronaut()[60:260, 160:350].transpose(2, 0, 1)[None].astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(0, 0.06, image.shape).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(np.clip(image + noise, 0, 1))


def reference(a, b, scales):
    """Straight from the definition, with scipy's Gaussian filter and no padding."""
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    values = []
    for x, y in zip(a.double().numpy()[0], b.double().numpy()[0], strict=True):

        def smooth(z):
            return gaussian_filter(z, 1.5, truncate=3.4)[5:-5, 5:-5]

        cs, full = [], []
        for _ in range(scales):
            mx, my = smooth(x), smooth(y)
            vx, vy, cov = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
            structure = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
            luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
            cs.append(structure)
            full.append(luminance * structure)
            x, y = (z[: len(z) // 2 * 2, : z.shape[1] // 2 * 2] for z in (x, y))
            x, y = (z.reshape(len(z) // 2, 2, -1, 2).mean((1, 3)) for z in (x, y))
        values.append([*cs[:-1], full[-1]])
    factors = [np.mean([v[j] for v in values]) for j in range(scales)]
    return float(np.prod(np.maximum(factors, 0) ** weights))


@pytest.mark.parametrize("scales", [1, 3, 5])
def test_multi_scale_similarity_has_its_definition(pair, scales):
    assert ms_ssim(*pair, scales=scales).item() == pytest.approx(reference(*pair, scales), abs=1e-5)


def test_one_scale_is_plain_similarity(pair):
    ours = ms_ssim(*pair, scales=1).item()
    assert ours == pytest.approx(ssim(*(t.numpy() for t in pair))[0], abs=1e-5)
    assert ours == pytest.approx(kornia_ssim(*pair, 11)[..., 5:-5, 5:-5].mean().item(), abs=1e-5)


def test_five_scales_agree_with_torchmetrics(pair):
    # torchmetrics lets windows of the coarsest luminance reach over the reflected border; ours stay inside.
    theirs = multiscale_structural_similarity_index_measure(*pair, data_range=1.0)
    assert ms_ssim(*pair).item() == pytest.approx(float(theirs), abs=2e-3)


def test_opposite_pictures_have_no_similarity_and_a_finite_gradient(pair):
    x = (1 - pair[0]).requires_grad_()
    value = ms_ssim(pair[0], x, scales=3)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert value.item() == 0
    assert torch.isfinite(slope).all()


def test_multi_scale_similarity_falls_with_distortion_and_is_per_picture(pair):
    clean, _ = pair
    values = [ms_ssim(clean, distort(clean, "blur", s)).item() for s in (0.5, 1, 2, 4)]
    assert sorted(values, reverse=True) == values
    both = ms_ssim(torch.cat([clean, clean]), torch.cat([clean, pair[1]]))
    assert both[0] == pytest.approx(1, abs=1e-6)
    assert both[1] == pytest.approx(ms_ssim(*pair).item(), abs=1e-6)


def test_gradients_lead_back_to_the_original(pair):
    clean, noisy = (t[..., :64, :64] for t in pair)
    net = FeatureNet().eval()
    for distance in (
        lambda x: 1 - ms_ssim(clean, x, scales=3),
        lambda x: perceptual_distance(clean, x, net.maps),
    ):
        x = noisy.clone().requires_grad_()
        before = distance(x)
        (slope,) = torch.autograd.grad(before.sum(), x)
        assert torch.isfinite(slope).all()
        after = distance((noisy - 0.3 * slope / slope.norm()).clamp(0, 1))
        assert after.item() < before.item()


def test_perceptual_distance_has_its_definition(pair):
    a, b = (t[..., :32, :32] for t in pair)
    net = FeatureNet(seed=1).eval()
    with torch.no_grad():
        expected = 0.0
        for weight, u, v in zip((1, 2, 0, 4), net(a).maps, net(b).maps, strict=True):
            cosine = torch.nn.functional.cosine_similarity(u, v)  # ‖û − v̂‖² = 2 − 2 cos where both are not zero
            expected += weight * float((2 - 2 * cosine).mean())
        ours = perceptual_distance(a, b, net.maps, layer_weights=(1, 2, 0, 4))
    assert ours.item() == pytest.approx(expected, rel=1e-4)


def test_perceptual_distance_is_a_symmetric_premetric_that_grows(pair):
    clean = pair[0][..., :64, :64]
    net = FeatureNet().eval()
    with torch.no_grad():
        assert perceptual_distance(clean, clean, net.maps).item() == 0
        values = [perceptual_distance(clean, distort(clean, "blur", s), net.maps).item() for s in (0.5, 1, 2, 4)]
        back = perceptual_distance(distort(clean, "blur", 2), clean, net.maps).item()
    assert sorted(values) == values
    assert values[2] == pytest.approx(back, rel=1e-5)


def test_flat_features_have_finite_gradients():
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    perceptual_distance(torch.zeros(1, 3, 4, 4), x, lambda t: [t]).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_refusals(pair):
    clean = pair[0]
    for side, fitting in ((175, 4), (88, 4), (87, 3), (43, 2), (11, 1)):
        with pytest.raises(UsageError, match=f"use scales={fitting}"):
            ms_ssim(clean[..., :side, :], clean[..., :side, :])
        assert ms_ssim(clean[..., :side, :], clean[..., :side, :], scales=fitting).item() == pytest.approx(1)
    with pytest.raises(UsageError, match="larger pictures"):
        ms_ssim(clean[..., :10, :10], clean[..., :10, :10], scales=1)
    with pytest.raises(UsageError, match="1 to 5 scales"):
        ms_ssim(clean, clean, scales=6)
    for measure in (ms_ssim, lambda a, b: perceptual_distance(a, b, lambda x: [x])):
        with pytest.raises(UsageError, match="one shape"):
            measure(clean, clean[..., :-1])
        with pytest.raises(UsageError, match="torch tensors"):
            measure(clean.numpy(), clean.numpy())
        with pytest.raises(UsageError, match="floating point"):
            measure(clean.to(torch.uint8), clean.to(torch.uint8))
    with pytest.raises(UsageError, match="one for each layer weight"):
        perceptual_distance(clean, clean, lambda x: [x], layer_weights=(1, 1))
    with pytest.raises(UsageError, match="must return maps"):
        perceptual_distance(clean, clean, lambda x: [x.mean(1)])
