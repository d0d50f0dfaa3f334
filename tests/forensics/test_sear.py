"""SEAR: its loss has the terms it says, gradients reach the concealer alone, and a contest runs end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vestige.app.verbs.learning import run
from vestige.claims.forensics.sear import VERSIONS
from vestige.core.errors import UsageError
from vestige.forensics.sear import (
    SEAR,
    Concealer,
    MagnitudeWeight,
    Supervisor,
    give_away,
    mask_logits,
    sear_loss,
)


def pictures(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat pictures with a noisy square."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(n, 1, 32, 32, dtype=torch.bool)
    masks[..., 8:20, 10:24] = True
    noise = 0.15 * torch.randn(n, 3, 32, 32, generator=generator)
    return ((0.5 + noise * masks).clamp(0, 1) * 255).round() / 255, masks


@pytest.fixture(scope="module")
def localiser() -> Supervisor:
    torch.manual_seed(0)
    net, (images, masks) = Supervisor(0.125), pictures()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(40):
        loss = F.binary_cross_entropy_with_logits(net(images), masks.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.zero_grad(set_to_none=True)
    return net.eval()


def test_nothing_added_leaves_the_plain_terms(localiser: Supervisor) -> None:
    images, masks = pictures(2)
    terms = sear_loss(localiser, images, masks, torch.zeros_like(images))
    told = localiser(images).sigmoid().clamp(1e-6, 1 - 1e-6)
    torch.testing.assert_close(terms["adversarial"], -F.binary_cross_entropy(told, masks.float()))
    assert terms["magnitude"].item() == pytest.approx(1e-6)
    torch.testing.assert_close(terms["pretext"], ((2 * images - 1) * masks).abs().mean())


def test_gradients_reach_the_concealer_alone(localiser: Supervisor) -> None:
    torch.manual_seed(0)
    concealer, (images, masks) = Concealer(0.0625), pictures(2)
    localiser.requires_grad_(False)
    sear_loss(localiser, images, masks, concealer(images))["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in concealer.parameters())
    assert all(p.grad is None for p in localiser.parameters())


def test_a_constant_localiser_pushes_nowhere() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [0 * x[:, :1] + 0.3]

    images, masks = pictures(2)
    change = torch.zeros_like(images, requires_grad=True)
    sear_loss(Constant(), images, masks, change, weights=(10.0, 0.0, 0.0))["loss"].backward()
    assert change.grad.abs().max() == 0
    assert mask_logits(Constant(), images).shape == (2, 1, 32, 32)


def test_the_contest_conceals_on_eight_bits_and_keeps_the_supervisor(localiser: Supervisor) -> None:
    images, masks = pictures()
    before = {name: x.clone() for name, x in localiser.state_dict().items()}
    torch.manual_seed(0)
    system = SEAR(Concealer(0.0625), localiser, rounds=2, steps=12, batch_size=4, lr=3e-3, w_mag=1.0)
    system.fit((images * 255).round().to(torch.uint8), masks)
    found = system.attack(images)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found * 255 - (found * 255).round()).abs().max() < 1e-3
    assert len(system.concealers) == len(system.supervisors) == 2
    for name, x in localiser.state_dict().items():
        torch.testing.assert_close(x, before[name])
    first = system.supervisors[0]
    told = [F.binary_cross_entropy(first.localize(x), masks.float()) for x in (images, found)]
    assert told[1] > told[0]


def test_the_magnitude_is_held_at_what_pictures_are_to_keep(localiser: Supervisor) -> None:
    images, masks = pictures()
    changes = []
    for psnr in (0.0, 45.0):
        torch.manual_seed(0)
        system = SEAR(Concealer(0.0625), localiser, rounds=1, steps=30, batch_size=4, lr=3e-3, w_mag=10.0, psnr=psnr)
        system.fit(images, masks)
        changes.append(float((system.conceal(images) - images).square().mean()))
    assert changes[1] < changes[0]


def test_an_inverted_map_gives_the_edit_away() -> None:
    _, masks = pictures(2)
    upside_down = give_away(masks, 1 - masks.float())
    assert upside_down["f1"] == 0
    assert upside_down["f1 inverted"] == 1
    assert upside_down["auc"] == 0


def test_what_is_missing_is_said() -> None:
    images, masks = pictures(2)
    with pytest.raises(UsageError, match="supervisor"):
        SEAR(Concealer(0.0625)).fit(images, masks)
    with pytest.raises(UsageError, match="multiples of 8"):
        Concealer(0.0625)(torch.rand(1, 3, 20, 24))
    with pytest.raises(UsageError, match="srm, bayar, rgb"):
        Supervisor(front="dct")


def test_pictures_of_any_size_are_attacked_with_the_shipped_weights(photo: np.ndarray) -> None:
    image = photo[:101, :138].transpose(2, 0, 1).astype(np.float32)[None] / 255
    hidden = SEAR().attack(image)
    assert hidden.shape == image.shape
    assert isinstance(hidden, np.ndarray)
    assert 25 < -10 * np.log10(np.mean((hidden - image) ** 2)) < 50
    tensor = SEAR().attack(torch.from_numpy(image))
    np.testing.assert_array_equal(tensor.numpy(), hidden)


def test_the_weight_follows_the_decibels() -> None:
    weight = MagnitudeWeight(1.0, 40.0)
    weight.follow(torch.tensor(0.1))
    assert weight.value > 1
    again = MagnitudeWeight(1.0, 40.0)
    again.load_state_dict(weight.state_dict())
    again.follow(torch.tensor(0.0))
    assert again.value == 1
    constant = MagnitudeWeight(5.0, 0.0)
    constant.follow(torch.tensor(1.0))
    assert constant.value == 5


def test_the_contest_runs_and_judges_every_attack(tmp_path: Path) -> None:
    words = ["steps=2", "localiser=2", "count=16", "limit=16", "width=0.0625", "log_every=1", "validate_every=0"]
    assert run("sear", tmp_path, data=tmp_path, set_=words, device="cpu", quiet=True) == 0
    figures = json.loads((tmp_path / "metrics.json").read_text())["evaluation"]
    for name in VERSIONS:
        assert len(figures[f"each f1, {name}, unseen"]) == 16
    assert SEAR(weights=tmp_path / "sear.safetensors").attack(torch.rand(1, 3, 20, 24)).shape == (1, 3, 20, 24)
