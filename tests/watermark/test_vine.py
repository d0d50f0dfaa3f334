import numpy as np
import pytest
import torch

from tests.watermark.learned_toys import learn_bits
from vestige.core.errors import InputError, UsageError
from vestige.core.keys import PUBLIC_KEY
from vestige.data.distortions import distort
from vestige.engines.marking.model import Trial, load_marker, save_marker
from vestige.watermark.vine import Vine, VineNet, band_pattern, band_study, vine_from_folder, yuv_loss

SIZES = {
    "widths": (8, 16),
    "unet_widths": (16, 16),
    "dims": (16, 16, 16),
    "depths": (1, 1, 1),
    "side": 16,
    "hidden": 32,
}


def small(bits=8, size=32, **options):
    torch.manual_seed(0)
    return VineNet(bits, size, **SIZES | options)


def test_shapes_and_bounds():
    net = small(scale=0.1)
    images = torch.rand(2, 3, 32, 32)
    marked = net.embed(images, torch.ones(2, 8))
    assert marked.shape == images.shape
    assert (marked - images).abs().max() <= 0.0501
    assert net.read(marked).soft.shape == (2, 8)
    assert net.read(marked).presence is None


def test_the_skips_carry_detail_and_start_silent():
    net = small()
    assert all(not skip.weight.any() for skip in net.network.skips)
    x = torch.rand(1, 3, 32, 32)
    before = net.network(x)
    with torch.no_grad():
        net.network.skips[-1].weight.fill_(0.1)
    assert not torch.allclose(net.network(x), before)


def test_one_step_follows_the_noise_level():
    net = small()
    x = torch.rand(1, 3, 32, 32)
    plain = net.network(x)
    net.network.keep, net.network.take = 0.5, 0.0
    assert not torch.allclose(net.network(x), plain)


def test_the_message_changes_the_picture_and_gradients_reach_it():
    net = small()
    images = torch.rand(1, 3, 32, 32)
    assert not torch.equal(net.embed(images, torch.zeros(1, 8)), net.embed(images, torch.ones(1, 8)))
    masks = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    marked = net.embed(images, torch.ones(1, 8))
    trial = Trial(images, torch.ones(1, 8), masks, marked, marked, masks, net.read(marked), torch.tensor(0.5))
    parts = net.objective(trial, lambda name: 1.0)
    parts["loss"].backward()
    for part in (net.adaptor.plane, net.network.vae.decoder, net.network.unet, net.network.skips, net.reader, net.head):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0
    assert not any("judge" in name for name, _ in net.named_parameters())


def test_luma_is_cheap_and_colour_dear():
    images = torch.full((1, 3, 4, 4), 0.5)
    grey = yuv_loss(images + 0.1, images)
    assert float(grey) == pytest.approx(0.01, rel=1e-3)
    red = images.clone()
    red[:, 0] += 0.1
    u, v = -0.14713 * 0.1, 0.615 * 0.1
    assert float(yuv_loss(red, images)) == pytest.approx(0.0299**2 + 100 * (u**2 + v**2), rel=1e-3)


def test_bits_are_learned():
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    assert learn_bits(small(4), image, 150, 2e-3) == 1.0


def test_weights_rebuild_the_network(tmp_path):
    net = small(16)
    save_marker(tmp_path / "vine.safetensors", net, "vine", {})
    again, _ = load_marker(tmp_path / "vine.safetensors", "vine", VineNet)
    images, bits = torch.rand(1, 3, 32, 32), torch.ones(1, 16)
    torch.testing.assert_close(again.embed(images, bits), net.eval().embed(images, bits))
    marker = Vine(tmp_path / "vine.safetensors")
    marked = marker.mark(np.full((1, 3, 50, 70), 0.5, np.float32), np.ones(8, bool), PUBLIC_KEY)
    assert marked.shape == (1, 3, 50, 70)


def test_a_folder_that_is_no_pipeline_and_sizes_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="vae and unet"):
        vine_from_folder(tmp_path)
    with pytest.raises(UsageError, match="halved"):
        small(8, 30)


# frequency study ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", [(0.02, 0.1), (0.25, 0.5)])
def test_patterns_live_in_their_band(band):
    pattern = band_pattern(48, 64, band)
    spectrum = np.abs(np.fft.fft2(pattern)) ** 2
    radius = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(64)[None])
    inside = (radius >= band[0] - 1e-9) & (radius <= band[1] + 1e-9)
    assert spectrum[inside].sum() / spectrum.sum() > 0.999
    with pytest.raises(UsageError, match="frequency"):
        band_pattern(4, 4, (0.01, 0.02))


def test_blur_keeps_the_low_band_and_takes_the_high_one(photo):
    images = photo[None, :256, :256].transpose(0, 3, 1, 2).astype(np.float32) / 255
    kept = Vine.measure(lambda x: distort(x, "blur", 1), images)
    assert kept["low"] > 0.7
    assert kept["high"] < 0.2
    assert kept["low"] > kept["mid"] > kept["high"]
    with pytest.raises(UsageError, match="one size"):
        band_study(lambda x: distort(x, "resize", 0.5), images)
