"""MaskUNet: masks start open, are per sample and time, learn, and leave the network as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.schedules import cosine
from vestige.generation.maskunet import MaskUNet, hard_mask, sample_with_reward
from vestige.nn.text import build_tokenizer, text_encoder, token_ids
from vestige.nn.unet import text_unet
from vestige.nn.vae import identity_vae
from vestige.nn.weight_tap import MaskedLinear, tap_linears, untap_linears

PROMPTS = ["a red ball", "a blue cup"]


def tiny() -> TextToImage:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(PROMPTS, 8)
    unet = text_unet(16, 3, "tiny", 32)
    return TextToImage(unet, identity_vae(), text_encoder(tokenizer, 32, 1, 2), tokenizer, cosine(), "v").eval()


def test_open_masks_change_nothing_and_removal_restores_the_network():
    model = tiny()
    keys = set(model.state_dict())
    plain = model.sample(PROMPTS, steps=2)
    masked = MaskUNet(model)
    assert torch.allclose(masked.sample(PROMPTS, steps=2), plain, atol=1e-5)
    assert max(masked.sparsity().values()) == 0
    assert all("up_blocks" not in k or "attn" in k for k in masked.sparsity())
    assert set(masked.remove().state_dict()) == keys
    assert torch.equal(model.sample(PROMPTS, steps=2), plain)


def test_masks_depend_on_sample_and_time():
    model = MaskUNet(tiny(), start=0.0).eval()
    for generator in model.generators:
        for p in generator.columns:
            nn.init.normal_(p)
    x, context = torch.randn(2, 3, 16, 16), model.model.embed(PROMPTS)
    tap = next(iter(model.taps[0].values()))
    masks = []
    with torch.no_grad():
        for t in (10, 900):
            model.model.network(x, torch.tensor([t, t]), context)
            masks.append(tap.mask)
    assert masks[0].shape == (2, *tap.base.weight.shape)
    assert set(masks[0].unique().tolist()) <= {0.0, 1.0}
    assert not torch.equal(masks[0][0], masks[0][1])
    assert not torch.equal(masks[0], masks[1])
    assert 0 < min(model.sparsity().values()) < 1


def test_only_generators_are_trained_and_the_loss_falls():
    model = MaskUNet(tiny(), start=0.5).train()
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(n.startswith("generators.") for n in trainable)
    ids = token_ids(model.model.tokenizer, PROMPTS)
    # Latents the base network knows nothing about: any mask that silences attention helps or hurts measurably.
    latents = torch.ones(2, 3, 16, 16)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 5e-2)

    def loss(seed: int) -> torch.Tensor:
        return model.loss(latents, ids, torch.Generator().manual_seed(seed), drop=0.0)

    model.noise = False
    first = loss(0).item()
    for _ in range(12):
        optimiser.zero_grad()
        loss(0).backward()
        optimiser.step()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.generators.parameters())
    assert loss(0).item() < first


def test_straight_through_masks():
    logits = torch.tensor([-2.0, 0.3, 4.0], requires_grad=True)
    mask = hard_mask(logits)
    assert mask.tolist() == [0.0, 1.0, 1.0]
    (mask * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    soft = torch.sigmoid(logits.detach())
    assert torch.allclose(logits.grad, soft * (1 - soft) * torch.tensor([1.0, 2.0, 3.0]))
    drawn = hard_mask(torch.full((20_000,), 1.0), torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(0.731, abs=0.01)


def test_masked_linear_equals_a_linear_with_masked_weights():
    layer = nn.Linear(5, 4)
    tap, x = MaskedLinear(layer), torch.randn(3, 7, 5)
    assert torch.equal(tap(x), layer(x))
    masks = (torch.rand(3, 4, 5) > 0.5).float()
    tap.mask = masks
    wanted = torch.stack([torch.nn.functional.linear(a, layer.weight * m, layer.bias) for a, m in zip(x, masks)])
    assert torch.allclose(tap(x), wanted, atol=1e-6)
    assert torch.allclose(tap(x[:, 0]), wanted[:, 0], atol=1e-6)
    tap.mask = masks[0]
    assert torch.allclose(tap(x)[0], wanted[0], atol=1e-6)


def test_tapping_chosen_layers_and_back():
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    inner = net[1][1]
    taps = tap_linears(net, lambda name: name.startswith("1."))
    assert list(taps) == ["1.1"]
    assert isinstance(net[1][1], MaskedLinear)
    assert isinstance(net[0], nn.Linear)
    untap_linears(net, taps)
    assert net[1][1] is inner


def test_reward_guided_sampling_raises_the_reward():
    model = tiny()
    with torch.no_grad():  # attention must matter for masks to act
        for name, p in model.unet.named_parameters():
            if "attn" in name:
                p.mul_(4)
    keys = set(model.state_dict())

    def redness(images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))

    options = {"steps": 3, "guidance": 1.0}
    plain = sample_with_reward(model, PROMPTS[0], redness, updates=(0, 0), **options)
    guided = sample_with_reward(model, PROMPTS[0], redness, updates=(3, 3), lr=0.7, **options)
    assert guided.shape == (1, 3, 16, 16)
    assert float(redness(guided)) > float(redness(plain))
    assert set(model.state_dict()) == keys
    assert any(p.requires_grad for p in model.parameters())


def test_networks_without_attention_are_refused():
    model = tiny()
    model.unet = text_unet(16, 3, "tiny", 32, attention_size=4)
    with pytest.raises(UsageError, match="no attention"):
        MaskUNet(model)
