"""Find faces with a boosted cascade and make them unrecognisable.

Source: Viola and Jones, Rapid Object Detection using a Boosted Cascade of Simple Features, CVPR 2001; cascade trained
by Lienhart, shipped with OpenCV 4.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import MissingDependencyError, UsageError

_MODES = ("blur", "pixelate", "fill")
_WINDOW = 24  # pixels on a side of the smallest face worth asking the cascade for
_CASCADES = "haarcascade_frontalface_alt.xml", "haarcascade_frontalface_default.xml"
_ANGLES = (0.0, -25.0, 25.0)


class FaceObscure:
    """Covers every face found with an ellipse that is blurred, pixelated or filled with its mean colour.

    A window is a face when it passes every stage of the cascade, sum_k alpha_k h_k(window) >= theta per stage, at one
    of many scales, and a second cascade agrees; the picture is also searched turned by 25° either way. Profiles, faces
    turned further and covered faces are missed: look at the result before you rely on it. Blurring and pixelating keep
    the coarse shape of a face, and networks trained for it can recognise some such faces; "fill" keeps only a colour.

    min_size: side of the smallest face sought in pixels, None for 1/80 of the longer side but at least 24.
    margin: how much the ellipse is larger than the detection, as a share of it. neighbours: overlapping detections a
    face needs (fewer finds more faces and more false ones). Raises UsageError for values out of range.

    >>> images = np.zeros((1, 3, 32, 32), np.float32)
    >>> where = np.zeros((1, 1, 32, 32), bool)
    >>> where[..., 8:24, 8:24] = True
    >>> bool((FaceObscure(mode="fill").erase(images, where)[1] == where).all())
    True
    """

    slug = "face_obscure"

    def __init__(
        self, *, mode: str = "blur", margin: float = 0.3, min_size: int | None = None, neighbours: int = 3
    ) -> None:
        if mode not in _MODES:
            raise UsageError(f"There is no way to obscure called {mode!r}; choose one of {', '.join(_MODES)}.")
        if not 0 <= margin <= 2:
            raise UsageError(f"The margin is {margin}; choose 0 to 2 times the size of the face.")
        if (min_size is not None and min_size < 8) or neighbours < 1:
            raise UsageError("Faces need at least 8 pixels and 1 detection; raise min_size or neighbours.")
        self.mode, self.margin, self.min_size, self.neighbours = mode, margin, min_size, neighbours

    def detect(self, image: np.ndarray) -> list[tuple[int, int, int, int]]:
        """Faces in a float32 3×H×W image as (x, y, width, height) in pixels, in reading order, overlaps merged.

        Raises MissingDependencyError when the installed OpenCV has no cascade classifier.
        """
        import cv2

        height, width = image.shape[1:]
        smallest = self.min_size or max(_WINDOW, round(max(height, width) / 80))
        scale = min(1.0, _WINDOW / smallest)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        grey = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), image, 1)
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        samples = (grey.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        if min(size) < _WINDOW:
            return []
        least = max(1, round(smallest * scale))
        boxes = []
        seek, confirm = _cascades()
        for angle in _ANGLES:
            turn = cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), angle, 1.0)
            turned = cv2.warpAffine(samples, turn, size, borderMode=cv2.BORDER_REPLICATE) if angle else samples
            votes = self.neighbours if not angle else 2 * self.neighbours  # upright faces are by far the most
            found = seek.detectMultiScale(turned, 1.1, votes, minSize=(least, least))
            back = cv2.invertAffineTransform(turn)
            for x, y, w, h in np.reshape(found, (-1, 4)).astype(int):
                if not _confirmed(confirm, turned, x, y, w):
                    continue
                cx, cy = back @ (x + w / 2, y + h / 2, 1.0)
                boxes.append(((cx - w / 2) / scale, (cy - h / 2) / scale, w / scale, h / scale))
        return _merge(boxes)

    def erase(self, images: np.ndarray, masks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Obscure faces: the images float32 N×3×H×W and the mask bool N×1×H×W of what was obscured.

        masks: bool N×1×H×W of areas to obscure instead of the faces found. Outside the mask every sample stays as it
        came. Raises UsageError for shapes that do not fit, MissingDependencyError as `detect` does.
        """
        import cv2

        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"Images are N×3×H×W, got {'×'.join(map(str, images.shape))}.")
        shape = (len(images), 1, *images.shape[2:])
        if masks is not None and (masks.shape != shape or masks.dtype != np.bool_):
            raise UsageError(f"Masks are bool {'×'.join(map(str, shape))} for these images.")
        erased = np.array(images, np.float32)
        covered = np.zeros(shape, bool)
        for n, image in enumerate(erased):
            if masks is None:
                regions = [_ellipse(box, self.margin, shape[2:]) for box in self.detect(image)]
            else:
                _, labels, stats, _ = cv2.connectedComponentsWithStats(masks[n, 0].astype(np.uint8))
                regions = [
                    ((y, x), labels[y : y + h, x : x + w] == label)
                    for label, (x, y, w, h, _) in enumerate(stats)
                    if label
                ]
            for (top, left), inside in regions:
                rows, columns = slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1])
                view = image[:, rows, columns]
                view[:, inside] = self._obscured(view, inside)[:, inside]
                covered[n, 0, rows, columns] |= inside
        return erased, covered

    def _obscured(self, view: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """A 3×h×w view with its detail gone; what remains is below 10 cells across, whatever the size of the face."""
        import cv2

        height, width = view.shape[1:]
        if self.mode == "fill":
            return np.broadcast_to(view[:, inside].mean(1)[:, None, None], view.shape)
        longest = max(height, width)
        cells = 8 if self.mode == "pixelate" else 64
        small = tuple(max(1, round(n * min(cells, longest) / longest)) for n in (width, height))
        pixels: Any = np.ascontiguousarray(view.transpose(1, 2, 0))
        coarse = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
        if self.mode == "blur":
            coarse = cv2.GaussianBlur(coarse, (0, 0), 0.12 * max(small), borderType=cv2.BORDER_REFLECT)
        how = cv2.INTER_NEAREST if self.mode == "pixelate" else cv2.INTER_LINEAR
        return cv2.resize(coarse, (width, height), interpolation=how).transpose(2, 0, 1)


@cache
def _cascades() -> tuple[Any, ...]:
    """The cascade that searches and a differently trained one that confirms."""
    import cv2

    paths = [Path(getattr(getattr(cv2, "data", None), "haarcascades", ""), name) for name in _CASCADES]
    if not hasattr(cv2, "CascadeClassifier") or not all(path.is_file() for path in paths):
        raise MissingDependencyError(
            f"OpenCV {cv2.__version__} comes without a face detector; install 'opencv-python-headless>=4.13,<5', or "
            "mark the faces in a mask."
        )
    return tuple(cv2.CascadeClassifier(str(path)) for path in paths)


def _confirmed(cascade: Any, grey: np.ndarray, x: int, y: int, side: int) -> bool:
    """Whether a second cascade sees a face there too, which most chance detections do not pass."""
    border = int(0.3 * side)
    crop = grey[max(0, y - border) : y + side + border, max(0, x - border) : x + side + border]
    least = max(1, int(0.7 * side))
    return len(cascade.detectMultiScale(np.ascontiguousarray(crop), 1.05, 1, minSize=(least, least))) > 0


def _merge(boxes: list[tuple[float, float, float, float]]) -> list[tuple[int, int, int, int]]:
    """Join boxes that share more than 30 % of the smaller one into the box around both."""
    merged: list[tuple[float, float, float, float]] = []
    for box in sorted(boxes):
        joined = box
        while True:
            partner = next((m for m in merged if _shared(m, joined) > 0.3), None)
            if partner is None:
                break
            merged.remove(partner)
            left, top = min(partner[0], joined[0]), min(partner[1], joined[1])
            right = max(partner[0] + partner[2], joined[0] + joined[2])
            bottom = max(partner[1] + partner[3], joined[1] + joined[3])
            joined = (left, top, right - left, bottom - top)
        merged.append(joined)
    rounded = [(round(x), round(y), round(w), round(h)) for x, y, w, h in merged]
    return sorted(rounded, key=lambda b: (b[1], b[0]))


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])


def _ellipse(
    box: tuple[int, int, int, int], margin: float, size: tuple[int, ...]
) -> tuple[tuple[int, int], np.ndarray]:
    """Top left corner and bool mask of the ellipse around a face, cut at the border; taller than wide, as heads are."""
    x, y, w, h = box
    cx, cy, rx, ry = x + w / 2, y + h / 2, w / 2 * (1 + margin), h / 2 * (1 + 1.5 * margin)
    left, right = max(0, int(cx - rx)), min(size[1], int(np.ceil(cx + rx)))
    top, bottom = max(0, int(cy - ry)), min(size[0], int(np.ceil(cy + ry)))
    v, u = np.ogrid[top : max(bottom, top), left : max(right, left)]
    return (top, left), ((u + 0.5 - cx) / rx) ** 2 + ((v + 0.5 - cy) / ry) ** 2 <= 1
