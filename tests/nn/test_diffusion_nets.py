"""Networks of the diffusion engine: shapes, conditioning, identity starts, the autoencoder."""

from __future__ import annotations

import pytest
import torch

from vestige.core.errors import UsageError
from vestige.nn.dit import DiT, TimeEmbedding
from vestige.nn.text import build_tokenizer, text_encoder, token_ids
from vestige.nn.unet import SIZES, norm_groups, text_unet
from vestige.nn.vae import decode, encode, fit_scaling, identity_vae, small_vae, vae_loss


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("size", "widths"), [(16, "tiny"), (32, (16, 32, 48)), (64, (16, 16, 32, 32))])
def test_unets_keep_the_shape_and_hear_the_text(size, widths):
    torch.manual_seed(0)
    unet = text_unet(size, 3, widths, 8, attention_size=8)
    x, t = torch.randn(2, 3, size, size), torch.tensor([1, 900])
    context = torch.randn(2, 5, 8)
    with torch.no_grad():
        out = unet(x, t, context).sample
        assert out.shape == x.shape
        assert not torch.allclose(out, unet(x, t, context + 1).sample, atol=1e-4)
        assert not torch.allclose(out, unet(x, t.flip(0), context).sample, atol=1e-4)


def test_unet_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="no UNet size"):
        text_unet(32, 3, "huge")
    with pytest.raises(UsageError, match="sizes divisible by 4"):
        text_unet(30, 3, "small")
    with pytest.raises(UsageError, match="head width"):
        text_unet(32, 3, (24, 40))


def test_norms_keep_the_mean_colour():
    assert [norm_groups(w) for w in ([32, 64, 128], [64, 128], [128, 256], [16, 32], [8])] == [8, 16, 32, 4, 2]
    with pytest.raises(UsageError, match="divisible by 8"):
        norm_groups([12, 24])
    torch.manual_seed(0)
    vae = small_vae(16, (16, 16), 4)
    shades = torch.tensor([-0.8, 0.8])[:, None, None, None].expand(2, 3, 16, 16)
    middle = vae.encode(shades).latent_dist.mode()[..., 3:5, 3:5]
    assert float((middle[0] - middle[1]).detach().abs().max()) > 1e-3


def test_the_size_for_two_cores_ships_below_25_megabytes():
    tokenizer = build_tokenizer([" ".join(f"word{i}" for i in range(70))], 24)
    parts = [text_unet(32, 3, "cpu", 128, attention_size=8), text_encoder(tokenizer), small_vae(32, (32, 64))]
    assert sum(p.numel() for part in parts for p in part.parameters()) * 4 < 25e6
    assert set(SIZES) >= {"tiny", "cpu", "small", "medium"}


def test_dit_starts_at_zero_and_learns_its_condition():
    torch.manual_seed(0)
    net = DiT(16, 3, patch=4, width=32, depth=2, heads=2, classes=3)
    x, t, labels = torch.randn(6, 3, 16, 16), torch.full((6,), 100), torch.arange(6) % 3
    assert float(net(x, t, labels).abs().max()) == 0
    goal = (labels.float() - 1)[:, None, None, None].expand_as(x)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = (net(x, t, labels) - goal).square().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
    with torch.no_grad():
        assert not torch.allclose(net(x, t, labels), net(x, t), atol=0.1)


def test_dit_reads_text_tokens():
    torch.manual_seed(0)
    net = DiT(8, 4, patch=2, width=16, depth=1, heads=2, context=6)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x, t, text = torch.randn(2, 4, 8, 8), torch.tensor([3, 4]), torch.randn(2, 5, 6)
    assert net(x, t, text).shape == x.shape
    assert not torch.allclose(net(x, t, text), net(x, t, text * 2))
    assert net(x, t).shape == x.shape
    with pytest.raises(UsageError, match="tile"):
        DiT(30, 3, patch=4)


def test_time_embeddings_differ_and_have_gradients():
    embed = TimeEmbedding(16)
    out = embed(torch.tensor([0, 1, 999]))
    assert out.shape == (3, 16)
    assert float((out[0] - out[1]).norm().detach()) > 1e-3
    out.sum().backward()
    assert embed.first.weight.grad is not None


def test_identity_autoencoder_is_exact_even_outside_the_range():
    x = (2 * torch.randn(2, 3, 8, 8, generator=gen())).clamp(-3, 3)
    assert float((decode(identity_vae(), encode(identity_vae(), x)) - x).abs().max()) < 1e-3
    x = x.clamp(-1, 1)
    assert float((decode(identity_vae(), encode(identity_vae(), x)) - x).abs().max()) < 2e-5
    assert not any(p.requires_grad for p in identity_vae().parameters())


def test_autoencoder_learns_and_its_latents_are_scaled():
    torch.manual_seed(0)
    vae, g = small_vae(16, (16, 16), 4), gen()
    shades = torch.rand(32, 3, 1, 1, generator=g) * 2 - 1
    images = shades.expand(32, 3, 16, 16).contiguous()
    optimiser = torch.optim.Adam(vae.parameters(), 1e-2)
    first = None
    for _ in range(40):
        losses = vae_loss(vae, images, g)
        first = losses["pixel"].item() if first is None else first
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert losses["pixel"].item() < 0.75 * first
    vae.eval()
    factor = fit_scaling(vae, images.split(8))
    assert vae.config.scaling_factor == factor
    with torch.no_grad():
        latents = encode(vae, images)
        assert float(latents.std()) == pytest.approx(1, abs=0.02)
        drawn = encode(vae, images, gen(1))
        assert torch.equal(drawn, encode(vae, images, gen(1)))
        assert decode(vae, latents).shape == images.shape


def test_tokenizers_are_built_in_a_stable_order_and_refuse_nothing_to_learn():
    a, b = (build_tokenizer(c, 8) for c in (["red ball", "a ball"], ["a ball", "red ball"]))
    assert a.get_vocab() == b.get_vocab()
    assert token_ids(a, ["a purple ball"]).tolist()[0][2] == a.unk_token_id
    with pytest.raises(UsageError, match="no word"):
        build_tokenizer(["", " "])
    with pytest.raises(UsageError, match="at least 3"):
        build_tokenizer(["a"], 2)


def test_text_encoder_tells_captions_apart():
    tokenizer = build_tokenizer(["a red ball", "a blue ball"], 8)
    torch.manual_seed(0)
    encoder = text_encoder(tokenizer, 16, 1, 2)
    with torch.no_grad():
        out = encoder(token_ids(tokenizer, ["a red ball", "a blue ball"])).last_hidden_state
    assert out.shape == (2, 8, 16)
    assert float((out[0] - out[1]).abs().max()) > 0.01
