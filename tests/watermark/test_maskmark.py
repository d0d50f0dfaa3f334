from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.watermark.learned_toys import learn_bits
from vestige.core.errors import UsageError
from vestige.core.image_io import encode
from vestige.core.keys import PUBLIC_KEY
from vestige.core.subjects import ImageSubject
from vestige.engines.marking.model import BitReading, Trial
from vestige.nn.jnd import jnd
from vestige.watermark.maskmark import CHANNELS, MaskMark, MaskMarkNet, components

BITS = np.random.default_rng(5).random(32) < 0.5


def small(bits=8, size=32, **options):
    torch.manual_seed(0)
    sizes = {"base": 8, "reader_base": 8, "levels": 2, "middle": 2, "outside": 4}
    return MaskMarkNet(bits, size, **sizes | options)


class Located(MaskMarkNet):
    """A MaskMark whose networks are replaced by a known pattern: 64 bits in every 32×32 tile, map by its energy."""

    def __init__(self, **options):
        super().__init__(64, 128, base=2, reader_base=2, levels=1, middle=2, outside=2)
        self.register_buffer("wave", (torch.arange(128) % 4 < 2).float() * 2 - 1)

    def raw(self, images, bits, masks=None):
        signs = (2 * bits - 1).view(-1, 1, 8, 8).repeat(1, 1, 4, 4)  # one 8×8 word a tile of 32 pixels, 4 pixels a bit
        planes = torch.nn.functional.interpolate(signs, (128, 128), mode="nearest") * self.wave
        return 2 * (images + 2 * planes) - 1

    def presence(self, images):
        energy = ((images.mean(1, keepdim=True) - 0.5) ** 2).sqrt()
        return (torch.nn.functional.avg_pool2d(energy, 5, 1, 2) > 0.01).float()

    def soft_bits(self, images, masks):
        seen = (images.mean(1, keepdim=True) - 0.5) * self.wave * masks.to(images)
        blocks = torch.nn.functional.avg_pool2d(seen, 4)
        return blocks.view(-1, 4, 8, 4, 8).sum((1, 3)).flatten(1)


# the network ----------------------------------------------------------------------------------------------------------


def test_the_change_is_the_visibility_map_times_the_raw_change():
    net = small()
    images, bits = torch.rand(2, 3, 32, 32), torch.ones(2, 8)
    raw = net.raw(images, bits) / 2 + 0.5 - images
    torch.testing.assert_close(net.embed(images, bits) - images, jnd(images) * raw, atol=1e-6, rtol=1e-4)
    net.channels = CHANNELS
    scaled = net.embed(images, bits) - images
    torch.testing.assert_close(scaled[:, 1], 0.5 * (jnd(images) * raw)[:, 1], atol=1e-6, rtol=1e-4)
    net.prepare(lambda name: 0.0)
    net.channels = (1.0, 1.0, 1.0)
    torch.testing.assert_close(net.embed(images, bits) - images, raw)


def test_the_visibility_map_comes_in_evenly():
    net = small()
    images, bits = 0.3 + 0.2 * torch.rand(1, 3, 32, 32), torch.ones(1, 8)
    sizes = []
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        net.prepare(lambda name, level=level: level)
        sizes.append(float((net.embed(images, bits) - images).abs().mean().detach()))
    ratios = [a / b for a, b in pairwise(sizes)]
    assert max(ratios) / min(ratios) < 1.5
    assert sizes[0] > 10 * sizes[-1]


def test_training_reads_inside_the_true_mask_and_use_inside_the_map():
    net = small()
    images, masks = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    masks[..., :16] = True
    altered = torch.where(masks, images, 1 - images)
    torch.testing.assert_close(net.read(images, masks).soft, net.read(altered, masks).soft)
    found = net.read(images)
    torch.testing.assert_close(found.soft, net.soft_bits(images, found.presence > 0.5))


def test_only_ed_looks_at_the_mask():
    images, bits = torch.rand(1, 3, 32, 32), torch.ones(1, 8)
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    assert torch.equal(small().raw(images, bits, masks), small().raw(images, bits))
    ed = small(variant="ED")
    assert not torch.equal(ed.raw(images, bits, masks), ed.raw(images, bits))
    assert torch.equal(ed.raw(images, bits, ~masks), ed.raw(images, bits))


def test_the_objective_is_the_papers():
    net = small(4, 16)
    images, masks = torch.zeros(2, 3, 16, 16), torch.ones(2, 1, 16, 16, dtype=torch.bool)
    reading = BitReading(torch.full((2, 4), 0.5), torch.full((2, 1, 16, 16), 0.5))
    trial = Trial(images, torch.zeros(2, 4), masks, images + 0.1, images, masks, reading, torch.zeros(()))
    late = float(net.objective(trial, lambda name: 1.0)["loss"])
    assert late == pytest.approx(0.04 + 0.2 * (1 + 0.5 * 0.25), rel=1e-4)
    early = float(net.objective(trial, lambda name: 0.0)["loss"])
    assert early == pytest.approx(20 * (1 + 0.5 * 0.25), rel=1e-4)


def test_gradients_reach_every_part():
    net = small()
    net.prepare(lambda name: 1.0)
    images, bits, masks = torch.rand(2, 3, 32, 32), torch.ones(2, 8), torch.ones(2, 1, 32, 32, dtype=torch.bool)
    marked = net.embed(images, bits)
    trial = Trial(images, bits, masks, marked, marked, masks, net.read(marked, masks), torch.zeros(()))
    net.objective(trial, lambda name: 1.0)["loss"].backward()
    for part in (net.plane, net.encoder, net.merge, net.locate, net.lift, net.reader, net.gather):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0


def test_bits_are_learned():
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    assert learn_bits(small(), image, 120, 2e-3) == 1.0


def test_the_papers_sizes_build():
    with torch.device("meta"):
        net = MaskMarkNet(128, 256)
    assert net.encoder.down[-1][0][0].out_channels == 1024
    for wrong in ({"variant": "X"}, {"size": 36, "levels": 3}, {"bits": 32, "size": 32}):
        with pytest.raises(UsageError):
            small(**wrong)


# the mark -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marker():
    return MaskMark(network=Located(), strength=2.0)


def test_one_mark_reads_with_its_map(marker):
    images = np.full((1, 3, 128, 160), 0.5, np.float32)
    (reading,) = marker.read(marker.mark(images, BITS, PUBLIC_KEY), PUBLIC_KEY)
    assert reading.outcome == "read"
    np.testing.assert_array_equal(reading.bits, BITS)
    assert reading.details["map"].shape == (128, 128)
    assert reading.details["area"] > 0.9
    (none,) = marker.read(images, PUBLIC_KEY)
    assert none.outcome == "absent"
    assert none.details["area"] == 0


def test_several_marks_in_one_picture_are_read_apart(marker):
    images = np.full((1, 3, 128, 128), 0.5, np.float32)
    masks = [np.zeros((1, 1, 128, 128), bool) for _ in range(3)]
    masks[0][..., :, :36] = True
    masks[1][..., :, 48:84] = True
    masks[2][..., :, 92:] = True
    texts = ["one", "two", "three"]
    marked = marker.mark_regions(images, texts, masks, PUBLIC_KEY)
    (found,) = marker.read_all(marked, PUBLIC_KEY)
    assert sorted(r.message for r in found) == sorted(texts)
    middle = next(r for r in found if r.message == "two")
    assert (middle.details["mask"] & masks[1][0, 0]).sum() / (middle.details["mask"] | masks[1][0, 0]).sum() > 0.8
    assert marker.read_all(images, PUBLIC_KEY) == [[]]
    assert marker.read_all(marked, b"another key that is long enough!") == [[]]


def test_regions_must_fit_together(marker):
    images, mask = np.zeros((1, 3, 32, 32), np.float32), np.ones((1, 1, 32, 32), bool)
    with pytest.raises(UsageError, match="overlap"):
        marker.mark_regions(images, ["a", "b"], [mask, mask], PUBLIC_KEY)
    with pytest.raises(UsageError, match="one for each"):
        marker.mark_regions(images, ["a", "b"], [mask], PUBLIC_KEY)


def test_components_are_sorted_and_small_ones_dropped():
    mask = np.zeros((20, 20), bool)
    mask[:2, :2], mask[5:15, 5:15], mask[18, 18] = True, True, True
    assert [int(p.sum()) for p in components(mask, 0.005)] == [100, 4]
    assert components(np.zeros((4, 4), bool)) == []


def test_the_finding_tells_area_and_key(marker):
    flat = np.full((128, 128, 3), 128, np.uint8)
    subject = ImageSubject(encode(flat, "PNG"), "flat")
    assert not marker.find(subject).applies
    marker.facts = {"alarm_areas": [0.0], "unmarked": 80}
    try:
        assert not marker.find(subject).flagged
        marked = marker.mark(np.full((1, 3, 128, 128), 0.5, np.float32), "hello", PUBLIC_KEY)
        pixels = np.round(marked[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        finding = marker.find(ImageSubject(encode(pixels, "PNG"), "marked"))
        assert finding.flagged
        assert finding.details["message"] == "hello"
        assert finding.false_positive_rate == pytest.approx(1 / 81)
        tiny = ImageSubject(encode(flat[:2, :2], "PNG"), "tiny")
        assert "smaller" in marker.find(tiny).why_not
    finally:
        marker.facts = {}


def test_the_strength_follows_the_variant():
    assert MaskMark(network=small(16, 32)).strength == 1.3
    assert MaskMark(network=small(16, 32, variant="ED")).strength == 1.75
    assert MaskMark(network=small(16, 32), strength=1.0).strength == 1.0
