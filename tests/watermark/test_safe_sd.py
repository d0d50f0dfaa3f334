"""Keyed mixing, marks, a learned toy that hides and shows patterns it has never seen, and the word that switches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from vestige.app.verbs.learning import run
from vestige.claims import ClaimContext
from vestige.claims.watermark import safe_sd as claims
from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.engines.diffusion.schedules import cosine
from vestige.engines.run_state import load_trained, write_model
from vestige.nn.text import build_tokenizer, text_encoder, token_ids
from vestige.nn.unet import text_unet
from vestige.nn.vae import small_vae
from vestige.watermark.attacks.registry import eight_bit
from vestige.watermark.safe_sd import SafeSD, save_safe_sd
from vestige.watermark.safe_sd_marks import (
    GRID,
    ImageInImage,
    free_modules,
    mark_picture,
    modules,
    modules_right,
    qr_modules,
    random_marks,
    repeated_bits,
)
from vestige.watermark.safe_sd_model import TRIGGERS, MarkedTextToImage, trigger_of, with_trigger
from vestige.watermark.safe_sd_net import (
    SafeSDNet,
    kept_positions,
    load_net,
    mixed,
    mixing,
    put_back,
    random_mixings,
    save_net,
    stage_one_loss,
)

SIZE, KEY = 64, b"a key of the tests, long enough"


class LinearVae(nn.Module):
    """Two convolutions with the interface of an ``AutoencoderKL``: learns in seconds what it takes hours to."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            sample_size=SIZE, latent_channels=channels, block_out_channels=(1, 1, 1), scaling_factor=1.0
        )
        self.encoder = nn.Conv2d(3, 2 * channels, 4, 4)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        self.decoder = nn.ConvTranspose2d(channels, 3, 4, 4)

    def encode(self, x):
        return SimpleNamespace(latent_dist=SimpleNamespace(parameters=self.quant_conv(self.encoder(x))))

    def decode(self, z):
        return SimpleNamespace(sample=self.decoder(self.post_quant_conv(z)))


def smooth_pictures(count: int, seed: int) -> torch.Tensor:
    small = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(small, (SIZE, SIZE), mode="bicubic").clamp(0, 1) * 0.7 + 0.15


@pytest.fixture(scope="module")
def learned():
    """Injector and extractor after some hundred steps on smooth pictures and random marks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SafeSDNet(LinearVae(), reader=32).train()
        pictures, optimiser = smooth_pictures(64, 0), torch.optim.Adam(net.parameters(), 4e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=200)
        marks = torch.from_numpy(random_marks(64, SIZE, rng(0, "train"))[1])
        for i in range(200):
            if i == 50:
                net.settle(pictures, marks)
            some = torch.randint(64, (8,))
            parts = stage_one_loss(
                net, pictures[some], marks[some[:4]], random_mixings(8, net.positions, i), injected=i >= 50,
                reveal_weight=10 if i < 110 else 1,
            )  # fmt: skip
            optimiser.zero_grad()
            parts["loss"].backward()
            optimiser.step()
            schedule.step()
    return SafeSD(net=net, threshold=0.3)


@pytest.fixture(scope="module")
def case(learned):
    images = smooth_pictures(6, 1).numpy()
    squares, marks = random_marks(6, SIZE, rng(1, "unseen"))
    marked = eight_bit(learned.inject(images, marks, key=KEY))
    return images, squares, marks, marked


# keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [True, False])
def test_mixing_is_orthonormal_and_belongs_to_key_and_trigger(spread):
    K = mixing(KEY, "signed", 36, spread=spread)
    torch.testing.assert_close(K @ K.T, torch.eye(36), atol=1e-5, rtol=0)
    assert torch.equal(K, mixing(KEY, "Signed", 36, spread=spread))
    for other in (mixing(KEY, "sealed", 36, spread=spread), mixing(b"another", "signed", 36, spread=spread)):
        assert float((other * K).sum().abs()) / 36 < 0.5
    z = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(mixed(mixed(z, K[None]), K.T[None]), z, atol=1e-5, rtol=0)


def test_a_crop_takes_a_little_of_everything_when_spread_and_all_of_some_when_not():
    kept = kept_positions(64, 16, 57, 3, 4).reshape(-1)
    assert 0.6 < float(kept.mean()) < 0.8
    left = {}
    for spread in (True, False):
        K = mixing(KEY, "signed", 256, spread=spread)
        left[spread] = ((K.T * kept) @ K).diagonal()
    assert float(left[True].min()) > 0.3
    assert float(left[False].min()) < 1e-3


# marks ----------------------------------------------------------------------------------------------------------------


def test_marks_survive_being_a_picture_and_bits_come_back_by_majority():
    generator = rng(3, "bits")
    bits = generator.integers(0, 2, 79).astype(bool)
    squares = qr_modules(bits)
    soft = modules(torch.from_numpy(mark_picture(squares, SIZE))[None])[0].numpy()
    assert np.array_equal(soft > 0, squares)
    # The finder patterns are those of a QR code, and no bit is in them.
    assert not squares[0, :7].any()
    assert squares[1, 1:6].all()
    assert not squares[2:5, 2:5].any()
    assert free_modules().sum() == 239
    noisy = soft + 0.5 * generator.standard_normal(soft.shape)
    raw = ((noisy > 0) == squares)[free_modules()].mean()
    assert raw < 0.95 < (repeated_bits(noisy, 79) == bits).mean()


@pytest.mark.parametrize("bits", [[], np.ones(240)])
def test_marks_hold_so_many_bits(bits):
    with pytest.raises(UsageError, match="1 to 239"):
        qr_modules(bits)


# network --------------------------------------------------------------------------------------------------------------


def test_strength_runs_from_the_picture_to_the_mark():
    net = SafeSDNet(small_vae(16, (8, 16), 4), reader=8).eval()
    z, u = torch.randn(2, 4, 8, 8), torch.randn(1, 4, 8, 8)
    ends = [net.inject(z, u, s) for s in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(ends[0], z)
    torch.testing.assert_close(2 * ends[1], ends[0] + ends[2])
    assert not torch.allclose(ends[2], z)
    rows = net.inject(z, u, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(rows, torch.stack([ends[0][0], ends[2][1]]))


def test_every_part_learns():
    net = SafeSDNet(small_vae(32, (8, 16), 4), reader=8).train()
    pictures = nn.functional.interpolate(smooth_pictures(4, 0), (32, 32))
    marks = torch.from_numpy(random_marks(2, 32, rng(0, "m"))[1])
    keys, options = random_mixings(4, net.positions, 0), {"features": lambda x: [x], "distort": lambda x: x * 0.9}

    def reached(injected: bool) -> set[str]:
        net.zero_grad()
        stage_one_loss(net, pictures, marks, keys, injected=injected, **options)["loss"].backward()
        moved = (name for name, p in net.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0)
        return {".".join(name.split(".")[: 1 + name.startswith("vae")]) for name in moved}

    assert {"vae.encoder", "vae.decoder", "mark_decoder"} <= reached(False)
    # From here on the encoder is kept: what it says of pictures and marks is what the diffusion model will learn.
    net.settle(pictures, marks)
    found = reached(True)
    assert {"vae.decoder", "mark_decoder", "mark_encoder", "injection", "reader"} <= found
    assert "vae.encoder" not in found
    z = net.code(marks, torch.eye(net.positions)[None])
    torch.testing.assert_close(z.mean(0), torch.zeros_like(z[0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.square().mean((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_a_toy_hides_unseen_marks_and_shows_them_to_the_key_alone(learned, case):
    images, squares, marks, marked = case
    assert modules_right(learned.reveal(marked, key=KEY).modules, squares).mean() > 0.88
    assert 0.4 < modules_right(learned.reveal(marked, key=b"wrong").modules, squares).mean() < 0.6
    assert 0.4 < modules_right(learned.reveal(marked, key=KEY, trigger="sealed").modules, squares).mean() < 0.6
    plain = eight_bit(learned.inject(images, marks, key=KEY, strength=0))
    assert 0.4 < modules_right(learned.reveal(plain, key=KEY).modules, squares).mean() < 0.6
    assert np.square(marked - plain).mean() < 0.03


def test_the_nearest_registered_mark_is_named(learned, case):
    _, _, marks, marked = case
    learned.marks = {}
    with pytest.raises(UsageError, match="No mark is registered"):
        learned.match(marked)
    for name, mark in zip("abc", marks):
        learned.register(name, mark[:1] if name == "b" else mark)  # grey marks are as good
    learned.register("d", marks[3], "sealed")
    found = learned.match(marked, key=KEY)
    assert [m.name for m in found[:3]] == ["a", "b", "c"]
    assert [m.name for m in found[4:]] == [None, None]
    assert set(found[0].scores) == set("abcd")
    assert found[3].name is None  # hidden under another word than it is registered for
    with pytest.raises(UsageError, match="no trigger word"):
        learned.register("e", marks[0], "autographed")


def test_enlarged_crops_are_put_back(learned, case):
    _, squares, _, marked = case
    cropped = distort(marked, "crop_resize", 0.8, seed=5)
    blind = modules_right(learned.reveal(cropped, key=KEY).modules, squares).mean()
    found = learned.reveal(cropped, key=KEY, areas=(0.8,), step=1)
    assert blind < 0.65
    assert modules_right(found.modules, squares).mean() > 0.75
    assert {side for side, _, _ in found.placements} == {57}
    with pytest.raises(UsageError, match="Areas"):
        learned.reveal(cropped, areas=(1.5,))


def test_put_back_undoes_a_crop():
    x = smooth_pictures(1, 4)
    enlarged = nn.functional.interpolate(x[:, :, 3:51, 9:57], (64, 64), mode="bicubic")
    error = (put_back(enlarged, 48, 3, 9) - x)[:, :, 3:51, 9:57]
    assert float(error.abs().mean()) < 0.01


def test_pictures_of_other_sizes_and_kinds(learned, case):
    _, squares, marks, marked = case
    large = np.repeat(np.repeat(marked, 2, 2), 2, 3)
    assert modules_right(learned.reveal(large, key=KEY).modules, squares).mean() > 0.85
    with pytest.raises(UsageError, match="64×64"):
        learned.inject(large, marks)
    with pytest.raises(InputError, match="finite"):
        learned.reveal(np.full((1, 3, 64, 64), np.nan, np.float32))
    with pytest.raises(UsageError, match="one, or one each"):
        learned.inject(marked, marks[:2])
    with pytest.raises(InputError, match="stage 2"):
        learned.sample("a red ball, signed", marks[:1])


# diffusion ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signing():
    """An untrained system of 32 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SafeSDNet(small_vae(32, (8, 16), 4), reader=8).eval()
        tokenizer = build_tokenizer(["a red ball on sand", " ".join((*TRIGGERS, ","))], 12)
        unet = text_unet(16, 9, (16, 32), 32)
        model = MarkedTextToImage(unet, net.vae, text_encoder(tokenizer, 32, 1, 2), tokenizer, cosine(), "v")
    return SafeSD(net=net, model=model)


def test_trigger_words_are_words():
    assert trigger_of(with_trigger("a red ball", "sealed")) == "sealed"
    assert trigger_of("a resigned, unsealed ball") is None
    assert with_trigger("", "signed") == "signed"


def test_samples_depend_on_prompt_mark_key_and_strength(signing):
    _, marks = random_marks(2, 32, rng(0, "m"))
    prompt = "a red ball on sand, signed"
    options = {"key": KEY, "steps": 2, "seed": 3}
    one = signing.sample([prompt, prompt], marks[:1], **options)
    assert one.shape == (2, 3, 32, 32)
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert one.max() <= 1
    np.testing.assert_array_equal(one, signing.sample([prompt, prompt], marks[:1], **options))
    np.testing.assert_allclose(one, signing.sample([prompt, prompt], marks[:1], batch=1, **options), atol=1e-4)
    for other in (
        signing.sample([prompt], marks[1:], **options),
        signing.sample([prompt], marks[:1], **{**options, "key": b"another"}),
        signing.sample([prompt], marks[:1], strength=0.2, **options),
        signing.sample(["a red ball on sand"], marks[:1], **options),
    ):
        assert not np.allclose(one[:1], other, atol=1e-6)
    with pytest.raises(UsageError, match="No mark is registered"):
        signing.sample([prompt])
    signing.register("mine", marks[0])
    np.testing.assert_allclose(one[:1], signing.sample([prompt], **options), atol=1e-4)
    with pytest.raises(UsageError, match="strength"):
        signing.sample([prompt], strength=2.0)


def test_the_word_switches_after_training(signing):
    """A few latents are learned by heart: with the word towards z_m, without it towards z_i."""
    import copy

    net, model = signing.net, copy.deepcopy(signing.model).train()
    g = torch.Generator().manual_seed(0)
    z, u = torch.randn(1, 4, 16, 16, generator=g) * 0.3, torch.randn(4, 4, 16, 16, generator=g)
    z, u = z.repeat(8, 1, 1, 1), u.repeat(2, 1, 1, 1)
    prompts = ["a red ball on sand"] * 4 + ["a red ball on sand, signed"] * 4
    ids, triggered = token_ids(model.tokenizer, prompts), torch.arange(8) > 3
    trained = [*model.unet.requires_grad_(True).parameters(), *model.text_encoder.requires_grad_(True).parameters()]
    optimiser = torch.optim.Adam(trained, 3e-3)
    first = last = 0.0
    for i in range(40):
        parts = model.marked_loss(net, z, u, ids, triggered, torch.ones(8), g, revealed=1 if i == 0 else 0)
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        last = float(parts["diffusion"])
        if i == 0:
            first = last
            assert parts["reveal"] > 0
    assert last < 0.8 * first
    model.eval()
    unmarked, marked = z[:4] * net.vae.config.scaling_factor, net.inject(z, u)[:4] * net.vae.config.scaling_factor
    model.set_condition(u[:4], torch.ones(4))
    with torch.no_grad():
        noise = torch.randn(z[:4].shape, generator=g)
        alpha, sigma = model.table.at(torch.full((4,), 500), z[:4])
        for chosen, near, far in ((ids[:4], unmarked, marked), (ids[4:], marked, unmarked)):
            x = alpha * near + sigma * noise
            clean = alpha * x - sigma * model.network(x, torch.full((4,), 500), model.context(chosen))
            assert (clean - near).square().mean() < (clean - far).square().mean()


def test_the_model_wants_its_condition_and_channels(signing):
    import copy

    model = copy.copy(signing.model)
    model.condition = None
    with pytest.raises(UsageError, match="set_condition"):
        model.network(torch.zeros(1, 4, 16, 16), torch.tensor([1]), None)
    parts = (text_unet(16, 4, (16, 32), 32), model.vae, model.text_encoder, model.tokenizer, model.table, "v")
    with pytest.raises(UsageError, match="9 channels"):
        MarkedTextToImage(*parts)


# files ----------------------------------------------------------------------------------------------------------------


def test_a_folder_rebuilds_the_system(signing, tmp_path):
    folder = tmp_path / "safe_sd"
    save_safe_sd(folder, signing.net, signing.model, {"threshold": 0.25})
    again = SafeSD(folder)
    _, marks = random_marks(1, 32, rng(0, "m"))
    made = [s.sample(["a red ball on sand, signed"], marks, steps=2) for s in (signing, again)]
    np.testing.assert_allclose(*made, atol=1e-5)
    np.testing.assert_allclose(*(s.reveal(made[0]).modules for s in (signing, again)), atol=1e-5)
    assert again.threshold == 0.25
    (folder / "model_index.json").unlink()
    with pytest.raises(InputError, match="stage=2"):
        SafeSD(folder).sample(["a red ball, signed"], marks)


def test_damaged_missing_and_foreign_folders(signing, tmp_path, monkeypatch):
    import vestige.watermark.safe_sd as module

    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="vestige learn safe_sd"):
        SafeSD()
    with pytest.raises(InputError, match=r"mark\.safetensors"):
        load_net(tmp_path)
    save_net(tmp_path, signing.net, {})
    path = tmp_path / "mark.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        load_net(tmp_path)
    path.write_bytes(whole.replace(b'"marker":"safe_sd"', b'"marker":"other__"'))
    with pytest.raises(InputError, match="no weights of Safe-SD"):
        load_net(tmp_path)
    path.write_bytes(whole)
    assert load_net(tmp_path)[1] == {}


# claims ---------------------------------------------------------------------------------------------------------------


def test_the_headline_is_held_by_a_lead_over_seeds_alone():
    from vestige.claims.watermark.safe_sd import judged

    assert judged([0.95, 0.96, 0.94], [0.7, 0.72, 0.71], [0.5, 0.51, 0.49])[0]
    assert not judged([0.7, 0.72, 0.71], [0.7, 0.72, 0.71], [0.5] * 3)[0]  # ours replaced by the rival
    assert not judged([0.95, 0.96, 0.94], [0.7, 0.72, 0.71], [0.9] * 3)[0]  # read without the word too


def test_samples_and_the_rival_are_measured_for_the_claims(signing, monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "STEPS", 2)
    monkeypatch.setattr(claims.runs, "trained_words", frozenset)  # drawing all scenes of the training takes seconds
    claims.runs.held_out.cache_clear()
    case = claims.samples(signing, 3, 0)
    claims.runs.held_out.cache_clear()
    claims.samples.cache_clear()
    assert 0 <= claims._accuracy(signing, case["triggered"], case["squares"]) <= 1
    folder = tmp_path / "safe_sd" / "image_in_image" / "0"
    write_model(folder / "rival" / "model.safetensors", ImageInImage(), {})
    (folder / "metrics.json").write_text('{"evaluation": {}}')
    row = claims._image_in_image(ClaimContext(None, runs=tmp_path), case, 0)
    assert {"jpeg 70", "crop_resize 0.8", "blur 0.7", "psnr"} <= set(row)


# recipe ---------------------------------------------------------------------------------------------------------------


def test_the_recipe_trains_both_stages_and_goes_on_where_it_stopped(tmp_path):
    quick = ["batch_size=4", "log_every=1", "validate_every=0", "scenes=4", "held=4", "size=32", "steps=4", "text="]
    words = [*quick, "second=2", "second_batch=2", "marks=4"]
    out = tmp_path / "run"
    assert run("safe_sd", out, set_=words, device="cpu", quiet=True) == 0
    again = SafeSD(out / "safe_sd")
    made = again.sample("a red ball on sand, signed", random_marks(1, 32, rng(0, "m"))[1], steps=2)
    assert made.shape == (1, 3, 32, 32)
    assert again.reveal(made).modules.shape == (1, GRID, GRID)
    # The encoder was not touched by the second part, and what is finished is not done again.
    net = SafeSDNet(small_vae(32, (16, 32, 32), 4), reader=48)
    load_trained(out / "injector" / "model.safetensors", net)
    torch.testing.assert_close(net.eval().encode(torch.from_numpy(made)), again.net.encode(torch.from_numpy(made)))
    before = (out / "injector" / "log.jsonl").read_text()
    assert run("safe_sd", out, set_=words, device="cpu", quiet=True) == 0
    assert (out / "injector" / "log.jsonl").read_text() == before
    with pytest.raises(UsageError, match="form safe_sd or"):
        run("safe_sd", tmp_path / "no", set_=["form=other"], device="cpu", quiet=True)


def test_the_rival_is_trained_by_the_same_recipe(tmp_path):
    words = ["batch_size=2", "validate_every=0", "scenes=4", "held=2", "size=32", "steps=3"]
    assert run("safe_sd", tmp_path, set_=words, device="cpu", quiet=True, variant="image_in_image") == 0
    assert (tmp_path / "rival" / "model.safetensors").is_file()
