import io

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from vestige.core.errors import InputError, UsageError
from vestige.core.keys import PUBLIC_KEY
from vestige.core.roles import Marker
from vestige.metrics.quality import psnr
from vestige.watermark import dwt_dct_svd
from vestige.watermark.dwt_dct_svd import DwtDctSvd
from vestige.watermark.sync import Template

BITS = np.random.default_rng(5).random(32) < 0.5


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1)[None]).astype(np.float32) / 255


def to_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(image[0].transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8)


def saved(image: np.ndarray, **options) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, **options)
    return from_uint8(np.asarray(Image.open(file).convert("RGB")))


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


def test_text_and_batches(photo, method):
    images = np.concatenate([photo, photo[..., ::-1]])[..., :256, :256]
    readings = method.read(method.mark(images, "café 5", b"secret"), b"secret")
    assert [r.message for r in readings] == ["café 5", "café 5"]
    assert np.packbits(readings[0].bits).tobytes().decode() == "café 5"
    assert method.mark(images[:0], "x", b"secret").shape == (0, 3, 256, 256)
    assert method.read(images[:0], b"secret") == []


def test_unmarked_and_wrong_key_are_absent(photo, method, marked):
    for image, key in ((photo, PUBLIC_KEY), (marked, b"another key"), (from_uint8(data.coffee()), PUBLIC_KEY)):
        reading = method.read(image, key)[0]
        assert reading.outcome == "absent"
        assert reading.p_value > 1e-4
        assert reading.bits is None
        assert reading.message is None


def test_template_without_payload_is_unreadable(photo, method):
    template = np.tile(Template(PUBLIC_KEY).pattern(), (4, 4)) * (2 / 255)
    reading = method.read(np.clip(photo + template, 0, 1), PUBLIC_KEY)[0]
    assert reading.outcome == "unreadable"
    assert reading.p_value < 1e-6
    assert reading.bits is None
    assert set(reading.details["raw_bits"]) == {32, 64}


@pytest.mark.parametrize("kind", ["white", "black", "grey", "text"])
def test_flat_graphics(method, kind):
    if kind == "text":
        page = np.full((300, 400, 3), 255, np.uint8)
        for row in range(20, 300, 24):
            cv2.putText(page, "the quick brown fox 0123", (8, row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1)
        image = from_uint8(page)
    else:
        image = np.full((1, 3, 300, 400), {"white": 1.0, "black": 0.0, "grey": 0.5}[kind], np.float32)
    marked = method.mark(image, "ok", PUBLIC_KEY)
    assert psnr(image, marked)[0] > 36
    assert method.read(image, PUBLIC_KEY)[0].outcome == "absent"
    assert method.read(saved(marked, format="JPEG", quality=75), PUBLIC_KEY)[0].message == "ok"


@pytest.mark.parametrize("size", [(192, 192), (193, 263), (200, 900)])
def test_odd_and_small_sizes(photo, method, size):
    image = np.ascontiguousarray(np.tile(photo, (1, 1, 1, 2))[:, :, : size[0], : size[1]])
    assert method.read(saved(method.mark(image, "x1", PUBLIC_KEY), format="PNG"), PUBLIC_KEY)[0].message == "x1"


def test_bands_leave_no_seam(photo, method, monkeypatch):
    whole = method.mark(photo, BITS, PUBLIC_KEY)
    monkeypatch.setattr(dwt_dct_svd, "_BAND", 128)
    banded = method.mark(photo, BITS, PUBLIC_KEY)
    assert np.abs(banded - whole)[:, :, 32:-32].max() < 1e-4  # the outermost rows wrap around, to other rows in bands


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (63, 500)])
def test_tiny_images(method, size):
    image = np.zeros((1, 3, *size), np.float32)
    with pytest.raises(UsageError, match="at least 192"):
        method.mark(image, "x", PUBLIC_KEY)
    reading = method.read(image, PUBLIC_KEY)[0]
    assert (reading.outcome, reading.p_value) == ("absent", 1.0)


def test_bad_input(photo, method):
    with pytest.raises(UsageError, match="N×3×H×W"):
        method.read(photo[0], PUBLIC_KEY)
    with pytest.raises(UsageError, match="uint8"):
        method.mark((photo * 255).astype(np.uint8), "x", PUBLIC_KEY)
    with pytest.raises(InputError, match="finite"):
        method.read(np.full((1, 3, 64, 64), np.nan, np.float32), PUBLIC_KEY)
    with pytest.raises(UsageError, match="does not fit"):
        method.mark(photo, "far too long a message", PUBLIC_KEY)


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
