"""Where a region answers recompression at some quality differently from the rest of the picture.

Source: Exposing digital forgeries from JPEG ghosts, IEEE TIFS 4(1), 2009. Recompression is simulated on the DCT
coefficients, and its error is divided by what a coefficient without history would give, so that texture, which
dominates the plain error, drops out.
"""

from __future__ import annotations

import cv2
import numpy as np

from vestige.core.errors import InputError
from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import ZIGZAG, block_dct, clipped_blocks, standard_table

_LEAST = 40  # coefficients a window must hold to be judged
_FLOOR = 0.03  # mean errors differ by about this much from place to place without any ghost


def recompression_errors(
    luma: np.ndarray, qualities: tuple[int, ...], frequencies: int, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of normalised recompression errors and the number of coefficients behind them.

    For a coefficient x and step q with |x| ≥ q/2 the term is 12·(x/q − round(x/q))² − 1: zero on average where x has
    no history, −1 where x is a multiple of q. Returns two float32 arrays (quality, rows, columns); a cell is one 8×8
    block, or so many that neither side holds more than ``cells``.
    """
    chosen = ZIGZAG[1 : 1 + frequencies]
    by, bx = luma.shape[0] // 8, luma.shape[1] // 8
    step = max(1, -(-max(by, bx) // cells))
    rows, columns = -(-by // step), -(-bx // step)
    sums = np.zeros((len(qualities), rows, columns), np.float32)
    number = np.zeros_like(sums)
    per_strip = step * max(1, 64 // step)
    for start in range(0, by, per_strip):
        cut = luma[8 * start : 8 * min(start + per_strip, by), : 8 * bx]
        x = np.abs(block_dct(cut)[:, :, chosen])
        x[clipped_blocks(cut)] = 0
        first = start // step
        for i, quality in enumerate(qualities):
            u = x / standard_table(quality).reshape(64)[chosen].astype(np.float32)
            n = np.rint(u)
            u -= n
            coded = n > 0
            error = np.where(coded, 12 * u * u - 1, 0).sum(axis=2)
            for target, value in ((sums, error), (number, coded.sum(axis=2).astype(np.float32))):
                down = np.add.reduceat(value, np.arange(0, value.shape[0], step), axis=0)
                across = np.add.reduceat(down, np.arange(0, bx, step), axis=1)
                target[i, first : first + across.shape[0]] = across
    return sums, number


def _window_sums(fields: np.ndarray, side: int) -> np.ndarray:
    size, border = (side, side), cv2.BORDER_CONSTANT
    return np.stack([cv2.boxFilter(f, -1, size, normalize=False, borderType=border) for f in fields])


def ghost_scan(
    sums: np.ndarray, number: np.ndarray, windows: tuple[int, ...], gap: int
) -> tuple[float, int | None, np.ndarray]:
    """Largest deviation of a window from the rest at one quality, relative to the qualities ``gap`` steps away.

    Returns its size in standard deviations, the index of the quality and the field of deviations there (float32).
    """
    best, where, field = 0.0, None, np.zeros(sums.shape[1:], np.float32)
    for side in windows:
        if side > min(sums.shape[1:]):
            continue
        n = _window_sums(number, side)
        mean = _window_sums(sums, side) / np.maximum(n, 1)
        usable = n >= _LEAST
        for i in range(len(mean)):
            mean[i] -= np.median(mean[i][usable[i]]) if usable[i].sum() >= 20 else mean[i]
        spread = 0.8 / np.maximum(n, 1)  # variance of 12u² − 1 for u uniform over the cell is 0.8
        for i in range(gap, len(mean) - gap):
            contrast = mean[i] - (mean[i - gap] + mean[i + gap]) / 2
            variance = spread[i] + (spread[i - gap] + spread[i + gap]) / 4 + _FLOOR**2
            judged = usable[i] & usable[i - gap] & usable[i + gap]
            z = np.where(judged, np.abs(contrast) / np.sqrt(variance), 0).astype(np.float32)
            if z.max() > best:
                best, where, field = float(z.max()), i, z
    return best, where, field


class JpegGhosts:
    """Finds regions with a ghost: an error minimum at the quality they were once saved with, unlike the rest.

    The score is log(1 + z), z the largest deviation of a window's normalised error from that of the picture at one
    quality, measured against neighbouring qualities. Sees regions whose old grid coincides with the picture's own.

    qualities: ladder of libjpeg qualities. frequencies: AC coefficients used. gap: neighbours compared with, in ladder
    steps. windows: sides of the scanned squares, in blocks. cells: largest side of the map.

    >>> from vestige.core.image_io import encode
    >>> JpegGhosts().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "jpeg_ghosts"
    photographs = True

    def __init__(
        self,
        *,
        qualities: tuple[int, ...] = tuple(range(38, 99, 3)),
        frequencies: int = 20,
        gap: int = 2,
        windows: tuple[int, ...] = (7, 11),
        cells: int = 192,
    ) -> None:
        self.qualities = qualities
        self.frequencies = frequencies
        self.gap = gap
        self.windows = windows
        self.cells = cells

    def find(self, subject: ImageSubject) -> Finding:
        try:
            luma = subject.luma
        except InputError as error:
            return Finding.not_applicable(self.slug, "edit", str(error))
        if min(luma.shape) < 96:
            return Finding.not_applicable(self.slug, "edit", "the picture is smaller than 96×96 pixels")
        sums, number = recompression_errors(luma, self.qualities, self.frequencies, self.cells)
        deviation, where, field = ghost_scan(sums, number, self.windows, self.gap)
        if where is None:
            return Finding.not_applicable(
                self.slug, "edit", "the picture is too flat or too clipped to hold DCT statistics"
            )
        quality = self.qualities[where]
        return Finding(
            self.slug,
            "edit",
            float(np.log1p(deviation)),
            f"A region answers recompression at about quality {quality} differently from the rest, as if it had "
            "another JPEG history.",
            "No region answers recompression differently enough to stand out.",
            evidence=(
                f"the largest deviation, at quality {quality}, is {deviation:.1f} standard deviations",
                "a deviation can mean that the region, or only the rest, was saved at that quality before",
            ),
            map=subject.upright(np.clip((field - 5) / 10, 0, 1).astype(np.float32)),
            map_caption=f"deviation of the recompression error at quality {quality}",
            details={"quality": quality, "deviation": round(deviation, 3)},
        )
