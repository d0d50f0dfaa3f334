"""Resampling: scaling leaves periodic residuals; untouched noise and the JPEG grid do not count."""

import cv2
import numpy as np
import pytest
from skimage import data

from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.resampling import Resampling, _grid, _line_peak, _plane_peak, _residual


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    g = np.random.default_rng(0)
    reduced = cv2.resize(data.astronaut(), (320, 320), interpolation=cv2.INTER_AREA)
    return (reduced + g.normal(0, 2, reduced.shape)).clip(0, 255).astype(np.uint8)


def _score(pixels: np.ndarray, format: str = "PNG", quality: int = 95) -> float:
    return Resampling().find(ImageSubject(encode(pixels, format, quality=quality))).score


@pytest.mark.parametrize("factor", [1.1, 1.25, 1.45])
@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_enlarged_pictures_score_higher(photo: np.ndarray, factor: float, interpolation: int) -> None:
    enlarged = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=interpolation)
    assert _score(enlarged) > _score(photo) + 2
    assert _score(enlarged, "JPEG") > _score(photo, "JPEG") + 1.5


def test_peak_lies_at_the_frequency_of_the_scale(photo: np.ndarray) -> None:
    enlarged = cv2.resize(photo[..., 1], None, fx=1.25, fy=1.25, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    residual, usable = _residual(enlarged)
    value, where = _line_peak(residual, usable, axis=0)
    assert value > 20
    # harmonics k/1.25 fold to 0.2 and 0.4 cycles per pixel
    assert min(abs(float(where) - f) for f in (0.2, 0.4)) < 0.01


def test_rotation_shows_in_the_plane(photo: np.ndarray) -> None:
    turn = cv2.getRotationMatrix2D((160, 160), 12, 1.3)
    turned = cv2.warpAffine(photo[..., 1], turn, (320, 320), flags=cv2.INTER_LINEAR)[60:260, 60:260]
    peaks = []
    for picture in (turned, photo[60:260, 60:260, 1]):
        residual, usable = _residual(picture.astype(np.float32))
        peaks.append(_plane_peak(np.where(usable, np.exp(-residual), np.float32(0.5)), 128)[0])
    assert peaks[0] > peaks[1] + 5


def test_strong_jpeg_alone_is_not_resampling(photo: np.ndarray) -> None:
    scores = [_score(photo, "JPEG", q) for q in (50, 70, 90)]
    assert max(scores) < 3.5


def test_grid_frequencies_are_eighths() -> None:
    frequency = np.array([0.125, 0.126, 0.2, 0.3125, 0.375, 0.5])
    assert _grid(frequency, 0.002).tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("pixels", [np.zeros((2, 300, 3), np.uint8), np.full((300, 300, 3), 128, np.uint8)])
def test_tiny_and_flat_pictures_do_not_apply(pixels: np.ndarray) -> None:
    finding = Resampling().find(ImageSubject(encode(pixels, "PNG")))
    assert not finding.applies
    assert finding.why_not
