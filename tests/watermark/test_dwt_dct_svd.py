import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.watermark.picture_samples import BITS, from_uint8, graphics, saved, to_uint8
from vestige.core.errors import UsageError
from vestige.core.keys import PUBLIC_KEY
from vestige.core.roles import Marker
from vestige.metrics.quality import psnr
from vestige.watermark import dwt_dct_svd
from vestige.watermark.dwt_dct_svd import DwtDctSvd
from vestige.watermark.sync import Template


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    picture = Image.fromarray(to_uint8(image))
    size = round(picture.width * scale), round(picture.height * scale)
    return from_uint8(np.asarray(picture.resize(size, Image.Resampling.BICUBIC)))


def rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    return from_uint8(np.asarray(Image.fromarray(to_uint8(image)).rotate(degrees, Image.Resampling.BICUBIC)))


@pytest.fixture(scope="module")
def photo():
    return from_uint8(data.astronaut())


@pytest.fixture(scope="module")
def method():
    return DwtDctSvd()


@pytest.fixture(scope="module")
def marked(photo, method):
    return method.mark(photo, BITS, PUBLIC_KEY)


def test_contract(photo, method, marked):
    assert isinstance(method, Marker)
    assert method.slug == "dwt_dct_svd"
    assert marked.shape == photo.shape
    assert marked.dtype == np.float32
    assert marked.min() >= 0
    assert marked.max() <= 1
    assert psnr(photo, marked)[0] > 40
    assert np.array_equal(marked, method.mark(photo, BITS, PUBLIC_KEY))
    luma = (marked - photo) @ np.ones(512, np.float32) / 512
    interior = ((photo > 0.1) & (photo < 0.9)).all(1)[0]
    change = (marked - photo)[0][:, interior]
    assert np.abs(change - change.mean(0)).max() < 1e-5  # no colour shift
    assert np.abs(luma).max() < 0.02  # mean brightness of every row stays


@pytest.mark.parametrize(
    ("name", "distort"),
    [
        ("eight bits", lambda x: saved(x, format="PNG")),
        ("jpeg 75", lambda x: saved(x, format="JPEG", quality=75)),
        ("jpeg 50", lambda x: saved(x, format="JPEG", quality=50)),
        ("webp 70", lambda x: saved(x, format="WEBP", quality=70)),
        ("noise", lambda x: x + np.random.default_rng(0).normal(0, 0.02, x.shape).astype(np.float32)),
        ("blur", lambda x: np.stack([cv2.GaussianBlur(c, (0, 0), 1.0) for c in x[0]])[None]),
        ("darker", lambda x: 0.8 * x),
        ("brighter", lambda x: np.clip(1.2 * x, 0, 1)),
        ("offset", lambda x: np.clip(x + 0.15, 0, 1)),
        ("less contrast", lambda x: 0.5 + 0.8 * (x - 0.5)),
        ("half size", lambda x: resized(x, 0.5)),
        ("larger", lambda x: resized(x, 1.5)),
        ("crop", lambda x: np.ascontiguousarray(x[:, :, 61:423, 97:459])),
        ("crop, resize, jpeg", lambda x: saved(resized(x[:, :, 13:471, 31:489], 0.7), format="JPEG", quality=75)),
        ("rotation", lambda x: rotated(x, 4.0)),
        ("mirror", lambda x: np.ascontiguousarray(x[..., ::-1])),
    ],
)
def test_payload_survives(method, marked, name, distort):
    reading = method.read(distort(marked), PUBLIC_KEY)[0]
    assert reading.outcome == "read", name
    assert np.array_equal(reading.bits, BITS)
    assert reading.p_value < 1e-7


def test_details_describe_the_geometry(method, marked):
    details = method.read(resized(np.ascontiguousarray(marked[..., ::-1]), 0.75), PUBLIC_KEY)[0].details
    assert details["scale"] == pytest.approx(0.75, abs=0.005)
    assert details["flipped"]
    assert details["rotation"] == pytest.approx(0.0, abs=0.3)
    turned = method.read(rotated(marked, -3.0), PUBLIC_KEY)[0].details  # counter-clockwise is negative y-down
    assert abs(turned["rotation"]) == pytest.approx(3.0, abs=0.2)
    assert not turned["flipped"]


def test_template_without_payload_is_unreadable(photo, method):
    template = np.tile(Template(PUBLIC_KEY).pattern(), (4, 4)) * (2 / 255)
    reading = method.read(np.clip(photo + template, 0, 1), PUBLIC_KEY)[0]
    assert reading.outcome == "unreadable"
    assert reading.p_value < 1e-6
    assert reading.bits is None
    assert set(reading.details["raw_bits"]) == {32, 64}


def test_bands_leave_no_seam(photo, method, monkeypatch):
    whole = method.mark(photo, BITS, PUBLIC_KEY)
    monkeypatch.setattr(dwt_dct_svd, "_BAND", 128)
    banded = method.mark(photo, BITS, PUBLIC_KEY)
    assert np.abs(banded - whole)[:, :, 32:-32].max() < 1e-4  # the outermost rows wrap around, to other rows in bands


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 0},
        {"wavelet": "bior2.2"},
        {"wavelet": "none"},
        {"wavelet": "sym20"},
        {"scales": (1.2, 2.0)},
        {"region": 100},
    ],
)
def test_bad_parameters(options):
    with pytest.raises(UsageError):
        DwtDctSvd(**options)


def test_strength_trades_fidelity_for_robustness(photo):
    weak = DwtDctSvd(strength=12.0, template=0.7)
    marked = weak.mark(photo, "hi", PUBLIC_KEY)
    assert psnr(photo, marked)[0] > 43.5
    assert weak.read(saved(marked, format="PNG"), PUBLIC_KEY)[0].message == "hi"


@pytest.mark.parametrize("kind", ["white", "black", "grey", "text"])
def test_marks_of_flat_graphics_survive_jpeg(method, kind):
    marked = method.mark(graphics(kind), "ok", PUBLIC_KEY)
    assert method.read(saved(marked, format="JPEG", quality=75), PUBLIC_KEY)[0].message == "ok"
