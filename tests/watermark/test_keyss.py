"""KeySS: the right key opens the secret, any other leaves the cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.claims import ClaimContext
from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.engines.splatting import (
    Gaussians,
    cast,
    ellipsoid_scene,
    from_points,
    join,
    random_gaussians,
    read_ply,
    render,
    ring,
    surface_points,
    write_ply,
)
from vestige.watermark.keyss import (
    ATTRIBUTES,
    HashedKey,
    KeyDecoder,
    KeySS,
    TextKey,
    load_decoder,
    near_miss,
    random_key,
    save_decoder,
    scene_distance,
    sinkhorn,
)

KEY, SECOND = "Ab3dEf6hIj9lMn2p", "another key 0042"


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a.clamp(0, 1) - b).square().mean().log10())


@pytest.fixture(scope="module")
def views():
    cameras = ring(6, 16, radius=2.6)
    scenes = [ellipsoid_scene(n) for n in (100, 101)]
    points = [from_points(*surface_points(s, cameras, 70), degree=1) for s in scenes]
    return cameras, join(*points), *(cast(s, cameras) for s in scenes)


@pytest.fixture(scope="module")
def hidden(views):
    cameras, start, cover, secret = views
    method = KeySS.short(iterations=220)
    return method, *method.hide(start, cameras, cover, {KEY: secret})


def test_the_key_opens_the_secret_and_no_other_key_does(views, hidden, tmp_path):
    cameras, _, cover, secret = views
    method, scene, decoder = hidden
    write_ply(tmp_path / "scene.ply", scene)  # what is published is an ordinary file and a decoder
    save_decoder(tmp_path / "decoder.safetensors", decoder)
    scene, decoder = read_ply(tmp_path / "scene.ply"), load_decoder(tmp_path / "decoder.safetensors")
    published = psnr(render(scene, cameras), cover)
    assert published > psnr(secret, cover) + 6
    opened = render(method.reveal(scene, decoder, KEY), cameras)
    assert psnr(opened, secret) > psnr(cover, secret) + 6
    draw = rng(0, "test")
    for wrong in (random_key(draw), near_miss(KEY, draw), KEY.lower()):
        shown = render(method.reveal(scene, decoder, wrong), cameras)
        assert psnr(shown, secret) < psnr(cover, secret) + 1.5
        assert psnr(shown, cover) > published - 3


def test_the_decoder_needs_the_scene(views, hidden):
    cameras, start, cover, secret = views
    method, _, decoder = hidden
    shown = render(method.reveal(start[:70], decoder, KEY), cameras)  # the cover's points, before anything is hidden
    assert psnr(shown, secret) < psnr(cover, secret) + 3


def test_hiding_is_repeatable_and_leaves_its_inputs_alone(views):
    cameras, start, cover, secret = views
    before = start.vectors()
    torch.manual_seed(5)
    one = KeySS.short(iterations=3).hide(start, cameras, cover, {KEY: secret})
    torch.manual_seed(6)
    two = KeySS.short(iterations=3).hide(start, cameras, cover, {KEY: secret})
    assert torch.equal(one[0].vectors(), two[0].vectors())
    assert all(torch.equal(a, b) for a, b in zip(one[1].parameters(), two[1].parameters(), strict=True))
    other = KeySS.short(iterations=3, seed=1).hide(start, cameras, cover, {KEY: secret})
    assert not torch.equal(one[0].vectors(), other[0].vectors())
    assert torch.equal(start.vectors(), before)
    assert not one[0].xyz.requires_grad


def test_two_secrets_have_a_key_each(views):
    cameras, start, cover, secret = views
    black = torch.zeros_like(cover)
    method = KeySS.short(iterations=120, attributes=("opacity", "rotation"))
    scene, decoder = method.hide(start, cameras, cover, {KEY: secret, SECOND: black})
    first, second = (render(method.reveal(scene, decoder, key), cameras) for key in (KEY, SECOND))
    assert psnr(first, secret) > psnr(second, secret) + 3
    assert psnr(second, black) > psnr(first, black) + 3
    assert method.reveal(scene, decoder, KEY).xyz is scene.xyz


def test_a_decoder_changes_what_it_may_and_in_its_direction():
    scene = random_gaussians(50, degree=1)
    decoder = KeyDecoder(("opacity", "xyz", "scale"), 23)
    changed = decoder(scene, HashedKey()(KEY))
    assert changed.sh is scene.sh
    assert changed.rotation is scene.rotation
    for name in ("xyz", "scale"):
        difference = changed.tensors()[name] - scene.tensors()[name]
        assert difference.min() >= 0
        assert difference.max() > 0
    for head in decoder.heads.values():
        torch.nn.init.zeros_(head[-1].weight)
        torch.nn.init.constant_(head[-1].bias, -0.5)
    lowered = decoder(scene, HashedKey()(KEY))
    torch.testing.assert_close(lowered.opacity, scene.opacity - 0.5)
    assert torch.equal(lowered.xyz, scene.xyz)
    assert torch.equal(lowered.scale, scene.scale)
    everything = KeyDecoder(ATTRIBUTES, 23)(scene, HashedKey()(KEY))
    assert (everything.sh - scene.sh).max() > 0
    assert 90_000 < sum(p.numel() for p in KeyDecoder(key_dim=768).parameters()) < 150_000


def test_keys_become_independent_unit_vectors():
    encode, draw = HashedKey(), rng(0, "cosines")
    vectors = torch.stack([encode(KEY), *(encode(near_miss(KEY, draw)) for _ in range(60))])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(61))
    assert torch.equal(encode(KEY), vectors[0])
    assert (vectors[1:] @ vectors[0]).abs().max() < 0.6
    missed = near_miss(KEY, draw)
    assert sum(a != b for a, b in zip(missed, KEY, strict=True)) == 1
    assert len(random_key(draw)) == 16
    with pytest.raises(UsageError, match="empty key"):
        near_miss("", draw)


def test_a_text_encoder_plugs_in_and_its_padding_makes_keys_alike(views):
    from transformers import CLIPTextConfig, CLIPTextModel

    def tokenizer(texts, **options):
        assert options["padding"] == "max_length"
        return {
            "input_ids": torch.tensor([[1, *(ord(c) % 120 + 3 for c in t), *([2] * (77 - 1 - len(t)))] for t in texts])
        }

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = CLIPTextModel(CLIPTextConfig(vocab_size=130, bos_token_id=1, eos_token_id=2, **sizes)).eval()
    encode = TextKey(tokenizer, encoder)
    assert encode(KEY).shape == (32,)
    assert encode(KEY) @ encode(near_miss(KEY, rng(0))) > 0.95
    cameras, start, cover, secret = views
    method = KeySS.short(iterations=2, encoder=encode, near_misses=1.0)
    scene, decoder = method.hide(start, cameras, cover, {KEY: secret})
    assert decoder.key_dim == 32
    assert len(method.reveal(scene, decoder, KEY)) == len(start)


def test_wrong_keys_of_the_training_never_are_a_true_one():
    method, draw = KeySS(near_misses=0.5), rng(0, "wrong")
    drawn = [method._wrong_key([KEY], draw) for _ in range(200)]
    near = sum(sum(a != b for a, b in zip(k, KEY, strict=True)) == 1 for k in drawn)
    assert KEY not in drawn
    assert 60 < near < 140


def test_what_does_not_fit_is_refused(views):
    cameras, start, cover, secret = views
    method = KeySS.short(iterations=1)
    with pytest.raises(UsageError, match="at least one secret"):
        method.hide(start, cameras, cover, {})
    with pytest.raises(UsageError, match="at least one secret"):
        method.hide(start, cameras, cover, {"": secret})
    with pytest.raises(UsageError, match="cover's views"):
        method.hide(start, cameras, cover[:2], {KEY: secret})
    with pytest.raises(UsageError, match="secret's views"):
        method.hide(start, cameras, cover, {KEY: secret[..., :8]})
    with pytest.raises(UsageError, match="changes some of"):
        KeySS.short(iterations=1, attributes=("colour",)).hide(start, cameras, cover, {KEY: secret})
    with pytest.raises(UsageError, match="diverged"):
        KeySS.short(iterations=20, decoder_rate=1e30).hide(start, cameras, cover, {KEY: secret})
    with pytest.raises(UsageError, match="reads Gaussians of 59"):
        method.reveal(start, KeyDecoder(), KEY)


def test_damaged_decoders_are_refused(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "decoder.safetensors"
    with pytest.raises(InputError, match="does not exist"):
        load_decoder(path)
    save_decoder(path, KeyDecoder())
    whole = path.read_bytes()
    for data in (b"", whole[:100], b"\x80\x04" + whole, whole.replace(b'\\"opacity\\"', b'\\"opacitx\\"')):
        path.write_bytes(data)
        with pytest.raises(InputError, match="holds no KeySS decoder"):
            load_decoder(path)
    path.write_bytes(whole.replace(b'\\"width\\": 64', b'\\"width\\": 32'))
    with pytest.raises(InputError, match="another model"):
        load_decoder(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="holds no KeySS decoder"):
        load_decoder(path)
    path.write_bytes(whole)
    monkeypatch.setattr("vestige.watermark.keyss._MAX_DECODER", 1000)
    with pytest.raises(InputError, match="holds no KeySS decoder"):
        load_decoder(path)


def test_sinkhorn_agrees_with_exact_transport():
    from scipy.stats import wasserstein_distance

    x = np.linspace(0, 1, 50)
    cost = np.abs(x[:, None] - x)
    a, b = (np.exp(-((x - m) ** 2) / 0.01) for m in (0.3, 0.6))
    a, b = a / a.sum(), b / b.sum()
    exact = wasserstein_distance(x, x, a, b)
    assert sinkhorn(a, b, cost, regularisation=1e-3, steps=2000) == pytest.approx(exact, rel=0.02)
    assert sinkhorn(a, a, cost) < 0.02 < sinkhorn(a, b, cost)
    with pytest.raises(UsageError, match="costs of shape"):
        sinkhorn(a, b[:10], cost)


def test_scene_distance_sees_changed_statistics():
    scene = random_gaussians(300, degree=1)
    same = scene_distance(scene, scene)
    assert set(same) == {"opacity", "scale", "rotation", "xyz", "sh", "mean", "outside"}
    draw = torch.Generator().manual_seed(0)
    spread = {**scene.tensors(), "opacity": scene.opacity + 3 * torch.randn(300, 1, generator=draw)}
    changed = KeySS().measure(scene, Gaussians(**spread))
    assert changed["opacity"] > same["opacity"] + 0.05
    assert changed["sh"] == same["sh"]
    assert changed["mean"] > same["mean"]
    assert changed["outside"] > same["outside"]  # all opacities were equal: their bins are narrow


def test_the_headline_needs_a_lead_over_pairs_and_an_open_secret():
    from vestige.claims.watermark.keyss import judged

    assert judged([14.0, 15.0, 13.0], [0.2, 0.4, 0.1], [27.0, 26.0, 25.0])[0]
    assert not judged([0.2, 0.4, 0.1], [0.2, 0.4, 0.1], [27.0, 26.0, 25.0])[0]  # without the wrong-key term
    assert not judged([14.0, 15.0, 13.0], [0.2, 0.4, 0.1], [12.0, 12.0, 12.0])[0]  # nothing opens


def test_the_recipe_fits_every_kind_and_the_headline_reads_its_runs(tmp_path, monkeypatch):
    from vestige.app.verbs.learning import run
    from vestige.claims.watermark import keyss as claims
    from vestige.engines.runs import finished

    words = ["steps=2", "gaussians=40", "size=16", "views=3", "held=2"]
    for variant, seeds in {"default": (0, 1, 2), "no_wrong_key": (0, 1, 2), "features": (0,), "plain": (0,)}.items():
        for seed in seeds:
            out = tmp_path / "keyss" / variant / str(seed)
            assert run("keyss", out, set_=words, device="cpu", quiet=True, seed=seed, variant=variant) == 0
    assert finished("keyss", "features", 0, tmp_path).figures["secret"] > 0
    monkeypatch.setattr(claims, "PAIRS", (0, 1, 2))
    context = ClaimContext(None, limit=2, runs=tmp_path)
    evidence = claims.only_the_key_opens_it.check(context)
    assert not evidence.holds  # two steps hide nothing
    assert len(evidence.table) == 6
    assert ("keyss", "no_wrong_key", 2) in context.used
