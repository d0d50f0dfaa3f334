"""What the package weighs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vestige
from vestige.bench import shipping

PACKAGE = Path(vestige.__file__).parent


def test_the_wheel_stays_below_60_mb():
    """A wheel is hardly smaller than what it holds: weights do not compress."""
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert sum(p.stat().st_size for p in files) < 60 * 2**20, "python -m vestige.bench.shipping --sizes"


def test_shipped_networks_are_in_half_precision():
    for path in shipping.WEIGHTS.rglob("*.safetensors"):
        if "starter" not in path.parts and path.stat().st_size > 2**19:
            assert shipping.halved(path) is None, f"convert {path.name} with python -m vestige.bench.shipping"


def test_only_what_a_half_can_hold_is_halved(tmp_path):
    kernel, tiny = torch.randn(32, 8, 3, 3), torch.full((64, 64), 1e-7)
    tensors = {"kernel": kernel, "tiny": tiny, "huge": torch.full((64, 64), 1e6), "bias": torch.randn(4096)}
    save_file(tensors, tmp_path / "net.safetensors", {"about": "x"})
    (tmp_path / "net.safetensors").write_bytes(shipping.halved(tmp_path / "net.safetensors"))
    found = load_file(tmp_path / "net.safetensors")
    assert found.pop("kernel").dtype == torch.float16
    assert all(torch.equal(value, tensors[name]) for name, value in found.items())
    assert shipping.halved(tmp_path / "net.safetensors") is None


@pytest.mark.parametrize(("moved", "kept"), [(0.0, True), (1.0, False)])
def test_weights_are_put_back_when_an_output_moves(tmp_path, monkeypatch, moved, kept):
    path = tmp_path / "net.safetensors"
    save_file({"w": torch.randn(64, 64)}, path)
    before = path.read_bytes()
    said = iter([np.arange(20.0), np.arange(20.0) + moved])
    monkeypatch.setattr(shipping, "probes", lambda: {"net": lambda: next(said)})
    found = shipping.convert(tmp_path)
    assert (found["net"] > shipping.TOLERANCE) is not kept
    assert (path.read_bytes() != before) is kept


def test_weights_are_put_back_when_a_network_no_longer_loads(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save_file({"w": torch.randn(64, 64)}, path)
    before = path.read_bytes()
    calls = iter([True, False])

    def probe():
        if next(calls):
            return np.ones(3)
        raise RuntimeError("expected scalar type Float but found Half")

    monkeypatch.setattr(shipping, "probes", lambda: {"net": probe})
    assert shipping.convert(tmp_path) == {"net": float("inf")}
    assert path.read_bytes() == before
