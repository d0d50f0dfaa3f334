"""Copy-move: finds pasted copies in any of the supported geometries and leaves natural repetition alone."""

import cv2
import numpy as np
import pytest
from skimage import data

from vestige.core.image_io import encode
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject
from vestige.forensics.copy_move import CopyMove, _structure
from vestige.forensics.copy_move_candidates import _envelope, mirror_descriptors, self_matches, shift_candidates


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:384, :384])


def _find(pixels: np.ndarray, format: str = "PNG", quality: int = 90):
    return CopyMove().find(ImageSubject(encode(pixels, format, quality=quality)))


def _paste(photo: np.ndarray, *, angle: float = 0.0, scale: float = 1.0, flip: bool = False):
    """A disc around the face is pasted at the lower left; the masks of source and copy."""
    source, target, radius = (225, 105), (85, 290), 45
    turn = cv2.getRotationMatrix2D(source, angle, scale)
    if flip:
        turn = turn @ np.array([[-1, 0, 2 * source[0]], [0, 1, 0], [0, 0, 1]])
    turn[:, 2] += np.subtract(target, source)
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.circle(mask, source, radius, 1, -1)
    moved = cv2.warpAffine(photo, turn, photo.shape[1::-1], flags=cv2.INTER_CUBIC)
    copy = cv2.warpAffine(mask, turn, photo.shape[1::-1], flags=cv2.INTER_NEAREST)
    return np.where(copy[..., None] > 0, moved, photo), mask > 0, copy > 0


@pytest.mark.parametrize(
    "geometry", [{}, {"angle": 25.0}, {"scale": 1.25}, {"flip": True}], ids=["shift", "turn", "scale", "mirror"]
)
def test_finds_source_and_copy_after_jpeg(photo: np.ndarray, geometry: dict) -> None:
    pixels, source, copy = _paste(photo, **geometry)
    finding = _find(pixels, "JPEG", 80)
    assert isinstance(CopyMove(), Finder)
    assert finding.kind == "edit"
    assert finding.map is not None
    assert finding.map.shape == photo.shape[:2]
    found = finding.map > 0
    assert found[source].mean() > 0.3
    assert found[copy].mean() > 0.3
    assert found[~(source | copy)].mean() < 0.05
    assert finding.score > 1.8
    assert finding.score > _find(photo, "JPEG", 80).score + 1


def test_reports_the_displacement(photo: np.ndarray) -> None:
    pixels, _, _ = _paste(photo)
    evidence = _find(pixels).evidence[0]
    assert "-140,+185" in evidence or "+140,-185" in evidence


def test_shift_search_needs_no_keypoints() -> None:
    g = np.random.default_rng(3)
    picture = 120 + cv2.GaussianBlur(g.normal(0, 40, (256, 256)), (0, 0), 1.5)
    picture[150:220, 140:220] = picture[20:90, 30:110]
    pixels = np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    finding = CopyMove(max_keypoints=1).find(ImageSubject(encode(pixels, "JPEG", quality=75)))
    assert finding.map is not None
    assert finding.map[160:210, 150:210].mean() > 0.7
    assert finding.map[30:80, 40:100].mean() > 0.7
    assert finding.map[100:140].mean() < 0.1


@pytest.mark.parametrize("picture", ["camera", "coffee", "chelsea", "brick"])
def test_untouched_photographs_score_low(picture: str) -> None:
    pixels = getattr(data, picture)()[:384, :384]
    assert _find(np.ascontiguousarray(pixels), "JPEG", 90).score < 1.5


def test_straight_edges_prove_nothing() -> None:
    edges = np.full((256, 256), 90, np.uint8)
    edges[:, 60:100] = 190
    edges[:, 150:190] = 190
    noisy = (edges + np.random.default_rng(0).normal(0, 2, edges.shape)).clip(0, 255).astype(np.uint8)
    assert _find(noisy).score < 1.0


def test_like_objects_count_less_than_copies() -> None:
    """A wall of windows: alike, each with its own shading and reflections."""
    g = np.random.default_rng(0)
    wall = np.full((256, 256), 90, np.float32)
    for y in range(8, 256, 32):
        for x in range(8, 256, 32):
            reflection = cv2.GaussianBlur(g.normal(0, 120, (14, 18)), (0, 0), 2)
            wall[y : y + 14, x : x + 18] = 150 + reflection
    noisy = (wall + g.normal(0, 2, wall.shape)).clip(0, 255).astype(np.uint8)
    pasted = noisy.copy()
    pasted[128:224, 32:192] = noisy[0:96, 64:224]
    assert _find(noisy).score < _find(pasted).score - 0.5


def test_lattices_count_less_than_single_copies() -> None:
    g = np.random.default_rng(0)
    tile = cv2.GaussianBlur(g.normal(120, 60, (32, 32)), (0, 0), 1.5)
    ground = cv2.GaussianBlur(g.normal(120, 60, (256, 256)), (0, 0), 1.5)
    lattice, single = ground.copy(), ground.copy()
    lattice[:128, :192] = np.tile(tile, (4, 6))
    single[:64, :192] = single[128:192, 32:224]
    scores = [_find(p.clip(0, 255).astype(np.uint8)).score for p in (lattice, single)]
    assert scores[0] < scores[1] - 0.5


def test_structure_is_two_dimensional() -> None:
    g = np.random.default_rng(0)
    stripes = np.tile(20 * np.sin(np.arange(64) / 3), (64, 1)).astype(np.float32)
    texture = cv2.GaussianBlur(g.normal(0, 20, (64, 64)), (0, 0), 1).astype(np.float32)
    assert not _structure(stripes, 11).any()
    assert _structure(texture, 11).mean() > 0.9


def test_mirrored_descriptors_match_those_of_the_mirrored_picture(photo: np.ndarray) -> None:
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(nfeatures=200)
    points, described = sift.detectAndCompute(grey, None)
    other_points, other = sift.detectAndCompute(np.ascontiguousarray(grey[:, ::-1]), None)
    where = np.array([p.pt for p in points])
    there = np.array([(grey.shape[1] - 1 - p.pt[0], p.pt[1]) for p in other_points])
    nearest = np.argmin(np.linalg.norm(mirror_descriptors(described)[:, None] - other[None], axis=2), axis=1)
    assert np.mean(np.linalg.norm(where - there[nearest], axis=1) < 3) > 0.6


def test_self_matching_keeps_several_copies_and_skips_neighbours() -> None:
    g = np.random.default_rng(0)
    descriptors = np.abs(g.normal(size=(40, 128))).astype(np.float32)
    descriptors[10] = descriptors[20] = descriptors[0]
    descriptors[1] = descriptors[2]
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    where = (g.uniform(0, 1000, (40, 2))).astype(np.float32)
    where[2] = where[1] + 2
    pairs = {tuple(p) for p in self_matches(descriptors, descriptors, where, 0.75, 12.0)}
    assert {(0, 10), (0, 20), (10, 20)} <= pairs
    assert (1, 2) not in pairs


def test_map_follows_the_orientation(photo: np.ndarray) -> None:
    from PIL import Image

    pixels, _, _ = _paste(photo[:300])
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = CopyMove().find(ImageSubject(encode(pixels, "JPEG", quality=95)))
    turned = CopyMove().find(ImageSubject(encode(pixels, "JPEG", quality=95, exif=exif.tobytes())))
    assert np.array_equal(turned.map, np.rot90(plain.map, -1))


@pytest.mark.parametrize("pixels", [np.zeros((1, 1, 3), np.uint8), np.full((90, 120, 3), 255, np.uint8)])
def test_tiny_and_flat_pictures_do_not_apply(pixels: np.ndarray) -> None:
    finding = _find(pixels)
    assert not finding.applies
    assert finding.why_not


def test_same_input_same_answer(photo: np.ndarray) -> None:
    pixels, _, _ = _paste(photo, angle=10.0)
    first, second = _find(pixels), _find(pixels)
    assert first.score == second.score
    assert np.array_equal(first.map, second.map)


@pytest.mark.parametrize("shape", [(600, 771), (601, 770)])
def test_the_envelope_from_block_means_is_that_of_the_whole_spectrum(shape):
    height, width = shape
    field = cv2.GaussianBlur(np.random.default_rng(0).normal(size=shape).astype(np.float32), (0, 0), 0.8)
    power = np.abs(np.fft.fft2(field)) ** 2
    blurred = cv2.GaussianBlur(np.fft.fftshift(power), (0, 0), sigmaX=width / 24, sigmaY=height / 24)
    expected = np.fft.ifftshift(blurred)[:, : width // 2 + 1]
    found = _envelope(power[:, : width // 2 + 1].astype(np.float32), width)
    np.testing.assert_allclose(found, expected, atol=0.03 * expected.max())


def test_a_shift_and_its_opposite_are_one_candidate():
    picture = np.random.default_rng(0).normal(128, 30, (200, 300)).astype(np.float32)
    picture[40:140, 180:280] = picture[40:140, 60:160]
    shifts = shift_candidates(picture, 12.0)
    assert len({(120, 0), (180, 0)} & set(shifts)) == 1
