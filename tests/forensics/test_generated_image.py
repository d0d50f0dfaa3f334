"""The default examiner of generated pictures: its evidence, its judges, and what it says of files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.app.verbs.learning import run
from vestige.claims import claims_of
from vestige.core.catalogue import system
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.data.fakes import SOURCES, as_float, squares
from vestige.engines.train import TrainConfig
from vestige.forensics.generated_evidence import GROUPS, evidence, group_sizes
from vestige.forensics.generated_image import GeneratedImage, TextureNet
from vestige.forensics.generated_judges import EvidenceHead, fit_head, head_training
from vestige.forensics.learned import calibration, stated
from vestige.metrics.detection import auroc
from vestige.nn.efficientnet import PACKAGE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    from sklearn.datasets import load_sample_image

    photographs = np.stack([load_sample_image(n)[:426].transpose(2, 0, 1) for n in ("china.jpg", "flower.jpg")])
    return squares(photographs, 64, per_photo=40, seed=3)[0]


@pytest.fixture(scope="module")
def fakes(real) -> dict[str, np.ndarray]:
    names = ("up_nearest", "up_bilinear", "up_bicubic")
    return {name: np.round(SOURCES[name](as_float(real)) * 255).astype(np.uint8) for name in names}


def test_evidence_is_finite_and_does_not_depend_on_the_batch(real):
    found = evidence(real[:5], batch=2)
    assert found.shape == (5, sum(group_sizes().values()))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, evidence(real[:5], batch=5), rtol=1e-3, atol=2e-3)
    odd = np.stack([np.zeros((3, 50, 61), np.uint8), np.full((3, 50, 61), 255, np.uint8)])
    assert np.isfinite(evidence(odd)).all()
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 48, 48), dtype=np.uint8)
    assert np.isfinite(evidence(noise)).all()
    assert evidence(noise[:0]).shape == (0, found.shape[1])
    with pytest.raises(UsageError, match="48 pixels"):
        evidence(noise[:, :, :40])
    with pytest.raises(UsageError, match="uint8"):
        evidence(as_float(noise))


@pytest.mark.parametrize("group", ["grid", "spectrum", "patterns"])
def test_groups_see_up_sampling(real, fakes, group):
    with torch.no_grad():
        a, b = (GROUPS[group](torch.from_numpy(x).float()) for x in (real, fakes["up_nearest"]))
    apart = ((a.mean(0) - b.mean(0)).abs() / (a.std(0) + b.std(0) + 1e-3)).max()
    assert apart > 0.6


def test_judges_see_their_own_group_only():
    head = EvidenceHead({"a": 2, "b": 3})
    head.weight.data += 1
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 3] += 1
    before, after = head(x), head(changed)
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert (before[:, 1] != after[:, 1]).all()
    far = x.clone()
    far[:, 0] = 1e9
    assert torch.isfinite(head(far)).all()
    assert EvidenceHead(**head.settings).sizes == {"a": 2, "b": 3}
    with pytest.raises(UsageError, match="at least one"):
        EvidenceHead({})


def test_judges_are_settled_on_real_pictures():
    real = np.random.default_rng(0).normal(3, 2, (50, 5)).astype(np.float32)
    head = EvidenceHead({"a": 2, "b": 3}).measure(real)
    head.weight.data += torch.linspace(-1, 1, 5)
    judged = head.settle(real).judged(real)
    assert list(judged) == ["a", "b", "judges", "distance", "family"]
    assert not judged["family"].any()
    for name in ("a", "b", "judges", "distance"):
        np.testing.assert_allclose(judged[name].mean(), 0, atol=1e-4)
        np.testing.assert_allclose(judged[name].std(ddof=1), 1, atol=1e-3)
    np.testing.assert_allclose(head.score(real), 0.5 * judged["judges"] + 0.5 * judged["distance"])


def test_filters_see_their_family_beyond_what_is_usual():
    draw = np.random.default_rng(0)
    mixed = draw.normal(0, 1, (4, 4))
    real, held = ((draw.normal(0, 1, (400, 4)) @ mixed).astype(np.float32) for _ in range(2))
    way = {"a": mixed[0] * 3, "b": mixed[1] * 3}
    fakes = {name: real[:100] + shift.astype(np.float32) for name, shift in way.items()}
    families = {"a": "first", "b": "second"}
    head = EvidenceHead({"g": 4}, ["first", "second"]).measure(real).match(real, fakes, families).settle(real)
    assert EvidenceHead(**head.settings).families == ["first", "second"]
    for name, shift in way.items():
        found = head.matches(held + shift.astype(np.float32))
        assert found[families[name]].mean() > 2
        assert head.judged(held + shift.astype(np.float32))["family"].mean() > head.judged(held)["family"].mean() + 1
    np.testing.assert_allclose(head.matches(real)["first"].mean(), 0, atol=1e-3)
    with pytest.raises(UsageError, match="third"):
        EvidenceHead({"g": 4}, ["third"]).measure(real).match(real, fakes, families)


def test_traces_that_no_judge_knows_count_in_either_direction():
    real = np.random.default_rng(0).normal(3, 2, (200, 5)).astype(np.float32)
    head = EvidenceHead({"a": 2, "b": 3}).measure(real)
    head.weight.data[0] = 1.0  # one judge, and it looks at the first measurement alone
    head.settle(real)
    usual = np.quantile(head.score(real), 0.9)
    for way in (-1, 1):
        unlike = real[:20].copy()
        unlike[:, 4] += way * 15
        assert np.median(head.score(unlike)) > usual


def test_batches_take_families_and_sources_alike():
    real = np.zeros((5, 2), np.float32)
    fakes = {name: np.full((n, 2), i + 1, np.float32) for i, (name, n) in enumerate({"a": 90, "b": 2, "c": 2}.items())}
    batches, step = head_training(real, fakes, {"a": "x", "b": "x", "c": "y"}, 2000)
    batch = batches(0, torch.Generator().manual_seed(0))
    counts = [int((batch["features"][:, 0] == i).sum()) for i in range(4)]
    assert counts[0] == 1000
    np.testing.assert_allclose(counts[1:], [250, 250, 500], atol=60)
    assert (batch["labels"] == (batch["features"][:, 0] > 0)).all()
    assert step(EvidenceHead({"g": 2}), batch, torch.Generator())["loss"].item() == pytest.approx(np.log(2), rel=1e-5)
    with pytest.raises(UsageError, match="at least one"):
        head_training(real, {}, {}, 8)


def test_judges_find_a_family_they_never_saw(real, fakes):
    known = {name: evidence(fakes[name][:60]) for name in ("up_bilinear", "up_bicubic")}
    config = TrainConfig(steps=60, batch_size=64, lr=0.01, weight_decay=0.0)
    head = fit_head(evidence(real[:60]), known, dict.fromkeys(known, "upsampling"), config)
    a, b = (head.score(evidence(x[60:])) for x in (real, fakes["up_nearest"]))
    assert auroc(np.repeat([False, True], [len(a), len(b)]), np.append(a, b)) > 0.9


def test_the_threshold_flags_no_more_than_its_rate():
    draw = np.random.default_rng(0)
    clean, made = draw.normal(0, 1, 400), draw.normal(3, 1, 100)
    facts = calibration(clean, made, 0.01)
    assert (clean >= facts["threshold"]).mean() <= 0.01
    assert facts["slope"] > 0
    low, high = (stated({**facts, "note": "more"}, score) for score in (0.0, 3.0))
    assert (low["flagged"], high["flagged"]) == (False, True)
    assert low["probability"] < 0.1 < high["probability"]  # one picture in ten has the trace
    assert high["threshold"] == facts["threshold"]
    assert stated({}, 9.0) == {}


def test_it_answers_about_files(photo):
    network = TextureNet(1, side=64)
    network.judge.bias.data += 1.5
    found = GeneratedImage(network=network, count=2).find(ImageSubject(encode(photo[:200, :300], "JPEG")))
    assert found.applies
    assert found.score == pytest.approx(1.5)
    assert not found.flagged  # without a calibration nothing is
    assert found.probability is None
    assert found.details["squares"] == 4
    larger = GeneratedImage(network=TextureNet(1))
    for side, used in ((90, 88), (200, 128)):  # as large as the network knows and the picture allows
        assert f"squares of {used} pixels" in larger.find(ImageSubject(encode(photo[:side, :300], "PNG"))).evidence[0]
    json.dumps(found.to_dict(), allow_nan=False)
    for pixels in (np.zeros((1, 1, 3), np.uint8), photo[:63], np.full((80, 80, 3), 9, np.uint8)):
        assert not GeneratedImage(network=network).find(ImageSubject(encode(pixels, "PNG"))).applies
    with pytest.raises(InputError, match="vestige learn generated_image"):
        GeneratedImage("none.safetensors").score(np.zeros((1, 3, 64, 64), np.uint8))


def test_the_shipped_weights_are_those_of_judges(photo):
    found = GeneratedImage(count=1).find(ImageSubject(encode(photo[:200, :300], "JPEG")))
    assert found.applies
    assert not found.flagged
    assert found.threshold is not None
    assert found.probability < 0.5


def test_the_network_tells_what_up_sampling_leaves(real, fakes):
    torch.manual_seed(0)
    network = TextureNet(2, 1).train()
    assert not network.trunk.training  # its statistics stay
    x = torch.from_numpy(np.concatenate([real[::2], fakes["up_nearest"][::2]])).float() / 255
    labels = (torch.arange(len(x)) >= len(x) // 2).float()
    groups = network.groups(0.05, 0.0)
    with torch.no_grad():
        measured = network.measured(x)
    assert measured.shape == (len(x), 2 * (16 + 24))
    network.units.momentum = 1.0
    optimiser = torch.optim.AdamW(groups, weight_decay=0.1)
    for _ in range(60):
        logits = network.judge(network.units(measured[::2]))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[::2])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = network.eval()(x[1::2])
    assert auroc(labels[1::2].numpy() > 0.5, found.numpy()) > 0.7


def test_the_stages_learn_more_slowly_than_the_judge_or_not_at_all():
    network = TextureNet(1)
    assert len(network.groups(0.02, 0.0)) == 1
    assert not any(p.requires_grad for p in network.trunk.parameters())
    judge, stages = network.groups(0.02, 0.5)
    assert (judge["lr"], stages["lr"]) == (0.02, 0.01)
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert network.judge.weight.grad is not None
    assert TextureNet(**network.settings).settings == {"stages": 1, "stride": 2, "side": 128}


def test_it_has_its_claims():
    assert len(claims_of(system("generated_image"))) == 3


@pytest.fixture
def no_packs(tmp_path, monkeypatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="the weights of vestige[features] are not here")
def test_the_recipe_trains_and_saves(no_packs, photo):
    words = ["steps=2", "batch_size=8", "log_every=1", "limit=12", "views=1", "stages=1"]
    assert run("generated_image", no_packs / "out", set_=words, device="cpu", quiet=True) == 0
    figures = json.loads((no_packs / "out/metrics.json").read_text())["evaluation"]
    assert {"levelled, mean", "flagged"} <= set(figures)
    assert {"levelled, mean", "half size, seen", "not judged", "kinds"} <= set(figures["whole"])
    examiner = GeneratedImage(no_packs / "out/generated_image.safetensors")
    assert examiner.find(ImageSubject(encode(photo[:100, :100], "PNG"))).applies
    with pytest.raises(UsageError, match="network or judges"):
        run("generated_image", no_packs / "other", set_=["method=guess"], device="cpu", quiet=True)


def test_the_baseline_of_judges_trains(no_packs):
    words = ["steps=2", "batch_size=8", "log_every=1", "limit=12", "views=1"]
    assert run("generated_image", no_packs / "out", variant="judges", set_=words, device="cpu", quiet=True) == 0
    figures = json.loads((no_packs / "out/metrics.json").read_text())["evaluation"]
    assert {"one linear judge", "residual", "spectrum, linear"} <= set(figures["alone"])
