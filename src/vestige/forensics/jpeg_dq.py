"""Where some blocks went through an earlier JPEG compression and others did not.

Source: Fast, automatic and fine-grained tampered JPEG image detection via DCT coefficient analysis, Pattern
Recognition 42(11), 2009; the likelihoods are those of `jpeg_primary`.
"""

from __future__ import annotations

import cv2
import numpy as np

from vestige.core.errors import InputError
from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import clipped_blocks
from vestige.forensics.jpeg_double import history
from vestige.forensics.jpeg_primary import lattice_blocks, requantised_blocks


def two_sided_scan(ratios: np.ndarray, windows: tuple[int, ...], bound: float = 8.0) -> tuple[float, np.ndarray, bool]:
    """Strength of the weaker of two opposite claims about the blocks of a picture, and the map of the rarer one.

    ratios: log-likelihood ratios (by, bx). For square windows W, the strengths are max_W Σ r and max_W Σ −r with r
    clipped to ±bound, in nats. Returns the smaller strength, the map float32 (by, bx) in [0, 1] of the class that
    covers less of the picture, and whether that class is the one with negative ratios.
    """
    r = np.clip(ratios, -bound, bound).astype(np.float32)
    strength = np.zeros(2)
    smooth = r
    for side in [w for w in windows if w <= min(r.shape)] or [1]:
        sums = cv2.boxFilter(r, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
        strength = np.maximum(strength, [sums.max(), -sums.min()])
        if side == windows[0]:
            smooth = sums
    negative = float((smooth < -2).mean()) < float((smooth > 2).mean())
    signed = -smooth if negative else smooth
    return float(strength.min()), (1 / (1 + np.exp(-np.clip(signed - 3, -30, 30)))).astype(np.float32), negative


class JpegDQ:
    """Finds regions that missed the earlier JPEG compression of the rest, or that alone went through one.

    In a JPEG file the earlier compression shows as double quantisation; in files without loss as coefficients on the
    lattice of its steps. Each block gets log P(block | earlier compression) − log P(block | none); the score is
    log(1 + s), where s is the strength in nats of the weaker of "this window has it" and "that window has not".

    windows: sides of the scanned squares, in blocks; the first smooths the map. limit: samples used to estimate the
    earlier steps. Applies to pictures of 64×64 pixels or more.

    >>> from vestige.core.image_io import encode
    >>> JpegDQ().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "jpeg_dq"
    photographs = True

    def __init__(self, *, windows: tuple[int, ...] = (3, 5, 9), limit: int = 3_000_000) -> None:
        self.windows = windows
        self.limit = limit

    def find(self, subject: ImageSubject) -> Finding:
        try:
            luma, table, phase, primary = history(subject, self.limit)
        except InputError as error:
            return Finding.not_applicable(self.slug, "edit", str(error))
        if table is not None:
            ratios, primary = requantised_blocks(luma, table, primary)
        else:
            ratios = lattice_blocks(luma, primary, phase)
            for extreme in (subject.stored.min(axis=2), subject.stored.max(axis=2)):
                ratios[clipped_blocks(extreme, *phase)] = 0  # a clipped channel took the luma off its lattice
        strength, map, negative = two_sided_scan(ratios, self.windows)
        quality = "steps of no libjpeg table" if primary.quality is None else f"libjpeg quality {primary.quality}"
        marked = "blocks without" if negative else "blocks with"
        return Finding(
            self.slug,
            "edit",
            float(np.log1p(strength)),
            "The DCT coefficients of one part look as after an earlier JPEG compression and those of another part do "
            "not, as after pasting, painting or retouching; smooth and clipped parts can look alike.",
            "No part of the picture shows another JPEG compression history than the rest.",
            evidence=(
                f"earlier compression that fits best: {quality}",
                f"evidence for it: {primary.gain:.0f} nats",
                f"the weaker of the two regions stands at {strength:.0f} nats",
            ),
            map=subject.upright(map),
            map_caption=f"{marked} the traces of the earlier compression",
            details={
                "primary_quality": primary.quality,
                "strength": round(strength, 3),
                "share_of_blocks": round(float((map > 0.5).mean()), 4),
                "marked": "not compressed before" if negative else "compressed before",
                "grid": list(phase),
            },
        )
