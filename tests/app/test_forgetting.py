"""``vestige erase MODEL``: the job from folders to a model, its audit and its certificate, and everything refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.app.cli import main
from vestige.core import certificate
from vestige.core.errors import BAD_INPUT, NOT_VERIFIED, SUPPRESSED, UNCHANGED
from vestige.core.image_io import encode
from vestige.core.keys import load_key
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.samples import Samples
from vestige.nn.backbone import save_backbone
from vestige.nn.classifier import load_classifier
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.audit_verdict import VERDICTS

CLASSES = ("blue", "green", "red")
#: Exit codes of an erasure that was done, by the verdict of its audit.
DONE = VERDICTS.values()


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise in one of three colours, uint8 N×3×16×16."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 120, (count, 3, 16, 16))
    for image, label in zip(images, labels, strict=True):
        image[2 - label] += 100
    return images.astype(np.uint8), labels


def store(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:03d}.png").write_bytes(encode(image.transpose(1, 2, 0), "PNG"))


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """model.safetensors trained on train = forget (all of red) + retain; test."""
    folder = tmp_path_factory.mktemp("forgetting")
    images, labels = pictures(150, 0)
    torch.manual_seed(0)
    net = ResNet(ResNetConfig(18, width=0.0625, classes=3))
    samples = Samples(torch.from_numpy(images), torch.from_numpy(labels))
    net = tune(net, [Phase(samples, fit)], Tuning(4, 0.05, batch_size=32)).model
    save_backbone(net, folder / "model.safetensors")
    red = labels == 2
    store(folder / "forget", images[red], labels[red])
    store(folder / "retain", images[~red], labels[~red])
    store(folder / "test", *pictures(120, 1))
    assert main_code("key", folder / "my.key") == 0
    return folder


def main_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


def erase(work: Path, out: Path, **changes: object) -> int:
    options = {"--forget": work / "forget", "--retain": work / "retain", "--test": work / "test", "--out": out,
               "--method": "random_labels"} | changes  # fmt: skip
    flat = [part for name, value in options.items() if value is not None for part in (name, value)]
    return main_code("erase", work / "model.safetensors", *flat, "--quiet")


def test_a_class_is_forgotten_audited_and_certified(work, tmp_path):
    out = tmp_path / "forgotten.safetensors"
    code = erase(work, out, **{"--sign": work / "my.key", "--set": "epochs=20"})
    report = json.loads((tmp_path / "forgotten.audit.json").read_text())
    rows = report["audit"]["models"]
    assert rows["original"]["forget accuracy"] > 0.9
    assert rows["unlearned"]["forget accuracy"] < 0.5
    assert report["kind"] == "class"
    assert report["parameters"]["epochs"] == 20
    changed = load_classifier(out)
    before = load_classifier(work / "model.safetensors")
    assert changed.digest == report["sha256"]["after"] != before.digest
    page = (tmp_path / "forgotten.audit.html").read_text()
    assert report["audit"]["findings"][1].split(":")[0] in page
    assert page.count("data:image/png;base64,") == 4
    worst = report["audit"]["worst case"]["pictures"]
    assert worst[0]["name"] in {file.name for file in (work / "forget" / "red").iterdir()} or "red/" in worst[0]["name"]
    assert worst[0]["name"] in page
    assert set(report["audit"]["costs"]) == {"erasure", "retraining, expected"}
    verdict = report["audit"]["verdict"]
    assert code == VERDICTS[verdict]
    assert report["audit"]["tests"]
    assert all(0 <= test["power"] <= 1 and test["low"] <= test["high"] for test in report["audit"]["tests"])
    name = "certificate" if verdict == "deleted" else "audit-record"
    signed = tmp_path / f"forgotten.{name}.json"
    assert ".png" not in signed.read_text()  # it may be shown to others
    assert not (tmp_path / f"forgotten.{'audit-record' if name == 'certificate' else 'certificate'}.json").exists()
    files = ("--before", work / "model.safetensors", "--after", out, "--requests", work / "forget", "--any-signer")
    assert main_code("verify", signed, *files, "--quiet") == 0
    assert main_code("verify", signed, "--any-signer", "--after", work / "model.safetensors") == NOT_VERIFIED
    assert main_code("verify", signed, "--any-signer", "--requests", work / "retain") == NOT_VERIFIED
    changed_text = signed.read_text().replace('"random_labels"', '"retrain"')
    signed.write_text(changed_text)
    assert main_code("verify", signed, "--any-signer") == NOT_VERIFIED


def test_a_model_of_somebody_else_is_audited(work, tmp_path, monkeypatch, capsys):
    parts = ("--forget", work / "forget", "--retain", work / "retain", "--test", work / "test", "--audit", "brief")
    before = work / "model.safetensors"
    out, key = tmp_path / "same", work / "my.key"
    assert main_code("audit", before, before, *parts, "--out", out, "--sign", key) == UNCHANGED
    assert "nothing was forgotten" in capsys.readouterr().out
    assert "Audit of a forgetting" in (tmp_path / "same.audit.html").read_text()
    assert main_code("audit", before, before, *parts, "--out", out) == BAD_INPUT
    assert "exists already" in capsys.readouterr().err
    record, trust = tmp_path / "same.audit-record.json", tmp_path / "signers.txt"
    assert main_code("verify", record) == BAD_INPUT
    assert "--any-signer" in capsys.readouterr().err
    assert main_code("key", tmp_path / "other.key", "--trust", trust, "--name", "somebody else") == 0
    assert main_code("verify", record, "--trust", trust) == NOT_VERIFIED
    assert "another key" in capsys.readouterr().err
    assert main_code("key", key, "--show", "--trust", trust, "--name", "the office") == 0
    assert certificate.signer(load_key(key)) in capsys.readouterr().out
    assert main_code("verify", record, "--trust", trust) == 0
    said = capsys.readouterr().out
    for words in ("no deletion certificate", "the office", "Verdict: unchanged, power 1.00", "Not checked, because it"):
        assert words in said
    model = load_classifier(before).model
    with torch.no_grad():
        model.fc.bias[2] -= 100
    save_backbone(model, tmp_path / "head.safetensors")
    (tmp_path / "my_training.py").write_text("def train(net, pictures, labels, seed):\n    return net\n")
    monkeypatch.chdir(tmp_path)
    hidden = ("audit", before, tmp_path / "head.safetensors", *parts, "--quiet")
    assert main_code(*hidden, "--train", "my_training:train") == SUPPRESSED
    report = json.loads((tmp_path / "head.audit.json").read_text())
    assert report["reference"] == "my_training:train"
    assert "retrained" in report["audit"]["models"]
    for wrong in ("my_training", "my_training:none"):
        assert main_code(*hidden, "--out", tmp_path / "x", "--train", wrong) == BAD_INPUT
    assert not list(tmp_path.glob("x.*"))


def test_auto_tries_several_and_keeps_the_nearest_to_the_aim(work, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vestige.app.forgetting.run.AUTO", ("grad_ascent", "random_labels"))
    out = tmp_path / "auto.safetensors"
    assert erase(work, out, **{"--method": "auto"}) in DONE
    report = json.loads((tmp_path / "auto.audit.json").read_text())
    distances = [one["distance"] for one in report["tried"]]
    assert len(distances) == 2
    assert distances == sorted(distances)
    assert report["method"] == report["tried"][0]["method"]


def test_a_full_audit_trains_models_to_compare_with(work, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vestige.engines.forgetting.train.usual_training", lambda net: Tuning(2, 0.05, batch_size=32))
    out = tmp_path / "full.safetensors"
    assert erase(work, out, **{"--audit": "full", "--set": "epochs=1"}) in DONE
    audit = json.loads((tmp_path / "full.audit.json").read_text())["audit"]
    assert set(audit["models"]) == {"original", "unlearned", "retrained"}
    assert all("membership by LiRA (AUC)" in row for row in audit["models"].values())
    assert set(audit["costs"]) == {"erasure", "retraining", "shadow models"}
    capsys.readouterr()
    assert erase(work, tmp_path / "none.safetensors", **{"--audit": "some"}) == BAD_INPUT
    assert "quick or full" in capsys.readouterr().err


def test_single_pictures_of_a_kept_class_are_no_class_problem(work, tmp_path):
    some, rest = tmp_path / "some", tmp_path / "rest"
    images, labels = pictures(150, 0)
    store(some, images[:40], labels[:40])
    store(rest, images[40:], labels[40:])
    out = tmp_path / "x.safetensors"
    assert erase(work, out, **{"--forget": some, "--retain": rest, "--method": "finetune", "--set": "epochs=1"}) in DONE
    assert json.loads((tmp_path / "x.audit.json").read_text())["kind"] == "random"


def test_a_network_of_the_users_own_is_built_by_its_function(work, tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "from vestige.nn.resnet import ResNet, ResNetConfig\n"
        "def net():\n    return ResNet(ResNetConfig(18, width=0.0625, classes=3))\n"
        "def other():\n    return ResNet(ResNetConfig(18, width=0.125, classes=3))\n"
        "def number():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "y.safetensors"
    few = {"--method": "finetune", "--set": "epochs=1"}
    assert erase(work, out, **few, **{"--build": "my_models:net"}) in DONE
    assert load_classifier(out, build="my_models:net").form == "built"
    for wrong in ("my_models:other", "my_models:number", "my_models:absent", "nowhere:net", "net"):
        assert erase(work, tmp_path / "z.safetensors", **few, **{"--build": wrong}) == BAD_INPUT
    assert not (tmp_path / "z.safetensors").exists()


@pytest.fixture
def refused(work, tmp_path, capsys):
    """Runs that must fail with one sentence and write nothing."""

    def check(words: str, **changes: object) -> None:
        out = tmp_path / "refused.safetensors"
        assert erase(work, out, **changes) == BAD_INPUT
        said = capsys.readouterr().err.strip()
        assert words in said
        assert said.startswith("vestige: ")
        assert said.count("\n") == 0
        assert not list(tmp_path.glob("refused*"))

    return check


def test_what_cannot_be_used_is_said_in_one_sentence(work, tmp_path, refused):
    empty, mixed, flat, broken = (tmp_path / n for n in ("empty", "mixed", "flat", "broken"))
    for folder in (empty, mixed / "red", flat, broken / "red"):
        folder.mkdir(parents=True)
    picture = next((work / "test" / "red").iterdir()).read_bytes()
    (mixed / "red" / "a.png").write_bytes(picture)
    (mixed / "red" / "notes.txt").write_text("please forget me")
    (flat / "a.png").write_bytes(encode(np.zeros((16, 16, 3), np.uint8), "PNG"))
    (broken / "red" / "a.png").write_bytes(picture[:60])
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    refused("holds no pictures", **{"--forget": empty})
    refused("does not exist", **{"--forget": tmp_path / "nowhere"})
    refused("notes.txt is no picture", **{"--forget": mixed})
    refused("has no label", **{"--forget": flat})
    refused("a.png", **{"--forget": broken})
    refused("take them out of one", **{"--forget": work / "retain"})
    refused("--test FOLDER", **{"--test": None})
    refused("names for 2 classes", **{"--classes": names})
    refused("There is no eraser", **{"--method": "amnesia"})
    refused("takes", **{"--set": "speed=1"})
    refused("3 outputs", **{"--retain": _relabelled(work, tmp_path)})


def _relabelled(work: Path, tmp_path: Path) -> Path:
    """A retain folder with a class of its own, so that names and outputs do not fit."""
    folder = tmp_path / "four"
    for name in ("blue", "green", "yellow"):
        (folder / name).mkdir(parents=True)
        for i, file in enumerate(sorted((work / "retain" / "blue").iterdir())[:20]):
            pixels = np.full((16, 16, 3), i, np.uint8)
            (folder / name / file.name).write_bytes(encode(pixels, "PNG") + name.encode())
    return folder


def test_model_options_without_a_model_are_refused(work, tmp_path, capsys):
    code = main_code("erase", work / "test" / "red", "--retain", work / "retain", "--out", tmp_path / "o")
    assert code == BAD_INPUT
    assert "--forget" in capsys.readouterr().err
