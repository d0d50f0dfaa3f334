"""Candidate transforms between a region of a picture and its copy: keypoints matched within the picture, and peaks
of its autocorrelation. Verification of the candidates is `copy_move`'s part.

Sources: A SIFT-Based Forensic Method for Copy-Move Attack Detection and Transformation Recovery, IEEE TIFS 2011
(generalised second-nearest-neighbour test); Distinctive Image Features from Scale-Invariant Keypoints, IJCV 2004.
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.fft
from scipy.spatial import cKDTree

#: Peaks of the autocorrelation are considered from this many standard deviations above its background.
_PEAK = 4.5
_BLOCK = 1024


def keypoint_transforms(
    luma: np.ndarray, distance: float, most: int = 5000, ratio: float = 0.75
) -> list[tuple[np.ndarray, int]]:
    """2×3 transforms supported by keypoint pairs, strongest first, with their number of pairs."""
    sift = cv2.SIFT_create(nfeatures=most, contrastThreshold=0.01, edgeThreshold=16)  # type: ignore[attr-defined]
    points, descriptors = sift.detectAndCompute(np.clip(luma, 0, 255).astype(np.uint8), None)
    if descriptors is None or len(points) < 8:
        return []
    order = np.lexsort([[p.angle for p in points], [p.pt[1] for p in points], [p.pt[0] for p in points]])
    order = order[: 2 * most]
    where = np.array([points[i].pt for i in order], np.float32)
    angle = np.radians([points[i].angle for i in order]).astype(np.float32)
    size = np.array([points[i].size for i in order], np.float32)
    described = descriptors[order].astype(np.float32)
    described = np.sqrt(described / np.maximum(described.sum(1, keepdims=True), 1e-6))
    transforms: list[tuple[np.ndarray, int]] = []
    for mirrored in (False, True):
        others = mirror_descriptors(described) if mirrored else described
        pairs = self_matches(described, others, where, ratio, distance)
        transforms += consensus(where, angle, size, pairs, mirrored)
    return sorted(transforms, key=lambda t: -t[1])[:8]


def shift_candidates(luma: np.ndarray, distance: float, most: int = 5) -> list[tuple[int, int]]:
    """Shifts (dx, dy), modulo the picture's size, at which the normalised fine detail repeats.

    The power spectrum of the locally normalised residual is divided by its own smooth envelope, so only its fine
    ripple (the sign of a shifted copy) is left, and clipped, so single spectral lines (regular patterns, the
    coding grid) cannot dominate. A copy of share a of N pixels stands about a·sqrt(N) deviations out.
    """
    residual = luma - cv2.GaussianBlur(luma, (0, 0), 2.0)
    deviation = np.sqrt(np.maximum(cv2.blur(residual * residual, (9, 9)), 0))
    normal = np.where(deviation > 0.6, np.clip(residual / np.maximum(deviation, 0.6), -2.5, 2.5), 0.0)
    height, width = normal.shape
    # half of a real picture's spectrum says all, and so does half of its autocorrelation: rows down to the middle
    power = np.square(np.abs(scipy.fft.rfft2(normal.astype(np.float32))))
    envelope = _envelope(power, width)
    # weak bands hold noise only: they are damped, not amplified
    flat = np.minimum(power / (envelope + (0.02 * float(envelope.max()) + 1e-6)), 8.0)
    lag = scipy.fft.irfft2(flat, s=(height, width))[: height // 2 + 1] * np.float32(height * width)
    ys = np.arange(len(lag), dtype=np.float32)[:, None]
    xs = np.minimum(np.arange(width), width - np.arange(width)).astype(np.float32)[None]
    near = ys * ys + xs * xs < distance * distance
    far = lag[~near]
    middle = float(np.median(far))
    spread = 1.4826 * float(np.median(np.abs(far - middle))) or 1.0
    lag = (lag - middle) / spread
    lag[near] = 0
    peaks: list[tuple[int, int]] = []
    for _ in range(most):
        y, x = divmod(int(lag.argmax()), width)
        if lag[y, x] < _PEAK:
            break
        if y or (width - x, 0) not in peaks:  # along the first row a shift and its opposite both stand out
            peaks.append((x, y))
        lag[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = 0
    return peaks


def _envelope(power: np.ndarray, width: int) -> np.ndarray:
    """Smooth envelope of a half-plane power spectrum (h × width // 2 + 1) of a picture of that width.

    It is smooth over a twelfth of the spectrum, so that of a large one is taken from block means of it.
    """
    height = len(power)
    # the other half is the same, turned about the origin
    rest = np.roll(power[::-1, width - width // 2 - 1 : 0 : -1], 1, axis=0)
    whole = np.concatenate([power, rest], axis=1)
    centred = np.fft.fftshift(whole)
    sigma = (max(2.0, width / 24), max(2.0, height / 24))
    factor = max(1, int(min(sigma) / 8))
    if factor == 1:
        smooth = cv2.GaussianBlur(centred, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1])
        return np.asarray(cv2.GaussianBlur(np.fft.ifftshift(smooth), (0, 0), 2.0)[:, : power.shape[1]])
    small = cv2.resize(centred, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    ratio = (small.shape[1] / width, small.shape[0] / height)
    small = cv2.GaussianBlur(small, (0, 0), sigmaX=sigma[0] * ratio[0], sigmaY=sigma[1] * ratio[1])
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.fft.ifftshift(smooth)[:, : power.shape[1]])


def mirror_descriptors(descriptors: np.ndarray) -> np.ndarray:
    """SIFT descriptors (n×128, 4 rows × 4 columns × 8 directions) of the mirrored picture."""
    cells = descriptors.reshape(-1, 4, 4, 8)[:, ::-1]
    return np.ascontiguousarray(cells[..., (-np.arange(8)) % 8].reshape(-1, 128))


def self_matches(
    a: np.ndarray, b: np.ndarray, where: np.ndarray, ratio: float, distance: float, most: int = 3
) -> np.ndarray:
    """Pairs (m×2 indices) by the generalised second-nearest-neighbour test, at least ``distance`` pixels apart.

    The nearest neighbours before the last wide step in distance (at most ``most`` - 1) are matches, so that several
    copies of one source are kept.
    """
    near = cKDTree(where).query_pairs(distance, output_type="ndarray")
    near = np.concatenate([near, near[:, ::-1], np.repeat(np.arange(len(a)), 2).reshape(-1, 2)])
    near = near[np.argsort(near[:, 0], kind="stable")]
    pairs = []
    for start in range(0, len(a), _BLOCK):
        stop = min(start + _BLOCK, len(a))
        alike = a[start:stop] @ b.T  # cosine of unit descriptors
        first, last = np.searchsorted(near[:, 0], [start, stop])
        alike[near[first:last, 0] - start, near[first:last, 1]] = -1
        rows = np.arange(stop - start)
        nearest = np.empty((stop - start, most), int)
        apart = np.empty((stop - start, most), np.float32)
        for rank in range(most):
            nearest[:, rank] = alike.argmax(1)
            apart[:, rank] = np.sqrt(np.maximum(2 - 2 * alike[rows, nearest[:, rank]], 0))
            alike[rows, nearest[:, rank]] = -1
        step = apart[:, :-1] < ratio * apart[:, 1:]
        matches = np.where(step.any(1), most - 1 - step[:, ::-1].argmax(1), 0)
        for rank in range(most - 1):
            chosen = np.nonzero((matches > rank) & (apart[:, rank] < 0.6))[0]
            pairs.append(np.stack([chosen + start, nearest[chosen, rank]], 1))
    return np.unique(np.concatenate(pairs), axis=0)


def consensus(
    where: np.ndarray, angle: np.ndarray, size: np.ndarray, pairs: np.ndarray, mirrored: bool
) -> list[tuple[np.ndarray, int]]:
    """Affine transforms, each agreed on by at least four pairs.

    Every pair proposes a similarity from its own position, orientation and scale; the proposal most pairs follow is
    refined by least squares, its pairs are removed, and the search repeats.
    """
    if len(pairs) < 4:
        return []
    if len(pairs) > 1500:
        pairs = pairs[np.linspace(0, len(pairs) - 1, 1500).astype(int)]
    found: list[tuple[np.ndarray, int]] = []
    p, q = where[pairs[:, 0]].astype(np.float64), where[pairs[:, 1]].astype(np.float64)
    s = (size[pairs[:, 1]] / size[pairs[:, 0]]).astype(np.float64)
    turn = angle[pairs[:, 1]] + angle[pairs[:, 0]] if mirrored else angle[pairs[:, 1]] - angle[pairs[:, 0]]
    c, d = s * np.cos(turn), s * np.sin(turn)
    linear = np.stack([np.stack([c, d if mirrored else -d], 1), np.stack([d, -c if mirrored else c], 1)], 1)
    shift = q - np.einsum("nij,nj->ni", linear, p)
    plausible = (s > 1 / 3) & (s < 3)
    free = np.ones(len(pairs), bool)
    for _ in range(4):
        proposals = np.nonzero(free & plausible)[0]
        if len(proposals) < 4:
            break
        proposals = proposals[np.linspace(0, len(proposals) - 1, min(300, len(proposals))).astype(int)]
        predicted = np.einsum("kij,nj->kni", linear[proposals], p) + shift[proposals, None]
        far = np.hypot(*(p[None] - p[proposals, None]).transpose(2, 0, 1))
        near = (np.hypot(*(predicted - q).transpose(2, 0, 1)) < 2.0 + 0.06 * far) & free
        best = int(near.sum(1).argmax())
        inliers = near[best]
        transform = None
        for tolerance in (6.0, 3.0, 2.0):
            if inliers.sum() < 4 or np.linalg.matrix_rank(p[inliers] - p[inliers].mean(0), tol=2.0) < 2:
                transform = None
                break
            solved = np.linalg.lstsq(np.c_[p[inliers], np.ones(inliers.sum())], q[inliers], rcond=None)[0]
            transform = solved.T
            inliers = (np.hypot(*(p @ solved[:2] + solved[2] - q).T) < tolerance) & free
        free &= ~near[best]
        if transform is None or inliers.sum() < 4:
            continue
        free &= ~inliers
        stretch = np.linalg.svd(transform[:, :2], compute_uv=False)
        if not (stretch[1] > 0.3 and stretch[0] < 3.3 and stretch[0] < 2.0 * stretch[1]):
            continue
        found.append((transform, int(inliers.sum())))
        # a plain shift rounds to whole pixels, where the copy is exact
        if not mirrored and np.abs(transform[:, :2] - np.eye(2)).max() < 0.03:
            move = np.round(np.median(q[inliers] - p[inliers], axis=0))
            found.append((np.array([[1.0, 0.0, move[0]], [0.0, 1.0, move[1]]]), int(inliers.sum())))
    return found
