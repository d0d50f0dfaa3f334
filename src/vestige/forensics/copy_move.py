"""Copy-move: a part of the picture that was pasted elsewhere in the same picture.

Candidates for the geometric transform T between source and copy come from two sides: keypoints matched within the
picture (any rotation, scale or mirroring) and peaks of the picture's normalised autocorrelation (pure shifts, down to
smooth areas without keypoints). A candidate counts only where pixels agree after warping: with B a band-pass of the
luma, the local correlation

    rho(x) = corr_window(B(x), B(T x))

must stay near 1 over a connected area, because objects that merely look alike (windows, tiles, leaves) differ in
shading and noise. The score is the information both regions share, -1/2 log(1 - rho^2) summed over that area.

Sources: A SIFT-Based Forensic Method for Copy-Move Attack Detection and Transformation Recovery, IEEE TIFS 2011
(keypoints, generalised second-nearest-neighbour test); An Evaluation of Popular Copy-Move Forgery Detection
Approaches, IEEE TIFS 2012 (post-processing and verification).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject

#: Side in pixels below which a picture holds too little to compare with itself.
_SMALLEST = 48
#: Lags of the autocorrelation are considered from this many standard deviations above its background.
_PEAK = 4.5
_BLOCK = 1024


@dataclass(frozen=True)
class _Match:
    """Area on which the picture agrees with itself under ``transform`` (2×3, source to copy)."""

    transform: np.ndarray
    mask: np.ndarray  # bool H×W, source
    target: np.ndarray  # bool H×W, copy
    correlation: float
    information: float
    inliers: int


class CopyMove:
    """Finds regions of a picture that are near-identical copies of each other.

    max_pixels: working size; larger pictures are reduced to it first. max_keypoints: strongest keypoints kept.
    ratio: generalised second-nearest-neighbour ratio of descriptor distances. correlation: least local correlation of
    verified pixels. window: side of the correlation window in pixels. min_area: least share of the picture that a
    verified region covers.

    The map marks source and copy alike: which of the two came first is not decided.

    >>> from vestige.core.image_io import encode
    >>> g = np.random.default_rng(0)
    >>> picture = cv2.GaussianBlur(g.integers(0, 256, (160, 160, 3), dtype=np.uint8), (0, 0), 1)
    >>> picture[100:150, 90:150] = picture[10:60, 20:80]
    >>> finding = CopyMove().find(ImageSubject(encode(picture, "PNG")))
    >>> bool(finding.map[125, 120] > 0.5), bool(finding.map[35, 50] > 0.5), bool(finding.map[80, 20] > 0.5)
    (True, True, False)
    """

    slug = "copy_move"
    kind = "edit"

    def __init__(
        self,
        *,
        max_pixels: int = 2_000_000,
        max_keypoints: int = 5000,
        ratio: float = 0.75,
        correlation: float = 0.9,
        window: int = 11,
        min_area: float = 0.0015,
    ) -> None:
        self.max_pixels = max_pixels
        self.max_keypoints = max_keypoints
        self.ratio = ratio
        self.correlation = correlation
        self.window = window
        self.min_area = min_area

    def find(self, subject: ImageSubject) -> Finding:
        """Score, map (source and copy) and the transforms found; does not apply to tiny or flat pictures."""
        luma = subject.luma
        if min(luma.shape) < _SMALLEST:
            return Finding.not_applicable(
                self.slug, self.kind, f"the picture is smaller than {_SMALLEST} pixels on a side."
            )
        height, width = luma.shape
        scale = min(1.0, math.sqrt(self.max_pixels / luma.size))
        if scale < 1.0:
            size = (max(_SMALLEST, round(width * scale)), max(_SMALLEST, round(height * scale)))
            luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
        if float((_deviation(_band(luma), self.window) > 1.0).mean()) < 0.01:
            return Finding.not_applicable(
                self.slug, self.kind, "the picture has almost no detail to compare with itself."
            )
        matches = self._matches(luma)
        marked = np.zeros(luma.shape, np.float32)
        for match in matches:
            marked[match.mask | match.target] = max(match.correlation, 0.0)
        information = sum(m.information for m in matches)
        share = float((marked > 0).mean())
        evidence = tuple(self._describe(m, luma.shape, scale) for m in matches[:4])
        return Finding(
            self.slug,
            self.kind,
            math.log10(1.0 + information),
            "Two regions of the picture agree pixel by pixel after a shift, rotation, scaling or mirroring, more closely "
            "than repeated objects do in photographs; one was probably copied from the other.",
            "No region was found that is a near-identical copy of another one.",
            evidence=evidence or ("no transform kept a connected area in agreement",),
            map=subject.upright(marked),
            map_caption="regions that agree with each other (source and copy are not told apart)",
            details={"regions": len(matches), "share": round(share, 4), "working_scale": round(scale, 4)},
        )

    def _describe(self, match: _Match, shape: tuple[int, int], scale: float) -> str:
        a, b = match.transform[:, 0]
        ys, xs = np.nonzero(match.mask)
        centre = np.array([xs.mean(), ys.mean()])
        dx, dy = (match.transform[:, :2] @ centre + match.transform[:, 2] - centre) / scale
        mirrored = ", mirrored" if np.linalg.det(match.transform[:, :2]) < 0 else ""
        return (
            f"{100 * match.mask.sum() / (shape[0] * shape[1]):.1f} % of the picture recurs {dx:+.0f},{dy:+.0f} pixels "
            f"away (scale {math.hypot(a, b):.2f}, rotation {math.degrees(math.atan2(b, a)):.0f}°{mirrored}), "
            f"correlation {match.correlation:.3f}, {match.inliers} keypoint pairs"
        )

    def _matches(self, luma: np.ndarray) -> list[_Match]:
        band = _band(luma)
        structured = _structure(band, self.window)
        distance = max(12.0, 0.04 * min(luma.shape))
        found: list[_Match] = []
        for transform, inliers in self._keypoint_transforms(luma, distance):
            found += self._verify(luma, band, structured, transform, inliers, distance)
        for dx, dy in _shifts(luma, distance):
            for wrap_x in (0, -luma.shape[1]):
                for wrap_y in (0, -luma.shape[0]):
                    shift = np.array([[1.0, 0.0, dx + wrap_x], [0.0, 1.0, dy + wrap_y]])
                    found += self._verify(luma, band, structured, shift, 0, distance)
        return _distinct(found)

    def _verify(
        self,
        luma: np.ndarray,
        band: np.ndarray,
        structured: np.ndarray,
        transform: np.ndarray,
        inliers: int,
        distance: float,
    ) -> list[_Match]:
        """The connected areas on which the picture equals itself under ``transform``, as one match or none."""
        agreement = _agreement(luma, band, transform, self.window, distance)
        if agreement is None:
            return []
        (x0, y0), rho = agreement
        if inliers and not _is_shift(transform):
            refined = _refine(
                luma, transform, (x0, y0), (rho > 0.6) & structured[y0 : y0 + rho.shape[0], x0 : x0 + rho.shape[1]]
            )
            if refined is not None:
                again = _agreement(luma, band, refined, self.window, distance)
                if again is not None and _sum(again[1]) > _sum(rho):
                    transform, ((x0, y0), rho) = refined, again
        here = structured[y0 : y0 + rho.shape[0], x0 : x0 + rho.shape[1]]
        good = cv2.morphologyEx(
            ((rho > self.correlation) & here).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)
        )
        count, labels, stats, _ = cv2.connectedComponentsWithStats(good, connectivity=8)
        least = max(80.0, self.min_area * luma.size)
        # a pattern that recurs once recurs again: in a lattice source and copy chain, in a pasted copy they do not
        again = _splat(transform, good > 0, (x0, y0), luma.shape)[y0 : y0 + rho.shape[0], x0 : x0 + rho.shape[1]]
        chained = np.bincount(labels.ravel(), weights=again.ravel(), minlength=count)
        keep = [
            i
            for i in range(1, count)
            if stats[i, cv2.CC_STAT_AREA] >= least and chained[i] < 0.3 * stats[i, cv2.CC_STAT_AREA]
        ]
        if not keep:
            return []
        area = np.isin(labels, keep)
        chance = 1.0 - self.correlation**2
        shared = -0.5 * np.log(np.maximum(1.0 - rho[area].astype(np.float64) ** 2, 1e-3) / chance)
        # neighbouring pixels of the band-pass are correlated: about one independent sample in nine
        information = float(shared.sum()) / 9.0 * (1.0 + inliers / 20.0)
        # straight edges and plain parts prove nothing, but next to proven area they belong to the same copy
        grown = _grow(area, rho > 0.75)
        mask = np.zeros(luma.shape, bool)
        mask[y0 : y0 + rho.shape[0], x0 : x0 + rho.shape[1]] = grown
        target = _splat(transform, grown, (x0, y0), luma.shape)
        return [_Match(transform, mask, target, float(rho[area].mean()), information, inliers)]

    def _keypoint_transforms(self, luma: np.ndarray, distance: float) -> list[tuple[np.ndarray, int]]:
        """2×3 transforms supported by keypoint pairs, strongest first, with their number of pairs."""
        sift = cv2.SIFT_create(nfeatures=self.max_keypoints, contrastThreshold=0.01, edgeThreshold=16)  # type: ignore[attr-defined]
        points, descriptors = sift.detectAndCompute(np.clip(luma, 0, 255).astype(np.uint8), None)
        if descriptors is None or len(points) < 8:
            return []
        order = np.lexsort([[p.angle for p in points], [p.pt[1] for p in points], [p.pt[0] for p in points]])
        order = order[: 2 * self.max_keypoints]
        where = np.array([points[i].pt for i in order], np.float32)
        angle = np.radians([points[i].angle for i in order]).astype(np.float32)
        size = np.array([points[i].size for i in order], np.float32)
        described = descriptors[order].astype(np.float32)
        described = np.sqrt(described / np.maximum(described.sum(1, keepdims=True), 1e-6))
        transforms: list[tuple[np.ndarray, int]] = []
        for mirrored in (False, True):
            others = _mirrored(described) if mirrored else described
            pairs = _self_matches(described, others, where, self.ratio, distance)
            transforms += _consensus(where, angle, size, pairs, mirrored)
        return sorted(transforms, key=lambda t: -t[1])[:8]


def _is_shift(transform: np.ndarray) -> bool:
    return bool(np.array_equal(transform[:, :2], np.eye(2)) and np.array_equal(transform, np.round(transform)))


def _sum(rho: np.ndarray) -> float:
    return float(np.maximum(rho - 0.7, 0).sum())


def _agreement(
    luma: np.ndarray, band: np.ndarray, transform: np.ndarray, window: int, distance: float
) -> tuple[tuple[int, int], np.ndarray] | None:
    """Local correlation of the picture with itself under ``transform``: its offset (x, y) and rho h×w.

    rho is 0 where the transform leaves the picture, moves less than ``distance`` or changes the contrast.
    """
    height, width = luma.shape
    box = _source_box(transform, luma.shape)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    local = transform.copy()
    local[:, 2] += transform[:, :2] @ np.array([x0, y0], float)
    size = (x1 - x0, y1 - y0)
    if _is_shift(transform):
        tx, ty = int(local[0, 2]), int(local[1, 2])
        warped = band[ty : ty + size[1], tx : tx + size[0]]
    else:
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        warped = _band(cv2.warpAffine(luma, local, size, flags=flags, borderMode=cv2.BORDER_REFLECT))
    rho, ratio = _local_correlation(band[y0:y1, x0:x1], warped, window)
    xs = np.arange(x0, x1, dtype=np.float32)
    ys = np.arange(y0, y1, dtype=np.float32)[:, None]
    to_x = np.float32(transform[0, 0]) * xs + np.float32(transform[0, 1]) * ys + np.float32(transform[0, 2])
    to_y = np.float32(transform[1, 0]) * xs + np.float32(transform[1, 1]) * ys + np.float32(transform[1, 2])
    usable = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    usable &= (to_x - xs) ** 2 + (to_y - ys) ** 2 >= distance * distance
    usable &= (ratio > 0.7) & (ratio < 1.43)
    rho[~usable] = 0
    return (x0, y0), rho


def _refine(luma: np.ndarray, transform: np.ndarray, offset: tuple[int, int], area: np.ndarray) -> np.ndarray | None:
    """``transform`` aligned on the pixels of ``area`` by enhanced correlation, or None where that diverges."""
    area = cv2.morphologyEx(area.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    ys, xs = np.nonzero(area)
    if len(ys) < 60:
        return None
    ax, ay = max(int(xs.min()) - 4, 0), max(int(ys.min()) - 4, 0)
    crop = area[ay : ys.max() + 5, ax : xs.max() + 5]
    x, y = offset[0] + ax, offset[1] + ay
    template = luma[y : y + crop.shape[0], x : x + crop.shape[1]]
    local = transform.copy()
    local[:, 2] += transform[:, :2] @ np.array([x, y], float)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 1e-4)
    try:
        _, moved = cv2.findTransformECC(template, luma, local.astype(np.float32), cv2.MOTION_AFFINE, criteria, None, 3)
    except cv2.error:
        return None
    refined = moved.astype(np.float64)
    refined[:, 2] -= refined[:, :2] @ np.array([x, y], float)
    return refined


def _grow(core: np.ndarray, support: np.ndarray) -> np.ndarray:
    """The connected parts of ``support`` that touch ``core``, and ``core``."""
    _, labels = cv2.connectedComponents(support.astype(np.uint8), connectivity=4)
    touched = np.unique(labels[core & support])
    return core | np.isin(labels, touched[touched > 0])


def _band(luma: np.ndarray) -> np.ndarray:
    """Band-pass of the luma: fine structure without single-pixel coding noise and without shading."""
    return cv2.GaussianBlur(luma, (0, 0), 0.6) - cv2.GaussianBlur(luma, (0, 0), 2.5)


def _deviation(band: np.ndarray, window: int) -> np.ndarray:
    return np.sqrt(np.maximum(cv2.blur(band * band, (window, window)) - cv2.blur(band, (window, window)) ** 2, 0))


def _structure(band: np.ndarray, window: int) -> np.ndarray:
    """bool h×w: windows with structure in two directions.

    A straight edge fits any other edge of its direction wherever it is put, so it proves nothing: the smaller
    eigenvalue of the structure tensor must stand clear of both noise and the larger one.
    """
    gx = cv2.Sobel(band, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(band, cv2.CV_32F, 0, 1, scale=1 / 8)
    k = (window, window)
    xx, yy, xy = cv2.blur(gx * gx, k), cv2.blur(gy * gy, k), cv2.blur(gx * gy, k)
    half, root = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    small, large = half - root, half + root
    return (small > 0.3**2) & (small > 0.06 * large)


def _local_correlation(a: np.ndarray, b: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Windowed correlation of two h×w fields and the ratio of their windowed deviations."""
    k = (window, window)
    mean_a, mean_b = cv2.blur(a, k), cv2.blur(b, k)
    var_a = np.maximum(cv2.blur(a * a, k) - mean_a * mean_a, 1e-3)
    var_b = np.maximum(cv2.blur(b * b, k) - mean_b * mean_b, 1e-3)
    return (cv2.blur(a * b, k) - mean_a * mean_b) / np.sqrt(var_a * var_b), np.sqrt(var_a / var_b)


def _source_box(transform: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Bounding box of the points whose image under ``transform`` lies inside the picture."""
    height, width = shape
    linear = transform[:, :2]
    if abs(np.linalg.det(linear)) < 1e-3:
        return None
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], float) - transform[:, 2]
    back = corners @ np.linalg.inv(linear).T
    x0, y0 = np.maximum(np.floor(back.min(0)), 0).astype(int)
    x1 = int(min(math.ceil(back[:, 0].max()) + 1, width))
    y1 = int(min(math.ceil(back[:, 1].max()) + 1, height))
    return (int(x0), int(y0), x1, y1) if x1 - x0 >= 16 and y1 - y0 >= 16 else None


def _splat(transform: np.ndarray, area: np.ndarray, offset: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    local = transform.copy()
    local[:, 2] += transform[:, :2] @ np.array(offset, float)
    moved = cv2.warpAffine(area.astype(np.uint8), local, (shape[1], shape[0]), flags=cv2.INTER_NEAREST)
    return moved > 0


def _distinct(matches: list[_Match]) -> list[_Match]:
    """Strongest matches first, without those that mark what a stronger one has marked already."""
    kept: list[_Match] = []
    for match in sorted(matches, key=lambda m: -m.information):
        both = match.mask | match.target
        if all((both & (k.mask | k.target)).sum() < 0.5 * both.sum() for k in kept):
            kept.append(match)
    return kept


def _shifts(luma: np.ndarray, distance: float, most: int = 5) -> list[tuple[int, int]]:
    """Shifts (dx, dy), modulo the picture's size, at which the normalised fine detail repeats.

    The power spectrum of the locally normalised residual is divided by its own smooth envelope, so only its fine
    ripple (the sign of a shifted copy) is left, and clipped, so single spectral lines (regular patterns, the
    coding grid) cannot dominate. A copy of share a of N pixels stands about a·sqrt(N) deviations out.
    """
    residual = luma - cv2.GaussianBlur(luma, (0, 0), 2.0)
    deviation = np.sqrt(np.maximum(cv2.blur(residual * residual, (9, 9)), 0))
    normal = np.where(deviation > 0.6, np.clip(residual / np.maximum(deviation, 0.6), -2.5, 2.5), 0.0)
    height, width = normal.shape
    power = np.abs(np.fft.fft2(normal.astype(np.float32))).astype(np.float32) ** 2
    sigma = (max(2.0, width / 24), max(2.0, height / 24))
    envelope = cv2.GaussianBlur(np.fft.fftshift(power), (0, 0), sigmaX=sigma[0], sigmaY=sigma[1])
    envelope = np.fft.ifftshift(cv2.GaussianBlur(envelope, (0, 0), 2.0))
    # weak bands hold noise only: they are damped, not amplified
    flat = np.minimum(power / (envelope + 0.02 * float(envelope.max()) + 1e-6), 8.0)
    lag = np.fft.fft2(flat).real.astype(np.float32)
    ys = np.minimum(np.arange(height), height - np.arange(height))[:, None]
    xs = np.minimum(np.arange(width), width - np.arange(width))[None]
    near = np.hypot(ys, xs) < distance
    spread = 1.4826 * float(np.median(np.abs(lag[~near] - np.median(lag[~near])))) or 1.0
    lag = (lag - float(np.median(lag[~near]))) / spread
    lag[near] = 0
    lag[height // 2 + 1 :] = 0  # the autocorrelation is symmetric
    peaks: list[tuple[int, int]] = []
    for _ in range(most):
        y, x = divmod(int(lag.argmax()), width)
        if lag[y, x] < _PEAK:
            break
        peaks.append((x, y))
        lag[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = 0
    return peaks


def _mirrored(descriptors: np.ndarray) -> np.ndarray:
    """SIFT descriptors (n×128, 4 rows × 4 columns × 8 directions) of the mirrored picture."""
    cells = descriptors.reshape(-1, 4, 4, 8)[:, ::-1]
    return np.ascontiguousarray(cells[..., (-np.arange(8)) % 8].reshape(-1, 128))


def _self_matches(
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


def _consensus(
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
