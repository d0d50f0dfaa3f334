"""The recipes of the small autoencoder and of WOUAF, end to end in a few steps on few pictures."""

import json
import sys

import numpy as np
import pytest
import torch

from vestige.app.verbs.learning import run
from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.marking.distort import Draw
from vestige.engines.recipe import load_recipe
from vestige.nn.vae import decode, encode
from vestige.watermark.wouaf import Wouaf

QUICK = ["batch_size=8", "log_every=1", "validate_every=0"]


@pytest.fixture(scope="module")
def recipe():
    return sys.modules[load_recipe("wouaf").build.__module__]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained run of the autoencoder on rendered scenes of 32 pixels."""
    empty, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("vae")
    words = [*QUICK, "steps=4", "scenes=16", "size=32", "held=16"]
    assert run("scenes_vae", out, data=empty, set_=words, device="cpu", quiet=True) == 0
    return out


def test_the_autoencoder_is_a_diffusers_folder(folder):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True)
    assert (vae.config.latent_channels, len(vae.config.block_out_channels)) == (4, 3)
    assert vae.config.scaling_factor != 1.0
    assert any("attentions" in name for name, _ in vae.decoder.named_parameters())
    x = torch.rand(2, 3, 32, 32)
    z = encode(load_autoencoder(folder), x * 2 - 1)
    assert z.shape == (2, 4, 8, 8)
    assert decode(vae, z).shape == x.shape
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["evaluation"]["decoder weights"] == 870_787
    assert metrics["evaluation"]["scenes psnr"] > 3


def test_fingerprints_are_trained_into_any_such_folder(folder, tmp_path):
    words = [*QUICK, "steps=3", "size=32", "pictures=16", f"vae={folder}", "chance=0.5"]
    assert run("wouaf", tmp_path, data=tmp_path, set_=words, device="cpu", quiet=True) == 0
    system = Wouaf(tmp_path / "wouaf.safetensors")
    assert (system.bits, system.network.size) == (16, 32)
    assert system.facts == {} or system.facts["fingerprints"] == "even weight"
    base = load_autoencoder(folder)
    stamped = system.stamp(np.ones(16), base)
    before, after = base.state_dict(), stamped.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder"}


def test_the_weights_of_the_network_must_be_there(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="vestige learn scenes_vae"):
        recipe.autoencoder("")
    with pytest.raises(InputError, match="no diffusers folder"):
        recipe.autoencoder(str(tmp_path))


def test_training_keeps_to_fingerprints_of_even_weight(recipe):
    bits = torch.from_numpy(rng(0, "bits").integers(0, 2, (200, 16)).astype(np.float32))
    made = recipe.even({"bits": bits, "seed": 3})
    assert (made["bits"].sum(1) % 2 == 0).all()
    assert torch.equal(made["bits"][:, :-1], bits[:, :-1])
    assert made["seed"] == 3
    assert 0.3 < float(made["bits"][:, -1].mean()) < 0.7


def test_augmentations_fall_on_each_part_alone(recipe):
    bank = (Draw("brightness", 1, 0.5), Draw("flip", 1, 1))
    images, masks = torch.rand(16, 3, 16, 16) * 0.5 + 0.25, torch.ones(16, 1, 16, 16, dtype=torch.bool)
    never = recipe.Augmentation(bank, chance=0.0)(images, masks, rng(0, "a"))[0]
    torch.testing.assert_close(never, images)
    always = recipe.Augmentation(bank, chance=1.0)
    made, moved = always(images, masks, rng(1, "a"))
    factors = (made.flip(3) / images).mean((1, 2, 3)).view(4, 4)
    assert float(factors.std(1).max()) < 0.01
    assert len({round(float(f), 2) for f in factors.mean(1)}) == 4
    assert moved.shape == masks.shape
    again, _ = always(images, masks, rng(1, "a"))
    assert torch.equal(made, again)


def test_settings_out_of_range_are_refused(folder, tmp_path):
    for word in ("preset=huge", "chance=1.5"):
        with pytest.raises(UsageError, match="preset is one of"):
            run(
                "wouaf", tmp_path / word, data=tmp_path, set_=[word, f"vae={folder}"],
                device="cpu", quiet=True,
            )  # fmt: skip
