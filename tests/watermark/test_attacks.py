"""The attack suite: every attack keeps its promises, and removes or forges what it is made for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import to_float
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.metrics.quality import psnr
from vestige.nn.resnet import ResNetConfig
from vestige.nn.vae import identity_vae, small_vae
from vestige.watermark.attacks import ATTACKS, NEEDS, SUITES, Context, attack, missing, trials
from vestige.watermark.attacks.regeneration import load_model, native, regenerate, tilewise
from vestige.watermark.attacks.several import residual
from vestige.watermark.robust_limits import Substitute


@pytest.fixture(scope="module")
def pattern() -> np.ndarray:
    """A faint fixed pattern, the simplest mark there is."""
    return (np.random.default_rng(5).choice([-1.0, 1.0], (1, 3, 48, 64)) * 3 / 255).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    from vestige.engines.diffusion.pipeline import TextToImage
    from vestige.engines.diffusion.schedules import cosine
    from vestige.nn.text import build_tokenizer, text_encoder
    from vestige.nn.unet import text_unet

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["a red ball", "a blue cup"], 8)
    encoder = text_encoder(tokenizer, 32, 1, 2)
    return TextToImage(text_unet(16, 3, (8, 16), 32, head=8), identity_vae(), encoder, tokenizer, cosine(), "v").eval()


@pytest.fixture(scope="module")
def context(model, pattern) -> Context:
    rng = np.random.default_rng(2)
    return Context(
        model=model,
        autoencoder=small_vae(16, (8, 16), 4).eval(),
        service=lambda x: (x + pattern[..., : x.shape[2], : x.shape[3]]).clip(0, 1),
        pool=[np.float32(rng.random((1, 3, 40 + 9 * i, 70))) for i in range(3)],
        caption=lambda x: ["a red ball"] * len(x),
        purifier=lambda x: 1 - x,
        controls=lambda x, strength, seed: (1 - strength) * x + 0.5 * strength,
        substitute=Substitute(ResNetConfig(18, width=0.125, classes=1), side=32),
        steps=2,
    )


@pytest.fixture
def images(picture) -> np.ndarray:
    return np.concatenate([to_float(picture), to_float(picture[::-1].copy())])


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_bounded_and_repeatable(name, images, context):
    found = ATTACKS[name]
    images = images[:, :, :20, :36] if found.needs else images
    assert set(found.quick) <= set(found.ladder) | {0.9, 1.1, 1.25}
    before = images.copy()
    made = attack(images, name, found.quick[0], seed=3, context=context)
    assert made.dtype == np.float32
    assert len(made) == 2
    assert np.abs(made * 255 - np.rint(made * 255)).max() < 1e-3
    assert 0 <= made.min() <= made.max() <= 1
    assert not found.aligned or made.shape == images.shape
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(made, attack(images, name, found.quick[0], seed=3, context=context))
    if name != "identity":
        assert made.shape != images.shape or not np.array_equal(made, images)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_work_on_tiny_pictures_or_say_why_not(name, context):
    for shape in ((1, 3, 1, 1), (1, 3, 3, 5)):
        flat = np.full(shape, 0.5, np.float32)
        if name == "webp" or name == "avif" or shape[2] > 1:
            made = attack(flat, name, ATTACKS[name].ladder[-1], context=context)
            assert np.isfinite(made).all()


def test_ladders_grow_more_severe(images):
    for name in ("jpeg", "webp", "blur", "noise", "denoise", "dither", "quantize"):
        damage = [psnr(images, attack(images, name, s)).mean() for s in ATTACKS[name].ladder]
        assert damage == sorted(damage, reverse=True), name


def test_what_an_attack_lacks_is_said():
    for found in ATTACKS.values():
        assert bool(missing(found, Context())) == bool(found.needs)
        assert set(found.needs) <= set(NEEDS)
    with pytest.raises(UsageError, match="--model"):
        attack(np.zeros((1, 3, 8, 8), np.float32), "purify", 0.1)
    with pytest.raises(UsageError, match="jpeg"):
        attack(np.zeros((1, 3, 8, 8), np.float32), "jpg", 50)
    with pytest.raises(UsageError, match="from 1 to 100"):
        attack(np.zeros((1, 3, 8, 8), np.float32), "jpeg", 0)
    with pytest.raises(UsageError, match="divide by 255"):
        attack(np.zeros((1, 3, 8, 8), np.uint8), "jpeg", 50)
    with pytest.raises(InputError, match="finite"):
        attack(np.full((1, 3, 8, 8), np.nan, np.float32), "denoise", 5)


def test_selections_are_read():
    assert [(t.name, t.strength) for t in trials("jpeg:30, resize:0.5+jpeg:70")] == [
        ("jpeg", "30"),
        ("resize+jpeg", "0.5+70"),
    ]
    assert trials("resize:0.5+jpeg:70")[0].family == "combination"
    assert not trials("resize:0.5+jpeg:70")[0].aligned
    assert len(trials("signal,signal,jpeg")) == len(trials("signal")) + len(trials("jpeg"))
    assert {t.name for t in trials("all", "full")} == set(ATTACKS)
    assert [t.strength for t in trials("w-bench", "full") if t.name == "jpeg"] == ["70", "50", "30", "10"]
    assert set().union(*map(set, SUITES.values())) == set(ATTACKS)
    for wrong in ("", "jpeg:", "jpeg:high", "jpeg:500", "signal:3", "nonsense", "jpeg:50+blur"):
        with pytest.raises(UsageError):
            trials(wrong)
    with pytest.raises(UsageError, match="quick or full"):
        trials("jpeg", "some")


def test_a_chain_is_its_steps_in_order(images):
    made = trials("resize:0.5+jpeg:70")[0](images, seed=1)
    np.testing.assert_array_equal(made, attack(attack(images, "resize", 0.5), "jpeg", 70))


def correlation(images: np.ndarray, pattern: np.ndarray) -> float:
    found = residual(images)
    return float((found * pattern).sum() / np.sqrt((found**2).sum() * (pattern**2).sum() * len(images)))


def test_a_substitute_detector_is_deceived_within_its_budget(images):
    substitute = Substitute(ResNetConfig(18, width=0.125, classes=1), side=32)
    moved = attack(images, "substitute", 6, context=Context(substitute=substitute))
    assert np.abs(moved - images).max() <= 6.01 / 255
    with torch.no_grad():
        before, after = (substitute.logits(torch.from_numpy(x)) for x in (images, moved))
    assert (after < before).all()


def test_collusion_removes_and_forgery_plants_a_fixed_pattern(photo, pattern):
    clean = np.concatenate([to_float(photo[y : y + 48, x : x + 64]) for y, x in ((40, 40), (200, 300))])
    pool = [to_float(photo[60 * i : 60 * i + 48, 70 * i : 70 * i + 64]) for i in range(6)]
    means = Context(service=lambda x: (x + pattern).clip(0, 1), pool=pool)
    marked = means.service(clean)
    assert correlation(marked, pattern) > correlation(clean, pattern) + 0.3
    averaged = attack(marked, "average", 12, context=means)
    assert correlation(averaged, pattern) < 0.5 * correlation(marked, pattern)
    for name in ("copy", "forge_average", "spoof"):
        assert ATTACKS[name].forges
        forged = attack(clean, name, ATTACKS[name].quick[0], context=means)
        assert correlation(forged, pattern) > correlation(clean, pattern) + 0.05, name


def test_pasting_keeps_the_middle_of_the_picture(images):
    made = attack(images, "crop_paste", 0.5, seed=4)
    assert made.shape[2] == 2 * round(48 * 0.9)
    flat = attack(np.zeros((1, 3, 64, 64), np.float32), "crop_paste", 0.5, seed=4)[0].max(0)
    assert (flat < 0.1).mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("shape", [(48, 64), (16, 16), (5, 40), (1, 1), (17, 31)])
def test_tiles_of_the_identity_give_the_picture_back(shape):
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    seen = []

    def keep(tiles, which):
        assert tiles.shape[1:] == (3, 16, 16)
        seen.extend(which.tolist())
        return tiles

    torch.testing.assert_close(tilewise(images, 16, keep, batch=3), images)
    assert set(seen) == {0, 1}


def test_regeneration_runs_the_chain_it_is_asked_for(model, images):
    images = images[:, :, :32, :44]
    small = regenerate(images, model, 0.1, steps=10, seed=1)
    large = regenerate(images, model, 0.9, steps=10, seed=1)
    assert small.shape == images.shape
    assert psnr(images, small).mean() > psnr(images, large).mean()
    assert not np.array_equal(small, regenerate(images, model, 0.1, steps=10, seed=2))
    inverted = regenerate(images, model, 0.2, steps=20, how="invert")
    assert psnr(images, inverted).mean() > psnr(images, small).mean()  # no noise is added
    mask = np.zeros((2, 1, 32, 44), bool)
    mask[:, :, :20, :30] = True
    filled = regenerate(images, model, 1.0, steps=3, how="fill", mask=mask)
    np.testing.assert_allclose(np.where(mask, 0, filled), np.where(mask, 0, images), atol=1e-5)
    assert np.abs(filled - images)[np.repeat(mask, 3, 1)].mean() > 0.01
    with pytest.raises(UsageError, match="captions"):
        regenerate(images, model, 0.1, prompts=["one"])
    with pytest.raises(UsageError, match="with a mask"):
        regenerate(images, model, 0.1, how="fill")
    with pytest.raises(UsageError, match="strength"):
        regenerate(images, model, 0.0)


def test_folders_of_models_are_read(model, tmp_path, images):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    from vestige.engines.diffusion.pipeline import save_pipeline

    folder = save_pipeline(tmp_path / "ours", model)
    again = load_model(folder)
    np.testing.assert_array_equal(regenerate(images, model, 0.3, steps=5), regenerate(images, again, 0.3, steps=5))
    unet = UNet2DModel(
        sample_size=16, block_out_channels=(8, 16), down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=50)).save_pretrained(tmp_path / "pixels")
        plain = load_model(tmp_path / "pixels")
    assert native(plain).size == 16
    assert regenerate(images, plain, 0.1, steps=10).shape == images.shape
    small_vae(16, (8, 16), 4).save_pretrained(tmp_path / "vae")
    coded = attack(images, "vae", 0, context=Context(autoencoder=load_autoencoder(tmp_path / "vae", tiny=True)))
    assert coded.shape == images.shape
    with pytest.raises(InputError, match="AutoencoderKL"):
        load_autoencoder(folder / "unet")
    with pytest.raises(InputError):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="cannot be redrawn"):
        native(object())
