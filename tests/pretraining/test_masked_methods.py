"""The masked-modelling methods: each does what its paper adds, and learns."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.roles import Learner
from vestige.engines.masked.masking import kept
from vestige.engines.masked.model import reconstruct
from vestige.nn.blocks import take
from vestige.nn.vit import DecoderConfig, ViTConfig
from vestige.pretraining.color_mae import WIDTHS, ColorMAE, ColorMask, coloured_noise
from vestige.pretraining.dmjd import DMJD, disjoint_views
from vestige.pretraining.droppos import DropPos
from vestige.pretraining.lut import LUT
from vestige.pretraining.mae import MAE
from vestige.pretraining.mp3 import MP3

ENCODER = ViTConfig(width=24, depth=2, heads=2)
DECODER = DecoderConfig(16, 2, 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(cls, **options):
    torch.manual_seed(0)
    if cls is LUT:
        options.setdefault("hidden", 32)
    return cls(ENCODER, **options) if cls is MP3 else cls(ENCODER, DECODER, **options)


def pictures(n: int = 8) -> torch.Tensor:
    """Smooth colour fields with a bright square: something to learn from in few steps."""
    generator = seeded(9)
    small = torch.rand(n, 3, 4, 4, generator=generator)
    images = F.interpolate(small, (32, 32), mode="bicubic", align_corners=False).clamp(0, 1)
    images[:, :, 20:28, 4:12] = 1 - images[:, :, 20:28, 4:12]
    return images


ALL = (MAE, ColorMAE, DropPos, MP3, LUT, DMJD)


@pytest.mark.parametrize("cls", ALL)
def test_a_learner_replays_and_every_trained_weight_gets_a_gradient(cls):
    model, images = build(cls), pictures(4)
    assert isinstance(model, Learner)
    first, second = model.loss(images, seeded(1)), model.loss((images * 255).to(torch.uint8), seeded(1))
    torch.testing.assert_close(first["loss"], second["loss"], rtol=0.05, atol=0.05)
    model.eval()
    assert torch.equal(model.loss(images, seeded(1))["loss"], model.loss(images, seeded(1))["loss"])
    assert not torch.equal(model.loss(images, seeded(1))["loss"], model.loss(images, seeded(2))["loss"])
    first["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert model.features(images).shape == (4, 24)


@pytest.mark.parametrize("cls", ALL)
def test_training_lowers_the_loss_on_new_masks(cls):
    model, images = build(cls), pictures()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def held_out() -> float:
        model.eval()
        with torch.no_grad():
            value = sum(model.loss(images, seeded(1000 + i))["loss"].item() for i in range(4)) / 4
        model.train()
        return value

    before = held_out()
    for step in range(25):
        optimizer.zero_grad()
        model.loss(images, seeded(step))["loss"].backward()
        optimizer.step()
        model.advance(step, 0.5)
    assert held_out() < 0.97 * before


@pytest.mark.parametrize("cls", ALL)
def test_weights_and_schedule_are_saved_and_come_back(cls, tmp_path):
    model = build(cls)
    model.advance(0, 0.3)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    other = build(cls)
    other.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
    assert float(other.progress) == pytest.approx(0.3)
    model.eval(), other.eval()
    assert torch.equal(model.loss(pictures(2), seeded())["loss"], other.loss(pictures(2), seeded())["loss"])


# ColorMAE


def centroid(noise: torch.Tensor) -> float:
    power = torch.fft.fft2(noise).abs().square().mean(0)
    frequency = torch.fft.fftfreq(noise.shape[-1])
    radius = (frequency[:, None] ** 2 + frequency**2).sqrt()
    return float((power * radius).sum() / power.sum())


def test_colours_are_ordered_by_their_spectral_centroid():
    centroids = {c: centroid(coloured_noise(c, 8, (64, 64), seeded(), w)) for c, w in WIDTHS.items()}
    white = centroid(torch.randn(8, 64, 64, generator=seeded()))
    assert centroids["red"] < centroids["green"] < white < centroids["purple"]
    assert white < centroids["blue"]
    green = torch.fft.fft2(coloured_noise("green", 8, (64, 64), seeded(), (0.5, 2.0))).abs().square().mean(0)
    assert green[0, 8] > 3 * green[0, 0] + 1e-6
    assert green[0, 8] > 3 * green[32, 32]
    with pytest.raises(UsageError):
        ColorMask("pink")


@pytest.mark.parametrize("color", WIDTHS)
def test_coloured_masks_are_exact_fair_and_clumped_as_their_colour(color):
    plan = ColorMask(color)(4000, (8, 8), seeded())
    seen = ~plan.mask
    assert (seen.sum(1) == 16).all()
    # where neighbours are alike, the extremes of a crop lie more often at its rim
    assert (seen.float().mean(0) - 0.25).abs().max() < (0.07 if color == "red" else 0.03)
    grid = seen.view(-1, 8, 8)
    neighbours = (grid[:, :, :-1] & grid[:, :, 1:]).sum() / grid[:, :, :-1].sum()
    low, high = {"red": (0.6, 0.8), "green": (0.31, 0.45), "blue": (0.1, 0.22), "purple": (0.08, 0.2)}[color]
    assert low < neighbours < high
    again = ColorMask(color)(4000, (8, 8), seeded())
    assert torch.equal(plan.order, again.order)


# DropPos


def test_hidden_positions_reach_the_encoder_in_no_way():
    model, images = build(DropPos).eval(), pictures(3)
    view = model.look(images, seeded())
    assert view.hidden is not None
    assert (view.hidden.sum(1) == 12).all()
    patches = model.encoder.patches(images)
    # cells of the hidden patches change, their pixels stay: nothing in the tokens may change
    ids = view.plan.ids_keep.clone()
    for row in range(3):
        places = view.hidden[row].nonzero().flatten()
        ids[row, places] = ids[row, places.roll(1)]
    seen = take(patches, view.plan.ids_keep)
    places = model.encoder.places(ids)
    moved = model.encoder.encode(seen, ids, torch.where(view.hidden[..., None], model.no_position, places))
    torch.testing.assert_close(moved, view.tokens)
    # and the logits follow a patch wherever it stands in the sequence
    turned = torch.randperm(16)
    plan = view.plan
    shuffled = type(plan)(plan.ids_keep[:, turned], plan.ids_restore, plan.mask, plan.ids_masked)
    logits = model.decoder(model.encode(patches, shuffled, view.hidden[:, turned]))
    torch.testing.assert_close(logits, model.decoder(view.tokens)[:, turned], rtol=1e-4, atol=1e-5)


def test_shown_positions_do_reach_the_encoder():
    model, images = build(DropPos, pos_ratio=0.5).eval(), pictures(3)
    view = model.look(images, seeded())
    elsewhere = (view.plan.ids_keep + 1) % 64
    places = torch.where(view.hidden[..., None], model.no_position, model.encoder.places(elsewhere))
    moved = model.encoder.encode(take(view.patches, view.plan.ids_keep), elsewhere, places)
    assert not torch.allclose(moved, view.tokens, atol=1e-3)


def test_only_hidden_positions_count_and_targets_sharpen():
    model, images = build(DropPos, attentive=False).eval(), pictures(3)
    view = model.look(images, seeded())
    log_p = model.decoder(view.tokens).log_softmax(-1).gather(-1, view.plan.ids_keep[..., None]).squeeze(-1)
    model.advance(0, 1.0)
    torch.testing.assert_close(model.parts(view)["position"][1], -log_p[view.hidden].mean())
    attention = build(DropPos).attention(view.patches)
    torch.testing.assert_close(attention.sum(1), torch.ones(3))
    for bad in ({"pos_ratio": 0.0}, {"tau": 0.0}, {"sigma": -1.0}):
        with pytest.raises(UsageError):
            build(DropPos, **bad)
    with pytest.raises(UsageError):
        DropPos(ViTConfig(width=24, depth=1, heads=2, positions="none"))


# MP3


def test_no_position_leaks_into_position_prediction():
    model, images = build(MP3).eval(), pictures(2)
    patches = model.encoder.patches(images)
    order = torch.stack([torch.randperm(64) for _ in range(2)])
    tokens = model.encoder.encode(take(patches, order), order, context=16)
    # the same patches under other cell numbers: the encoder must not notice
    torch.testing.assert_close(model.encoder.encode(take(patches, order), order.flip(1), context=16), tokens)
    # nor may it notice in which order context and the rest come
    turn = torch.cat([torch.randperm(16), 16 + torch.randperm(48)])
    again = model.encoder.encode(take(patches, order[:, turn]), order[:, turn], context=16)
    torch.testing.assert_close(again[:, 1:], tokens[:, 1:][:, turn], rtol=1e-4, atol=1e-5)


def test_patches_outside_the_context_are_placed_but_not_seen():
    model, images = build(MP3).eval(), pictures(2)
    patches = model.encoder.patches(images).requires_grad_()
    ids = model.encoder.all_ids(2)
    logits = model.head(model.encoder.encode(patches, ids, context=16)[:, 1:])
    (grad,) = torch.autograd.grad(logits[:, 40].logsumexp(-1).sum(), patches)
    moved = grad.abs().sum(-1) > 0
    assert moved[:, :16].all()
    assert moved[:, 40].all()
    assert moved.sum(1).tolist() == [17, 17]
    assert 0 <= model.accuracy(images, seeded()) <= 1


# DMJD


@pytest.mark.parametrize(("grid", "visible"), [((8, 8), 24), ((14, 14), 76)])
def test_the_two_views_hide_every_token_at_least_once(grid, visible):
    plan = disjoint_views(6, grid, seeded())
    first, second = plan[:6], plan[6:]
    assert first.ids_keep.shape == second.ids_keep.shape == (6, visible)
    assert (first.mask | second.mask).all()


def test_both_views_share_one_target_and_both_heads_count():
    model, images = build(DMJD), pictures(3)
    view = model.look(images, seeded())
    assert view.tokens.shape[:2] == (6, 25)
    target = model.objectives[0].target
    wanted = view.wanted(target)
    assert wanted.shape == (6, 64, 27)
    assert wanted is view.wanted(model.objectives[1].target)
    assert torch.equal(wanted[:3], wanted[3:])
    out = model.loss(images, seeded())
    torch.testing.assert_close(out["loss"], out["masked"] + out["visible"])
    half = build(DMJD, visible_weight=0.5).loss(images, seeded())
    torch.testing.assert_close(half["loss"], half["masked"] + 0.5 * half["visible"])


# LUT


def test_the_views_share_no_token_and_only_the_first_is_reconstructed():
    model, images = build(LUT).eval(), pictures(4)
    view = model.look(images, seeded())
    seen = torch.cat([view.plan[:4].ids_keep, view.plan[4:].ids_keep], 1)
    assert (seen.sort(1).values.diff(dim=1) > 0).all()
    assert not torch.equal(view.images[:4], view.images[4:])
    recoloured = view.patches.clone()
    recoloured[4:] = 0
    changed = type(view)(view.images, recoloured, view.plan, view.tokens)
    assert torch.equal(model.parts(view)["pixels"][1], model.parts(changed)["pixels"][1])
    filled, mask = reconstruct(model, view.images[:4], seeded())
    seen = ~mask.expand_as(filled)
    assert torch.equal(filled[seen], view.images[:4][seen])
    assert not torch.equal(model.parts(view)["context"][1], model.parts(changed)["context"][1])


def test_the_slow_copy_follows_and_takes_no_gradient():
    model = build(LUT, momentum=0.5, augment=False)
    model.loss(pictures(4), seeded())["loss"].backward()
    slow = model.slow_encoder.module
    assert all(p.grad is None and not p.requires_grad for p in model.slow_encoder.parameters())
    before = slow.embed.weight.clone()
    with torch.no_grad():
        model.encoder.embed.weight += 1
    model.advance(0, 0.0)
    torch.testing.assert_close(slow.embed.weight, before + 0.5)
    running = model.projector[1].running_mean
    assert torch.allclose(model.slow_projector.module[1].running_mean, 0.5 * running)
    model.advance(1, 1.0)  # at the end it rests
    torch.testing.assert_close(slow.embed.weight, before + 0.5)
    with torch.no_grad():
        d = model.loss(pictures(4), seeded())["context"]
    assert 0 <= d <= 4


def test_the_share_that_is_seen_follows_the_mask_ratio():
    for cls, ratio in ((MAE, 0.5), (ColorMAE, 0.9), (DropPos, 0.6), (LUT, 0.75)):
        view = build(cls, mask_ratio=ratio).look(pictures(2), seeded())
        assert view.plan.ids_keep.shape[1] == kept(64, ratio)
        assert view.tokens.shape[1] == 1 + kept(64, ratio)
