"""Detectors of generated pictures: what they see, that they learn, and how they answer about whole pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vestige.app.verbs.learning import run
from vestige.bench.forensics.lgrad import LGradNet
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.data.fakes import as_float, shrunk, squares
from vestige.forensics.generated import fit_detector, logits, training, windows
from vestige.forensics.npr import NPR, TraceResNet
from vestige.forensics.patchcraft import PatchCraft, PatchCraftNet, TextureFilter, diversity, smash
from vestige.metrics.detection import auroc
from vestige.nn.features import FeatureNet
from vestige.nn.residual import SRM, srm_kernels

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """(textured squares of photographs, the same enlarged from half the size), uint8 N×3×32×32; 16 for testing."""
    from sklearn.datasets import load_sample_image

    photographs = np.stack([load_sample_image(n)[:426].transpose(2, 0, 1) for n in ("china.jpg", "flower.jpg")])
    real = squares(photographs, 32, per_photo=80, seed=1)[0]
    real = real[real.std((2, 3)).mean(1) > 25]
    real = real[np.random.default_rng(0).permutation(len(real))][:80]
    return real, np.round(shrunk(real.astype(np.float32), 2)).astype(np.uint8).repeat(2, 2).repeat(2, 3)


def small_patchcraft(**options) -> PatchCraftNet:
    torch.manual_seed(0)
    return PatchCraftNet(**{"patch": 8, "grid": 4, "width": 8, **options})


def test_diversity_is_of_differences():
    x = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert diversity(torch.full((1, 3, 9, 9), 0.3)).item() == 0
    for turned in (x.flip(2), x.flip(3), x.transpose(2, 3)):
        torch.testing.assert_close(diversity(turned), diversity(x))
    torch.testing.assert_close(diversity(x + 1), diversity(x))
    step = torch.zeros(1, 1, 2, 2)
    step[..., 1] = 1
    assert diversity(step).item() == 2 + 0 + 1 + 1  # across twice, down nowhere, once along each diagonal


def test_smashing_sorts_squares_of_the_picture():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 40, 60, generator=g) * torch.linspace(0, 1, 60)
    poor, rich = smash(x, 8, 4, seed=1)
    assert poor.shape == rich.shape == (2, 3, 32, 32)

    def of_tiles(image: torch.Tensor) -> torch.Tensor:
        tiles = image.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5)
        return diversity(tiles.reshape(2, 16, 3, 8, 8))

    plain, busy = of_tiles(poor), of_tiles(rich)
    assert (plain.diff(dim=1) >= 0).all()
    assert (busy.diff(dim=1) <= 0).all()
    assert (plain.amax(1) <= busy.amin(1)).all()
    found = {
        bytes(t.numpy().tobytes()) for t in x[0].unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    }
    first = rich[0].unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).flatten(0, 1)
    assert all(t.contiguous().numpy().tobytes() in found for t in first)  # squares are cut, not changed


def test_places_follow_from_seed_and_picture_alone():
    x = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    together, alone = smash(x, 8, 2, seed=1), smash(x[[2]], 8, 2, seed=1)
    torch.testing.assert_close(together[0][2:], alone[0], rtol=0, atol=0)
    assert (smash(x, 8, 2, seed=2)[0] != together[0]).any()
    drawn = [smash(x, 8, 2, generator=torch.Generator().manual_seed(s))[1] for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert smash(x[:, :, :5, :3], 8, 2)[0].shape == (3, 3, 16, 16)
    with pytest.raises(UsageError, match="twice as many"):
        smash(x, 8, 2, 1)


def test_one_kernel_does_what_two_steps_do():
    torch.manual_seed(0)
    layer = TextureFilter(5)
    x = torch.rand(2, 3, 20, 24)
    assert srm_kernels(30).shape[0] == 30
    np.testing.assert_allclose(srm_kernels(30).sum((1, 2)), 0, atol=1e-6)
    maps = SRM(30)(x)  # every plane by itself
    assert maps.shape == (2, 90, 20, 24)
    wanted = F.conv2d(maps, layer.mix.weight, layer.mix.bias)
    found = F.conv2d(x, layer.composed(), layer.mix.bias)
    torch.testing.assert_close(found, wanted[:, :, 2:-2, 2:-2], rtol=1e-4, atol=1e-5)
    assert layer(x).abs().max() <= 5


def test_swapping_rich_and_poor_negates_the_contrast():
    net = small_patchcraft().eval()
    a, b = torch.rand(2, 2, 3, 32, 32)
    torch.testing.assert_close(net.contrasted(a, b), -net.contrasted(b, a))
    both = small_patchcraft(contrast="concat")
    assert both.contrasted(a, b).shape[1] == 2 * net.contrasted(a, b).shape[1]


@pytest.mark.parametrize("options", [{}, {"contrast": "concat"}, {"smashed": False}])
def test_patchcraft_learns_and_scores_repeat(pictures, options):
    real, fake = pictures
    detector = PatchCraft(network=small_patchcraft(**options), side=32)
    before = detector.network.head.weight.clone()
    detector.fit(real[:64], fake[:64], steps=2, batch_size=8, crop=28)
    assert (detector.network.head.weight != before).any()
    scores = detector.score(real[:6])
    np.testing.assert_allclose(scores, detector.score(real[:6]), rtol=0, atol=0)
    np.testing.assert_allclose(scores[3:4], detector.score(as_float(real[3:4])), atol=1e-6)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_draws_are_averaged(pictures):
    real, _ = pictures
    net = small_patchcraft().eval()
    single = []
    for seed in (0, 1, 2):
        net.seed = seed
        single.append(logits(net, real[:3]))
    net.seed = 0
    assert np.ptp(single, axis=0).max() > 0
    np.testing.assert_allclose(PatchCraft(network=net, side=32, draws=3).logits(real[:3]), np.mean(single, 0))


@pytest.mark.parametrize("kind", ["patchcraft", "npr"])
def test_detectors_find_up_sampling(pictures, kind):
    real, fake = pictures
    torch.manual_seed(0)
    net = small_patchcraft() if kind == "patchcraft" else TraceResNet(width=0.25)
    detector = (PatchCraft if kind == "patchcraft" else NPR)(network=net, side=32)
    detector.fit(real[:64], fake[:64], steps=50, batch_size=16, lr=3e-3, crop=32, augment=0.0)
    scores = detector.logits(np.concatenate([real[64:], fake[64:]]))
    assert auroc(np.repeat([False, True], [len(real) - 64, len(fake) - 64]), scores) > 0.85


def test_batches_hold_both_classes_alike():
    real, fake = np.full((3, 3, 16, 16), 10, np.uint8), np.full((5, 3, 16, 16), 200, np.uint8)
    batches, step = training(real, fake, 8, crop=12, augment=0.0)
    batch = batches(0, torch.Generator().manual_seed(3))
    assert batch["images"].shape == (8, 3, 12, 12)
    assert batch["labels"].tolist() == [0] * 4 + [1] * 4
    torch.testing.assert_close(batch["images"].mean((1, 2, 3)), torch.where(batch["labels"] > 0, 200 / 255, 10 / 255))
    again = batches(0, torch.Generator().manual_seed(3))
    assert torch.equal(batch["images"], again["images"])

    class Perfect(nn.Module):
        def forward(self, images, generator):
            return (images.mean((1, 2, 3)) - 0.4) * 100

    assert step(Perfect(), batch, torch.Generator())["right"] == 1
    noisy = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    changed = training(noisy, noisy, 8, crop=16, augment=1.0)[0](0, torch.Generator().manual_seed(0))["images"]
    assert changed.std() < 0.9 * as_float(noisy).std()  # blurred and compressed
    with pytest.raises(UsageError, match="larger"):
        training(real, fake, 8, crop=20)
    with pytest.raises(UsageError, match="at least one"):
        training(real[:0], fake, 8, crop=12)


@pytest.mark.parametrize("front", ["npr", "rgb", "srm"])
def test_residual_networks_take_any_size_and_carry_gradients(front):
    net = TraceResNet(front, 18, 2, width=0.125)
    x = torch.rand(2, 3, 33, 47, requires_grad=True)
    net(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
    assert TraceResNet(**net.settings)(torch.rand(1, 3, 32, 32)).shape == (1,)


def test_npr_has_the_size_of_the_paper():
    assert 1.3e6 < sum(p.numel() for p in TraceResNet().parameters()) < 1.6e6
    with pytest.raises(UsageError, match="front is one of"):
        TraceResNet("dct")
    with pytest.raises(UsageError, match="contrast"):
        PatchCraftNet(contrast="sum")
    with pytest.raises(UsageError, match="cannot be built"):
        PatchCraftNet(patch=2)


def test_windows_cover_and_leave_flat_places_out():
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[:, 150:] = np.random.default_rng(0).integers(0, 256, (200, 150, 3))
    found = windows(pixels, 64, 4)
    assert found.dtype == np.uint8
    assert 4 <= len(found) <= 12
    assert len(windows(pixels[:63], 64, 4)) == 0
    assert len(windows(np.zeros((64, 64, 3), np.uint8), 64, 4)) == 0
    one = windows(pixels[:64, 200:264], 64, 4)
    np.testing.assert_array_equal(one[0].transpose(1, 2, 0), pixels[:64, 200:264])


@pytest.mark.parametrize("examiner", [PatchCraft(network=small_patchcraft()), NPR(network=TraceResNet(width=0.125))])
def test_examiners_answer_about_files(examiner, photo):
    found = examiner.find(ImageSubject(encode(photo[:200, :300], "PNG")))
    assert found.applies
    assert found.kind == "generated"
    assert np.isfinite(found.score)
    assert found.details["squares"] == len(windows(photo[:200, :300], 64, 4))
    json.dumps(found.to_dict(), allow_nan=False)
    for pixels in (np.zeros((1, 1, 3), np.uint8), photo[:63], np.full((80, 80, 3), 9, np.uint8)):
        assert not examiner.find(ImageSubject(encode(pixels, "PNG"))).applies


def test_without_weights_the_command_is_named(tmp_path):
    for kind in (PatchCraft, NPR):
        with pytest.raises(InputError, match=f"vestige learn {kind.slug}"):
            kind(tmp_path / "none.safetensors").score(np.zeros((1, 3, 32, 32), np.uint8))
    with pytest.raises(UsageError, match="at least 8 pixels"):
        PatchCraft(network=small_patchcraft(), side=4)


@pytest.mark.parametrize("kind", [PatchCraft, NPR])
def test_the_recipe_trains_saves_and_judges(tmp_path, kind, photo, monkeypatch):
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path / "none"))
    words = ["steps=2", "batch_size=4", "log_every=1", "validate_every=0", "limit=24"]
    assert run(kind.slug, tmp_path / "run", set_=words, device="cpu", quiet=True) == 0
    figures = json.loads((tmp_path / "run/metrics.json").read_text())["evaluation"]
    assert {"levelled, mean", "JPEG 70, mean", "half size, mean", "families", "kinds", "flagged"} <= set(figures)
    examiner = kind(tmp_path / "run" / f"{kind.slug}.safetensors")
    found = examiner.find(ImageSubject(encode(photo[:100, :100], "PNG")))
    assert found.applies
    assert found.probability is not None
    held = tmp_path / "held"
    assert run(kind.slug, held, set_=words, device="cpu", quiet=True, variant="held", seed=1) == 0
    assert not (held / f"{kind.slug}.safetensors").exists()  # an arm of a comparison is no examiner
    with pytest.raises(UsageError, match="held is families"):
        run(kind.slug, tmp_path / "b", set_=[*words, "held=all"], device="cpu", quiet=True)


def test_fit_detector_is_repeatable(pictures):
    from vestige.engines.train import TrainConfig

    real, fake = pictures
    config = TrainConfig(steps=2, batch_size=4, seed=5)
    nets = [fit_detector(small_patchcraft(), real, fake, config, crop=24) for _ in range(2)]
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_lgrad_sees_slopes_of_a_network_that_stays_as_it_is():
    fixed = FeatureNet(seed=1).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in fixed.state_dict().items()}
    torch.manual_seed(0)
    net = LGradNet(fixed=fixed, depth=18, width=0.125)
    assert net.state_dict().keys() == TraceResNet("rgb", depth=18, width=0.125).state_dict().keys()
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slopes, found = net.eval().slopes(x), net(x)
    assert found.shape == (3,)
    assert not slopes.requires_grad
    assert slopes.amin((1, 2, 3)).tolist() == [0.0] * 3
    assert slopes.amax((1, 2, 3)).tolist() == [1.0] * 3
    torch.testing.assert_close(slopes[1:2], net.slopes(x[1:2]), rtol=0, atol=1e-4)  # no picture changes another's
    net.train()(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert not fixed.training
    assert all(p.grad is None for p in fixed.parameters())
    assert all(torch.equal(value, before[name]) for name, value in fixed.state_dict().items())
