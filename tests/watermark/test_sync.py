import math

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vestige.watermark.sync import Template, whiten

KEY = b"k" * 32


def picture(seed: int, side: int = 320) -> np.ndarray:
    """A smooth random field with natural-looking energy at low frequencies, luma 0-255."""
    noise = np.random.default_rng(seed).normal(size=(side, side))
    field = sum(gaussian_filter(noise, s) * s for s in (1, 2, 4, 8, 16))
    return (128 + 12 * field).astype(np.float32)


def marked(seed: int, side: int = 320, amplitude: float = 1.5) -> np.ndarray:
    tiles = -(-side // 128)
    return picture(seed, side) + amplitude * np.tile(Template(KEY).pattern(), (tiles, tiles))[:side, :side]


def test_pattern_is_keyed_balanced_and_reproducible():
    pattern = Template(KEY).pattern()
    assert pattern.dtype == np.float32
    assert pattern.std() == pytest.approx(1.0, abs=1e-4)
    assert abs(pattern.mean()) < 1e-4
    assert np.array_equal(pattern, Template(KEY).pattern())
    assert abs(np.mean(pattern * Template(b"other").pattern())) < 0.3


@pytest.mark.parametrize("offset", [(0, 0), (17, 90), (127, 1)])
def test_shift_is_found_to_the_pixel(offset):
    y, x = offset
    shift, log_p = Template(KEY).align(whiten(marked(1, 420)[y:, x:]))
    assert np.abs((shift - (x, y) + 64) % 128 - 64).max() < 0.3
    assert log_p < math.log(1e-9)


@pytest.mark.parametrize(
    ("scale", "degrees", "mirrored"),
    [(1.0, 0.0, False), (0.6, 0.0, False), (1.4, 0.0, False), (1.0, 4.0, False), (0.8, -3.0, True)],
)
def test_linear_part_is_found(scale, degrees, mirrored):
    image = marked(2, 420)
    if mirrored:
        image = np.ascontiguousarray(image[:, ::-1])
    turn = np.radians(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    side = int(420 * scale)
    start = np.array([side, side]) / 2 - matrix @ (210.0, 210.0)
    moved = cv2.warpAffine(image, np.column_stack([matrix, start]), (side, side), flags=cv2.INTER_CUBIC)
    expected = matrix @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    found = Template(KEY).candidates(whiten(moved), 6, (0.4, 2.0), 6.0)
    best, log_p = min(found, key=lambda item: item[1])
    assert np.abs(best - expected).max() < 0.01
    assert log_p < math.log(1e-7)


def test_p_values_of_unmarked_pictures_are_valid():
    """P(p <= x) <= x over keys and pictures, for the plain alignment and for the tested linear parts."""
    logs = []
    for seed in range(20):
        white = whiten(picture(seed, 160))
        for key in range(5):
            logs.append(Template(bytes([seed, key])).align(white)[1])
        logs += [log_p for _, log_p in Template(bytes([seed])).candidates(white, 4, (0.5, 1.5), 3.0)]
    p = np.exp(logs)
    for level in (0.3, 0.1, 0.03):
        assert np.mean(p <= level) <= level + 3 * math.sqrt(level / len(p))
    assert p.min() > 1e-5


def test_drift_measures_a_small_stretch():
    image = marked(3, 400)
    matrix = np.array([[1.004, 0.0, 0.0], [0.0, 1.0, 0.0]])
    stretched = whiten(cv2.warpAffine(image, matrix, (400, 400), flags=cv2.INTER_CUBIC))
    template = Template(KEY)
    drift = template.drift(stretched, template.align(stretched)[0])
    assert drift[0, 0] == pytest.approx(1 / 1.004 - 1, abs=0.001)
    assert abs(drift[1, 1]) < 0.001


@pytest.mark.parametrize("shape", [(64, 64), (64, 300), (129, 70)])
def test_flat_and_odd_sizes_find_nothing(shape):
    white = whiten(np.full(shape, 255.0, np.float32))
    template = Template(KEY)
    assert template.align(white)[1] > math.log(1e-3)
    assert all(log_p > math.log(1e-3) for _, log_p in template.candidates(white, 3, (0.4, 2.0), 2.0))
