"""Stamped generators and their users, from the command line, with a small untrained network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from vestige.app.cli import app
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode, to_float
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.marking.model import save_marker
from vestige.nn.vae import small_vae
from vestige.watermark.wouaf import Wouaf, WouafNet


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an autoencoder, weights trained on it, and a picture."""
    root = tmp_path_factory.mktemp("users")
    torch.manual_seed(0)
    vae = small_vae(16, (8, 16), 4)
    vae.save_pretrained(root / "vae", safe_serialization=True)
    net = WouafNet(16, 16, vae=vae, depth=18, reader_width=0.125, width=16).eval()
    save_marker(root / "wouaf.safetensors", net, "wouaf", {})
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    (root / "a.png").write_bytes(encode(pixels, "PNG"))
    return root


def call(*words) -> int:
    return app([str(w) for w in words], standalone_mode=False)


def test_every_user_gets_a_model_of_their_own(place, capsys):
    registry, weights = place / "users.json", place / "wouaf.safetensors"
    for user in ("ada", "bob"):
        done = call("stamp", place / "vae", "-o", place / user, "-u", user, "-r", registry, "--weights", weights)
        assert done == 0
    assert "users.json: 2)" in capsys.readouterr().out
    plain, ada, bob = (load_autoencoder(place / name).state_dict() for name in ("vae", "ada", "bob"))
    differs = [k for k in plain if not torch.equal(ada[k], plain[k])]
    assert differs
    assert all(k.startswith("decoder.") for k in differs)
    assert any(not torch.equal(ada[k], bob[k]) for k in differs)
    again = call("stamp", place / "vae", "-o", place / "ada2", "-u", "ada", "-r", registry, "--weights", weights)
    assert again == 0
    for name, value in load_autoencoder(place / "ada2").state_dict().items():
        torch.testing.assert_close(value, ada[name])
    assert list(json.loads(registry.read_text())["users"]) == ["ada", "bob"]


def test_the_user_behind_a_picture_is_named(place, capsys):
    weights = place / "wouaf.safetensors"
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    bits = Wouaf(weights).read(to_float(pixels))[0] > 0
    registry = place / "known.json"

    def known(users: dict[str, np.ndarray]) -> None:
        rows = {name: "".join("01"[int(b)] for b in row) for name, row in users.items()}
        registry.write_text(json.dumps({"bits": 16, "users": rows}))

    known({"ada": bits, "bob": ~bits})
    assert call("whose", place / "a.png", "-r", registry, "--weights", weights) == 0
    assert "ada's model (16 of 16 bits agree" in capsys.readouterr().out
    half = bits.copy()
    half[:6] ^= True
    known({"bob": half})
    assert call("whose", place / "a.png", "-r", registry, "--weights", weights, "--json") == 4
    said = json.loads(capsys.readouterr().out)
    assert said["user"] is None
    assert said["nearest"] == "bob"
    assert said["matches"] == 10
    assert 0.2 < said["p_value"] < 0.3


def test_mistakes_are_one_sentence_and_write_nothing(place):
    registry, weights = place / "other.json", place / "wouaf.safetensors"
    with pytest.raises(InputError, match="exists already"):
        call("stamp", place / "vae", "-o", place / "vae", "-u", "eve", "-r", registry, "--weights", weights)
    with pytest.raises(InputError, match="no diffusers folder"):
        call("stamp", place / "none", "-o", place / "eve", "-u", "eve", "-r", registry, "--weights", weights)
    with pytest.raises(InputError, match="wouaf"):
        call("stamp", place / "vae", "-o", place / "eve", "-u", "eve", "-r", registry, "--weights", place / "no")
    assert not registry.exists()
    assert not (place / "eve").exists()
    registry.write_text("{}")
    with pytest.raises(InputError, match="no registry"):
        call("whose", place / "a.png", "-r", registry, "--weights", weights)
    registry.write_text(json.dumps({"bits": 8, "users": {}}))
    with pytest.raises(UsageError, match="8 bits"):
        call("whose", place / "a.png", "-r", registry, "--weights", weights)
