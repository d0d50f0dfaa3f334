"""Recoloured pictures: a network learns to tell them, the examiner keeps to its domain, tools measure what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.data.recolouring import recolour
from vestige.forensics import learned
from vestige.forensics.learned import load_network, save_network
from vestige.forensics.recolor import RecolorDetector, effect_size, neighbour_correlation, squares
from vestige.forensics.recolor_net import Contest, PixelNet, RecolorNet, ThreeInputNet, illumination, log_odds_of
from vestige.metrics.detection import auroc


def small() -> RecolorNet:
    torch.manual_seed(0)
    return RecolorNet(T=7, widths=(8, 16), hidden=16)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """uint8 10×3×96×96, crops of pictures that ship with scikit-image."""
    crops = [p[y : y + 96, x : x + 96] for p in (data.astronaut(), data.coffee(), data.rocket()) for y, x in
             ((20, 20), (150, 60), (60, 250), (220, 300))]  # fmt: skip
    return np.stack([np.ascontiguousarray(c.transpose(2, 0, 1)) for c in crops])


def test_a_network_learns_to_tell_recoloured_pictures() -> None:
    sheets = [p[: 64 * (p.shape[0] // 64), : 64 * (p.shape[1] // 64)] for p in (data.astronaut(), data.coffee())]
    genuine = np.concatenate([
        p.reshape(p.shape[0] // 64, 64, -1, 64, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 64, 64) for p in sheets
    ]).astype(np.float32) / 255  # fmt: skip
    genuine = genuine[genuine.std((1, 2, 3)) > 0.1][:72]
    changed = np.stack([recolour(g, "reinhard", r, least=0).image for g, r in zip(genuine, genuine[::-1], strict=True)])
    images, labels = np.concatenate([genuine, changed]), np.repeat([False, True], len(genuine))
    held = np.arange(len(images)) % 3 == 0
    detector = RecolorDetector(network=small())
    halves = [(images[~held][i::2], labels[~held][i::2]) for i in (0, 1)]
    assert detector.fit(halves, steps=60, batch_size=24, lr=3e-3) is detector
    scores = detector.score(images[held])
    assert scores.shape == (held.sum(),)
    assert auroc(labels[held], scores) > 0.75
    eight = np.round(images[held] * 255).astype(np.uint8)
    np.testing.assert_allclose(detector.score(eight), scores, atol=1e-4)
    with pytest.raises(UsageError, match="genuine and recoloured"):
        detector.fit([(images, np.zeros(len(images)))])


def test_gradients_reach_the_pixels_through_soft_maps(photos: np.ndarray) -> None:
    net = small().eval()
    x = (torch.from_numpy(photos[:1, :, :40, :40]).float() / 255).requires_grad_()
    net(net.maps(x, soft=True)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    torch.testing.assert_close(net(net.maps(x, soft=True)), net(net.maps(x)), atol=1e-3, rtol=1e-3)


def test_networks_of_a_contest_share_nothing(photos: np.ndarray) -> None:
    torch.manual_seed(0)
    contest = Contest(("all", "channels", "spatial", "pixels", "inputs")).eval()
    images = torch.from_numpy(photos[:2])
    maps = contest.nets["all"].maps(images)
    found = contest(maps, images.float() / 255)
    assert {name: tuple(odds.shape) for name, odds in found.items()} == dict.fromkeys(contest.nets, (2,))
    torch.testing.assert_close(found["channels"], contest.nets["channels"](contest.nets["channels"].maps(images)))
    torch.testing.assert_close(
        found["spatial"], log_odds_of(contest.nets["spatial"], contest.nets["spatial"].maps(images))
    )
    for name in ("pixels", "inputs"):
        torch.testing.assert_close(found[name], log_odds_of(contest.nets[name], images))
    found["pixels"].sum().backward()
    assert all(p.grad is None for name, net in contest.nets.items() if name != "pixels" for p in net.parameters())
    with pytest.raises(UsageError, match="Networks are"):
        Contest(("palette",))
    with pytest.raises(UsageError, match="spatial and channels"):
        RecolorNet(sets=())


def test_the_light_is_the_colour_of_the_steps() -> None:
    grey = torch.rand(1, 1, 40, 56, generator=torch.Generator().manual_seed(0))
    tint = torch.tensor([0.8, 0.5, 0.33166])  # of length 1
    light = illumination(grey * tint.view(1, 3, 1, 1))
    assert light.shape == (1, 3, 10, 14)
    torch.testing.assert_close(light, tint.view(1, 3, 1, 1).expand_as(light), atol=1e-3, rtol=0)
    torch.testing.assert_close(illumination(torch.full((1, 3, 16, 16), 0.4)), torch.full((1, 3, 4, 4), 3**-0.5))
    net = ThreeInputNet().eval()
    assert [tuple(net(torch.rand(2, 3, *size)).shape) for size in ((224, 224), (61, 90))] == [(2,), (2,)]


def test_weights_come_back_and_others_are_refused(tmp_path, photos: np.ndarray) -> None:
    net = small().eval()
    file = tmp_path / "recolor.safetensors"
    save_network(file, net, "recolor", {"photographs": 3})
    again, facts = load_network("recolor", RecolorNet, file)
    assert facts == {"photographs": 3}
    maps = net.maps(torch.from_numpy(photos[:1]))
    torch.testing.assert_close(again(maps), net(maps))
    assert RecolorDetector(file).score(photos[:1])[0] == pytest.approx(net(maps).item(), abs=1e-4)
    with pytest.raises(InputError, match="not of 'pixar'"):
        load_network("pixar", RecolorNet, file)
    with pytest.raises(InputError, match="another version"):
        load_network("recolor", PixelNet, file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="no weights of an examiner"):
        load_network("recolor", RecolorNet, file)


def test_missing_weights_are_one_sentence(tmp_path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> None:
    monkeypatch.setattr(learned, "WEIGHTS", tmp_path)
    monkeypatch.setenv("VESTIGE_RUNS", str(tmp_path))
    detector = RecolorDetector()
    with pytest.raises(InputError, match="vestige learn recolor"):
        detector.score(np.zeros((1, 3, 32, 32), np.float32))
    finding = detector.find(ImageSubject(encode(photo[:200, :200], "PNG")))
    assert not finding.applies
    assert "vestige learn recolor" in finding.why_not


@pytest.mark.parametrize(
    ("name", "reason"), [("tiny", "smaller"), ("grey", "grey"), ("flat", "flat"), ("nearly grey", "grey")]
)
def test_outside_its_domain_it_does_not_apply(photo: np.ndarray, name: str, reason: str) -> None:
    grey = np.repeat(photo[:200, :200, :1], 3, 2)
    flat = np.broadcast_to(np.uint8([200, 90, 40]), (200, 200, 3)).copy()
    flat[:20] = photo[:20, :200]
    pictures = {"tiny": photo[:100, :100], "grey": grey, "flat": flat, "nearly grey": grey.copy()}
    pictures["nearly grey"][::9, ::9, 0] ^= 1
    finding = RecolorDetector(network=small()).find(ImageSubject(encode(pictures[name], "PNG")))
    assert not finding.applies
    assert reason in finding.why_not


def test_a_finding_covers_the_picture_as_displayed(photo: np.ndarray) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    detector = RecolorDetector(network=small())
    turned = detector.find(ImageSubject(encode(photo, "JPEG", exif=exif.tobytes())))
    plain = detector.find(ImageSubject(encode(photo, "JPEG")))
    assert plain.map is not None
    assert turned.map is not None
    assert plain.map.shape == (2, 2)
    np.testing.assert_array_equal(np.rot90(plain.map, -1), turned.map)
    assert plain.score == pytest.approx(turned.score)
    assert 0 <= plain.map.min() <= plain.map.max() <= 1


@pytest.mark.parametrize(("height", "width"), [(128, 128), (256, 4000), (6000, 300), (4000, 6000), (700, 900)])
def test_squares_are_few_and_inside(height: int, width: int) -> None:
    tiles, (rows, columns) = squares(height, width)
    assert len(tiles) == rows * columns <= 24
    for top, left, h, w in tiles:
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w
        assert min(h, w) == min(256, height, width) or (h, w) == (256, 256)
    assert len(set(tiles)) == len(tiles)


def test_what_the_premise_is_measured_with(photos: np.ndarray) -> None:
    ramp = np.cumsum(np.repeat(np.random.default_rng(0).normal(size=(1, 3, 40, 20)), 2, axis=3), axis=3)
    assert neighbour_correlation(ramp)[0] > 0.3  # each step comes twice
    assert neighbour_correlation(np.full((1, 3, 8, 8), 5.0))[0] == 0
    genuine = neighbour_correlation(photos)
    assert effect_size(genuine, genuine) == 0
    assert effect_size(genuine, genuine - 1) < -1
    with pytest.raises(UsageError, match="N×3×H×W"):
        neighbour_correlation(photos[0])


def test_a_recoloured_picture_changes_the_maps_more_than_its_own_identity(photos: np.ndarray) -> None:
    net = small()
    image = photos[0].astype(np.float32) / 255
    identity = recolour(image, "reinhard", image, least=0).image
    changed = recolour(image, "reinhard", photos[5].astype(np.float32) / 255).image
    maps = net.maps(torch.from_numpy(np.stack([image, identity, changed])))
    gap = (maps - maps[:1]).abs().sum((1, 2, 3))
    assert gap[1] < 0.5 * gap[2]
