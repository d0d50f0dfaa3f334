"""Error level analysis: blocks that change more or less than the rest when the picture is saved as JPEG once more.

Source: A picture's worth: digital image analysis and forensics, Black Hat Briefings USA, 2007. The plain error mostly
draws texture, so it is compared here with the error of blocks that are as textured. It remains weak evidence.
"""

from __future__ import annotations

import io

import cv2
import numpy as np

from vestige.core.errors import InputError
from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject


def error_levels(pixels: np.ndarray, quality: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean recompression error and texture of every 8×8 block, each float32 (by, bx).

    pixels: uint8 H×W×3. The error is the mean absolute change of the samples; texture is the mean absolute difference
    of neighbouring samples of the mean channel.
    """
    from PIL import Image

    by, bx = pixels.shape[0] // 8, pixels.shape[1] // 8
    error, texture = np.empty((by, bx), np.float32), np.empty((by, bx), np.float32)
    for start in range(0, by, 64):  # strips of whole blocks recompress like the whole picture
        cut = np.ascontiguousarray(pixels[8 * start : 8 * min(start + 64, by), : 8 * bx])
        buffer = io.BytesIO()
        Image.fromarray(cut).save(buffer, "JPEG", quality=quality, subsampling=0)
        again = np.asarray(Image.open(buffer))
        rows = slice(start, start + cut.shape[0] // 8)
        size = (bx, cut.shape[0] // 8)
        change = cv2.absdiff(cut, again).astype(np.float32)
        error[rows] = cv2.resize(change, size, interpolation=cv2.INTER_AREA).mean(axis=2)
        grey = cut.astype(np.float32).mean(axis=2)
        across = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
        down = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
        texture[rows] = cv2.resize(across + down, size, interpolation=cv2.INTER_AREA)
    return error, texture


def excess_error(error: np.ndarray, texture: np.ndarray, groups: int = 24) -> np.ndarray:
    """log error less the median log error of equally textured blocks, in robust standard deviations of that group.

    Float32 (by, bx), clipped to ±4; flat blocks, whose error tells nothing, are 0.
    """
    log_error, result = np.log(error + 0.05), np.zeros(error.shape, np.float32)
    textured = texture > 0.5
    if textured.sum() < 8 * groups:
        return result
    edges = np.quantile(texture[textured], np.linspace(0, 1, groups + 1)[1:-1])
    group = np.searchsorted(edges, texture)
    for g in range(groups):
        members = textured & (group == g)
        values = log_error[members]
        if not values.size:
            continue
        centre = np.median(values)
        scale = 1.4826 * np.median(np.abs(values - centre)) + 0.02
        result[members] = np.clip((values - centre) / scale, -4, 4)
    return result


class ErrorLevels:
    """Error level analysis with texture taken out; weak evidence, useful to look at and to weigh with others.

    The score is log(1 + z), z the largest mean excess error over a window, in standard deviations of such windows in
    the same picture.

    quality: of the recompression, lowered by 15 where the picture was last saved at that quality. windows: sides of the
    scanned squares, in blocks of 8 pixels. Applies to pictures of 128×128 pixels or more.

    >>> from vestige.core.image_io import encode
    >>> ErrorLevels().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "ela"
    photographs = True

    def __init__(self, *, quality: int = 90, windows: tuple[int, ...] = (5, 9)) -> None:
        self.quality = quality
        self.windows = windows

    def find(self, subject: ImageSubject) -> Finding:
        try:
            pixels = subject.stored
        except InputError as damage:
            return Finding.not_applicable(self.slug, "edit", str(damage))
        if min(pixels.shape[:2]) < 128:
            return Finding.not_applicable(self.slug, "edit", "the picture is smaller than 128×128 pixels")
        quality = self.quality
        error, texture = error_levels(pixels, quality)
        if error.mean() < 0.25:  # last saved at this very quality: only rounding is left to compare
            quality = max(1, quality - 15)
            error, texture = error_levels(pixels, quality)
        excess = excess_error(error, texture)
        if not excess.any():
            return Finding.not_applicable(self.slug, "edit", "the picture is too flat to compare error levels")
        strongest, field = 0.0, np.zeros(excess.shape, np.float32)
        for side in self.windows:
            mean = cv2.boxFilter(excess, -1, (side, side), borderType=cv2.BORDER_REFLECT)
            centre = np.median(mean)
            scale = 1.4826 * float(np.median(np.abs(mean - centre))) + 1.0 / side
            z = np.abs(mean - centre) / scale
            if z.max() > strongest:
                strongest, field = float(z.max()), z
        return Finding(
            self.slug,
            "edit",
            float(np.log1p(strongest)),
            "A region changes more or less than equally textured ones when the picture is saved as JPEG again; this "
            "is weak evidence of an edit.",
            "No region stands out when the picture is saved as JPEG again; this says little.",
            evidence=(
                f"largest deviation of the error level: {strongest:.1f} robust standard deviations",
                f"mean change at quality {quality}: {float(error.mean()):.2f} grey levels",
            ),
            map=subject.upright(np.clip((field - 1.5) / 4.5, 0, 1).astype(np.float32)),
            map_caption=f"deviation of the error level at quality {quality}, texture taken out",
            details={"quality": quality, "deviation": round(strongest, 3), "mean_error": round(float(error.mean()), 3)},
        )
