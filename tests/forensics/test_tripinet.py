"""TriPINet: its front ends and fusion are what they claim, and it learns to mark noisy regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch.nn import functional as F

from vestige.bench.forensics.localisers import ManTraLite, MVSSLite, PlainUNet, TruForLite
from vestige.core.errors import UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics import learned
from vestige.forensics.tripinet import (
    GuidedAttention,
    TriPINet,
    TriPINetFinder,
    frequency_maps,
    tiled,
    top_share,
    tripinet_loss,
)
from vestige.metrics.detection import auroc


def small(**options) -> TriPINet:
    torch.manual_seed(0)
    return TriPINet(**{"width": 0.125, "backbone": "small", **options})


def test_attention_weights_are_shares() -> None:
    torch.manual_seed(0)
    layer = GuidedAttention(6)
    f, n = 50 * torch.randn(2, 2, 6, 5, 7)
    place, channel = layer.weights(f, n)
    assert place.shape == (2, 2, 1, 5, 7)
    assert channel.shape == (2, 2, 6, 1, 1)
    for weights in (place, channel):
        assert torch.isfinite(weights).all()
        torch.testing.assert_close(weights.sum(0), torch.ones_like(weights[0]))
    r = torch.randn(2, 6, 5, 7)
    assert layer(torch.zeros_like(r), f, n).eq(0).all()  # colours are guided, not replaced


def test_frequency_maps_regroup_blocks_and_come_back() -> None:
    x = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    maps = frequency_maps(x).double().numpy()
    assert maps.shape == (2, 48, 4, 6)
    grey = torch.full((1, 3, 8, 8), 0.25)
    found = frequency_maps(grey)[0]
    torch.testing.assert_close(found[0], torch.full((4, 4), 1.0))  # mean of 0.25 on 16 pixels: 4 · 0.25
    torch.testing.assert_close(found[[16, 32]], torch.full((2, 4, 4), 2.0))  # neutral Cb and Cr
    assert found[1:16].abs().max() < 1e-6
    luma = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    large = F.interpolate(luma[:, None], scale_factor=2, mode="bilinear", align_corners=False)[0, 0].double().numpy()
    for row in range(4):
        for column in range(6):
            block = large[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            coefficients = maps[0, :16, row, column].reshape(4, 4)
            np.testing.assert_allclose(coefficients, dctn(block, norm="ortho"), atol=1e-5)
            np.testing.assert_allclose(idctn(coefficients, norm="ortho"), block, atol=1e-5)


def test_noise_maps_ignore_constant_colours() -> None:
    net = small()
    assert net.noise_maps(torch.full((1, 3, 16, 16), 0.7)).abs().max() < 1e-5
    weight = net.bayar.weight
    torch.testing.assert_close(weight[..., 2, 2], torch.full((3, 3), -1.0))
    torch.testing.assert_close(weight.sum((2, 3)), torch.zeros(3, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("branches", [("rgb", "freq", "noise"), ("rgb",), ("freq", "noise")])
@pytest.mark.parametrize("shape", [(64, 64), (33, 70), (8, 20)])
def test_all_six_maps_have_the_size_of_the_picture(branches: tuple[str, ...], shape: tuple[int, int]) -> None:
    net = small(branches=branches).eval()
    with torch.no_grad():
        maps = net(torch.rand(1, 3, *shape))
    assert [tuple(m.shape) for m in maps] == [(1, 1, *shape)] * 6
    scores = net.score(torch.rand(2, 3, *shape))
    assert scores.shape == (2,)
    assert ((scores > 0) & (scores < 1)).all()


def test_padding_leaves_multiples_alone() -> None:
    net = small().eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = net.localize(x)
    padded = net.localize(F.pad(x, (0, 32, 0, 0), mode="reflect"))[..., :64]
    cut = net.localize(x[..., :50])
    assert cut.shape == (1, 1, 64, 50)
    assert not torch.equal(whole[..., :50], cut)
    assert (whole - padded).abs().mean() < 0.05


def test_every_part_learns_and_the_loss_falls() -> None:
    """Regions with finer grain than the rest, at random places."""
    g = np.random.default_rng(0)
    images = np.repeat(np.repeat(g.random((24, 3, 4, 4), np.float32), 16, 2), 16, 3) * 0.5 + 0.25
    masks = np.zeros((24, 1, 64, 64), np.float32)
    for mask in masks:
        top, left = g.integers(0, 36, 2)
        mask[0, top : top + 28, left : left + 28] = 1
    images = (images + masks * g.normal(0, 0.1, images.shape)).clip(0, 1).astype(np.float32)
    x, y = torch.from_numpy(images), torch.from_numpy(masks)
    net = small()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    costs = []
    for step in range(30):
        rows = torch.arange(step % 2, 16, 2)
        found = tripinet_loss(net(x[rows]), y[rows])
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        costs.append(found["map"].item())
    assert not [name for name, p in net.named_parameters() if torch.equal(p, start[name])]
    assert costs[-1] < 0.85 * costs[0]
    held = net.eval().localize(x[16:]).numpy()
    assert auroc(masks[16:].ravel() > 0.5, held.ravel()) > 0.75


@pytest.mark.parametrize("build", [PlainUNet, MVSSLite, ManTraLite, TruForLite])
def test_what_it_is_compared_with_learns_in_all_its_parts(build) -> None:
    torch.manual_seed(0)
    net, x = build(), torch.rand(4, 3, 32, 48)
    masks = torch.zeros(4, 1, 32, 48)
    masks[:3, :, 8:24, 10:30] = 1
    found = net(x)[0]
    assert found.shape == masks.shape
    loss = net.loss(x, masks) if hasattr(net, "loss") else tripinet_loss([found], masks)
    loss["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    if build is MVSSLite:
        assert torch.isfinite(net.loss(x[3:], masks[3:])["loss"])  # nothing edited, nothing to outline


def test_tiles_fade_into_each_other() -> None:
    net = small().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (96, 150, 3), dtype=np.uint8)
    one = tiled(net, pixels, tile=512)
    many = tiled(net, pixels, tile=64, overlap=16)
    assert one.shape == many.shape == (96, 150)
    assert one.dtype == np.float32
    direct = net.localize(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 255)[0, 0].numpy()
    np.testing.assert_allclose(one, direct, atol=1e-5)
    assert 0 < many.min() <= many.max() < 1


def test_the_highest_share_is_averaged() -> None:
    assert top_share(torch.arange(200.0).view(1, 1, 10, 20)).item() == pytest.approx(198.5)


def test_examining_keeps_to_its_domain(tmp_path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> None:
    monkeypatch.setattr(learned, "WEIGHTS", tmp_path)
    missing = TriPINetFinder().find(ImageSubject(encode(photo, "PNG")))
    assert "vestige learn tripinet" in missing.why_not
    finder = TriPINetFinder(network=small())
    found = finder.find(ImageSubject(encode(photo[:100, :140], "PNG")))
    assert found.map.shape == (100, 140)
    assert np.isfinite(found.score)
    for pixels, reason in ((photo[:40], "smaller"), (np.full((80, 80, 3), 90, np.uint8), "flat")):
        assert reason in finder.find(ImageSubject(encode(pixels, "PNG"))).why_not
    large = np.zeros((2000, 3100, 3), np.uint8)
    assert "megapixels" in finder.find(ImageSubject(encode(large, "PNG"))).why_not
    for options in ({"backbone": "resnet"}, {"branches": ()}, {"branches": ("rgb", "depth")}, {"width": 9.0}):
        with pytest.raises(UsageError, match="A backbone is"):
            small(**options)
    with pytest.raises(UsageError, match="attention or concat"):
        small(fusion="sum")
