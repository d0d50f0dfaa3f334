"""Both controls act, train, and can be taken away; colours come back."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from vestige.app.verbs.learning import run
from vestige.core.errors import InputError, UsageError
from vestige.engines.diffusion.pipeline import save_pipeline
from vestige.nn.features import FeatureNet
from vestige.nn.text import token_ids
from vestige.watermark import ctrlregen
from vestige.watermark.ctrlregen import (
    CtrlRegen,
    FeatureTokens,
    edges,
    match_colours,
    match_histograms,
    transport_colours,
)


@pytest.fixture(scope="module")
def system(tiny_model):
    torch.manual_seed(1)
    return CtrlRegen(tiny_model, FeatureTokens(FeatureNet(seed=2)), thresholds=(50, 100))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.kron(rng.random((3, 3, 4, 4)), np.ones((4, 4))).astype(np.float32)


def test_untrained_controls_leave_the_model_as_it_is_but_for_the_picture_tokens(system, tiny_model, images):
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    time, context = torch.tensor([300] * 3), tiny_model.embed(["a red ball on sand"] * 3)
    pictures = torch.from_numpy(images)
    with torch.no_grad():
        plain = tiny_model.network(x, time, context)
        system.semantic, system.spatial = 0.0, 1.0
        torch.testing.assert_close(system._network(pictures, edges(pictures))(x, time, context), plain)
        system.semantic = 1.0
        assert not torch.allclose(system._network(pictures, edges(pictures))(x, time, context), plain)


def test_training_moves_the_controls_and_nothing_else(system, tiny_model, images):
    frozen = {n: p.clone() for n, p in tiny_model.state_dict().items()}
    trained = [p for p in system.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, 3e-3)
    ids = token_ids(tiny_model.tokenizer, ["a red ball on sand"] * 3)
    before = system.controls()
    before = {n: v.clone() for n, v in before.items()}
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = system.loss(torch.from_numpy(images), ids, torch.Generator().manual_seed(7))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    after = system.controls()
    assert any(not torch.equal(before[n], after[n]) for n in after if n.startswith("control"))
    assert any(not torch.equal(before[n], after[n]) for n in after if "to_k_ip" in n)
    assert any(not torch.equal(before[n], after[n]) for n in after if n.startswith("projection"))
    for name, value in tiny_model.state_dict().items():
        torch.testing.assert_close(value, frozen[name], rtol=0, atol=0)
    # Edges now change what is drawn.
    x, time = torch.randn(3, 3, 16, 16), torch.tensor([300] * 3)
    context = tiny_model.embed(["a red ball on sand"] * 3)
    pictures = torch.from_numpy(images)
    with torch.no_grad():
        a = system._network(pictures, edges(pictures, 50, 100))(x, time, context)
        b = system._network(pictures, torch.zeros_like(pictures))(x, time, context)
    assert not torch.allclose(a, b)


def test_training_leaves_the_batch_statistics_of_the_encoder(system, images):
    before = {n: v.clone() for n, v in system.encoder.state_dict().items()}
    system.train()
    assert system.unet.training
    assert not system.encoder.net.training
    ids = token_ids(system.model.tokenizer, ["a red ball on sand"] * 3)
    system.loss(torch.from_numpy(images), ids, torch.Generator().manual_seed(0))
    for name, value in system.encoder.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    system.eval()


def test_controls_are_saved_and_loaded(system, tiny_model, tmp_path):
    # Of a moving average, which requires no gradient.
    copy.deepcopy(system).requires_grad_(False).save(tmp_path / "controls.safetensors")
    other = CtrlRegen(tiny_model, FeatureTokens(FeatureNet(seed=2)), weights=tmp_path / "controls.safetensors")
    assert other.thresholds == (50, 100)
    assert set(other.controls()) == {n for n, p in other.named_parameters() if p.requires_grad}
    for name, value in other.controls().items():
        torch.testing.assert_close(value, system.controls()[name])
    with pytest.raises(UsageError, match="another model"):
        other.load_controls({"control.x": torch.zeros(1)})
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "controls.safetensors").read_bytes()[:-10])
    with pytest.raises(InputError):
        other.load(tmp_path / "cut.safetensors")
    next(iter(other.control.parameters())).data.fill_(float("nan"))
    other.save(tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="vestige learn ctrlregen"):
        other.load(tmp_path / "nan.safetensors")


def test_without_trained_controls_the_command_is_named(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr(ctrlregen, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="scenes_text2image"):
        CtrlRegen()
    save_pipeline(tmp_path / "scenes_text2image", tiny_model)
    with pytest.raises(InputError, match="vestige learn ctrlregen"):
        CtrlRegen()


def test_the_recipe_writes_controls_that_are_found(tmp_path, monkeypatch, tiny_model, images):
    save_pipeline(tmp_path / "scenes_text2image", tiny_model)
    words = ["steps=2", "batch_size=4", "validate_every=0", "scenes=8", "size=32", "ema=0.5", "precision=32"]
    words.append(f"pipeline={tmp_path / 'scenes_text2image'}")
    assert run("ctrlregen", tmp_path / "run", data=tmp_path, set_=words, device="cpu", quiet=True) == 0
    evaluation = json.loads((tmp_path / "run" / "metrics.json").read_text())["evaluation"]
    assert set(evaluation) == {"loss, edges alone", "loss, tokens alone", "loss, no controls"}
    (tmp_path / "run" / "ctrlregen.safetensors").rename(tmp_path / "ctrlregen.safetensors")
    monkeypatch.setattr(ctrlregen, "WEIGHTS", tmp_path)
    shipped = CtrlRegen()
    assert shipped.thresholds == (50, 100)
    assert shipped.remove(images[:1], steps=2).shape == (1, 3, 16, 16)
    with pytest.raises(UsageError, match="sizes"):
        run("ctrlregen", tmp_path / "no", data=tmp_path, set_=["sizes=huge"], device="cpu", quiet=True)


def test_removal_starts_from_noise_or_from_the_picture(system, images):
    whole = system.remove(images, 1.0, steps=4)
    assert whole.shape == images.shape
    assert 0 <= whole.min() <= whole.max() <= 1
    np.testing.assert_array_equal(whole, system.remove(images, 1.0, steps=4))
    partly = system.remove(images, 0.1, steps=10, colours=False)
    from_noise = system.remove(images, 1.0, steps=10, colours=False)
    assert np.abs(partly - images).mean() < np.abs(from_noise - images).mean()
    assert system.remove(np.repeat(images[:1], 2, 3), 0.5, steps=2).shape == (1, 3, 16, 32)
    with pytest.raises(UsageError, match="strength"):
        system.remove(images, 0.0)
    with pytest.raises(UsageError, match="prompts"):
        system.remove(images, prompts=["a red ball"])
    with pytest.raises(InputError, match="finite"):
        system.remove(images * np.float32("nan"))


def test_guidance_acts_where_prompts_differ_from_the_negative_one(system, images):
    plain = system.remove(images, steps=3, guidance=1.0)
    np.testing.assert_array_equal(system.remove(images, steps=3, guidance=4.0), plain)
    said = system.remove(images, steps=3, guidance=4.0, prompts=["a red ball on sand"] * 3)
    assert not np.array_equal(said, plain)


def test_colours_are_those_of_the_reference():
    rng = np.random.default_rng(3)
    image = rng.random((3, 20, 30)).astype(np.float32)
    mixing = np.array([[0.5, 0.2, 0], [0.1, 0.4, 0.1], [0, 0.2, 0.3]])
    reference = (np.tensordot(mixing, rng.random((3, 20, 30)), 1) + 0.1).astype(np.float32)
    moved = transport_colours(image, reference).reshape(3, -1)
    np.testing.assert_allclose(moved.mean(1), reference.reshape(3, -1).mean(1), atol=1e-4)
    np.testing.assert_allclose(np.cov(moved), np.cov(reference.reshape(3, -1)), atol=1e-4)
    matched = match_histograms(image, reference)
    np.testing.assert_array_equal(np.sort(matched[1].ravel()), np.sort(reference[1].ravel()))
    assert (np.argsort(matched[0].ravel()) == np.argsort(image[0].ravel())).mean() > 0.99
    np.testing.assert_array_equal(match_colours(image[None], image[None])[0], image)
    assert np.isfinite(transport_colours(np.zeros((3, 4, 4)), np.ones((3, 4, 4)))).all()


def test_edges_of_a_square():
    picture = torch.zeros(1, 3, 32, 32)
    picture[:, :, 8:24, 8:24] = 1
    found = edges(picture)
    assert found.shape == picture.shape
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert found[0, 0, 12:20, 12:20].sum() == 0
    assert 40 < found[0, 0].sum() < 90
