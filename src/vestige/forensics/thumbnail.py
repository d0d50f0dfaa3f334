"""The preview a camera stored in the file, compared with the picture: an edit often leaves the old preview behind.

Source: Kee and Farid, "Digital Image Authentication from Thumbnails", SPIE Media Forensics and Security 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vestige.core.embedded import read_embedded
from vestige.core.errors import VestigeError
from vestige.core.findings import Finding
from vestige.core.image_io import Limits, decode
from vestige.core.subjects import ImageSubject

_LIMITS = Limits(max_bytes=4 * 2**20, max_pixels=4_000_000)
_SIDE = 160


@dataclass(frozen=True)
class _Match:
    correlation: float
    local: float
    difference: np.ndarray
    upright: bool


class Thumbnail:
    """Flags pictures whose embedded preview shows something else.

    rho = corr(T, P): T is the preview's luma, P the picture reduced to its size. local = the largest share of
    grey range by which a region of about a twentieth of the side differs once P is fitted to T as a·P + b.

    The best of these is taken: stored and upright grid, preview stretched, preview with black bars removed, picture
    cropped to the preview's shape. Both thresholds are fixed and conservative: on 100 photographs, previews made from
    the picture itself (nearest to bicubic resampling, black bars, square crops, sharpening, contrast × 1.4, gamma
    0.6, JPEG quality down to 40) kept rho above 0.96 and local below 0.15, while cropping a fifth away gave rho
    below 0.9 for nearly all.

    >>> from vestige.core.image_io import encode
    >>> Thumbnail().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).why_not
    'the file carries no preview'
    """

    slug = "thumbnail"

    def __init__(self, *, min_correlation: float = 0.9, max_local: float = 0.25) -> None:
        self.min_correlation = min_correlation
        self.max_local = max_local

    def find(self, subject: ImageSubject) -> Finding:
        """Preview against picture, flagged above 1: max((1 - rho) / (1 - min_correlation), local / max_local)."""
        try:
            previews = read_embedded(subject).thumbnails[:4]
            stored, pixels = subject.stored, subject.pixels
        except VestigeError as error:
            return Finding.not_applicable(self.slug, "edit", str(error))
        if not previews:
            return Finding.not_applicable(self.slug, "edit", "the file carries no preview")
        grids = [(stored, False)] + [(pixels, True)] * (subject.decoded.orientation != 1)
        notes: list[str] = []
        worst: tuple[float, str, _Match] | None = None
        for where, data in previews:
            try:
                preview = decode(data[: _LIMITS.max_bytes], f"the {where} preview", _LIMITS).stored
            except VestigeError as error:
                notes.append(str(error))
                continue
            match = _best(preview, grids)
            if match is None:
                notes.append(f"the {where} preview is too small or too flat to compare")
                continue
            score = max((1 - match.correlation) / (1 - self.min_correlation), match.local / self.max_local)
            if worst is None or score > worst[0]:
                worst = (score, where, match)
        if worst is None:
            return Finding.not_applicable(self.slug, "edit", "; ".join(notes))
        score, where, match = worst
        said = f"{where} preview: correlation {match.correlation:.3f}, largest local difference {match.local:.2f}"
        return Finding(
            self.slug,
            "edit",
            round(score, 6),
            when_flagged=f"The {where} preview in the file shows a different picture: it was kept from before an edit.",
            when_clear="The preview in the file shows the same picture.",
            flagged=score > 1,
            threshold=1.0,
            evidence=(said, *notes),
            map=match.difference if match.upright else subject.upright(match.difference),
            map_caption="where the preview differs from the picture",
            details={"correlation": round(match.correlation, 4), "local_difference": round(match.local, 4)},
        )


def _best(preview: np.ndarray, grids: list[tuple[np.ndarray, bool]]) -> _Match | None:
    """The most favourable comparison, None where a side is too small or the preview is flat."""
    height, width = preview.shape[:2]
    if min(height, width) < 16:
        return None
    scale = min(1.0, _SIDE / max(height, width))
    matches = []
    for picture, upright in grids:
        for bars in (False, True):
            for crop in (False, True):
                if bars and crop:
                    continue
                match = _compare(preview, picture, upright, bars, crop, scale)
                if match is not None:
                    matches.append(match)
    return min(matches, key=lambda m: (1 - m.correlation) + m.local, default=None)


def _centre(shape: tuple[int, ...], aspect: float) -> tuple[slice, slice]:
    """The largest central window of that width to height ratio."""
    height, width = shape[:2]
    h, w = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
    top, left = (height - h) // 2, (width - w) // 2
    return slice(top, top + h), slice(left, left + w)


def _compare(
    preview: np.ndarray, picture: np.ndarray, upright: bool, bars: bool, crop: bool, scale: float
) -> _Match | None:
    shape = picture.shape[1] / picture.shape[0]
    window: tuple[slice, slice] = (slice(None), slice(None))
    if bars:
        preview = preview[_centre(preview.shape, shape)]
    if crop:
        window = _centre(picture.shape, preview.shape[1] / preview.shape[0])
    size = tuple(max(8, round(n * scale)) for n in preview.shape[1::-1])
    region = np.ascontiguousarray(picture[window])
    small, seen = (
        cv2.GaussianBlur(
            cv2.cvtColor(cv2.resize(a, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32),
            (0, 0),
            1,
        )
        for a in (region, np.ascontiguousarray(preview))
    )
    spread = float(small.std()), float(seen.std())
    if spread[1] < 3:
        return None
    centred = small - small.mean()
    covariance = float((centred * (seen - seen.mean())).mean())
    correlation = covariance / (spread[0] * spread[1]) if spread[0] > 0.5 else 0.0
    gain = float(np.clip(covariance / max(spread[0] ** 2, 1e-6), 0.5, 2.0))
    error = np.abs(seen - (gain * centred + float(seen.mean()))) / 255
    side = max(3, round(max(size) / 20))
    local = float(cv2.blur(error, (side, side)).max())
    difference = np.clip(error * 3, 0, 1).astype(np.float32)
    if crop:
        canvas_size = (
            round(size[0] * picture.shape[1] / region.shape[1]),
            round(size[1] * picture.shape[0] / region.shape[0]),
        )
        canvas = np.zeros((max(size[1], canvas_size[1]), max(size[0], canvas_size[0])), np.float32)
        top, left = (canvas.shape[0] - size[1]) // 2, (canvas.shape[1] - size[0]) // 2
        canvas[top : top + size[1], left : left + size[0]] = difference
        difference = canvas
    return _Match(correlation, local, difference, upright)
