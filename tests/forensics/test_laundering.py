"""Laundering: what an autoencoder gives back, and the two stages that tell it from photographs and samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.app.verbs.learning import run
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics import laundering_data
from vestige.forensics.laundering import (
    LABELS,
    Launderer,
    LaunderingDetector,
    LaunderingNet,
    laundering_training,
    top_mean,
)
from vestige.nn.vae import small_vae

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return small_vae(32, (8, 16, 16), 4)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((3, 3, 34, 41), np.float32)


def network(bias: tuple[float, float] = (0.0, 0.0)) -> LaunderingNet:
    torch.manual_seed(0)
    net = LaunderingNet(0.125)
    for stage, value in zip(net.stages, bias, strict=True):
        stage.head.weight.data *= 0 if any(bias) else 1
        stage.head.bias.data += value
    return net


def test_the_mean_of_the_highest_is_that_of_the_sorted():
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    wanted = np.sort(x.numpy(), 1)[:, ::-1][:, :3].mean(1)
    np.testing.assert_allclose(top_mean(x, 3).numpy(), wanted, rtol=1e-6)
    torch.testing.assert_close(top_mean(x, 10), x.mean(1))
    torch.testing.assert_close(top_mean(x, 99), x.mean(1))
    with pytest.raises(UsageError, match="at least one"):
        top_mean(x, 0)


def test_laundering_keeps_shape_range_and_repeats(vae, images):
    launderer = Launderer(vae)
    assert launderer.stride == 4
    made = launderer.launder(images)
    assert made.shape == (3, 3, 32, 40)
    assert made.dtype == np.float32
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_array_equal(made, launderer.launder(images))
    np.testing.assert_allclose(made * 255, np.round(made * 255), atol=1e-4)
    np.testing.assert_array_equal(launderer.launder(images, 2), launderer.launder(made))
    assert np.abs(launderer.launder(images, 0) - images[:, :, :32, :40]).max() < 1e-6
    np.testing.assert_array_equal(launderer.attack(torch.from_numpy(images)), made)
    drawn = [Launderer(vae, sample_posterior=True, seed=s).launder(images) for s in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_laundering_refuses(vae, images, tmp_path):
    with pytest.raises(InputError, match="autoencoder"):
        Launderer(tmp_path)
    with pytest.raises(UsageError, match="float pictures"):
        Launderer(vae).launder((images * 255).astype(np.uint8))
    with pytest.raises(UsageError, match="at least 4"):
        Launderer(vae).launder(images[:, :, :3])
    with pytest.raises(InputError, match="not finite"):
        Launderer(vae).launder(images * np.nan)


@pytest.mark.parametrize(("bias", "label"), [((-1, 5), "pristine"), ((1, -5), "laundered"), ((1, 5), "full")])
def test_the_second_stage_is_asked_only_about_synthetic_pictures(bias, label, images):
    detector = LaunderingDetector(network=network(bias), n_crops=4, top_m=2)
    assert detector.classify(images) == [label] * 3
    scores = detector.score(images)
    assert np.isnan(scores["laundered_vs_full"]).all() == (label == "pristine")
    found = detector.measure((images * 255).astype(np.uint8), [label, label, "full"])
    assert found[label] == 1
    assert found["balanced accuracy"] == (1 if label == "full" else 0.5)
    with pytest.raises(UsageError, match="labels are out of"):
        detector.measure(images, ["other"] * 3)


def test_scores_do_not_depend_on_the_batch(images):
    detector = LaunderingDetector(network=network(), n_crops=6, top_m=3)
    together = detector.score(images)["real_vs_synth"]
    alone = [detector.score(image[None])["real_vs_synth"][0] for image in images]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_only_pictures_below_the_smallest_side_are_enlarged(images):
    def scores(smallest):
        return LaunderingDetector(network=network(), n_crops=6, top_m=3, smallest=smallest).score(images)

    assert images.shape[2:] == (34, 41)
    np.testing.assert_array_equal(scores(34)["real_vs_synth"], scores(32)["real_vs_synth"])
    assert (scores(36)["real_vs_synth"] != scores(32)["real_vs_synth"]).any()


def test_the_shipped_detector_flags_laundered_photographs_alone(photo):
    """At full size, with the threshold that was set on another collection, which a photograph passes clearly or not."""
    from skimage.data import chelsea

    detector = LaunderingDetector()
    for picture, passes in ((chelsea(), True), (photo[:200, :300], False)):
        small = picture[: picture.shape[0] // 4 * 4, : picture.shape[1] // 4 * 4]
        washed = detector.attack(small.transpose(2, 0, 1)[None].astype(np.float32) / 255)[0]
        pictures = (small, np.round(washed * 255).astype(np.uint8).transpose(1, 2, 0))
        found = [detector.find(ImageSubject(encode(np.ascontiguousarray(pixels), "PNG"))) for pixels in pictures]
        assert not found[0].flagged
        assert found[1].score > found[0].score + 2
        if passes:
            assert found[1].flagged
            assert found[1].false_positive_rate == 0.02


def test_batches_leave_laundered_pictures_out_when_told():
    sets = {label: np.full((4, 3, 40, 40), 60 * i, np.uint8) for i, label in enumerate(LABELS)}
    for laundered, kinds in ((True, {0, 1, 2}), (False, {0, 2})):
        batches, step = laundering_training(sets, 64, laundered=laundered)
        batch = batches(0, torch.Generator().manual_seed(1))
        assert set(batch["kinds"].tolist()) == kinds
        assert batch["images"].shape == (64, 3, 32, 32)
        torch.testing.assert_close(batch["images"].mean((1, 2, 3)), batch["kinds"].float() * 60 / 255)
        net = network()
        step(net, batch, torch.Generator())["loss"].backward()
        assert (net.stages[1].head.weight.grad.abs().sum() > 0) == laundered
        assert net.stages[0].head.weight.grad.abs().sum() > 0
    with pytest.raises(UsageError, match="all three kinds"):
        laundering_training({"pristine": sets["pristine"]}, 8)


def test_it_answers_about_files(photo):
    detector = LaunderingDetector(network=network((1, -2)), n_crops=4, top_m=2)
    found = detector.find(ImageSubject(encode(photo[:100, :120], "JPEG")))
    assert found.applies
    assert "laundered or synthetic" in found.evidence[0]
    json.dumps(found.to_dict(), allow_nan=False)
    for pixels in (photo[:40, :200], np.full((90, 90, 3), 7, np.uint8)):
        assert not detector.find(ImageSubject(encode(pixels, "PNG"))).applies
    missing = LaunderingDetector("none.safetensors").find(ImageSubject(encode(photo[:100, :120], "PNG")))
    assert not missing.applies
    assert "vestige learn laundering" in missing.why_not


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    """An untrained latent diffusion model in the place of the shipped one."""
    from vestige.engines.diffusion.pipeline import TextToImage, save_pipeline
    from vestige.engines.diffusion.schedules import cosine
    from vestige.nn.text import build_tokenizer, text_encoder
    from vestige.nn.unet import text_unet

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["a photo"], 4)
    parts = text_unet(16, 4, (16, 32), 32), small_vae(64, (8, 16, 16), 4), text_encoder(tokenizer, 32, 1)
    save_pipeline(tmp_path / "model", TextToImage(*parts, tokenizer, cosine(), "v"))
    monkeypatch.setattr(laundering_data, "MODEL", tmp_path / "model")
    return tmp_path / "model"


def test_the_recipe_trains_saves_and_judges(tmp_path, photo, model):
    words = ["steps=2", "batch_size=8", "log_every=1", "limit=16", "sampler_steps=1", "width=0.125"]
    assert run("laundering", tmp_path, data=tmp_path, set_=words, device="cpu", quiet=True) == 0
    figures = json.loads((tmp_path / "metrics.json").read_text())["evaluation"]
    assert {*LABELS, "balanced accuracy", "by margin, balanced accuracy", "laundered called synthetic"} <= set(figures)
    detector = LaunderingDetector(tmp_path / "laundering.safetensors", n_crops=4, top_m=2)
    assert detector.find(ImageSubject(encode(photo[:100, :100], "PNG"))).applies
