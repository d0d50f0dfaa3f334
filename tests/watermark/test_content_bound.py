"""The mark that is bound to its picture: what folding, averaging and copying do to it, and what it survives."""

import cv2
import numpy as np
import pytest
from skimage import data

from tests.watermark.picture_samples import BITS, from_uint8, graphics, saved
from vestige.core.keys import PUBLIC_KEY
from vestige.core.roles import Marker
from vestige.data.distortions import compose
from vestige.metrics.quality import psnr, ssim
from vestige.watermark.carriers import TILE, Carriers, fold, whiten
from vestige.watermark.content_bound import ContentBound
from vestige.watermark.spread_spectrum import Content, SpreadSpectrum

KEY = b"k" * 32


@pytest.fixture(scope="module")
def photo():
    return from_uint8(cv2.resize(data.astronaut(), (384, 384), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def innocent():
    return from_uint8(cv2.resize(data.coffee(), (384, 384), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def method():
    return ContentBound()


@pytest.fixture(scope="module")
def marked(photo, method):
    return saved(method.mark(photo, BITS, PUBLIC_KEY), format="PNG")


def test_contract(photo, method, marked):
    assert isinstance(method, Marker)
    assert method.slug == "content_bound"
    assert psnr(photo, marked)[0] > 40.4
    assert ssim(photo, marked)[0] > 0.98


def test_signs_follow_content_and_survive_compression(photo):
    luma = (photo[0].mean(0) * 255).astype(np.float32)
    packed = saved(np.repeat(luma[None, None] / 255, 3, 1), format="JPEG", quality=50)[0, 0] * 255
    carriers = Carriers(KEY)
    own, again, other = (Content(c, x) for c, x in ((carriers, luma), (carriers, packed), (Carriers(b"o"), luma)))
    whole = slice(0, 384), slice(0, 384)
    for name in ("signs", "mask"):
        first, second, foreign = (getattr(c.panel(*whole), name).ravel() for c in (own, again, other))
        assert np.abs(first).max() <= 1
        assert np.corrcoef(first, second)[0, 1] > 0.9
        assert abs(np.corrcoef(first, foreign)[0, 1]) < (0.5 if name == "mask" else 0.1)
    turned = carriers.binding.mask(np.ascontiguousarray(np.rot90(luma)[:, ::-1]))
    assert np.abs(turned - np.rot90(own.mask)[:, ::-1]).mean() < 0.02
    large = carriers.binding.mask(cv2.resize(luma, (576, 576), interpolation=cv2.INTER_CUBIC), 1.5)
    assert np.corrcoef(cv2.resize(large, (384, 384)).ravel(), own.mask.ravel())[0, 1] > 0.95


def _folded(image, gain):
    """The pattern that all tiles of a picture have in common, in grey levels."""
    tile = fold(whiten((image[0].mean(0) * 255).astype(np.float32)))
    spectrum = np.fft.rfft2(tile)
    radius = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE))
    tile = np.fft.irfft2(spectrum * ((radius > 0.035) & (radius < 0.26)), s=(TILE, TILE))
    return np.tile(tile * (gain / tile.std()), (3, 3))


@pytest.mark.parametrize("bound", [True, False])
def test_a_folded_picture_neither_forges_the_mark_nor_removes_it(photo, innocent, marked, bound):
    """A mark that repeats one tile gives a forger all that is needed."""
    method = SpreadSpectrum(bound=bound)
    source = marked if bound else saved(method.mark(photo, BITS, PUBLIC_KEY), format="PNG")
    for gain in (2, 4):
        forged = saved(np.clip(innocent + _folded(source, gain) / 255, 0, 1), format="PNG")
        assert method.read(forged, PUBLIC_KEY)[0].outcome == ("absent" if bound else "read")
    cleaned = saved(np.clip(source - _folded(source, 2) / 255, 0, 1), format="PNG")
    assert (method.read(cleaned, PUBLIC_KEY)[0].outcome == "read") == bound


def test_a_mark_copied_to_another_picture_is_not_read(photo, innocent, marked, method):
    assert method.read(np.clip(innocent + marked - photo, 0, 1), PUBLIC_KEY)[0].outcome == "absent"


def test_both_kinds_of_marks_are_read_and_named(photo, marked, method):
    plain = SpreadSpectrum()
    repeating = saved(plain.mark(photo, "repeats", KEY), format="JPEG", quality=80)
    for reader in (method, plain):
        (reading,) = reader.read(repeating, KEY)
        assert (reading.message, reading.details["bound"]) == ("repeats", False)
        (reading,) = reader.read(compose([("crop", 0.7), ("jpeg", 60)])(marked), PUBLIC_KEY)
        assert np.array_equal(reading.bits, BITS)
        assert reading.details["bound"]


@pytest.mark.parametrize(
    "steps",
    [
        [("jpeg", 30)],
        [("noise", 0.02)],
        [("resize", 0.5)],
        [("crop", 0.5)],
        [("rotate", -15)],
        [("flip", 2), ("resize", 0.8)],
        [("crop", 0.6), ("resize", 0.75), ("jpeg", 60)],
    ],
    ids=lambda steps: compose(steps).name,
)
def test_payload_survives(method, marked, steps):
    (reading,) = method.read(compose(steps)(marked, seed=3), PUBLIC_KEY)
    assert reading.outcome == "read"
    assert np.array_equal(reading.bits, BITS)
    assert reading.p_value < 1e-6


def test_panels_follow_one_description(photo, method, monkeypatch):
    monkeypatch.setattr("vestige.watermark.spread_spectrum._PANEL", 200)
    assert method.read(method.mark(photo, "panel", KEY), KEY)[0].message == "panel"


@pytest.mark.parametrize("kind", ["grey", "text"])
def test_pictures_without_content_are_marked_all_the_same(method, kind):
    image = graphics(kind)
    assert method.read(saved(method.mark(image, "ok", KEY), format="PNG"), KEY)[0].message == "ok"


def test_unmarked_pictures_and_other_keys_are_absent(photo, marked, method):
    assert method.read(marked, KEY)[0].outcome == "absent"
    assert method.read(photo[:, :, :200, :200], PUBLIC_KEY)[0].outcome == "absent"


def test_inverted_pictures_are_read(marked, method):
    (reading,) = method.read(1 - marked, PUBLIC_KEY)
    assert np.array_equal(reading.bits, BITS)
