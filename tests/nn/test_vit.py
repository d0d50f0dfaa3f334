"""Blocks, positions and the ViT: what is left out costs and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vestige.core.errors import UsageError
from vestige.nn.blocks import Attention, Block, DropPath, take
from vestige.nn.positions import RelativeBias, Rotary, resize_positions, rotate, sincos_2d
from vestige.nn.vit import POSITIONS, DecoderConfig, MaskedDecoder, ViT, ViTConfig, patchify, unpatchify

TINY = ViTConfig(image_size=16, width=16, depth=2, heads=2)


def test_take_is_a_gather_with_its_gradient():
    x = torch.randn(3, 5, 4, requires_grad=True)
    ids = torch.randint(5, (3, 7))
    expected = x.gather(1, ids[..., None].expand(-1, -1, 4))
    assert torch.equal(take(x, ids), expected)
    weights = torch.randn(3, 7, 4)
    (ours,) = torch.autograd.grad((take(x, ids) * weights).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_patches_are_cut_and_put_back():
    images = torch.rand(2, 3, 8, 12)
    patches = patchify(images, 4)
    assert torch.equal(patches[0, 4].view(4, 4, 3).permute(2, 0, 1), images[0, :, 4:8, 4:8])
    assert torch.equal(unpatchify(patches, 4, (2, 3)), images)
    with pytest.raises(UsageError):
        patchify(images, 5)


def test_asking_for_some_tokens_gives_the_same_answers():
    torch.manual_seed(0)
    block, x = Block(16, 2), torch.randn(2, 9, 16)
    torch.testing.assert_close(block(x, queries=slice(3, 7)), block(x)[:, 3:7])
    torch.testing.assert_close(block(x[:, :4]), block(x, queries=slice(0, 4), context=slice(0, 4)))
    # tokens outside the context look, but are not seen
    changed = x.clone()
    changed[:, 6:] += 1
    torch.testing.assert_close(block(changed, context=slice(0, 6))[:, :6], block(x, context=slice(0, 6))[:, :6])


def test_attention_weights_are_those_that_are_used():
    attention, x, bias = Attention(8, 2), torch.randn(2, 5, 8), torch.randn(2, 2, 5, 5)
    weights = attention.weights(x, bias)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 5))
    values = attention._project(x, slice(None), slice(None))[2]
    expected = attention.proj((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, bias=bias), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError):
        Attention(8, 3)


def test_drop_path_keeps_the_mean_and_is_off_in_evaluation():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 2)
    out = layer(x)
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert abs(out.mean() - 1) < 0.05
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_order_of_patches_does_not_matter_but_their_cells_do(positions):
    torch.manual_seed(0)
    model = ViT(replace(TINY, positions=positions)).eval()
    if model.relative is not None:
        torch.nn.init.normal_(model.relative.table)
    images = torch.rand(2, 3, 16, 16)
    ids = torch.stack([torch.randperm(16)[:6] for _ in range(2)])
    tokens = model(images, ids)
    assert tokens.shape == (2, 7, 16)
    turned = torch.randperm(6)
    torch.testing.assert_close(model(images, ids[:, turned])[:, 1:], tokens[:, 1:][:, turned], rtol=1e-4, atol=1e-5)
    patches = take(model.patches(images), ids)
    elsewhere = model.encode(patches, (ids * 5 + 3) % 16)
    same = torch.allclose(elsewhere, tokens, rtol=1e-3, atol=1e-4)
    assert same == (positions == "none")


@pytest.mark.parametrize("positions", POSITIONS)
def test_every_parameter_of_the_encoder_gets_a_gradient(positions):
    model = ViT(replace(TINY, positions=positions))
    model.features(torch.rand(2, 3, 16, 16)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_relative_positions_depend_on_offsets_only():
    bias = RelativeBias((4, 4), 2)
    grid = bias(torch.arange(16)[None])[0]
    assert torch.equal(grid[:, 0, 5], grid[:, 5, 10])
    assert not torch.equal(grid[:, 0, 5], grid[:, 5, 0])
    rotary = Rotary((4, 4), 8)
    q, k = torch.randn(8).expand(1, 1, 16, 8), torch.randn(8).expand(1, 1, 16, 8)
    angles = rotary(torch.arange(16)[None])
    logits = (rotate(q, angles) @ rotate(k, angles).transpose(-1, -2))[0, 0]
    torch.testing.assert_close(logits[0, 5], logits[5, 10], rtol=1e-4, atol=1e-5)
    assert (logits[0, 5] - logits[0, 6]).abs() > 1e-4


def test_sine_cosine_tables_encode_the_column_first():
    table = sincos_2d(3, 5, 16)
    assert table.shape == (15, 16)
    assert torch.equal(table[0, :8], table[5, :8])  # same column, next row
    assert torch.equal(table[0, 8:], table[1, 8:])  # same row, next column
    assert torch.cdist(table, table).fill_diagonal_(1).min() > 0.1
    with pytest.raises(UsageError):
        sincos_2d(3, 5, 6)


def test_position_tables_change_size():
    table = torch.randn(16, 3)
    assert torch.equal(resize_positions(table, (4, 4), (4, 4)), table)
    ramp = torch.linspace(0, 1, 8).expand(8, 8).reshape(64, 1)
    bigger = resize_positions(ramp, (8, 8), (16, 16)).view(16, 16)
    assert (bigger.diff(dim=1)[:, 2:-2] > 0).all()
    assert bigger.std(0).max() < 1e-5
    with pytest.raises(UsageError):
        resize_positions(table, (4, 5), (4, 4))


def test_the_decoder_is_one_over_the_full_sequence_in_reading_order():
    torch.manual_seed(0)
    decoder = MaskedDecoder(TINY, 7, DecoderConfig(16, 2, 2)).eval()
    order = torch.stack([torch.randperm(16) for _ in range(3)])
    keep, masked = order[:, :5], order[:, 5:]
    tokens = torch.randn(3, 6, 16)
    ours = decoder(tokens, keep, masked)
    embedded = decoder.embed(tokens)
    full = torch.cat([embedded[:, 1:], decoder.mask_token.expand(3, 11, -1)], 1)
    full = full.gather(1, order.argsort(1)[..., None].expand_as(full)) + decoder.positions
    x = torch.cat([embedded[:, :1], full], 1)
    for block in decoder.blocks:
        x = block(x)
    expected = decoder.head(decoder.norm(x))[:, 1:]
    torch.testing.assert_close(ours, take(expected, masked), rtol=1e-4, atol=1e-5)


def test_features_take_any_size_and_pool_as_asked():
    model = ViT(TINY).eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(model.features(images), model(images)[:, 1:].mean(1))
    torch.testing.assert_close(model.features(images, pool="class"), model(images)[:, 0])
    assert model.features(torch.rand(1, 3, 40, 24)).shape == (1, 16)
    assert ViT(replace(TINY, class_token=False))(images).shape == (2, 16, 16)
    with pytest.raises(UsageError):
        model.features(images, pool="max")
    with pytest.raises(UsageError):
        model(torch.rand(2, 3, 16, 20))


@pytest.mark.parametrize(
    "change", [{"patch_size": 5}, {"positions": "gps"}, {"depth": -1}, {"heads": 3}, {"width": 18, "heads": 3}]
)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(UsageError):
        ViT(replace(TINY, **change))


def test_attention_maps_are_distributions_over_tokens():
    maps = ViT(TINY).attention(torch.rand(2, 3, 16, 16), block=0)
    assert maps.shape == (2, 2, 17, 17)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 17))
