"""ScreenMark: overlay, reader and stages; the keyed mark with a pattern whose reader needs no training."""

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.keys import PUBLIC_KEY
from vestige.core.roles import Marker
from vestige.data.screens import Shot, render_screens
from vestige.engines.marking.model import Trial, save_marker
from vestige.engines.recipe import RecipeContext, load_recipe
from vestige.watermark.learned import WEIGHTS
from vestige.watermark.screenmark import (
    ScreenMark,
    composite,
)
from vestige.watermark.screenmark_net import (
    LUMA,
    ScreenMarkNet,
    blend,
    doubled,
    local_contrast,
    pilot_tile,
    rolled,
    spread_loss,
)

OTHER = b"another key that is long enough!"
PAYLOAD = np.random.default_rng(3).random(32) < 0.5
SMALL = {"bits": 8, "size": 32, "diffuser": 16, "reader": 8}
RECIPE = "screenmark"


class Carriers(ScreenMarkNet):
    """Every bit is the sign of a random carrier; read by correlation, nothing to learn."""

    def __init__(self, bits: int = 16, size: int = 64) -> None:
        super().__init__(bits, size, alpha=24 / 255, diffuser=8, reader=8)
        noise = np.random.default_rng(7).standard_normal((bits, size // 2, size // 2))
        smooth = sum(np.roll(noise, move, (1, 2)) for move in ((0, 0), (0, 1), (1, 0), (1, 1)))
        self.carriers = torch.from_numpy(smooth / smooth.std()).float()

    def pattern(self, bits):
        message = torch.einsum("nl,lhw->nhw", 2 * bits - 1, self.carriers) / self.bits**0.5
        tile = 0.5 + 0.1 * (message + pilot_tile(self.size // 2))[:, None]
        return doubled(tile).clamp(0, 1).expand(-1, 3, -1, -1)

    def decode(self, tiles):
        return torch.einsum("nhw,lhw->nl", tiles.mean(1), self.carriers) / 100


def screens(kind: str, count: int, size, seed: int = 0) -> np.ndarray:
    return render_screens(kind, count, size, seed).astype(np.float32) / 255


# the overlay ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> ScreenMark:
    torch.manual_seed(0)
    return ScreenMark(network=ScreenMarkNet(**SMALL))


def test_an_overlay_is_rendered_once_and_blended_as_compositors_do(small):
    overlay = small.overlay(np.array([1, 0, 1, 1, 0, 0, 1, 0]))
    assert overlay.shape == (4, 32, 32)
    assert overlay.dtype == np.uint8
    assert set(np.unique(overlay[3])) == {6}
    frame = np.random.default_rng(0).integers(0, 256, (2, 3, 50, 70), dtype=np.uint8)
    marked = composite(frame, overlay)
    tiled = np.tile(overlay[:3], (1, 2, 3))[:, :50, :70].astype(float)
    exact = (6 * tiled + 249 * frame.astype(float)) / 255
    assert np.abs(marked - exact).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(composite(frame.astype(np.float32) / 255, overlay), marked.astype(np.float32) / 255)
    with pytest.raises(UsageError, match="overlay"):
        composite(frame[0], overlay)
    with pytest.raises(UsageError, match="N×8"):
        small.overlay(np.ones(9))


def test_patterns_wrap_around(small):
    with torch.no_grad():
        tile = small.net.pattern(torch.eye(8))
    inside = (tile[..., 1:] - tile[..., :-1]).abs().mean()
    seam = (tile[..., 0] - tile[..., -1]).abs().mean()
    assert seam < 1.5 * inside
    assert tile.min() > 0
    assert tile.max() < 1


def test_rolling_moves_each_pattern_by_its_own_steps():
    patterns = torch.rand(2, 3, 8, 8)
    moved = rolled(patterns, torch.tensor([[3, 0], [5, 7]]))
    # The first pixel shows the point that the shift names.
    torch.testing.assert_close(moved[0], torch.roll(patterns[0], (-3, -5), (1, 2)))
    torch.testing.assert_close(moved[1], torch.roll(patterns[1], (0, -7), (1, 2)))


def test_local_contrast_keeps_faint_patterns_and_limits_edges():
    assert float(local_contrast(torch.full((1, 3, 16, 16), 0.7)).abs().max()) < 1e-3
    pattern = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    faint, strong = (local_contrast(0.5 + a * pattern) for a in (0.1, 0.2))
    assert float((strong - faint).abs().mean()) < 0.1 * float(strong.abs().mean())
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    assert float(local_contrast(edge).abs().max()) <= 3


def test_the_pilot_tells_the_phase_of_a_pattern(small):
    with torch.no_grad():
        tiles = local_contrast(torch.nn.functional.avg_pool2d(small.net.pattern(torch.eye(8)), 2))
        shifts = torch.tensor([[0, 3, 7, 15, 1, 2, 9, 4], [0, 5, 15, 1, 8, 2, 0, 11]])
        moved = torch.stack([t.roll((int(d), int(r)), (1, 2)) for t, d, r in zip(tiles, *shifts, strict=True)])
        found, clear = small.net.phase(moved)
    torch.testing.assert_close(found, shifts)
    assert clear.min() > 4
    torch.testing.assert_close(rolled(moved, found), tiles)


# training -------------------------------------------------------------------------------------------------------------


def trial(net: ScreenMarkNet, images: torch.Tensor, bits: torch.Tensor) -> Trial:
    masks = torch.ones(len(images), 1, *images.shape[2:], dtype=torch.bool)
    marked = net.embed(images, bits, masks)
    return Trial(images, bits, masks, marked, marked, masks, net.read(marked, masks), images.new_zeros(()))


def test_the_first_stage_has_no_picture_and_later_ones_bound_the_change():
    torch.manual_seed(0)
    net = ScreenMarkNet(**SMALL).eval()
    images, bits = torch.rand(2, 3, 32, 32), torch.zeros(2, 8)
    net.prepare(lambda name: 0.0)
    with torch.no_grad():
        for level, wanted, most in (
            (0.0, net.pattern(bits), 0.5), (1.0, images, 6.5), (0.5, blend(images, net.pattern(bits), 0.1534), 0.6),
        ):  # fmt: skip
            net.prepare(lambda name, level=level: level)
            assert float((net.embed(images, bits) - wanted).abs().max()) <= most / 255 + 1e-6


def test_each_stage_adds_its_loss_and_reaches_the_diffuser():
    torch.manual_seed(0)
    images, bits = torch.rand(4, 3, 32, 32), (torch.rand(4, 8) < 0.5).float()
    for fidelity in (0.0, 1.0):
        net = ScreenMarkNet(**SMALL, image_weight=1e4, perceptual_weight=1.0).train()
        level = {"screen": 1.0, "fidelity": fidelity}.__getitem__
        net.prepare(level)
        one = trial(net, images, bits)
        found = net.objective(one, level)
        found["loss"].backward()
        assert sum(float(p.grad.abs().sum()) for p in net.diffuser.parameters()) > 0
        luma = torch.tensor(LUMA)[:, None, None]
        image = 1e4 * float(((one.embedded.detach() - images) * luma).sum(1).square().mean())
        with torch.no_grad():
            plain = float(found["message"] + 0.05 * found["unmarked"] + 0.3 * spread_loss(net.pattern(bits[:2])))
        loss = float(found["loss"].detach())
        assert loss >= plain + fidelity * image - 1e-4
        assert (loss <= plain + 1e-4) == (fidelity == 0)


def test_spread_loss_wants_different_patterns_of_middle_grey():
    generator = torch.Generator().manual_seed(0)
    good = torch.rand(4, 3, 16, 16, generator=generator)
    assert float(spread_loss(good)) < 0.01
    assert float(spread_loss(good[:1].expand(4, -1, -1, -1))) > 0.5
    assert float(spread_loss(good * 0.5)) > float(spread_loss(good)) + 0.04


def test_the_first_stage_learns_patterns_that_are_read_at_any_phase():
    torch.manual_seed(1)
    net = ScreenMarkNet(4, 32, diffuser=16, reader=8).train()
    net.prepare(lambda name: 0.0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, betas=(0.9, 0.99))
    images, right = torch.zeros(24, 3, 32, 32), []
    for _ in range(250):
        one = trial(net, images, (torch.rand(24, 4) < 0.5).float())
        loss = net.objective(one, lambda name: 0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.append(float(one.accuracy()))
        if np.mean(right[-10:]) > 0.9 and len(right) > 10:
            break
    assert np.mean(right[-10:]) > 0.9


def test_the_recipe_trains_in_stages_and_saves(tmp_path, monkeypatch):
    from vestige.engines.train import Trainer

    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path))  # no data: rendered scenes
    recipe = load_recipe(RECIPE)
    from dataclasses import replace

    config = replace(recipe.config, steps=6, batch_size=4, checkpoint_every=6)
    options = {**recipe.options, "limit": 6, "bits": 16, "screens": 4}
    job = recipe.build(RecipeContext(None, torch.device("cpu"), 0, config, tmp_path, options))
    assert job.on_step is not None
    result = Trainer(
        job.model, job.step, job.batches, config, out=tmp_path, extra=job.extra, on_step=job.on_step, device="cpu",
        quiet=True,
    ).run()  # fmt: skip
    assert np.isfinite(result.loss)
    job.save(result.model, tmp_path)
    mark = ScreenMark(tmp_path / "screenmark.safetensors")
    assert mark.bits == 16
    assert len(mark.facts["unmarked presence"]) == 4
    one = recipe.build(RecipeContext(None, torch.device("cpu"), 0, config, tmp_path, {**options, "stages": "one"}))
    assert one.on_step is None
    assert one.extra["stages"].level("screen") == 1.0


def test_the_diffuser_slows_down_in_the_last_stage():
    module = load_recipe(RECIPE).build.__globals__
    net, levels = ScreenMarkNet(**SMALL), {"fidelity": 0.0}

    class Levels:
        level = levels.__getitem__

    slow = module["SlowDiffuser"](net, Levels())
    weight = net.diffuser.spread.bias
    before = weight.detach().clone()
    for fidelity, moved in ((0.0, 1.0), (1.0, 0.1)):
        levels["fidelity"] = fidelity
        with torch.no_grad():
            weight += 1.0
        slow(1, net)
        torch.testing.assert_close(weight.detach(), before + moved)
        before = weight.detach().clone()


def test_the_distorter_gets_harder_in_steps():
    module = load_recipe(RECIPE).build.__globals__
    moving, changing = module["IMAGE_LEVEL"], module["PIXEL_LEVEL"]
    layer = module["ScreenDistorter"]((*moving, *changing), chain=3)
    images, masks = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64, dtype=torch.bool)
    for severity in (0.1, 0.7, 1.0):
        seen, moved = layer(images, masks, np.random.default_rng(0), severity=severity)
        assert seen.shape == images.shape
        assert moved.shape == masks.shape
    names = {d.name for d in moving} & {d.name for d in changing}
    assert names == {"identity"}


def test_patterns_are_grey_unless_colour_is_asked_for():
    bits = (torch.rand(2, 8) < 0.5).float()
    grey, colour = (ScreenMarkNet(**SMALL, colour=c).pattern(bits) for c in (False, True))
    torch.testing.assert_close(grey[:, :1].expand(-1, 3, -1, -1), grey)
    assert float((colour - colour.mean(1, keepdim=True)).abs().max().detach()) > 0.01
    assert {d.name for d in load_recipe(RECIPE).build.__globals__["PIXEL_LEVEL"]} >= {"jpeg", "saturation"}


def test_an_overlay_file_is_the_mark(carried):
    overlay = carried.keyed_overlay(PAYLOAD, PUBLIC_KEY)
    images = screens("ui", 1, 256, 4)
    np.testing.assert_array_equal(composite(images, overlay), carried.mark(images, PAYLOAD, PUBLIC_KEY))


# the keyed mark -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def carried() -> ScreenMark:
    return ScreenMark(network=Carriers())


@pytest.mark.parametrize("shape", [(320, 384), (401, 290)])
def test_keyed_payloads_longer_than_a_pattern_come_back(carried, shape):
    assert isinstance(carried, Marker)
    images = screens("ui", 1, shape, 4)
    marked = carried.mark(images, PAYLOAD, PUBLIC_KEY)
    assert marked.shape == images.shape
    assert marked.dtype == np.float32
    (reading,) = carried.read(marked, PUBLIC_KEY)
    assert reading.outcome == "read"
    np.testing.assert_array_equal(reading.bits, PAYLOAD)
    assert reading.p_value < 1e-3
    (moved,) = carried.read(marked[:, :, 37:, 21:], PUBLIC_KEY)
    np.testing.assert_array_equal(moved.bits, PAYLOAD)
    assert carried.read(marked, OTHER)[0].outcome == "absent"
    assert carried.read(images, PUBLIC_KEY)[0].outcome == "absent"


def test_screenshots_are_read_at_unknown_place_and_scale(carried):
    bits = np.random.default_rng(0).random(16) < 0.5
    images = screens("ui", 2, 256, 8)
    marked = composite(images, carried.overlay(bits))
    for shot in (Shot(), Shot(crop=0.5, quality=70), Shot(scale=0.75), Shot(scale=1.5, quality=85, cover=0.2)):
        for seen in carried.decode(shot(marked, seed=2)):
            assert seen.scale == pytest.approx(shot.scale, rel=0.05)
            # Guessing has 15 of 16 once in 4,000; a half of the screen and JPEG cost these carriers a bit.
            assert ((seen.soft > 0) == bits).sum() >= 15
    known = carried.decode(Shot(scale=0.5)(marked), scale=0.5)[0]
    assert known.scale == 0.5
    clean = [s.presence for s in carried.decode(images)]
    assert min(s.presence for s in carried.decode(marked)) > max(clean)


def test_masks_and_single_zones(carried):
    images, mask = screens("text", 1, 128), np.zeros((1, 1, 128, 128), bool)
    mask[..., :64] = True
    marked = carried.mark(images, PAYLOAD, PUBLIC_KEY, mask)
    assert (marked[..., :64] != images[..., :64]).mean() > 0.5
    np.testing.assert_array_equal(marked[..., 64:], images[..., 64:])
    with pytest.raises(UsageError, match="Masks"):
        carried.mark(images, PAYLOAD, PUBLIC_KEY, mask[0])
    torch.manual_seed(0)
    wide = ScreenMark(network=ScreenMarkNet(64, 32, diffuser=16, reader=8))
    changed = wide.mark(np.full((1, 3, 64, 64), 0.5, np.float32), PAYLOAD, PUBLIC_KEY)
    np.testing.assert_array_equal(changed[..., :32], changed[..., 32:])
    assert wide.read(changed[..., :32, :32], PUBLIC_KEY)[0].details["raw_bits"].shape == (64,)


def test_odd_arguments_and_pictures(carried):
    for shape in ((1, 1), (3, 5), (2, 300)):
        assert carried.read(np.zeros((1, 3, *shape), np.float32), PUBLIC_KEY)[0].outcome == "absent"
    assert carried.read(np.ones((1, 3, 90, 90), np.float32), PUBLIC_KEY)[0].outcome == "absent"
    with pytest.raises(UsageError, match="32 bits"):
        carried.mark(np.zeros((1, 3, 64, 64), np.float32), "much too long", PUBLIC_KEY)
    with pytest.raises(InputError, match="finite"):
        carried.read(np.full((1, 3, 8, 8), np.inf, np.float32), PUBLIC_KEY)
    for wrong, words in (({"alpha": 0.001}, "opacity"), ({"region": 10}, "region"), ({"scales": ()}, "scales")):
        with pytest.raises(UsageError, match=words):
            ScreenMark(network=ScreenMarkNet(**SMALL), **wrong)
    for wrong in ({"size": 48}, {"alpha": 0}, {"reader": 12}, {"diffuser": 6}):
        with pytest.raises(UsageError):
            ScreenMarkNet(**{**SMALL, **wrong})


def test_weights_come_back_and_missing_ones_name_the_recipe(tmp_path, small):
    save_marker(tmp_path / "w.safetensors", small.net, "screenmark", {"unmarked presence": [0.1, 0.2]})
    again = ScreenMark(tmp_path / "w.safetensors")
    bits = np.ones(8)
    np.testing.assert_array_equal(again.overlay(bits), small.overlay(bits))
    (seen,) = again.decode(np.zeros((1, 3, 40, 40), np.float32))
    assert seen.false_alarms == (1 + (np.array([0.1, 0.2]) >= seen.presence).sum()) / 3
    assert small.decode(np.zeros((1, 3, 40, 40), np.float32))[0].false_alarms is None
    if (WEIGHTS / "screenmark.safetensors").is_file():
        assert ScreenMark().bits >= 16
    else:
        with pytest.raises(InputError, match="vestige learn screenmark"):
            ScreenMark()
