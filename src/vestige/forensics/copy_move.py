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
from dataclasses import dataclass, replace

import cv2
import numpy as np

from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject
from vestige.forensics.copy_move_candidates import keypoint_transforms, shift_candidates

#: Side in pixels below which a picture holds too little to compare with itself.
_SMALLEST = 48
#: Strength of the band-pass in grey levels below which it fades out instead of being amplified.
_SOFT = 6.0


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
    photographs = True
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
        """Score, map (source and copy) and the transforms found; does not apply to tiny or flat pictures.

        Examiners that build on it get the answer that was computed for the same subject with the same settings.
        """
        return subject.shared(f"copy_move {sorted(vars(self).items())}", lambda: self._find(subject))

    def _find(self, subject: ImageSubject) -> Finding:
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
            "Two regions of the picture agree closely, down to their fine detail, after a shift, rotation, scaling or "
            "mirroring, as where one was copied from the other; wallpaper, tiles, printed patterns and rows of like "
            "products can agree as closely.",
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
        band = _even(band)
        distance = max(12.0, 0.04 * min(luma.shape))
        found: list[_Match] = []
        for transform, inliers in keypoint_transforms(luma, distance, self.max_keypoints, self.ratio):
            found += self._verify(luma, band, structured, transform, inliers, distance)
        for dx, dy in shift_candidates(luma, distance):
            for wrap_x in (0, -luma.shape[1]):
                for wrap_y in (0, -luma.shape[0]):
                    shift = np.array([[1.0, 0.0, dx + wrap_x], [0.0, 1.0, dy + wrap_y]])
                    found += self._verify(luma, band, structured, shift, 0, distance)
        return _distinct(_without_lattices(found))

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
        least = max(80.0, self.min_area * luma.size)
        if cv2.countNonZero(good) < least:
            return []
        count, labels, stats, _ = cv2.connectedComponentsWithStats(good, connectivity=8)
        large = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= least]
        if not large:
            return []
        # a pattern that recurs once recurs again: in a lattice source and copy chain, in a pasted copy they do not
        full = np.zeros(luma.shape, np.uint8)
        full[y0 : y0 + rho.shape[0], x0 : x0 + rho.shape[1]] = good
        size = (luma.shape[1], luma.shape[0])
        onto = cv2.warpAffine(full, transform, size, flags=cv2.INTER_NEAREST)
        back = cv2.warpAffine(full, transform, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        chain = np.maximum(onto, back)
        landed = chain[y0 : y0 + rho.shape[0], x0 : x0 + rho.shape[1]]
        chained = np.bincount(labels.ravel(), weights=landed.ravel(), minlength=count)
        keep = [i for i in large if chained[i] < 0.3 * stats[i, cv2.CC_STAT_AREA]]
        if not keep:
            return [_Match(transform, full > 0, chain > 0, 0.0, 0.0, inliers)]
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
        warped = _even(_band(cv2.warpAffine(luma, local, size, flags=flags, borderMode=cv2.BORDER_REFLECT)))
    rho, ratio = _local_correlation(band[y0:y1, x0:x1], warped, window)
    rho[(ratio <= 0.7) | (ratio >= 1.43)] = 0
    if _is_shift(transform):  # all of the box lands in the picture, equally far away
        if math.hypot(*transform[:, 2]) < distance:
            rho[:] = 0
        return (x0, y0), rho
    xs = np.arange(x0, x1, dtype=np.float32)
    ys = np.arange(y0, y1, dtype=np.float32)[:, None]
    to_x = np.float32(transform[0, 0]) * xs + np.float32(transform[0, 1]) * ys + np.float32(transform[0, 2])
    to_y = np.float32(transform[1, 0]) * xs + np.float32(transform[1, 1]) * ys + np.float32(transform[1, 2])
    usable = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    usable &= (to_x - xs) ** 2 + (to_y - ys) ** 2 >= distance * distance
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
    criteria = (int(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT), 12, 1e-4)
    try:
        start = local.astype(np.float32)
        _, moved = cv2.findTransformECC(template, luma, start, cv2.MOTION_AFFINE, criteria, None)
    except cv2.error:
        return None
    refined = np.asarray(moved, np.float64)
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


def _even(band: np.ndarray) -> np.ndarray:
    """The band-pass with its local strength evened out, so that outlines do not drown what lies between them."""
    return band / np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 2.5) + _SOFT**2)


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


def _without_lattices(matches: list[_Match]) -> list[_Match]:
    """Matches that are not part of a regular pattern, in which most of a region recurs at many places."""
    kept = []
    for match in matches:
        if match.information == 0:
            continue
        centre = np.array(np.nonzero(match.mask))[::-1].mean(1)
        moves = [m.transform[:, :2] @ centre + m.transform[:, 2] - centre for m in matches]
        own = match.transform[:, :2] @ centre + match.transform[:, 2] - centre
        others: list[np.ndarray] = []
        for other, move in zip(matches, moves, strict=True):
            new = all(min(np.hypot(*(move - m)), np.hypot(*(move + m))) > 6 for m in [own, *others])
            covered = (match.mask & (other.mask | other.target)).sum()
            if new and covered > 0.4 * match.mask.sum():
                others.append(move)
        # two further places still look like one region pasted several times
        if len(others) <= 2:
            kept.append(match)
        else:
            kept.append(replace(match, information=match.information / len(others) ** 2))
    return kept


def _distinct(matches: list[_Match]) -> list[_Match]:
    """Strongest matches first, without those that mark what a stronger one has marked already."""
    kept: list[_Match] = []
    for match in sorted(matches, key=lambda m: -m.information):
        both = match.mask | match.target
        if all((both & (k.mask | k.target)).sum() < 0.5 * both.sum() for k in kept):
            kept.append(match)
    return kept
