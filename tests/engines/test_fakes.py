"""Sources with networks: repeatable, independent of batches, and trained by their recipes into files that load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.app.verbs.learning import run
from vestige.core.errors import InputError, UsageError
from vestige.engines import fakes
from vestige.engines.fakes import (
    autoencoder_source,
    gan_source,
    load_generator,
    redraw_source,
    sample_source,
    save_generator,
    shipped_sources,
    zoo_squares,
)
from vestige.nn.gan import ConvGenerator
from vestige.nn.vae import small_vae

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "src/vestige/weights"
QUICK = ["batch_size=4", "log_every=1", "validate_every=0", "limit=16", "squares=1", "size=32"]


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    y, x = np.mgrid[:32, :32] / 32
    waves = [np.stack([np.sin(5 * x + i), np.cos(3 * y * (i + 1)), x * y]) for i in range(3)]
    return (np.stack(waves) / 2 + 0.5).clip(0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def pipeline():
    from vestige.engines.diffusion.pipeline import load_pipeline

    return load_pipeline(WEIGHTS / "scenes_text2image")


@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
@pytest.mark.parametrize("code", ["noise", "picture"])
def test_generators_draw_by_row_and_come_back_from_their_file(photographs, code, upsample, tmp_path):
    torch.manual_seed(0)
    model = ConvGenerator(32, 8, latent=8, code=code, upsample=upsample)
    source = gan_source(model)
    made = source(photographs, seed=1)
    assert made.shape == photographs.shape
    assert source.paired == (code == "picture")
    assert np.abs(source(photographs[:2], seed=1) - made[:2]).max() < 1.5 / 255
    assert (source(photographs, seed=2) != made).any()
    save_generator(model, tmp_path / "g.safetensors")
    again = load_generator(tmp_path / "g.safetensors")
    assert again.settings == model.settings
    np.testing.assert_array_equal(gan_source(again)(photographs, seed=1), made)
    if code == "noise":
        np.testing.assert_array_equal(source(1 - photographs, seed=1), made)
    else:
        assert (source(1 - photographs, seed=1) != made).any()
        with pytest.raises(UsageError, match="8×8"):
            model(torch.zeros(1, 8))


def test_generators_refuse(photographs, tmp_path):
    with pytest.raises(UsageError, match="32×32"):
        gan_source(ConvGenerator(32, 8))(photographs[:, :, :16, :16])
    with pytest.raises(UsageError, match="power of two"):
        ConvGenerator(48)
    with pytest.raises(UsageError, match="code is one of"):
        ConvGenerator(32, code="text")
    with pytest.raises(InputError, match="zoo_gan"):
        load_generator(tmp_path / "missing.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense" * 20)
    with pytest.raises(InputError, match="no generator"):
        load_generator(tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="no generator"):
        load_generator(WEIGHTS / "feature_net.safetensors")


def test_round_trips_are_those_of_the_autoencoder(photographs, tmp_path):
    torch.manual_seed(0)
    vae = small_vae(32, (8, 16), 4)
    made = autoencoder_source(vae)(photographs)
    x = torch.from_numpy(photographs) * 2 - 1
    with torch.no_grad():
        direct = vae.decode(vae.encode(x).latent_dist.mode()).sample / 2 + 0.5
    assert np.abs(made - direct.clamp(0, 1).numpy()).max() < 0.51 / 255 + 1e-4
    vae.save_pretrained(tmp_path / "vae")
    np.testing.assert_array_equal(autoencoder_source(tmp_path / "vae")(photographs), made)
    with pytest.raises(InputError, match="autoencoder"):
        autoencoder_source(WEIGHTS / "feature_net.safetensors")


def test_redrawing_changes_more_the_stronger_it_is(photographs, pipeline):
    images = photographs[:2]
    weak, strong = redraw_source(pipeline, 0.1, steps=10), redraw_source(pipeline, 0.5, steps=10)
    made = weak(images, seed=3)
    np.testing.assert_array_equal(made, weak(images, seed=3))
    assert np.abs(weak(images[:1], seed=3) - made[:1]).max() < 2 / 255
    assert np.abs(made - images).mean() < np.abs(strong(images, seed=3) - images).mean()
    with pytest.raises(UsageError, match="strength"):
        redraw_source(pipeline, 0.0)


def test_samples_follow_their_captions_in_turn(photographs, pipeline):
    captions = ["a photo of a large red cat on grass", "a photo of a large blue boat on sand"]
    source = sample_source(pipeline, captions, steps=3)
    made = source(photographs, seed=1)
    assert not source.paired
    assert np.abs(made[0] - made[1]).mean() > 0.01
    with pytest.raises(UsageError, match="caption"):
        sample_source(pipeline, [])


def test_the_shipped_sources_are_there(tmp_path, monkeypatch):
    names = {source.name: source.family for source in shipped_sources(diffusion=False)}
    assert names["scenes_vae"] == "autoencoder"
    save_generator(ConvGenerator(32, 8), tmp_path / "zoo_gan.safetensors")
    monkeypatch.setattr(fakes, "WEIGHTS", tmp_path)
    assert [(s.name, s.family) for s in shipped_sources(size=32)] == [("zoo_gan", "gan")]
    assert shipped_sources(size=64) == []


def test_squares_without_photographs_are_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path))
    train, held = zoo_squares(16, 1, limit=8)
    assert (train.shape, held.shape) == ((8, 3, 16, 16), (16, 3, 16, 16))


def test_the_recipe_of_the_autoencoder(tmp_path, photographs):
    assert run("zoo_vae", tmp_path, data=tmp_path, set_=[*QUICK, "steps=2"], device="cpu", quiet=True) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["evaluation"]["psnr"] > 3
    assert autoencoder_source(tmp_path / "vae")(photographs).shape == photographs.shape


@pytest.mark.parametrize("code", ["noise", "picture"])
def test_the_recipe_of_the_generator(tmp_path, photographs, code):
    words = [*QUICK, "steps=3", "base=8", f"code={code}"]
    assert run("zoo_gan", tmp_path, data=tmp_path, set_=words, device="cpu", quiet=True) == 0
    figures = json.loads((tmp_path / "metrics.json").read_text())["evaluation"]
    assert figures["spread of photographs"] > 0.01
    assert ("psnr" in figures) == (code == "picture")
    assert gan_source(tmp_path / "zoo_gan.safetensors")(photographs).shape == photographs.shape
