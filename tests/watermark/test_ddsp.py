"""Embedders carry what they should, and a purifier trained for seconds ruins it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.metrics.quality import psnr
from vestige.watermark.ddsp import DDSP, PLANES, Discriminator, cheap_purifiers, destruction, symbols_lost
from vestige.watermark.stego import hill_cost, lsb_match, lsb_read, lsb_replace, simulate, uniward_cost


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg")[:192, :256, 1]


@pytest.mark.parametrize("embed", [lsb_replace, lsb_match])
def test_lsb_payloads_come_back_with_the_key_alone(embed, grey):
    bits = np.random.default_rng(0).integers(0, 2, 4000).astype(bool)
    stego = embed(grey, bits, b"key")
    np.testing.assert_array_equal(lsb_read(stego, 4000, b"key"), bits)
    assert destruction(bits, lsb_read(stego, 4000, b"other")) == pytest.approx(0.5, abs=0.05)
    assert np.abs(stego.astype(int) - grey).max() == 1
    higher = lsb_replace(grey, bits, b"key", plane=2)
    np.testing.assert_array_equal(lsb_read(higher, 4000, b"key", plane=2), bits)
    assert set(np.abs(higher.astype(int) - grey).flat) == {0, 4}
    extremes = np.array([[0, 255]], np.uint8)
    for wanted in (0, 1):
        assert sorted(np.abs(embed(extremes, np.full(2, wanted), b"k").astype(int) - extremes)[0]) == [0, 1]
    with pytest.raises(UsageError, match="do not fit"):
        embed(extremes, np.zeros(3), b"k")


@pytest.mark.parametrize("cost", [hill_cost, uniward_cost])
def test_adaptive_embedders_change_texture_at_the_payload_they_are_given(cost, grey):
    costs = cost(grey)
    assert costs.shape == grey.shape
    assert (costs > 0).all()
    stego = simulate(grey, costs, 0.4, seed=1)
    changed = stego != grey
    assert 0.04 < changed.mean() < 0.2  # fewer changes than LSB replacement needs (0.2)
    detail = np.abs(np.diff(grey.astype(float), axis=1, prepend=0))
    assert detail[changed].mean() > 1.5 * detail[~changed].mean()
    assert changed.mean() > (simulate(grey, costs, 0.1, seed=1) != grey).mean()
    # Equal costs: every sample changes alike, and the share of changes p solves H(p) + p = payload.
    p = (simulate(grey, np.ones(grey.shape), 0.4, seed=1) != grey).mean()
    assert -p * np.log2(p / 2) - (1 - p) * np.log2(1 - p) == pytest.approx(0.4, abs=0.01)
    with pytest.raises(UsageError, match="payload"):
        simulate(grey, costs, 2.0)


def test_purifier_learns_to_keep_the_picture_and_lose_the_payload(grey):
    rng = np.random.default_rng(0)
    covers = np.stack(
        [grey[y : y + 32, x : x + 32] for y, x in zip(rng.integers(0, 160, 24), rng.integers(0, 224, 24))]
    )
    bits = rng.integers(0, 2, (24, 512)).astype(bool)
    stego = np.stack([lsb_match(c, b, b"key") for c, b in zip(covers, bits)])
    x, y = (torch.from_numpy(a[:, None].astype(np.float32) / 255) for a in (stego, covers))
    system = DDSP(1, width=8, blocks=1, planes=4, seed=1)
    before = psnr(y.numpy(), system.purify(x.numpy())).mean()
    optimiser = torch.optim.Adam(system.generator.parameters(), 3e-3)
    system.train()
    first = float(system.loss((x, y)))
    for _ in range(120):
        optimiser.zero_grad()
        loss = system.loss((x, y))
        loss.backward()
        optimiser.step()
    assert float(loss) < 0.85 * first
    assert psnr(y.numpy(), system.purify(x.numpy())).mean() > before + 0.5
    purified = (system.purify(x.numpy()) * 255).round().astype(np.uint8)[:, 0]
    errors = [destruction(b, lsb_read(p, 512, b"key")) for b, p in zip(bits, purified)]
    assert np.mean(errors) > 0.45
    system.train()
    system.zero_grad()
    losses = system.adversarial_losses((x, y))
    losses["generator"].backward(retain_graph=True)
    assert all(p.grad is not None for p in system.generator.parameters())
    assert all(p.grad is None for p in system.discriminator.parameters())
    system.discriminator.zero_grad()
    system.generator.zero_grad()
    losses["discriminator"].backward()
    assert all(p.grad is None or not p.grad.any() for p in system.generator.parameters())
    assert any(p.grad.any() for p in system.discriminator.parameters())


def test_any_size_goes_through_and_tiles_agree():
    system = DDSP(width=8, blocks=1)
    for shape in ((1, 1), (3, 5), (17, 30)):
        made = system.purify(np.full((2, 3, *shape), 0.4, np.float32))
        assert made.shape == (2, 3, *shape)
    assert system.purify(np.random.default_rng(0).random((1, 3, 40, 70)).astype(np.float32), tile=32).shape[3] == 70
    assert Discriminator(3, width=8)(torch.rand(2, 3, 20, 20)).shape == (2,)


@pytest.mark.parametrize("planes", PLANES)
def test_nothing_in_the_redrawn_planes_gets_through(planes, grey):
    system = DDSP(width=8, blocks=1, planes=planes)
    torch.nn.init.normal_(system.generator.head.weight)  # an untrained network draws nothing
    rng = np.random.default_rng(planes)
    pixels = np.stack([grey[:40, :50]] * 3)[None]
    other = pixels >> planes << planes | rng.integers(0, 2**planes, pixels.shape, dtype=np.uint8)
    one, two = (system.purify(p.astype(np.float32) / 255) for p in (pixels, other))
    np.testing.assert_array_equal(one, two)
    levels = (one * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(levels >> planes, pixels >> planes)
    assert len(np.unique(levels & 2**planes - 1)) == 2**planes


def test_planes_are_limited():
    with pytest.raises(UsageError, match="bit planes"):
        DDSP(width=8, blocks=1, planes=5)


def test_an_untrained_purifier_refuses_and_weights_come_back(tmp_path):
    system = DDSP(width=8, blocks=1, seed=3)
    images = np.random.default_rng(0).random((1, 3, 12, 12)).astype(np.float32)
    with pytest.raises(InputError, match="no trained weights"):
        system.attack(images)
    system.save(tmp_path / "p.safetensors", {"embedder": "HILL"})
    again = DDSP(width=8, blocks=1, weights=tmp_path / "p.safetensors")
    assert again.facts == {"embedder": "HILL"}
    np.testing.assert_array_equal(again.attack(images), system.purify(images))
    masks = np.zeros((1, 1, 12, 12), bool)
    masks[..., :6] = True
    made, changed = again.erase(images, masks)
    np.testing.assert_array_equal(made[..., 6:], images[..., 6:])
    assert changed[..., :6].any()
    assert not changed[..., 6:].any()
    with pytest.raises(InputError, match="of this size"):
        DDSP(width=16, blocks=1, weights=tmp_path / "p.safetensors")
    with pytest.raises(UsageError, match="Masks"):
        again.erase(images, masks[..., :5])


def test_cheap_purifiers_set_the_bar(grey):
    bits = np.random.default_rng(0).integers(0, 2, 4000).astype(bool)
    stego = lsb_replace(grey, bits, b"key")
    picture = np.repeat(stego[None, None].astype(np.float32) / 255, 3, 1)
    fidelity, errors = {}, {}
    for cheap in cheap_purifiers():
        made = cheap(picture)
        fidelity[cheap.name] = float(psnr(picture, made)[0])
        errors[cheap.name] = destruction(bits, lsb_read((made[0, 0] * 255).round().astype(np.uint8), 4000, b"key"))
        assert psnr(picture, cheap(picture, cheap.ladder[0]))[0] >= psnr(picture, cheap(picture, cheap.ladder[-1]))[0]
    assert fidelity["dither"] > 48  # the honest cheap baseline: hardly visible, and half the bits are gone
    assert max(fidelity, key=fidelity.get) == "dither"
    assert errors["dither"] > 0.3
    assert min(errors["jpeg"], errors["median"], errors["bicubic"]) > 0.4
    lost = symbols_lost(grey, simulate(grey, hill_cost(grey), 0.4), grey)
    assert lost == {"lost": 1.0, "reference": 0.0}
