"""Masks, targets and losses of the masked-modelling engine, and the model against transformers' ViTMAE."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.masked import losses, masking
from vestige.engines.masked.augment import colour_jitter, one_of_three, pad_crop, random_resized_crop
from vestige.engines.masked.model import MaskedModel, Objective, images_of, reconstruct
from vestige.engines.masked.targets import HogTarget, PixelTarget, PositionTarget, TeacherTarget
from vestige.nn.vit import DecoderConfig, MaskedDecoder, TokenDecoder, ViT, ViTConfig, patchify

TINY = ViTConfig(width=16, depth=2, heads=2)
DECODER = DecoderConfig(16, 2, 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_plan(plan: masking.MaskPlan, rows: int, length: int, keep: int) -> None:
    assert plan.ids_keep.shape == (rows, keep)
    assert plan.mask.dtype == torch.bool
    assert (plan.mask.sum(1) == length - keep).all()
    assert not plan.mask.gather(1, plan.ids_keep).any()
    assert plan.mask.gather(1, plan.ids_masked).all()
    everything = torch.arange(length).expand(rows, -1)
    assert torch.equal(plan.order.gather(1, plan.ids_restore), everything)
    assert torch.equal(plan.order.sort(1).values, everything)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 5),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    ratio=st.floats(0, 0.95),
    seed=st.integers(0, 99),
)
def test_every_plan_keeps_the_floor_and_restores_the_order(n, rows, columns, ratio, seed):
    length = rows * columns
    keep = int(np.floor(length * (1 - ratio) + 1e-9))
    if keep < 1:
        with pytest.raises(UsageError):
            masking.uniform(n, (rows, columns), seeded(seed), ratio=ratio)
        return
    check_plan(masking.uniform(n, (rows, columns), seeded(seed), ratio=ratio), n, length, keep)
    check_plan(masking.sampled(torch.rand(n, length), ratio, seeded(seed)), n, length, keep)
    if 2 * keep <= length:
        plan = masking.disjoint(n, (rows, columns), seeded(seed), ratio=ratio)
        check_plan(plan, 2 * n, length, keep)
        both = torch.cat([plan[:n].ids_keep, plan[n:].ids_keep], 1).sort(1).values
        assert (both.diff(dim=1) > 0).all()


@pytest.mark.parametrize(
    "strategy",
    [masking.uniform, masking.block, masking.disjoint, partial(masking.block, ratio=0.6, size=4)],
)
def test_masks_replay_bit_for_bit(strategy):
    first, second, other = (strategy(6, (8, 8), seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first.order, second.order)
    assert not torch.equal(first.order, other.order)


def test_uniform_masks_favour_no_cell():
    plan = masking.uniform(4000, (6, 6), seeded())
    assert (plan.mask.float().mean(0) - 0.75).abs().max() < 0.03


@pytest.mark.parametrize(("side", "visible"), [(8, 24), (14, 76)])
def test_blocks_are_hidden_whole(side, visible):
    plan = masking.block(5, (side, side), seeded(), ratio=0.6)
    check_plan(plan, 5, side * side, visible)
    blocks = plan.mask.view(5, side // 2, 2, side // 2, 2).float().mean((2, 4))
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    with pytest.raises(UsageError):
        masking.block(1, (7, 8), seeded())


@settings(max_examples=20, deadline=None)
@given(ratio=st.sampled_from([0.5, 0.6, 0.75]), union=st.floats(0.75, 1), seed=st.integers(0, 99))
def test_a_complement_fills_up_the_hidden_part(ratio, union, seed):
    first = masking.uniform(4, (8, 8), seeded(seed), ratio=ratio)
    second = masking.complement(first, seeded(seed + 1), union=union)
    check_plan(second, 4, 64, masking.kept(64, ratio))
    hidden = 64 - masking.kept(64, ratio)
    expected = hidden + min(round(union * 64) - hidden, hidden, 64 - hidden)
    assert ((first.mask | second.mask).sum(1) == expected).all()


def test_heavy_tokens_are_seen_more_often_but_not_always():
    weights = torch.ones(4000, 16)
    weights[:, 0] = 5
    seen = (~masking.sampled(weights, 0.75, seeded()).mask).float().mean(0)
    assert 0.5 < seen[0] < 0.99
    assert seen[1:].max() < 0.3
    with pytest.raises(UsageError):
        masking.sampled(-weights, 0.75, seeded())


def test_our_mae_loss_equals_that_of_transformers():
    from transformers import ViTMAEConfig, ViTMAEForPreTraining
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    from vestige.nn.vit_weights import rename

    torch.manual_seed(0)
    theirs = ViTMAEForPreTraining(ViTMAEConfig(
        image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, norm_pix_loss=True, layer_norm_eps=1e-6, mask_ratio=0.75,
    )).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
        # their initialisers leave the tables at zero; published weights hold sine-cosine tables, columns first
        config = ViTConfig(image_size=16, width=16, depth=2, heads=2)
        decoder = MaskedDecoder(config, 48, DECODER)
        rows_first = build_2d_sinusoidal_position_embedding(4, 4, 16)
        table = torch.cat([rows_first[:, 8:], rows_first[:, :8]], 1)
        torch.testing.assert_close(decoder.positions, table)
        theirs.decoder.decoder_pos_embed[0, 1:] = table
        theirs.vit.embeddings.position_embeddings[0, 1:] = table
    noise = torch.rand(3, 16)

    def replay(n, grid, generator):
        return masking.MaskPlan.from_order(noise.argsort(1), 4)

    ours = MaskedModel(ViT(config), replay, [Objective("pixels", PixelTarget(config), decoder, losses.squared)])
    state = rename(theirs.vit.state_dict())
    torch.testing.assert_close(state.pop("positions"), ours.encoder.positions)
    ours.encoder.load_state_dict({k: v.view_as(ours.encoder.state_dict()[k]) for k, v in state.items()})
    renamed = {
        k.replace("decoder_", "").replace("pred.", "head.").replace("layers.", "layer."): v
        for k, v in theirs.decoder.state_dict().items()
    }
    blocks = rename({f"encoder.{k}": v for k, v in renamed.items() if k.startswith("layer.")})
    rest = {k: v for k, v in renamed.items() if not k.startswith(("layer.", "pos_embed"))}
    decoder.load_state_dict({**rest, **blocks})
    images = torch.rand(3, 3, 16, 16)
    expected = theirs(pixel_values=ours.encoder.normalise(images), noise=noise)
    torch.testing.assert_close(ours.loss(images)["loss"], expected.loss, rtol=1e-5, atol=1e-5)
    ours.loss(images)["loss"].backward()
    expected.loss.backward()
    grad = theirs.vit.embeddings.patch_embeddings.projection.weight.grad.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(ours.encoder.embed.weight.grad, grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(decoder.mask_token.grad, theirs.decoder.mask_token.grad, rtol=1e-3, atol=1e-5)


def test_pixel_targets_have_zero_mean_and_unit_variance():
    images = torch.rand(2, 3, 32, 32)
    target = PixelTarget(TINY)(images, patchify(images, 4))
    assert target.mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(target.var(-1), torch.ones(2, 64), rtol=1e-3, atol=1e-3)
    flat = PixelTarget(TINY)(images, torch.ones(1, 64, 48))
    assert flat.abs().max() == 0
    assert torch.equal(PixelTarget(TINY, norm=False)(images, patchify(images, 4)), patchify(images, 4))


def test_gradient_histograms_see_the_orientation_of_edges():
    ramp = torch.linspace(0, 1, 32)
    across = ramp.expand(1, 3, 32, 32)
    hog = HogTarget(TINY)
    assert hog.dim == 27
    vertical_edges = hog.histograms(across).view(3, 9, 8, 8)
    horizontal_edges = hog.histograms(across.transpose(2, 3)).view(3, 9, 8, 8)
    assert (vertical_edges.argmax(1)[:, :, 1:-1] == 0).all()
    assert (horizontal_edges.argmax(1)[:, 1:-1] == 4).all()
    torch.testing.assert_close(hog.histograms(1 - across), hog.histograms(across), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(hog.histograms(torch.zeros(1, 3, 32, 32))).all()
    big = HogTarget(ViTConfig(image_size=32, patch_size=16))
    assert big(torch.rand(1, 3, 32, 32), torch.empty(0)).shape == (1, 4, 108)
    with pytest.raises(UsageError):
        HogTarget(TINY, cell=3)


def test_histograms_of_a_patch_are_those_of_its_place():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:12, 20:24] = torch.rand(3, 4, 4)
    moved = (HogTarget(TINY)(images, torch.empty(0)).abs().sum(-1) > 0).view(8, 8)
    assert moved[2, 5]
    assert not moved[5:].any()


def test_position_targets_are_smooth_and_sharpen_to_one_hot():
    target = PositionTarget((3, 3))
    ids = torch.tensor([[4, 0]])
    smooth, sharp = target(ids, 1.0), target(ids, 0.0)
    torch.testing.assert_close(smooth.sum(-1), torch.ones(1, 2))
    assert smooth[0, 0, 1] > smooth[0, 0, 0] > 0
    assert sharp[0].argmax(-1).tolist() == [4, 0]
    assert sharp.max() == 1
    assert torch.isfinite(target(ids, 1e-9)).all()


def test_a_teacher_is_frozen_and_standardised():
    teacher = ViT(TINY)
    target = TeacherTarget(teacher, layers=(1, -1))
    images = torch.rand(2, 3, 32, 32)
    out = target.train()(images, torch.empty(0))
    assert out.shape == (2, 64, target.dim)
    assert not out.requires_grad
    assert out[..., :16].mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(out[..., 16:], F.layer_norm(teacher.outputs(images, [2])[0][:, 1:], (16,)))
    student = ViT(TINY)
    model = MaskedModel(
        student, masking.uniform,
        [Objective("teacher", target, TokenDecoder(TINY, target.dim, DECODER), losses.negative_cosine, "visible")],
    )  # fmt: skip
    model.loss(images, seeded())["loss"].backward()
    assert student.embed.weight.grad.abs().sum() > 0
    assert teacher.embed.weight.grad is None
    with pytest.raises(UsageError):
        TeacherTarget(teacher, layers=(3,))


def test_losses_match_their_definitions():
    a, b = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    torch.testing.assert_close(losses.squared(a, b).mean(), F.mse_loss(a, b))
    torch.testing.assert_close(losses.smooth_l1(a, b, 2.0).mean(), F.smooth_l1_loss(a, b, beta=2.0))
    classes = torch.randint(7, (2, 5))
    expected = F.cross_entropy(a.flatten(0, 1), classes.flatten())
    torch.testing.assert_close(losses.cross_entropy(a, classes).mean(), expected)
    torch.testing.assert_close(losses.cross_entropy(a, F.one_hot(classes, 7).float()).mean(), expected)
    assert losses.negative_cosine(a, a).abs().max() < 1e-5
    torch.testing.assert_close(losses.negative_cosine(a, -a), torch.full((2, 5), 4.0))
    weights = torch.zeros(2, 5)
    assert losses.weighted_mean(torch.ones(2, 5), weights) == 0
    weights[0, 1] = 3
    values = torch.arange(10.0).view(2, 5)
    assert losses.weighted_mean(values, weights) == 1


def test_the_loss_ignores_seen_pixels_beyond_what_the_encoder_makes_of_them():
    config = TINY
    model = MaskedModel(
        ViT(config), masking.uniform,
        [Objective("pixels", PixelTarget(config, norm=False), MaskedDecoder(config, 48, DECODER), losses.squared)],
    )  # fmt: skip
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    view = model.look(images, seeded())
    tokens = view.tokens.sum()
    (grad,) = torch.autograd.grad(tokens, images)
    moved = patchify(grad, 4).abs().sum(-1) > 0
    assert torch.equal(moved, ~view.plan.mask)


def test_reconstruction_keeps_what_was_seen():
    model = MaskedModel(
        ViT(TINY),
        masking.uniform,
        [Objective("pixels", PixelTarget(TINY), MaskedDecoder(TINY, 48, DECODER), losses.squared)],
    )
    images = torch.rand(2, 3, 32, 32)
    filled, mask = reconstruct(model, images, seeded())
    assert mask.shape == (2, 1, 32, 32)
    assert mask.float().mean() == 0.75
    seen = ~mask.expand_as(images)
    assert torch.equal(filled[seen], images[seen])
    assert not torch.equal(filled, images)
    with pytest.raises(UsageError, match="no pixels"):
        reconstruct(MaskedModel(ViT(TINY), masking.uniform), images, seeded())


def test_batches_of_every_form_are_understood():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = images.float() / 255
    for batch in (images, (images, 1), {"images": images}, expected):
        assert torch.equal(images_of(batch), expected)
    for bad in ({}, (), torch.zeros(3), None):
        with pytest.raises(UsageError):
            images_of(bad)
    with pytest.raises(UsageError):
        Objective("x", PixelTarget(TINY), torch.nn.Identity(), losses.squared, where="nowhere")


def test_augmentation_replays_and_stays_in_range():
    images = torch.rand(8, 3, 32, 32)
    for transform in (random_resized_crop, pad_crop, colour_jitter, one_of_three):
        first, second = transform(images, seeded(5)), transform(images, seeded(5))
        assert torch.equal(first, second)
        assert first.shape == images.shape
        assert first.min() >= 0
        assert first.max() <= 1
        assert not torch.equal(first, transform(images, seeded(6)))


def test_a_full_crop_is_the_image_and_a_shift_keeps_its_pixels():
    images = torch.rand(4, 3, 16, 16)
    whole = random_resized_crop(images, seeded(), scale=(1, 1), ratio=(1, 1), flip=0)
    torch.testing.assert_close(whole, images, rtol=1e-4, atol=1e-5)
    mirrored = random_resized_crop(images, seeded(), scale=(1, 1), ratio=(1, 1), flip=1.1)
    torch.testing.assert_close(mirrored, images.flip(-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(pad_crop(images, seeded(), pad=0, flip=0), images)
    shifted = pad_crop(images, seeded(), pad=2, flip=0)
    assert set(shifted.flatten().tolist()) <= set(images.flatten().tolist())
