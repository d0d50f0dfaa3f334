"""Hierarchical contrast: clusters, the circle loss, what passes from coarse to fine, and blind restoration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vestige.app.verbs.learning import run
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.data.corruptions import KINDS, corrupt
from vestige.forensics.hcl import (
    HCL,
    HCLNet,
    WindowBlock,
    circle_loss,
    coarse_to_fine,
    hcl_loss,
    patch_labels,
    settled,
)
from vestige.forensics.hcl_restore import (
    GatedUNet,
    HCLRestoreNet,
    HCLRestorer,
    PartialConv,
    restore_loss,
)
from vestige.nn.clustering import soft_spherical_kmeans


def net() -> HCLNet:
    torch.manual_seed(0)
    return HCLNet((8, 16, 32), (1, 1, 1))


def test_two_opposite_clusters_are_found_exactly() -> None:
    points = F.normalize(torch.tensor([[[1.0, 0, 0], [1, 0, 0], [-1, 0, 0], [-1, 0, 0]]]), dim=2)
    centres = soft_spherical_kmeans(points)
    assert sorted(centres[0, :, 0].round(decimals=3).tolist()) == [-1.0, 1.0]


def test_the_circle_loss_falls_as_a_positive_comes_nearer() -> None:
    anchor, negative = torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.0])
    losses = []
    for angle in (1.2, 0.6, 0.1):
        positive = torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)
        references = torch.stack([positive, negative])
        losses.append(circle_loss(anchor, torch.tensor([0]), references, torch.tensor([0, 1])).item())
    assert losses == sorted(losses, reverse=True)
    alone = circle_loss(anchor.requires_grad_(), torch.tensor([0]), anchor.detach(), torch.tensor([0]))
    assert alone.item() == 0
    alone.backward()
    assert torch.isfinite(anchor.grad).all()


def test_mixed_patches_have_no_label() -> None:
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :5] = True
    assert patch_labels(mask, (2, 2)).tolist() == [[[1, -1], [1, -1]]]


def test_a_finer_scale_keeps_what_the_coarser_one_settled() -> None:
    torch.manual_seed(0)
    coarse = torch.tensor([1.0, 0.0])[None, :, None, None].repeat(1, 1, 4, 4)
    coarse[:, :, :, 2:] = torch.tensor([0.0, 1.0])[None, :, None, None]
    fine = F.normalize(torch.randn(1, 2, 8, 8), dim=1)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 4:] = True
    levels = coarse_to_fine([fine, coarse], torch.nn.Linear(2, 1), mask, share=1.0)
    open_ = levels[1].uncertain[0, 0]
    assert open_[:, 2:6].all()  # the boundary of the coarse clusters, and only that
    assert not open_[:, [0, 1, 6, 7]].any()
    kept = levels[1].corrupted[0, 0]
    assert (kept[:, 6:] > 0.99).all()
    assert (kept[:, :2] < 0.01).all()


def test_the_surest_are_settled_apart_from_the_boundary() -> None:
    corrupted = torch.full((1, 1, 6, 6), 0.1)
    corrupted[..., 3:] = 0.9
    done = settled(corrupted, torch.ones(1, 1, 6, 6, dtype=torch.bool), 1.0)[0, 0]
    assert done[:, [0, 1, 4, 5]].all()
    assert not done[:, [2, 3]].any()


def test_windows_keep_shape_and_do_not_wrap_around() -> None:
    torch.manual_seed(0)
    block = WindowBlock(8, 2, shifted=True).eval()
    x = torch.randn(1, 8, 16, 16)
    changed = x.clone()
    changed[..., 15] += 5
    with torch.no_grad():
        moved = (block(changed) - block(x)).abs().amax(1)[0]
    assert moved[:, 12:].max() > 1e-3
    assert moved[:, :4].max() < 1e-4  # what the roll brings next to the other border stays apart


def test_a_picture_that_is_judged_sound_has_no_mask() -> None:
    network = net().eval()
    with torch.no_grad():
        network.judge[-1].weight.zero_()
        network.judge[-1].bias.fill_(-3)
    images = torch.rand(2, 3, 32, 32)
    assert not HCL(network).detect(images)[0].any()
    assert HCL(network).detect(images, gate=False)[0].any()


def test_it_learns_to_find_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = np.stack([np.full((3, 32, 32), v, np.float32) for v in (0.2, 0.4, 0.6, 0.8)])
    made = [corrupt(x, "noise", seed=i) for i, x in enumerate(smooth)]
    images, masks = (torch.from_numpy(np.stack(x)) for x in zip(*made, strict=True))
    network = net()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(50):
        loss = hcl_loss(network, images, masks, generator, samples=64, hard=32)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    mask, confidence = HCL(network.eval()).detect(images, gate=False)  # the judge needs more than this
    assert (mask & masks).sum() / (mask | masks).sum() > 0.6
    assert confidence.min() >= 0
    assert confidence.max() <= 1


def restorer() -> HCLRestoreNet:
    torch.manual_seed(0)
    return HCLRestoreNet((8, 16, 32), (1, 1, 1), width=8)


def test_a_gated_u_net_keeps_what_is_not_missing() -> None:
    images, mask = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    for doubt in (False, True):
        found = GatedUNet(8, doubt=doubt)(images, mask)
        torch.testing.assert_close(found * (1 - mask), images * (1 - mask))


def test_a_partial_convolution_does_not_see_what_is_missing() -> None:
    torch.manual_seed(0)
    layer, x, sound = PartialConv(2, 3), torch.randn(1, 2, 8, 8), torch.ones(1, 1, 8, 8)
    sound[..., 4:] = 0
    other = torch.where(sound > 0, x, torch.full_like(x, 9.0))
    (one, left), (two, _) = layer(x, sound), layer(other, sound)
    torch.testing.assert_close(one, two)
    assert left[..., 4].all()
    assert not left[..., 5:].any()


def test_windows_do_not_attend_to_what_is_missing() -> None:
    torch.manual_seed(0)
    block, x, missing = WindowBlock(8, 2, shifted=False).eval(), torch.randn(1, 8, 16, 16), torch.zeros(1, 1, 16, 16)
    missing[..., :4, :4] = 1
    other = torch.where(missing > 0, x + 3, x)
    with torch.no_grad():
        difference = (block(x, missing) - block(other, missing)).abs().amax(1)[0]
    assert difference[4:, 4:].max() < 1e-5


def test_detector_and_decoder_learn_together() -> None:
    smooth = np.stack([np.full((3, 32, 32), v, np.float32) for v in (0.2, 0.4, 0.6, 0.8)])
    made = [corrupt(x, "noise", seed=i) for i, x in enumerate(smooth)]
    images, masks = (torch.from_numpy(np.stack(x)) for x in zip(*made, strict=True))
    originals, network, generator = torch.from_numpy(smooth), restorer(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        found = restore_loss(network, images, masks, originals, generator, blind=False, samples=64, hard=32)
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        losses.append(found["first"].item())
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert losses[-1] < 0.5 * losses[0]
    blind = restore_loss(network, images, masks, originals, generator, blind=True, samples=64, hard=32)
    assert torch.isfinite(blind["loss"])
    system = HCLRestorer(network)
    restored = system.restore(images.numpy(), masks.numpy())
    assert restored.shape == images.shape
    assert np.abs(restored - smooth).mean() < 0.5 * np.abs(images.numpy() - smooth).mean()
    assert system.restore(images.numpy()).shape == images.shape


def test_a_picture_of_any_size_changes_in_the_mask_alone() -> None:
    image = np.random.default_rng(0).random((1, 3, 70, 101)).astype(np.float32)
    mask = np.zeros((1, 1, 70, 101), bool)
    mask[..., 20:40, 30:60] = True
    found, where = HCLRestorer(restorer()).restore_whole(image, mask)
    assert found.shape == image.shape
    np.testing.assert_array_equal(where, mask)
    np.testing.assert_array_equal(found[..., :20, :], image[..., :20, :])
    assert (found[0][:, mask[0, 0]] != image[0][:, mask[0, 0]]).any()
    with pytest.raises(InputError, match="vestige learn hcl_restore"):
        HCLRestorer()


@pytest.mark.parametrize("kind", KINDS)
def test_corruption_changes_the_masked_region_and_its_edge_only(kind: str) -> None:
    image = np.full((3, 48, 40), 153 / 255, np.float32)
    other = np.random.default_rng(0).random((3, 48, 40)).astype(np.float32)
    picture, mask = corrupt(image, kind, other=other, seed=3)
    assert mask.shape == (1, 48, 40)
    assert 0.01 < mask.mean() < 0.6
    near = F.max_pool2d(torch.from_numpy(mask).float()[None], 9, 1, 4)[0].bool().numpy()
    away = np.broadcast_to(~near, image.shape)
    np.testing.assert_array_equal(picture[away], np.float32(153 / 255))
    np.testing.assert_array_equal(picture, corrupt(image, kind, other=other, seed=3)[0])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="32"):
        net()(torch.rand(1, 3, 40, 32))
    with pytest.raises(UsageError, match="same size"):
        corrupt(np.zeros((3, 32, 32), np.float32), "other")
    with pytest.raises(UsageError, match="corrupted by"):
        corrupt(np.zeros((3, 32, 32), np.float32), "rust")


def test_sound_pictures_teach_the_judge_alone() -> None:
    network, generator = net(), torch.Generator().manual_seed(0)
    images, masks = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    losses = hcl_loss(network, images, masks, generator, samples=32, hard=16)
    assert losses["contrast"].item() == 0
    losses["loss"].backward()
    before = network.judge[-1].bias.item()
    torch.optim.SGD(network.parameters(), 0.1).step()
    assert network.judge[-1].bias.item() < before  # both clusters are sound


def test_the_recipe_trains_and_saves_an_examiner(tmp_path: Path, photo: np.ndarray) -> None:
    words = ["steps=2", "batch_size=4", "log_every=1", "limit=16", "dims=8,16,32"]
    assert run("hcl", tmp_path, data=tmp_path, set_=words, device="cpu", quiet=True) == 0
    figures = json.loads((tmp_path / "metrics.json").read_text())["validation"]
    assert {f"{kind}_{what}" for kind in KINDS for what in ("iou", "auroc")} < set(figures)
    found = HCL(weights=tmp_path / "hcl.safetensors").find(ImageSubject(encode(photo[:160, :160], "PNG")))
    assert found.applies
    assert found.map is not None


@pytest.mark.parametrize(("recipe", "variant"), [("hcl", "unet"), ("hcl", "other"), ("hcl_restore", "vcnet")])
def test_arms_are_judged_on_every_kind_of_cover(tmp_path: Path, recipe: str, variant: str) -> None:
    words = ["steps=2", "batch_size=2", "log_every=1", "limit=16", "dims=8,16,32"]
    assert run(recipe, tmp_path, data=tmp_path, set_=words, device="cpu", quiet=True, variant=variant) == 0
    figures = json.loads((tmp_path / "metrics.json").read_text())["evaluation"]
    key = "each psnr found" if recipe == "hcl_restore" else "each iou"
    assert all(len(figures[f"{key}, {kind}"]) == 4 for kind in KINDS)


def test_shipped_weights_find_what_covers_a_photograph(photo: np.ndarray) -> None:
    examiner = HCL()
    image = photo[:256, :256].transpose(2, 0, 1).astype(np.float32) / 255
    covered, mask = corrupt(image, "noise", seed=1)
    clean, found = (
        examiner.find(ImageSubject(encode(np.round(x * 255).astype(np.uint8).transpose(1, 2, 0).copy(), "PNG")))
        for x in (image, covered)
    )
    assert (clean.flagged, found.flagged) == (False, True)
    inside = F.interpolate(torch.from_numpy(mask)[None].float(), found.map.shape, mode="area")[0, 0] > 0.5
    marked = torch.from_numpy(found.map) > 0.5
    assert (marked & inside).sum() / (marked | inside).sum() > 0.6
