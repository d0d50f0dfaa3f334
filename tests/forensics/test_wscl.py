"""WSCL: pooling by groups, what the streams agree on, consistency of places, and learning from labels alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vestige.bench.forensics.localisers import GradCAM
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.learned import save_network
from vestige.forensics.wscl import WSCL, WSCLNet, agreed, apart, otsu_pool, pool, ramp, wscl_loss


def small(**options) -> WSCLNet:
    torch.manual_seed(0)
    return WSCLNet(**{"depth": 18, "width": 0.125, "stages": 2, **options})


def test_a_map_of_two_levels_gives_the_upper_one() -> None:
    maps = torch.full((2, 1, 4, 4), 0.2)
    maps[0, 0, :2, 1:3] = 0.8
    assert otsu_pool(maps).tolist() == pytest.approx([0.8, 0.2])


def test_the_upper_group_is_at_most_half_of_the_picture() -> None:
    maps = torch.full((1, 1, 4, 4), 0.9)
    maps[0, 0, 0, 0] = 0.0
    assert otsu_pool(maps).item() == pytest.approx(0.9)
    slope = torch.linspace(0, 1, 16).view(1, 1, 4, 4)
    assert otsu_pool(slope).item() == pytest.approx(slope.flatten()[8:].mean().item())


def test_the_split_is_the_best_of_all() -> None:
    values = torch.rand(1, 1, 3, 5, generator=torch.Generator().manual_seed(1))
    ranked = values.flatten().sort(descending=True).values
    costs = [k * ranked[:k].var(correction=0) + (15 - k) * ranked[k:].var(correction=0) for k in range(1, 8)]
    k = int(torch.stack(costs).argmin()) + 1
    assert otsu_pool(values).item() == pytest.approx(ranked[:k].mean().item(), rel=1e-5)
    assert pool(values, "max").item() == ranked[0].item()
    assert pool(values, "top").item() == ranked[0].item()


def test_an_authentic_picture_has_no_target_and_an_edited_one_has_some() -> None:
    maps = {name: torch.rand(2, 1, 4, 4) * 0.3 for name in ("rgb", "srm", "bayar")}
    target = agreed(maps, torch.tensor([0.0, 1.0]))
    assert target[0].sum() == 0
    assert target[1].sum() >= 1
    maps["rgb"] = torch.ones(2, 1, 4, 4)  # one stream of weight 1 in 5 does not decide alone
    assert agreed(maps, torch.ones(2))[1].sum() == 1
    maps["srm"] = torch.ones(2, 1, 4, 4)
    assert agreed(maps, torch.ones(2)).all()


def test_pairs_of_places_are_symmetric_and_agree_with_themselves() -> None:
    wanted = apart((torch.rand(2, 1, 3, 4) > 0.5).float())
    assert torch.equal(wanted, wanted.transpose(1, 2))
    assert wanted.diagonal(dim1=1, dim2=2).sum() == 0


def test_the_ramp_rises_to_one() -> None:
    assert ramp(0) == pytest.approx(math.exp(-5))
    assert ramp(1) == 1
    assert ramp(0.3) < ramp(0.6)


def test_it_learns_from_labels_alone_where_the_noise_is() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.full((8, 3, 64, 64), 0.5)
    images[4:, :, 16:48, 32:] += 0.2 * torch.randn(4, 3, 32, 32, generator=generator)
    images, labels = images.clamp(0, 1), (torch.arange(8) >= 4).float()
    net = small()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(20):
        loss = wscl_loss(net, images, labels, step / 20)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for p in net.parameters())
    system = WSCL(net, side=64)
    scores, maps = system.score(images), system.localize(images[4:])
    assert scores[:4].max() < scores[4:].min()
    assert maps.shape == (4, 1, 64, 64)
    assert maps[..., 16:48, 32:].mean() > maps[..., :24].mean()


def test_the_examiner_reads_stored_weights_and_gives_a_map_in_the_shape_of_the_picture(tmp_path: Path) -> None:
    net = small().eval()
    save_network(tmp_path / "wscl.safetensors", net, "wscl", {"seed": 0})
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    found = WSCL(weights=tmp_path / "wscl.safetensors", side=64).find(ImageSubject(encode(pixels, "PNG")))
    assert found.applies
    assert found.map.shape == (48, 64)
    assert found.score == WSCL(net, side=64).find(ImageSubject(encode(pixels, "PNG"))).score
    for picture, why in ((pixels[:40], "smaller"), (np.full_like(pixels, 9), "flat")):
        assert why in WSCL(net, side=64).find(ImageSubject(encode(picture, "PNG"))).why_not
    assert "no trained network" in WSCL().find(ImageSubject(encode(pixels, "PNG"))).why_not
    with pytest.raises(InputError):
        WSCL(weights=tmp_path / "missing.safetensors")


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="Streams"):
        WSCLNet(("rgb", "depth"))
    with pytest.raises(UsageError, match="32"):
        small()(torch.rand(1, 3, 16, 64))
    with pytest.raises(UsageError, match="network"):
        WSCL().localize(torch.rand(1, 3, 64, 64))


def test_grad_cam_is_the_classifier_s_weights_on_its_features() -> None:
    torch.manual_seed(0)
    net, x = GradCAM(width=0.125).eval(), torch.rand(3, 3, 48, 64)
    with torch.no_grad():
        maps, features = net.localize(x), net.features((x - 0.5) / 0.25)
        # The mean over places makes the slope of a channel its weight, everywhere.
        wanted = F.relu(torch.einsum("c,nchw->nhw", net.head.weight[0], features))[:, None]
        assert torch.equal(net.score(x), net(x))
        low, high = wanted.amin((2, 3), keepdim=True), wanted.amax((2, 3), keepdim=True)
        scaled = (wanted - low) / (high - low) * net.score(x).sigmoid()[:, None, None, None]
    assert maps.shape == (3, 1, 48, 64)
    assert maps.amax() > 0
    torch.testing.assert_close(maps, F.interpolate(scaled, (48, 64), mode="bilinear", align_corners=False))
    assert all(p.grad is None for p in net.parameters())
    with torch.no_grad():
        net.head.weight.clamp_(max=0)
        assert net.localize(x).tolist() == torch.zeros(3, 1, 48, 64).tolist()  # nothing speaks for an edit
    net.loss(x, torch.tensor([0.0, 1.0, 1.0]))["loss"].backward()
    assert all(p.grad is not None for p in net.parameters())
