"""Steganalysis: the embedding rate is estimated, a sequential message's end is found, unfit pictures are refused."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.steganalysis import (
    Steganalysis,
    chi_square,
    regular_singular,
    sample_pairs,
    weighted_stego,
)


@pytest.fixture(scope="module")
def cover() -> np.ndarray:
    g = np.random.default_rng(0)
    reduced = cv2.resize(data.astronaut(), (320, 320), interpolation=cv2.INTER_AREA)
    return (reduced + g.normal(0, 1.5, reduced.shape)).clip(0, 255).astype(np.uint8)


def _embed(cover: np.ndarray, rate: float, *, sequential: bool = False) -> np.ndarray:
    g = np.random.default_rng(7)
    flat = cover.ravel().copy()
    n = int(rate * flat.size)
    where = np.arange(n) if sequential else g.permutation(flat.size)[:n]
    flat[where] = flat[where] & 254 | g.integers(0, 2, n, dtype=np.uint8)
    return flat.reshape(cover.shape)


def _find(pixels: np.ndarray, format: str = "PNG"):
    return Steganalysis().find(ImageSubject(encode(pixels, format)))


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize(
    ("estimator", "tolerance"),
    [(sample_pairs, 0.06), (regular_singular, 0.06), (lambda c: weighted_stego(c)[0], 0.12)],
    ids=["pairs", "groups", "weighted"],
)
def test_estimates_follow_the_embedding_rate(cover: np.ndarray, rate: float, estimator, tolerance: float) -> None:
    channel = np.ascontiguousarray(_embed(cover, rate)[..., 1])
    assert estimator(channel) == pytest.approx(rate, abs=tolerance)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_score_is_the_rate(cover: np.ndarray, format: str) -> None:
    assert _find(_embed(cover, 0.6), format).score == pytest.approx(0.6, abs=0.1)
    assert abs(_find(cover, format).score) < 0.1


def test_finds_where_a_sequential_message_ends(cover: np.ndarray) -> None:
    finding = _find(_embed(cover, 0.25, sequential=True))
    prefixes = [channel["prefix"] for channel in finding.details.values()]
    assert np.median(prefixes) == pytest.approx(0.25, abs=0.05)
    assert finding.score > 0.35
    assert any("first" in line for line in finding.evidence)
    assert not any("first" in line for line in _find(cover).evidence)


def test_message_in_one_channel_is_seen(cover: np.ndarray) -> None:
    pixels = cover.copy()
    pixels[..., 2] = _embed(cover, 0.9)[..., 2]
    finding = _find(pixels)
    assert finding.details["blue"]["estimate"] > 0.75
    assert finding.score > 0.4


def test_grey_pictures_are_read_once(cover: np.ndarray) -> None:
    finding = _find(np.ascontiguousarray(_embed(cover, 0.5)[..., 1]))
    assert list(finding.details) == ["grey"]
    assert finding.score == pytest.approx(0.5, abs=0.1)


def test_does_not_apply_to_jpeg_graphics_and_tiny_pictures(cover: np.ndarray) -> None:
    graphic = np.zeros((200, 200, 3), np.uint8)
    graphic[50:100] = (200, 30, 40)
    stretched = (cover // 4 * 4).astype(np.uint8)
    for pixels, format in ((cover, "JPEG"), (graphic, "PNG"), (stretched, "PNG"), (cover[:8, :8], "PNG")):
        finding = _find(pixels, format)
        assert not finding.applies
        assert finding.why_not
    deep = cover.astype(np.uint16) * 257
    assert not _find(deep).applies


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(16, 80), st.integers(70, 90))
def test_estimates_stay_in_range(seed: int, height: int, width: int) -> None:
    g = np.random.default_rng(seed)
    channel = g.integers(0, g.integers(2, 257), (height, width), dtype=np.uint16).astype(np.uint8)
    for value in (sample_pairs(channel), regular_singular(channel), weighted_stego(channel)[0]):
        assert np.isnan(value) or -0.5 <= value <= 1.2


def test_chi_square_tells_level_pairs_from_others() -> None:
    level = np.repeat(np.linspace(50, 400, 128), 2)
    assert chi_square(level) > 0.99
    tilted = level * np.tile([1.2, 0.8], 128)
    assert chi_square(tilted) < 1e-6
    assert chi_square(np.zeros(256)) == 0
