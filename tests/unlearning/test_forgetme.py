"""Pictures with one thing removed: masks, fills, packs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.data.scenes import render, sample_scene
from vestige.unlearning.forgetme import ForgetMe, closed, packs, refine


@pytest.fixture(scope="module")
def drawn():
    return render(sample_scene(3, n_objects=2, style="photo"), 48)


def test_a_refined_mask_covers_the_given_one_and_a_rim():
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    mask[30, 30] = True
    wide = refine(mask, 3, 3)
    assert (wide & mask).sum() == mask.sum()
    assert 200 < wide.sum() < 400
    assert not refine(np.zeros((8, 8), bool)).any()
    with pytest.raises(UsageError, match="grow"):
        refine(mask, 3, -1)


@pytest.mark.parametrize("fill", ["telea", "navier-stokes"])
def test_only_the_refined_mask_changes(drawn, fill):
    images, masks = drawn.image[None], drawn.masks[:1][None]
    before = images.copy()
    filled, refined = ForgetMe(fill=fill).erase(images, masks)
    assert np.array_equal(images, before)
    outside = ~np.broadcast_to(refined, filled.shape)
    np.testing.assert_array_equal(filled[outside], images[outside])
    assert (filled[~outside] != images[~outside]).mean() > 0.5


def test_a_pack_has_the_four_parts_and_empty_masks_are_left_out(drawn):
    pack = ForgetMe().pack(drawn.image, drawn.masks[0])
    mask = drawn.masks[0]
    np.testing.assert_array_equal(pack.foreground[:, mask], drawn.image[:, mask])
    assert (pack.foreground[:, ~mask] == 1).all()
    assert pack.background.shape == pack.original.shape == (3, 48, 48)
    assert len(packs([drawn.image] * 2, [mask, np.zeros_like(mask)])) == 1
    with pytest.raises(InputError, match="empty"):
        ForgetMe().pack(drawn.image, np.zeros_like(mask))


def test_the_diffusion_fill_keeps_the_known_part_and_puts_the_attention_back():
    from vestige.bench.generation.runs import random_pipeline

    model = random_pipeline(size=16)
    images = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    masks = np.zeros((2, 1, 16, 16), bool)
    masks[0, :, 6:10, 6:10] = True
    eraser = ForgetMe(fill="diffusion", model=model, steps=2, repeats=1, feather=0, grow=0)
    filled, refined = eraser.erase(images, masks)
    np.testing.assert_array_equal(filled[1], images[1])
    outside = ~np.broadcast_to(refined, filled.shape)
    np.testing.assert_array_equal(filled[outside], images[outside])
    assert (filled[~outside] != images[~outside]).all()
    again, _ = eraser.erase(images, masks)
    np.testing.assert_array_equal(filled, again)
    before = list(model.unet.attn_processors.values())
    x, time, context = torch.randn(1, 3, 16, 16), torch.tensor([5]), model.embed(["a red ball"])
    with torch.no_grad():
        plain = model.network(x, time, context)
        hole = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
        with closed(model.unet, hole):
            assert torch.allclose(model.network(x, time, context), plain, atol=1e-5)
        hole[..., :8, :] = True
        with closed(model.unet, hole):
            assert not torch.allclose(model.network(x, time, context), plain, atol=1e-5)
    assert list(model.unet.attn_processors.values()) == before


def test_what_cannot_be_filled_is_refused_in_one_sentence(drawn):
    for options, what in (({"fill": "magic"}, "fill"), ({"fill": "diffusion"}, "model"), ({"radius": 0}, "radius")):
        with pytest.raises(UsageError, match=what):
            ForgetMe(**options)
    with pytest.raises(UsageError, match="needs a mask"):
        ForgetMe().erase(drawn.image[None])
