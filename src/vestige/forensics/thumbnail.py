"""The preview a camera stored in the file, compared with the picture: an edit often leaves the old preview behind.

Source: Kee and Farid, "Digital Image Authentication from Thumbnails", SPIE Media Forensics and Security 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vestige.core.errors import VestigeError
from vestige.core.findings import Finding
from vestige.core.image_io import Limits, decode, orient
from vestige.core.records.embedded import picture_layout, read_embedded
from vestige.core.records.trailers import peel
from vestige.core.subjects import ImageSubject

_LIMITS = Limits(max_bytes=4 * 2**20, max_pixels=4_000_000)
_SIDE = 160
#: Grey levels by which a preview must vary to be compared.
_FLAT = 3.0
_MAX_PREVIEWS = 4


@dataclass(frozen=True)
class _Match:
    """How a preview fits the picture: correlation, largest local difference, map on the stored grid, orientation."""

    correlation: float
    local: float
    difference: np.ndarray
    orientation: int


class Thumbnail:
    """Flags pictures whose embedded preview shows something else.

    rho = corr(T, f(P)): T is the preview's luma, P the picture reduced to its size, f the increasing function of grey
    levels that gives P the preview's histogram, so that no change of brightness, contrast or gamma counts; or the mean
    of the correlations in small windows where that is higher, so that no local tone mapping does. local = the largest
    share of grey range by which a region of about a twentieth of the side differs, as far as its window does not
    correlate.

    The best of these is taken: all eight orientations, since a picture may be turned without its preview and the other
    way round; preview stretched, preview with black bars removed, picture cropped to the preview's shape; either
    cropped by up to a sixteenth, since cameras frame previews of uncorrected lenses a little differently. Both
    thresholds are fixed and leave a wide margin: what is said is read from the file as a fact.

    >>> from vestige.core.image_io import encode
    >>> Thumbnail().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).why_not
    'the file carries no preview'
    """

    slug = "thumbnail"
    #: Previews are small: they are compared at any scale that the picture was decoded at.
    any_scale = True
    kind = "edit"

    def __init__(self, *, min_correlation: float = 0.85, max_local: float = 0.22) -> None:
        self.min_correlation = min_correlation
        self.max_local = max_local

    def find(self, subject: ImageSubject) -> Finding:
        """Preview against picture, flagged above 1: max((1 - rho) / (1 - min_correlation), local / max_local)."""
        try:
            previews = _previews(subject)
            if not previews:
                return Finding.not_applicable(self.slug, self.kind, "the file carries no preview")
            picture = _luma(subject.stored, 4 * _SIDE)
        except VestigeError as error:
            return Finding.not_applicable(self.slug, self.kind, str(error))
        notes: list[str] = []
        worst: tuple[float, str, _Match] | None = None
        for where, data in previews:
            try:
                preview = decode(data[: _LIMITS.max_bytes], f"the {where} preview", _LIMITS).stored
            except VestigeError as error:
                notes.append(str(error))
                continue
            match = _best(_luma(preview, _SIDE), picture)
            if match is None:
                notes.append(f"the {where} preview is too small or too flat to compare")
                continue
            score = max((1 - match.correlation) / (1 - self.min_correlation), match.local / self.max_local)
            if worst is None or score > worst[0]:
                worst = (score, where, match)
        if worst is None:
            return Finding.not_applicable(self.slug, self.kind, "; ".join(notes))
        score, where, match = worst
        said = f"{where} preview: correlation {match.correlation:.3f}, largest local difference {match.local:.2f}"
        if match.orientation not in (1, subject.decoded.orientation):
            notes.append("the preview lies another way round than the picture: one of them was turned")
        return Finding(
            self.slug,
            self.kind,
            round(score, 6),
            when_flagged=f"The {where} preview in the file does not show the picture as it is: it was made from "
            "another picture, or kept from before a change.",
            when_clear="The preview in the file shows the same picture.",
            flagged=score > 1,
            threshold=1.0,
            evidence=(said, *notes),
            map=subject.upright(match.difference),
            map_caption="where the preview differs from the picture",
            details={
                "correlation": round(match.correlation, 4),
                "local_difference": round(match.local, 4),
                "orientation": match.orientation,
            },
        )


def _previews(subject: ImageSubject) -> list[tuple[str, bytes]]:
    """Encoded previews, each with where it stands: in metadata blocks, or behind the picture as some cameras do it."""
    found = list(read_embedded(subject).thumbnails)
    if subject.format == "JPEG":
        pieces, _ = peel(subject.data, picture_layout(subject), "JPEG")
        found += [("appended", subject.data[p.start : p.end]) for p in pieces if p.kind == "preview"]
    return found[:_MAX_PREVIEWS]


def _luma(pixels: np.ndarray, side: int) -> np.ndarray:
    """float32 grey of uint8 H×W×3, reduced so that its longer side is at most ``side``."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)


def _best(preview: np.ndarray, picture: np.ndarray) -> _Match | None:
    """The most favourable comparison, None where a side is too small or the preview is flat."""
    if min(preview.shape) < 16:
        return None
    matches = []
    for orientation in range(1, 9):
        turned = orient(preview, orientation)
        for bars, crop in ((False, False), (True, False), (False, True)):
            match = _compare(turned, picture, bars, crop, orientation)
            if match is not None:
                matches.append(match)
    best = min(matches, key=_misfit, default=None)
    if best is None or _misfit(best) < 0.05:
        return best
    turned = orient(preview, best.orientation)
    for margin in _MARGINS:
        for a, b in ((turned, _inner(picture, margin)), (_inner(turned, margin), picture)):
            match = _compare(a, b, False, False, best.orientation)
            if match is not None and _misfit(match) < _misfit(best):
                best = match
    return best


#: Shares of each side that a preview may show more or less than the picture.
_MARGINS = (0.01, 0.02, 0.03)


def _misfit(match: _Match) -> float:
    return (1 - match.correlation) + match.local


def _inner(grey: np.ndarray, margin: float) -> np.ndarray:
    """The middle of a picture without ``margin`` of its height and width on each side."""
    top, left = round(margin * grey.shape[0]), round(margin * grey.shape[1])
    return grey[top : grey.shape[0] - top, left : grey.shape[1] - left]


def _windows(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """Correlation of two h×w pictures in the window round each sample, and its mean where both vary.

    A window in which neither varies by more than a few grey levels counts as alike.
    """
    side = max(7, round(max(a.shape) / 12))

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (side, side))

    ma, mb = mean(a), mean(b)
    va, vb = np.maximum(mean(a * a) - ma * ma, 0), np.maximum(mean(b * b) - mb * mb, 0)
    noise = 16.0
    local = (mean(a * b) - ma * mb + noise) / (np.sqrt(va * vb) + noise)
    weight = np.sqrt(va) + np.sqrt(vb)
    return local, float((local * weight).sum() / max(float(weight.sum()), 1e-6))


def _centre(shape: tuple[int, ...], aspect: float) -> tuple[slice, slice]:
    """The largest central window of that width to height ratio."""
    height, width = shape[:2]
    h, w = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
    top, left = (height - h) // 2, (width - w) // 2
    return slice(top, top + h), slice(left, left + w)


def _with_histogram(grey: np.ndarray, like: np.ndarray) -> np.ndarray:
    """``grey`` with its levels moved, in their order, to the histogram of ``like`` (both h×w of one size).

    Levels that tie share the mean of their places, so that a flat area stays flat.
    """
    _, place, count = np.unique(grey.round(1).ravel(), return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    levels = np.sort(like, axis=None)
    sums = np.concatenate([[0.0], np.cumsum(levels, dtype=np.float64)])
    means = (sums[ends] - sums[ends - count]) / count
    return np.asarray(means[place].reshape(grey.shape), np.float32)


def _compare(preview: np.ndarray, picture: np.ndarray, bars: bool, crop: bool, orientation: int) -> _Match | None:
    shape = picture.shape[1] / picture.shape[0]
    window: tuple[slice, slice] = (slice(None), slice(None))
    if bars:
        preview = preview[_centre(preview.shape, shape)]
    if crop:
        window = _centre(picture.shape, preview.shape[1] / preview.shape[0])
    size = (max(8, preview.shape[1]), max(8, preview.shape[0]))
    region = np.ascontiguousarray(picture[window])
    small, seen = (
        cv2.GaussianBlur(cv2.resize(a, size, interpolation=cv2.INTER_AREA), (0, 0), 1)
        for a in (region, np.ascontiguousarray(preview))
    )
    if float(seen.std()) < _FLAT:
        return None
    flat = float(small.std()) <= 0.5
    fitted = np.full_like(small, seen.mean()) if flat else _with_histogram(small, seen)
    spread = float(fitted.std())
    covariance = float(((fitted - fitted.mean()) * (seen - seen.mean())).mean())
    correlation = 0.0 if spread < 0.5 else covariance / (spread * float(seen.std()))
    alike, structure = _windows(seen, fitted)
    correlation = max(correlation, 0.0 if flat else structure)
    error = np.abs(seen - fitted) / 255 * (1 - np.clip(alike, 0, 1))
    side = max(3, round(max(size) / 20))
    local = float(cv2.blur(error, (side, side)).max())
    difference = np.clip(error * 3, 0, 1).astype(np.float32)
    if crop:
        canvas = np.zeros(
            (
                max(size[1], round(size[1] * picture.shape[0] / region.shape[0])),
                max(size[0], round(size[0] * picture.shape[1] / region.shape[1])),
            ),
            np.float32,
        )
        top, left = (canvas.shape[0] - size[1]) // 2, (canvas.shape[1] - size[0]) // 2
        canvas[top : top + size[1], left : left + size[0]] = difference
        difference = canvas
    return _Match(correlation, local, difference, orientation)
