"""The trained descriptor: its losses, its edits, and a short training whose result an index takes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vestige.app.cli import main
from vestige.copies.sscd import CopyNet, TrainedDescriptor, contrastive_loss, save_descriptor, spread_loss
from vestige.core.errors import InputError
from vestige.core.image_io import save_image, to_uint8
from vestige.data.copy_edits import edited
from vestige.data.scenes import render, sample_scene


def unit(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float64), dim=1)


def test_the_contrastive_loss_is_its_definition():
    torch.manual_seed(0)
    z, picture = F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1), torch.tensor([0, 1, 2, 0, 1, 2])
    total = []
    for i in range(6):
        for j in range(6):
            if i != j and picture[i] == picture[j]:
                others = sum(torch.exp(z[i] @ z[k] / 0.05) for k in range(6) if k != i)
                total.append(-torch.log(torch.exp(z[i] @ z[j] / 0.05) / others))
    assert contrastive_loss(z, picture) == pytest.approx(float(sum(total) / len(total)))


def test_the_entropy_term_pushes_the_nearest_stranger_away():
    z = unit([1, 0, 0], [1, 0.2, 0], [0, 0, 1]).requires_grad_()
    spread_loss(z, torch.tensor([0, 1, 2])).backward()
    moved = F.normalize(z - 0.01 * z.grad, dim=1)
    assert (moved[0] - moved[1]).norm() > (z[0] - z[1]).norm()
    same = spread_loss(unit([1, 0, 0], [1, 0, 0], [0, 0, 1]), torch.tensor([0, 0, 1]))
    assert float(same) == pytest.approx(-0.5 * np.log(2), abs=1e-6)  # views of one picture do not count


@pytest.mark.parametrize("seed", range(12))
def test_edits_keep_size_and_type_and_follow_the_seed(seed):
    picture = to_uint8(render(sample_scene(1), 96).image)
    first, again = (edited(picture, 48, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8
    assert (first == again).all()
    assert (edited(picture, 96, np.random.default_rng(seed), 0.0) == picture).all()


def test_a_file_of_another_kind_is_no_descriptor(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("other.safetensors", "text.safetensors"):
        with pytest.raises(InputError, match="descriptor"):
            TrainedDescriptor(tmp_path / name)


def test_what_was_saved_describes_as_before(tmp_path):
    net = CopyNet(dims=8, width=0.125, size=32).eval()
    save_descriptor(net, np.eye(8, dtype=np.float32), tmp_path / "d.safetensors")
    made = TrainedDescriptor(tmp_path / "d.safetensors")
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = net(torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255))[0]
    assert np.allclose(made.describe(picture), expected.detach().numpy(), atol=1e-5)
    assert made.background.shape == (8, 8)
    assert made.describe(np.full((40, 40, 3), 7, np.uint8)) is None


def test_a_short_training_makes_a_descriptor_that_an_index_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VESTIGE_DATA", raising=False)
    for i in range(10):
        save_image(f"own/{i}.png", to_uint8(render(sample_scene(i), 48).image))
    small = ["size=32", "width=0.125", "dims=16", "steps=2", "batch_size=4"]

    def called(*words):
        with pytest.raises(SystemExit) as stopped:
            main(list(words))
        return stopped.value.code

    assert called("learn", "sscd", "--data", "own", "-o", "run", *(w for s in small for w in ("--set", s))) == 0
    assert called("index", "own", "-o", "my.index", "--descriptor", "run/descriptor.safetensors") == 0
    capsys.readouterr()
    assert called("find", "own/3.png", "--in", "my.index", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["queries"][0]["copies"][0]["how"] == "the same file"
    assert "not counted" in report["false_claims"]
    assert Path("run/descriptor.safetensors").is_file()
