"""Local features of a picture, and the place where two pictures show the same: matched points and the map between them.

Source: Distinctive image features from scale-invariant keypoints, IJCV 2004; Three things everyone should know to
improve object retrieval, CVPR 2012 (square roots of the descriptors); random sample consensus, CACM 1981.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

#: Longest side at which features are taken, in pixels, and how many are kept.
DESCRIBE = (320, 400)
VERIFY = (480, 800)
#: Distance in pixels of the reduced picture up to which a matched point agrees with the map.
_TOLERANCE = 5.0


@dataclass(frozen=True)
class Features:
    """points: float32 N×2, x and y in pixels of the picture; descriptors: float32 N×128 of length one. size: width and
    height of the picture. scale: of the picture that they were taken from."""

    points: np.ndarray
    descriptors: np.ndarray
    size: tuple[int, int]
    scale: float


@dataclass(frozen=True)
class Match:
    """Where two pictures agree.

    inliers: matched points that one map explains. matched: points that were matched at all. matrix: float64 2×3, from
    pixels of the first picture to pixels of the second. mirrored: the first picture had to be mirrored; the matrix
    contains that. here, there: corners of the matched region in either picture, float64 K×2. covers: share of the
    first picture and of the second one that the region fills.
    """

    inliers: int
    matched: int
    matrix: np.ndarray
    mirrored: bool
    here: np.ndarray
    there: np.ndarray
    covers: tuple[float, float]
    points: tuple[np.ndarray, np.ndarray]


def features(pixels: np.ndarray, side: int = VERIFY[0], count: int = VERIFY[1]) -> Features:
    """SIFT of the picture reduced (or, where it is small, enlarged) to a longest side of ``side``.

    pixels: uint8 H×W×3. A picture without structure has none.
    """
    height, width = pixels.shape[:2]
    scale = min(side / max(height, width), 4.0)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    found, descriptors = cv2.SIFT.create(count).detectAndCompute(grey, None)
    points = np.array([k.pt for k in found], np.float32).reshape(-1, 2)[:count]
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    descriptors = descriptors[:count]
    total = np.maximum(descriptors.sum(1, keepdims=True), 1e-9)
    grid = np.array([width / size[0], height / size[1]], np.float32)
    return Features((points + 0.5) * grid - 0.5, np.sqrt(descriptors / total), (width, height), scale)


def match(here: Features, there: Features, mirrored: bool = False) -> Match | None:
    """The affine map that most of the matched points agree on; None where fewer than four do.

    mirrored: ``here`` is of the mirrored picture. Deterministic.
    """
    pairs = _pairs(here.descriptors, there.descriptors)
    if len(pairs) < 4:
        return None
    a, b = here.points[pairs[:, 0]], there.points[pairs[:, 1]]
    cv2.setRNGSeed(0)
    matrix, kept = cv2.estimateAffine2D(
        a, b, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE / there.scale, maxIters=2000, confidence=0.999
    )
    if matrix is None or not _plausible(matrix, here, there):
        return None
    at = np.flatnonzero(kept.ravel())
    at = at[_one_each(a[at], b[at])]
    if len(at) < 4:
        return None
    a, b = a[at].astype(float), b[at].astype(float)
    if mirrored:
        flip = np.array([[-1.0, 0, here.size[0] - 1], [0, 1, 0], [0, 0, 1]])
        matrix = matrix @ flip
        a = np.column_stack([here.size[0] - 1 - a[:, 0], a[:, 1]])
    region, shown = _hull(a), _hull(b)
    covers = tuple(_area(r) / (w * h) for r, (w, h) in ((region, here.size), (shown, there.size)))
    return Match(len(at), len(pairs), matrix, mirrored, region, shown, (covers[0], covers[1]), (a, b))


def both_ways(pixels: np.ndarray) -> tuple[Features, Features]:
    """Features of a picture and of its mirror image, for `best_match`."""
    return features(pixels), features(np.ascontiguousarray(pixels[:, ::-1]))


def best_match(here: tuple[Features, Features], there: Features) -> Match | None:
    """The match of a picture, as it is or mirrored, whichever has more inliers."""
    found = [match(here[0], there), match(here[1], there, mirrored=True)]
    return max((m for m in found if m is not None), key=lambda m: m.inliers, default=None)


def drawn(here: np.ndarray, there: np.ndarray, found: Match, height: int = 360) -> np.ndarray:
    """Both pictures side by side, uint8, with the matched region outlined and up to 60 matched points joined."""
    left, right = (_fitted(p, height) for p in (here, there))
    gap = 8
    page = np.full((height, left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
    page[:, : left.shape[1]], page[:, left.shape[1] + gap :] = left, right
    scales = [np.array([s.shape[1] / p.shape[1], s.shape[0] / p.shape[0]]) for s, p in ((left, here), (right, there))]
    shift = np.array([left.shape[1] + gap, 0])
    chosen = np.linspace(0, len(found.points[0]) - 1, min(60, len(found.points[0]))).astype(int)
    for a, b in zip(found.points[0][chosen] * scales[0], found.points[1][chosen] * scales[1] + shift, strict=True):
        cv2.line(page, tuple(a.round().astype(int).tolist()), tuple(b.round().astype(int).tolist()), (0, 160, 255), 1,
                 cv2.LINE_AA)  # fmt: skip
    for corners in (found.here * scales[0], found.there * scales[1] + shift):
        cv2.polylines(page, [corners.round().astype(np.int32)], True, (255, 60, 0), 2, cv2.LINE_AA)
    return page


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """int K×2: mutual nearest neighbours, clearly nearer than the next (Lowe's ratio on distances, 0.8)."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), int)
    alike = a @ b.T
    nearest = alike.argmax(1)
    top = np.partition(alike, -2, axis=1)[:, -2:]
    distances = np.sqrt(np.maximum(2 - 2 * top, 0))
    good = (distances[:, 1] < 0.8 * distances[:, 0]) & (alike.argmax(0)[nearest] == np.arange(len(a)))
    at = np.flatnonzero(good)
    return np.column_stack([at, nearest[at]])


def _one_each(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Places of points that differ by a pixel: the same corner counts once, however often it is found."""
    keys = np.column_stack([a, b]).round().astype(int)
    return np.sort(np.unique(keys, axis=0, return_index=True)[1])


def _plausible(matrix: np.ndarray, here: Features, there: Features) -> bool:
    """Whether a picture can have been edited so: no mirror image, no extreme size, little skew."""
    linear = matrix[:, :2] * (there.scale / here.scale)
    values = np.linalg.svd(linear, compute_uv=False)
    return bool(np.linalg.det(linear) > 0 and values[1] > 0.08 and values[0] < 12 and values[0] < 3 * values[1])


def _hull(points: np.ndarray) -> np.ndarray:
    return cv2.convexHull(points.astype(np.float32)).reshape(-1, 2).astype(float)


def _area(corners: np.ndarray) -> float:
    return float(cv2.contourArea(corners.astype(np.float32))) if len(corners) > 2 else 0.0


def _fitted(pixels: np.ndarray, height: int) -> np.ndarray:
    width = max(1, min(round(pixels.shape[1] * height / pixels.shape[0]), 4 * height))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
