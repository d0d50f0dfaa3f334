"""DADM: silent adapters, heads that turn without growing, angles, missing modalities, and a small training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vestige.bench.forensics.presented import GatedNet, figures, shown
from vestige.core.errors import UsageError
from vestige.data.presentations import ATTACKS, present
from vestige.forensics.dadm import DADM, MODALITIES, DADMNet, angle_loss, dadm_loss, shared_information, turned


def net(**options) -> DADMNet:
    torch.manual_seed(0)
    return DADMNet(**{"size": 32, "hidden": 16, "n_domains": 2, **options})


def pictures(n: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(n, 3, 32, 32, generator=generator) for name in MODALITIES}


def test_adapters_are_silent_at_first() -> None:
    network = net().eval()
    with torch.no_grad():
        masked = network.tokens(pictures())[0]
        network.mim = False
        torch.testing.assert_close(masked, network.tokens(pictures())[0])


def test_heads_turn_towards_each_other_and_keep_their_length() -> None:
    heads = torch.randn(4, 2, 6, generator=torch.Generator().manual_seed(0))

    def least(w: torch.Tensor) -> float:
        unit = F.normalize(w, dim=2)
        return float((torch.einsum("dkc,ekc->de", unit, unit) / 2).min())

    after = turned(heads, 0.05)
    torch.testing.assert_close(after.norm(dim=2), heads.norm(dim=2))
    assert least(after) > least(heads)
    network = net()
    network.align()
    torch.testing.assert_close(network.deployed(), network.heads.detach().mean(0))


def test_angles_are_free_of_charge_at_their_targets() -> None:
    live = torch.eye(3, 8)
    other = F.normalize(0.85 * live + (1 - 0.85**2) ** 0.5 * torch.eye(8)[3:6], dim=1)
    features = torch.stack([live, live, live, other])
    labels, domains = torch.tensor([1, 1, 0, 0]), torch.tensor([0, 1, 0, 1])
    assert angle_loss(features, labels, domains).item() == pytest.approx(0, abs=1e-6)
    assert angle_loss(features[[0, 3, 2, 2]], labels, domains).item() > 1e-3
    assert angle_loss(features, labels, torch.zeros(4, dtype=torch.int64)).item() == 0


def test_information_is_bounded_and_higher_for_larger_spread_in_common() -> None:
    generator = torch.Generator().manual_seed(0)
    assert shared_information(torch.zeros(4, 3), torch.zeros(4, 3), generator).item() == pytest.approx(0, abs=1e-6)
    assert abs(shared_information(1e6 * torch.randn(8, 3), 1e6 * torch.randn(8, 3), generator)) <= 2


def test_missing_modalities_are_black() -> None:
    network, given = net().eval(), pictures()
    black = {**given, "ir": torch.zeros_like(given["ir"])}
    with torch.no_grad():
        torch.testing.assert_close(network({k: given[k] for k in ("rgb", "depth")}), network(black))
    system = DADM(network, side=32)
    assert system.score(given, batch=3).shape == (4,)
    assert system.score(torch.rand(2, 3, 40, 40)).shape == (2,)


def test_it_learns_and_its_masks_are_shares() -> None:
    network = net()
    faces = np.random.default_rng(0).random((2, 32, 32)).astype(np.float32)
    made = [present(faces[i % 2], "" if i < 4 else ATTACKS[i % 4], camera=i % 2, seed=i) for i in range(8)]
    given = {name: torch.from_numpy(np.stack([m[name] for m in made])) for name in MODALITIES}
    live, domains = (torch.arange(8) < 4).long(), torch.arange(8) % 2
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(12):
        loss = dadm_loss(network, given, live, domains)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.align()
    assert all(p.grad is not None for p in network.parameters())
    network.eval()
    scores = DADM(network, side=32).score(given)
    assert scores[:4].max() < scores[4:].min()
    with torch.no_grad():
        masks = network.tokens(given)[2]
    assert len(masks) == 3
    assert all(float(m.min()) >= 0 and float(m.max()) <= 1 for pair in masks for m in pair)


def test_presentations_differ_where_they_should() -> None:
    face = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    live, flat, mask, screen = (present(face, a, seed=1) for a in ("", "print", "mask", "screen"))
    assert live["depth"].std() > 2 * flat["depth"].std()
    assert abs(live["depth"].mean() - mask["depth"].mean()) < 0.1
    assert screen["ir"].mean() < 0.5 * live["ir"].mean()
    np.testing.assert_array_equal(live["rgb"], present(face, seed=1)["rgb"])
    with pytest.raises(UsageError, match="presentation"):
        present(face, "puppet")


def test_materials_differ_and_sensors_fail_where_presentations_are_varied() -> None:
    face = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    plain = [present(face, "mask", seed=s)["ir"].mean() for s in range(12)]
    varied = [present(face, "mask", seed=s, varied=True)["ir"].mean() for s in range(12)]
    assert np.std(varied) > 3 * np.std(plain)


def test_figures_before_a_camera_left_out() -> None:
    parts = [shown("val", 32, 8, cameras) for cameras in ((0, 1), (2,))]
    assert set(parts[1].cameras.tolist()) == {2}
    found = figures(net(n_domains=1, mim=False).eval(), *parts)
    assert 0 <= found["hter"] <= 1
    assert {"hter without rgb", "auc", "threshold", "hter, one missing"} <= set(found)


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="one or more"):
        net()({})
    with pytest.raises(UsageError, match="32"):
        net()({"rgb": torch.rand(1, 3, 64, 64)})
    with pytest.raises(UsageError, match="transformer"):
        DADMNet("huge")


def test_gated_modalities_see_nothing_of_each_other() -> None:
    torch.manual_seed(0)
    network = GatedNet(n_domains=1, size=32, mim=False).eval()
    shown = pictures()
    each = network.each(shown)
    other = network.each({**shown, "depth": torch.zeros_like(shown["depth"])})
    torch.testing.assert_close(each[:, [0, 2]], other[:, [0, 2]])
    assert (each[:, 1] != other[:, 1]).any()
    sure = torch.zeros(1, 3, 2)
    sure[0, 1] = torch.tensor([9.0, -9.0])
    assert network.joined(sure)[0, 0] > 0.9 * 9  # the one that knows decides
