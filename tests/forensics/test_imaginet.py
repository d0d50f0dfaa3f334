"""Self-contrast, what social networks do, balanced contents, and the learner as an examiner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vestige.app.verbs.learning import run
from vestige.claims import claims_of
from vestige.core.catalogue import system
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.data.contents import CONTENTS, balance, content_set
from vestige.data.fakes import SOURCES
from vestige.engines.train import TrainConfig
from vestige.forensics.imaginet import (
    Calibrator,
    ImagiNet,
    SelfConDetector,
    SelfConEncoder,
    SocialNetwork,
    contrast_batches,
    contrast_step,
    entropy_step,
    selfcon_loss,
    train,
)

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(steps=2, batch_size=8, log_every=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VESTIGE_DATA", str(tmp_path_factory.mktemp("empty")))
        return content_set("train", [SOURCES["up_nearest"], SOURCES["up_bicubic"]], each=3)


def small() -> SelfConDetector:
    torch.manual_seed(0)
    return SelfConDetector(width=0.125, hidden=8)


def spherical(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def restated(z: torch.Tensor, labels: torch.Tensor, t: float) -> float:
    """The loss anchor by anchor, exits as views."""
    views = [(v, int(label)) for x, label in zip(z, labels, strict=True) for v in x]
    losses = []
    for a, (anchor, own) in enumerate(views):
        others = [i for i in range(len(views)) if i != a]
        total = torch.logsumexp(torch.stack([anchor @ views[i][0] / t for i in others]), 0)
        positive = [i for i in others if views[i][1] == own]
        if positive:
            losses.append(-torch.stack([anchor @ views[i][0] / t - total for i in positive]).mean())
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1], [2, 2, 2, 2, 2], [0, 1, 2, 3, 4]])
def test_the_loss_is_supervised_contrast_with_exits_as_views(labels):
    z, given = spherical(5, 2, 6), torch.tensor(labels)
    assert float(selfcon_loss(z, given, 0.3)) == pytest.approx(restated(z, given, 0.3), rel=1e-5)


def test_one_class_of_equal_features_gives_the_uniform_value():
    z = torch.ones(4, 2, 3) / 3**0.5
    assert float(selfcon_loss(z, torch.zeros(4))) == pytest.approx(np.log(7), rel=1e-5)
    single = spherical(3, 1, 4).requires_grad_()
    lonely = selfcon_loss(single, torch.arange(3))  # no anchor has a positive
    lonely.backward()
    assert lonely.item() == 0
    assert torch.isfinite(single.grad).all()
    with pytest.raises(UsageError, match="B×E×d"):
        selfcon_loss(single[:, 0], torch.arange(3))


def test_the_encoder_has_two_exits_and_reaches_both():
    torch.manual_seed(0)
    encoder = SelfConEncoder(width=0.125)
    x = torch.rand(4, 3, 24, 24, requires_grad=True)
    z = encoder(x)
    assert z.shape == (4, 2, 64)
    torch.testing.assert_close(z.norm(dim=2), torch.ones(4, 2))
    selfcon_loss(z, torch.tensor([0, 0, 1, 1])).backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in encoder.projections.parameters())
    with pytest.raises(UsageError, match="exit"):
        SelfConEncoder(exit=4)


def test_generators_count_only_where_there_are_two():
    detector = small()
    batch = {"images": torch.rand(6, 3, 24, 24), "labels": torch.tensor([0, 0, 0, 1, 1, 1.0])}
    detector.eval()
    one = detector.loss({**batch, "generators": torch.tensor([0, 0, 0, 1, 1, 1])})
    none = detector.loss({**batch, "labels": torch.zeros(6), "generators": torch.zeros(6)})
    two = detector.loss({**batch, "generators": torch.tensor([0, 0, 0, 1, 2, 2])})
    torch.testing.assert_close(one, selfcon_loss(detector.encoder(batch["images"]), batch["labels"]))
    assert torch.isfinite(none)
    assert two > one


def test_social_networks_cut_scale_and_compress():
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 60, 70), dtype=np.uint8)
    posted = SocialNetwork(1, size=32)(images)
    assert posted.shape == (3, 3, 32, 32)
    np.testing.assert_array_equal(posted, SocialNetwork(1, size=32)(images))
    np.testing.assert_array_equal(posted[:2], SocialNetwork(1, size=32)(images[:2]))
    assert (posted != SocialNetwork(2, size=32)(images)).any()
    same = SocialNetwork(0, size=60, smallest=1.0, chance=0.0)(images[:, :, :, :60])
    np.testing.assert_array_equal(same, images[:, :, :, :60])
    with pytest.raises(UsageError, match="shares"):
        SocialNetwork(smallest=0)


def test_sets_are_balanced_and_parts_share_nothing(made):
    assert len(made.images) == len(CONTENTS) * 2 * 6
    for kind in CONTENTS:
        rows = made.content == kind
        assert made.generated[rows].mean() == 0.5
        assert {(made.generator[rows] == g).sum() for g in ("up_nearest", "up_bicubic")} == {3}
    test = content_set("test", [SOURCES["up_nearest"]], each=2)
    assert not set(made.source) & set(test.source)
    left = made.without("up_nearest")
    assert set(left.generator) == {"real", "up_bicubic"}
    assert left.generated.mean() == 0.5
    with pytest.raises(UsageError, match="train, calibration, test"):
        content_set("all", [SOURCES["up_nearest"]])


def test_balance_keeps_the_smallest_count_of_each_combination():
    records = [{"content": c, "origin": o, "i": i} for i in range(5) for c in "ab" for o in "rf"]
    kept = balance([r for r in records if not (r["content"] == "b" and r["origin"] == "f" and r["i"] > 1)], seed=3)
    counts = {(c, o): sum(r["content"] == c and r["origin"] == o for r in kept) for c in "ab" for o in "rf"}
    assert set(counts.values()) == {2}
    with pytest.raises(UsageError, match="3 of 4"):
        balance([r for r in records if r["content"] == "a" or r["origin"] == "r"])
    with pytest.raises(UsageError, match="balanced"):
        balance([])


@pytest.mark.parametrize("step", [contrast_step, entropy_step])
def test_training_changes_the_encoder_and_calibration_does_not(made, step):
    detector = small()
    first = detector.encoder.backbone.conv1.weight.detach().clone()
    train(detector, contrast_batches(made, 8, crop=24), step, CONFIG)
    learnt = detector.encoder.backbone.conv1.weight.detach().clone()
    assert (learnt != first).any()
    judge, statistics = detector.judge[1].weight.detach().clone(), detector.encoder.backbone.bn1.running_mean.clone()
    Calibrator(2, batch_size=8).fit(detector, contrast_batches(made, 8, crop=24))
    torch.testing.assert_close(detector.encoder.backbone.conv1.weight, learnt, rtol=0, atol=0)
    assert (detector.judge[1].weight != judge).any()
    assert (detector.encoder.backbone.bn1.running_mean != statistics).any()
    assert not detector.training
    with pytest.raises(UsageError, match="real and generated"):
        contrast_batches(made.take(made.generated), 8)


def test_it_answers_about_files(photo):
    examiner = ImagiNet(network=small())
    found = examiner.find(ImageSubject(encode(photo[:150, :200], "PNG")))
    assert found.applies
    json.dumps(found.to_dict(), allow_nan=False)
    assert not examiner.find(ImageSubject(encode(photo[:40], "PNG"))).applies
    pictures = photo[None, :64, :64].transpose(0, 3, 1, 2).repeat(4, 0)
    figures = examiner.measure(pictures, np.array([True, False, True, False]))
    assert figures["auroc"] == 0.5
    with pytest.raises(InputError, match="vestige learn imaginet"):
        ImagiNet("none.safetensors").score(pictures)


def test_it_has_its_claims():
    assert len(claims_of(system("imaginet"))) == 3


@pytest.mark.parametrize("variant", ["default", "entropy", "views"])
def test_the_recipe_trains_and_saves(tmp_path, monkeypatch, variant):
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path / "none"))
    words = ["steps=2", "batch_size=8", "log_every=1", "limit=24", "width=0.125", "judge=2", "crop=24", "views=1"]
    assert run("imaginet", tmp_path / "run", set_=words, device="cpu", quiet=True, variant=variant) == 0
    figures = json.loads((tmp_path / "run/metrics.json").read_text())["evaluation"]
    assert {"levelled, mean", "generator named", "chance"} <= set(figures)
    if variant == "default":
        examiner = ImagiNet(tmp_path / "run/imaginet.safetensors")
        assert examiner.score(np.zeros((1, 3, 48, 48), np.uint8)).shape == (1,)
