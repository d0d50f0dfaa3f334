"""Noise level: a region with other noise than the rest stands out, in both directions."""

import cv2
import numpy as np
import pytest
from skimage import data

from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.noise_level import NoiseLevel, _block_features, _cells, _deviation


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A photograph, reduced, with the grain of a camera at its own size."""
    g = np.random.default_rng(0)
    reduced = cv2.resize(data.chelsea(), (384, 256), interpolation=cv2.INTER_AREA)
    return (reduced + g.normal(0, 2.0, reduced.shape)).clip(0, 255).astype(np.uint8)


def _find(pixels: np.ndarray, format: str = "PNG"):
    return NoiseLevel().find(ImageSubject(encode(pixels, format, quality=92)))


REGION = (slice(60, 140), slice(150, 250))


def _edited(photo: np.ndarray, edit: str) -> np.ndarray:
    out = photo.astype(np.float32)
    part = out[REGION]
    if edit == "noise":
        part = part + np.random.default_rng(1).normal(0, 14, part.shape[:2])[..., None]
    elif edit == "blur":
        part = cv2.GaussianBlur(out, (0, 0), 2.0)[REGION]
    elif edit == "median":
        part = cv2.medianBlur(photo, 5)[REGION].astype(np.float32)
    out[REGION] = part
    return out.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("edit", "direction", "format"),
    [
        ("noise", "stronger", "PNG"),
        ("noise", "stronger", "JPEG"),
        ("blur", "weaker", "PNG"),
        ("median", "weaker", "PNG"),
    ],
)
def test_marks_the_edited_region(photo: np.ndarray, edit: str, direction: str, format: str) -> None:
    finding = _find(_edited(photo, edit), format)
    untouched = _find(photo, format)
    assert finding.details[direction] > untouched.details[direction] + 0.2
    assert direction in finding.evidence[0]
    assert finding.map is not None
    full = cv2.resize(finding.map, photo.shape[1::-1])
    inside = np.zeros(photo.shape[:2], bool)
    inside[REGION] = True
    assert full[inside].mean() > 3 * full[~inside].mean()


def test_untouched_photographs_of_any_size_score_low(photo: np.ndarray) -> None:
    for pixels in (photo, photo[:128, :192], np.tile(photo, (3, 3, 1))):
        assert _find(np.ascontiguousarray(pixels)).score < 0.9
    assert _find(_edited(photo, "blur")).score > 1.1


def test_block_features_do_not_depend_on_strips(photo: np.ndarray) -> None:
    luma = np.tile(photo[..., 1].astype(np.float32), (10, 12))
    features = _block_features(luma, 32)
    y, x = 40 * 32, 20 * 32
    part = _block_features(luma[y - 64 : y + 96, x - 64 : x + 96], 32)
    np.testing.assert_allclose(features[:, 40, 20], part[:, 2, 2], atol=1e-3)
    assert features.shape == (6, luma.shape[0] // 32, luma.shape[1] // 32)


def test_cells_keep_every_sample_in_its_block() -> None:
    values = np.arange(48.0).reshape(6, 8)
    cells = _cells(values, 2)
    assert cells.shape == (3, 4, 4)
    assert sorted(cells[1, 2]) == [20, 21, 28, 29]


def test_deviation_removes_what_texture_explains() -> None:
    g = np.random.default_rng(0)
    mid, coarse, light = g.normal(0, 1, (3, 30, 40))
    fine = 0.3 + 0.8 * mid + 0.1 * coarse - 0.2 * light
    fine[10:15, 10:15] += 1.5
    z = _deviation(np.stack([fine, mid, coarse, light]), np.ones((30, 40), bool))
    assert z[10:15, 10:15].mean() > 1.2
    z[10:15, 10:15] = 0
    assert np.abs(z).max() < 0.1


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((3, 5, 3), np.uint8), np.zeros((200, 200, 3), np.uint8), np.full((200, 200, 3), 255, np.uint8)],
)
def test_tiny_and_clipped_pictures_do_not_apply(pixels: np.ndarray) -> None:
    finding = _find(pixels)
    assert not finding.applies
    assert finding.why_not
