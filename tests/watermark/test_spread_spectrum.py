import cv2
import numpy as np
import pytest
from skimage import data

from tests.watermark.picture_samples import BITS, from_uint8, graphics, saved
from vestige.core.errors import UsageError
from vestige.core.keys import PUBLIC_KEY
from vestige.core.roles import Marker
from vestige.data.distortions import compose
from vestige.metrics.quality import psnr, ssim
from vestige.watermark import spread_spectrum
from vestige.watermark.carriers import TILE, Carriers, blocks, fold, grid, overlap_add, whiten
from vestige.watermark.informed import _data, _pilots, margins, panel_change
from vestige.watermark.payload import PayloadCode
from vestige.watermark.registration import PhaseTest, candidates
from vestige.watermark.spread_spectrum import Content, SpreadSpectrum

KEY = b"k" * 32


@pytest.fixture(scope="module")
def photo():
    return from_uint8(cv2.resize(data.astronaut(), (384, 384), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def method():
    return SpreadSpectrum()


@pytest.fixture(scope="module")
def marked(photo, method):
    return saved(method.mark(photo, BITS, PUBLIC_KEY), format="PNG")


# carriers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [True, False])
def test_carriers_are_keyed_and_disjoint(bound):
    carriers, other = Carriers(KEY, bound), Carriers(b"other", bound)
    pilots = {tuple(f) for f in carriers.pilots.frequencies}
    assert len(pilots) == 32
    assert not pilots & {tuple(f) for f in carriers.data.frequencies}
    assert not np.array_equal(carriers.pilots.frequencies, other.pilots.frequencies)
    assert np.array_equal(carriers.data.turn, Carriers(KEY, bound).data.turn)
    assert not np.array_equal(Carriers(KEY, not bound).pilots.frequencies, carriers.pilots.frequencies)
    chips = np.random.default_rng(0).choice([-1, 1], carriers.slots)
    real, imaginary = np.split(chips, 2)
    tile = carriers.data.tiles((real + 1j * imaginary).astype(np.complex64))
    seen = carriers.data.at(tile)
    assert np.abs(seen / np.abs(seen[0].real) - (real + 1j * imaginary)).max() < 1e-3
    pilots_tile = carriers.pilots.tiles(np.ones(32, np.complex64))
    assert np.sqrt(tile.std() ** 2 + pilots_tile.std() ** 2) == pytest.approx(1.0, abs=1e-3)


def test_blocks_add_up_to_the_picture():
    field = np.random.default_rng(1).random((150, 333), np.float32)
    parts = blocks(field)
    assert parts.shape[:2] == grid(field.shape)
    assert np.abs(overlap_add(np.ones_like(parts)) - 1).max() < 1e-5
    assert np.abs(overlap_add(blocks(field, TILE, True), True)[:150, :333] - field).max() < 1e-5
    waves = Carriers(KEY).data
    turned = waves.at(parts) * np.conj(waves.block_turns(*parts.shape[:2]))
    assert np.abs(turned.sum((0, 1)) - waves.at(fold(field))).max() < 0.05


@pytest.mark.parametrize("offset", [(0, 0), (17, 90), (127, 1)])
def test_shift_is_found(offset):
    carriers = Carriers(KEY)
    tile = carriers.pilots.tiles(np.ones(32, complex)) * 2
    noise = np.random.default_rng(2).normal(0, 2, (300, 300))
    y, x = offset
    image = np.tile(tile, (4, 4))[y : y + 300, x : x + 300] + noise
    shift, log_p = carriers.align(carriers.phasors(fold(image)))
    assert np.abs((shift - (x, y) + 64) % TILE - 64).max() < 0.3
    assert log_p < -20


def test_p_values_of_pilots_are_valid():
    """P(p <= x) <= x over keys, for hosts of one picture."""
    tiles = [
        fold(whiten(data.camera()[i : i + 256, 2 * i : 2 * i + 256].astype(np.float32))) for i in range(0, 100, 20)
    ]
    keys = [Carriers(bytes([i]), bound=False) for i in range(30)]
    p = np.exp([key.align(key.phasors(tile))[1] for key in keys for tile in tiles])
    for level in (0.3, 0.1, 0.03):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level / len(p))


# informed embedding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [True, False])
def test_informed_embedding_beats_blind_embedding_of_the_same_energy(photo, bound):
    carriers = Carriers(KEY, bound)
    code = PayloadCode(KEY, carriers.slots)
    chips, groups = code.encode(BITS), code.groups(BITS)
    luma = (photo[0].mean(0) * 255).astype(np.float32)
    follows = Content(carriers, luma).panel(slice(0, 384), slice(0, 384)) if bound else None
    amplitude = np.full_like(luma, 2.0)
    change = panel_change(luma, carriers, chips, groups, amplitude, follows)
    assert np.mean(change**2) <= 4.01
    pairs = np.split(chips.astype(np.float32), 2)
    blind = _data((pairs[0] + 1j * pairs[1])[None], carriers, luma.shape, follows)
    blind = 2.0 * (blind + _pilots(np.ones((1, 32), np.complex64), carriers, luma.shape, follows))
    informed, plain = (margins(luma + c, carriers, chips, groups, follows) for c in (change, blind))
    assert informed[0] > 1.15 * plain[0]
    assert informed[1] > 0.9 * plain[1]


# registration ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "strength", "scale"), [("resize", 0.6, 0.6), ("rotate", 12, 1.0), ("aspect", 1.2, 1.0)]
)
def test_linear_part_is_among_the_candidates(marked, name, strength, scale):
    changed = compose([(name, strength)])(marked)
    luma = (changed[0].mean(0) * 255).astype(np.float32)
    carriers = Carriers(PUBLIC_KEY, bound=False)
    found, tried = candidates(luma, carriers, 6, (0.4, 2.0))
    angle = np.radians(-strength if name == "rotate" else 0)
    stretch = np.diag([strength**0.5, strength**-0.5]) if name == "aspect" else np.eye(2)
    expected = scale * stretch @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert min(np.abs(linear - expected).max() for linear in found) < 0.01
    assert tried > 1000
    heights, _ = PhaseTest(whiten(luma), carriers).heights(np.stack([expected, np.eye(2) * 1.7]), TILE)
    assert heights[0] > heights[1] + 1


# the mark -------------------------------------------------------------------------------------------------------------


def test_contract(photo, method, marked):
    assert isinstance(method, Marker)
    assert method.slug == "spread_spectrum"
    raw = method.mark(photo, BITS, PUBLIC_KEY)
    assert raw.shape == photo.shape
    assert raw.dtype == np.float32
    assert raw.min() >= 0
    assert raw.max() <= 1
    assert np.array_equal(raw, method.mark(photo, BITS, PUBLIC_KEY))
    assert psnr(photo, marked)[0] > 40.4
    assert ssim(photo, marked)[0] > 0.98
    interior = ((photo > 0.1) & (photo < 0.9)).all(1)[0]
    change = (raw - photo)[0][:, interior]
    assert np.abs(change - change.mean(0)).max() < 1e-5  # no colour shift


@pytest.mark.parametrize(
    "steps",
    [
        [("jpeg", 75)],
        [("jpeg", 30)],
        [("webp", 70)],
        [("noise", 0.02)],
        [("blur", 1)],
        [("brightness", 0.8)],
        [("brightness", 1.2)],
        [("contrast", 0.8)],
        [("gamma", 1.4)],
        [("resize", 0.5)],
        [("resize", 1.5)],
        [("crop", 0.8)],
        [("crop", 0.5)],
        [("rotate", 5)],
        [("rotate", -15)],
        [("rotate", 90)],
        [("flip", 1)],
        [("flip", 2), ("resize", 0.8)],
        [("aspect", 1.2)],
        [("screenshot", 0.5)],
        [("crop", 0.6), ("resize", 0.75), ("jpeg", 60)],
    ],
    ids=lambda steps: compose(steps).name,
)
def test_payload_survives(method, marked, steps):
    (reading,) = method.read(compose(steps)(marked, seed=3), PUBLIC_KEY)
    assert reading.outcome == "read"
    assert np.array_equal(reading.bits, BITS)
    assert reading.p_value < 1e-6


def test_details_describe_the_geometry(method, marked):
    (reading,) = method.read(compose([("flip", 1), ("resize", 0.75)])(marked), PUBLIC_KEY)
    assert reading.details["scale"] == pytest.approx(0.75, abs=0.005)
    assert reading.details["flipped"]
    assert abs(reading.details["rotation"]) < 0.3
    assert reading.details["stretch"] < 1.01
    (turned,) = method.read(compose([("rotate", 10)])(marked), PUBLIC_KEY)
    assert abs(turned.details["rotation"]) == pytest.approx(10, abs=0.3)
    assert not turned.details["flipped"]


def test_map_shows_where_the_mark_is(photo, method, marked):
    pasted = np.concatenate([photo, photo[..., ::-1]], axis=3)
    pasted[:, :, 96:352, 400:656] = marked[:, :, :256, 64:320]
    (reading,) = method.read(pasted, PUBLIC_KEY)
    assert reading.outcome == "read"
    found = reading.details["map"]
    assert found.shape == (24, 48)
    assert found[8:20, 27:39].min() > 3
    assert np.nanmax(found[:, :18]) < 4


def test_regions_and_keys_hold_marks_of_their_own(photo, method):
    wide = np.concatenate([photo, photo[..., ::-1]], axis=3)[:, :, :256]
    left = np.zeros((1, 1, *wide.shape[2:]), bool)
    left[..., :384] = True
    both = method.mark(method.mark(wide, "left", KEY, left), "right", KEY, ~left)
    readings = method.read_all(both, KEY)
    assert {r.message for r in readings} == {"left", "right"}
    centre = {r.message: np.nanmean(np.argwhere(r.details["map"] > 3)[:, 1]) for r in readings}
    assert centre["left"] < 22 < 26 < centre["right"]
    assert method.read_all(wide, KEY) == []
    two = method.mark(method.mark(photo, "one", b"1"), "two", b"2")
    assert [method.read(two, key)[0].message for key in (b"1", b"2")] == ["one", "two"]


def test_masks_leave_the_rest_untouched(photo, method):
    mask = np.zeros((1, 1, 384, 384), bool)
    mask[..., 100:300, 100:300] = True
    changed = np.abs(method.mark(photo, "x", KEY, mask) - photo).max((0, 1)) > 0
    assert changed[110:290, 110:290].mean() > 0.9
    assert not changed[:80].any()
    assert not changed[:, 320:].any()
    with pytest.raises(UsageError, match="Masks"):
        method.mark(photo, "x", KEY, mask[0])


def test_pilots_without_payload_are_unreadable(photo, method):
    carriers = Carriers(PUBLIC_KEY, bound=False)
    pilots = carriers.pilots.tiles(np.ones(32, np.complex64))
    (reading,) = method.read(np.clip(photo + np.tile(pilots, (3, 3)) * (4 / 255), 0, 1), PUBLIC_KEY)
    assert reading.outcome == "unreadable"
    assert reading.p_value < 1e-6
    assert reading.bits is None
    assert set(reading.details["raw_bits"]) == {32, 64}


def test_panels_and_regions_of_large_pictures(photo, monkeypatch):
    monkeypatch.setattr(spread_spectrum, "_PANEL", 200)
    small = SpreadSpectrum(region=256)
    marked = small.mark(photo, "panel", KEY)
    assert psnr(photo, marked)[0] > 37.5
    assert small.read(np.ascontiguousarray(marked[..., ::-1]), KEY)[0].message == "panel"
    seam = np.abs(np.diff(marked - photo, axis=2)).mean((0, 1, 3))
    assert seam[127] < 2 * np.median(seam)  # no visible step where panels meet


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 0},
        {"masking": 2.0},
        {"graphics": 0},
        {"quality": -1},
        {"reserve": -1},
        {"ease": 0},
        {"scales": (1.2, 2.0)},
        {"region": 100},
    ],
)
def test_bad_parameters(options):
    with pytest.raises(UsageError):
        SpreadSpectrum(**options)


def test_quality_trades_fidelity_for_robustness(photo):
    faint = SpreadSpectrum(quality=44, reserve=0)
    marked = saved(faint.mark(photo, "hi", PUBLIC_KEY), format="PNG")
    assert psnr(photo, marked)[0] > 43.5
    assert faint.read(marked, PUBLIC_KEY)[0].message == "hi"


@pytest.mark.parametrize("kind", ["white", "black", "grey", "text"])
def test_flat_graphics_stay_clean(method, kind):
    image = graphics(kind)
    marked = saved(method.mark(image, "ok", PUBLIC_KEY), format="PNG")
    if kind == "text":
        assert psnr(image, marked)[0] > 37
    else:
        assert np.sqrt(np.mean((marked - image) ** 2)) * 255 < 1.3


def test_no_mark_is_looked_for_in_tiny_pictures(method):
    assert method.read_all(np.zeros((1, 3, 63, 500), np.float32), PUBLIC_KEY) == []
