"""What the keyed marks without weights promise alike."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from tests.watermark.picture_samples import BITS, from_uint8, graphics, saved
from vestige.core.errors import InputError, UsageError
from vestige.core.keys import PUBLIC_KEY
from vestige.core.roles import Marker
from vestige.metrics.quality import psnr
from vestige.watermark.dwt_dct_svd import DwtDctSvd
from vestige.watermark.pictures import checked
from vestige.watermark.spread_spectrum import SpreadSpectrum

METHODS = [SpreadSpectrum(), DwtDctSvd()]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return from_uint8(data.astronaut())


@pytest.fixture(scope="module", params=METHODS, ids=lambda m: m.slug)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def marked(photo, method):
    return method.mark(photo, BITS, PUBLIC_KEY)


def test_the_same_payload_and_key_give_the_same_picture(photo, method, marked):
    assert isinstance(method, Marker)
    assert (marked.shape, marked.dtype) == (photo.shape, np.float32)
    assert marked.min() >= 0
    assert marked.max() <= 1
    assert psnr(photo, marked)[0] > 40
    np.testing.assert_array_equal(marked, method.mark(photo, BITS, PUBLIC_KEY))


def test_text_and_batches(photo, method):
    images = np.concatenate([photo, photo[..., ::-1]])[..., :256, :256]
    readings = method.read(method.mark(images, "café 5", b"secret"), b"secret")
    assert [r.message for r in readings] == ["café 5", "café 5"]
    assert np.packbits(readings[0].bits).tobytes().decode() == "café 5"
    assert method.mark(images[:0], "x", b"secret").shape == (0, 3, 256, 256)
    assert method.read(images[:0], b"secret") == []


def test_unmarked_and_wrong_key_are_absent(photo, method, marked):
    other = from_uint8(data.coffee())
    for image, key in (
        (photo, PUBLIC_KEY),
        (marked, b"another key"),
        (other, PUBLIC_KEY),
        (photo[..., :200, :150], b"k"),
    ):
        (reading,) = method.read(image, key)
        assert reading.outcome == "absent"
        assert reading.p_value > 1e-4
        assert reading.bits is None
        assert reading.message is None


@pytest.mark.parametrize("kind", ["white", "black", "grey", "text"])
def test_graphics_carry_a_mark_and_none_is_seen_in_them(method, kind):
    image = graphics(kind)
    marked = method.mark(image, "ok", PUBLIC_KEY)
    assert psnr(image, marked)[0] > 36
    assert method.read(image, PUBLIC_KEY)[0].outcome == "absent"
    assert method.read(saved(marked, format="PNG"), PUBLIC_KEY)[0].message == "ok"


@pytest.mark.parametrize("extra", [(0, 0), (3, 135), (12, 572)])
def test_odd_and_small_sizes(photo, method, extra):
    height, width = (method.minimum_side + e for e in extra)
    image = np.ascontiguousarray(np.tile(photo, (1, 1, 1, 2))[:, :, 60 : 60 + height, :width])
    assert method.read(saved(method.mark(image, "x1", PUBLIC_KEY), format="PNG"), PUBLIC_KEY)[0].message == "x1"


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (63, 500)])
def test_tiny_images(method, size):
    image = np.zeros((1, 3, *size), np.float32)
    with pytest.raises(UsageError, match=f"at least {method.minimum_side}"):
        method.mark(image, "x", PUBLIC_KEY)
    (reading,) = method.read(image, PUBLIC_KEY)
    assert (reading.outcome, reading.p_value) == ("absent", 1.0)
    assert "64×64" in reading.details["why"]


def test_bad_input(photo, method):
    with pytest.raises(UsageError, match="N×3×H×W"):
        method.read(photo[0], PUBLIC_KEY)
    with pytest.raises(UsageError, match="uint8"):
        method.mark((photo * 255).astype(np.uint8), "x", PUBLIC_KEY)
    with pytest.raises(InputError, match="finite"):
        method.read(np.full((1, 3, 64, 64), np.nan, np.float32), PUBLIC_KEY)
    with pytest.raises(UsageError, match="does not fit"):
        method.mark(photo, "far too long a message", PUBLIC_KEY)


def test_checked_copies_only_where_it_must(photo):
    assert checked(photo) is photo or np.shares_memory(checked(photo), photo)
    assert checked(photo.astype(np.float64)).dtype == np.float32
