"""The commands of the unlearning wing on a small request: what they write, and what they refuse in one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.app.cli import main
from vestige.core.errors import BAD_INPUT
from vestige.core.image_io import encode
from vestige.engines.forgetting.samples import Samples
from vestige.nn.backbone import load_backbone, save_backbone
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.acu_file import begun, is_head, load_head, numbered, save_head

CLASSES = ("blue", "green", "red")


def store(folder: Path, count: int, seed: int) -> None:
    """Noise in one of three colours, class/*.png."""
    draw = np.random.default_rng(seed)
    for i in range(count):
        image = draw.integers(0, 120, (16, 16, 3))
        image[..., 2 - i % 3] += 100
        place = folder / CLASSES[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:03}.png").write_bytes(encode(image.astype(np.uint8), "PNG"))


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    for part, count, seed in (("requests", 9, 0), ("retain", 60, 1), ("test", 48, 2)):
        store(folder / "data" / part, count, seed)
    torch.manual_seed(0)
    net = ResNet(ResNetConfig(18, "imagenet", 0.0625, 3)).eval()
    save_backbone(net, folder / "before.safetensors")
    assert net.fc is not None
    with torch.no_grad():
        net.fc.bias[2] = -1e4
    save_backbone(net, folder / "after.safetensors")
    return folder


def run(capsys, *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(w) for w in words])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out + said.err


@pytest.mark.parametrize(
    ("method", "figure"),
    [("sparse_unlearn", "density"), ("repr_audit", "recovery"), ("worst_case", "left"), ("corrective", "corrected")],
)
def test_a_measure_compares_models(kit, capsys, method, figure):
    data = kit / {"worst_case": "data/retain", "corrective": "data/test"}.get(method, "data")
    code, said = run(
        capsys, "measure", kit / "before.safetensors", kit / "after.safetensors", "--method", method, "--data", data,
        "--json",
    )  # fmt: skip
    assert code == 0, said
    found = json.loads(said)
    assert [row["model"] for row in found["rows"]] == ["before.safetensors", "after.safetensors"]
    assert np.isfinite(found["figures"][figure])


def test_the_hardest_pictures_are_listed_and_measured(kit, tmp_path, capsys):
    out = tmp_path / "hardest.csv"
    words = ("--method", "worst_case", "--data", kit / "data/retain")
    code, said = run(capsys, "attack", kit / "before.safetensors", *words, "--set", "count=5", "-o", out)
    assert code == 0, said
    with out.open() as file:
        assert len(list(csv.DictReader(file))) == 5
    code, said = run(capsys, "measure", kit / "after.safetensors", *words, "--reference", out)
    assert code == 0, said
    code, said = run(capsys, "measure", kit / "after.safetensors", *words, "--reference", kit / "before.safetensors")
    assert code == BAD_INPUT
    assert "is no list" in said


def test_restoration_reads_behind_a_silenced_output_without_calling_it_restored(kit, tmp_path, capsys):
    # A network that was never trained calls everything one class, so that the class to restore is that one.
    model = load_backbone(kit / "before.safetensors")
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        always = CLASSES[int(model(x).argmax(1)[0])]
    words = ("--method", "sae_restore", "--data", kit / "data", "--set", f"label={always}", "--set", "epochs=1",
             "--set", "k=2", "--set", "layer=layer3")  # fmt: skip
    code, said = run(capsys, "measure", kit / "before.safetensors", kit / "after.safetensors", *words, "--json")
    assert code == 0, said
    row = json.loads(said)["rows"][0]
    assert {"before", "restored, inject_experts", "restored, self", "read"} <= set(row)
    out = tmp_path / "restored.csv"
    models = (kit / "after.safetensors", "--model", kit / "before.safetensors")
    code, said = run(capsys, "attack", *models, *words, "-o", out)
    assert code == 0, said
    assert out.read_text().startswith("picture,label,before,restored")


def test_a_head_forgets_without_the_pictures_it_keeps(kit, tmp_path, capsys):
    made = begun(load_backbone(kit / "before.safetensors"), 16, width=8, gamma=1.0, seed=0)
    images = torch.randint(0, 255, (6, 3, 16, 16), dtype=torch.uint8)
    made.head.learn(Samples(images, numbered(made, [CLASSES[i % 3] for i in range(6)], learn=True)))
    path = tmp_path / "head.safetensors"
    save_head(made, path)
    assert is_head(path)
    again = load_head(path)
    assert again.head.digest() == made.head.digest()
    for i in (0, 3):
        place = tmp_path / "gone" / CLASSES[0]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(encode(images[i].numpy().transpose(1, 2, 0), "PNG"))
    out = tmp_path / "out" / "head.safetensors"
    words = ("erase", path, "--forget", tmp_path / "gone", "--method", "acu", "-o")
    code, said = run(capsys, *words, out)
    assert code == 0, said
    assert [load_head(out).names[c] for c in load_head(out).head.classes] == ["green", "red"]
    other = tmp_path / "other.safetensors"
    code, said = run(capsys, "erase", out, *words[2:], other)
    assert code == BAD_INPUT
    assert "never learned, or are forgotten already" in said
    assert not other.exists()


def test_a_head_is_learned_from_a_folder_and_gone_on_with(kit, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("learn", "acu", "--data", kit / "data/retain", "--set", f"backbone={kit / 'before.safetensors'}", "--set")
    code, said = run(capsys, *words, "width=8", "--out", "first", "--quiet")
    assert code == 0, said
    code, said = run(
        capsys, "learn", "acu", "--data", kit / "data/requests", "--set", "start=first/head.safetensors",
        "--out", "second", "--quiet",
    )  # fmt: skip
    assert code == 0, said
    assert load_head(Path("second/head.safetensors")).head.ridge.count == 69


REGRESSOR = """from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 1))
"""


def test_a_regressor_forgets_targets_that_are_names_of_folders(tmp_path, capsys, monkeypatch):
    from safetensors.torch import save_file
    from torch import nn

    monkeypatch.chdir(tmp_path)
    Path("tiny_regressor.py").write_text(REGRESSOR)
    net = nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 1))
    save_file(net.state_dict(), "net.safetensors")
    draw = np.random.default_rng(0)
    for part, values in (("requests", (1, 2.5)), ("retain", (4, 5, 6)), ("test", (1, 5))):
        for value in values:
            for i in range(4):
                place = Path("data") / part / f"{value:g}"
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{i}.png").write_bytes(encode(draw.integers(0, 255, (16, 16, 3)).astype(np.uint8), "PNG"))
    how = ("--build", "tiny_regressor:build", "--method", "regression_unlearn")
    parts = ("--forget", "data/requests", "--retain", "data/retain", "--test", "data/test")
    code, said = run(capsys, "erase", "net.safetensors", *parts, *how, "-o", "out/net.safetensors")
    assert code == 0, said
    code, said = run(capsys, "measure", "net.safetensors", "out/net.safetensors", *how, "--data", "data", "--json")
    assert code == 0, said
    assert all(np.isfinite(v) for v in json.loads(said)["figures"].values())
    Path("data/retain/seven").mkdir()
    (Path("data/retain/seven") / "0.png").write_bytes((Path("data/retain/4") / "0.png").read_bytes())
    code, said = run(capsys, "erase", "net.safetensors", *parts, *how, "-o", "out/other.safetensors")
    assert code == BAD_INPUT
    assert "'seven', which is no number" in said
    assert not Path("out/other.safetensors").exists()


@pytest.mark.parametrize("method", ["sparse_unlearn", "repr_audit", "sae_restore", "worst_case", "corrective"])
def test_what_cannot_be_used_is_refused_in_one_sentence(kit, tmp_path, capsys, method):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no model")
    before, data = kit / "before.safetensors", kit / "data"
    for words in (
        (before, "--data", tmp_path / "missing"), (before, "--data", tmp_path / "empty"), (before,),
        (tmp_path / "text.txt", "--data", data), (tmp_path / "none.safetensors", "--data", data), ("--data", data),
    ):  # fmt: skip
        code, said = run(capsys, "measure", *words, "--method", method)
        assert code == BAD_INPUT
        assert len(said.strip().splitlines()) == 1
