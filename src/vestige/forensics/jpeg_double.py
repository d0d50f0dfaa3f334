"""Whether a picture was JPEG-compressed before it was saved in its present form.

Source: Estimation of primary quantization matrix in double compressed JPEG images, DFRWS 2003; for files without
loss, Identification of bitmap compression history: JPEG detection and quantizer estimation, IEEE TIP 12(2), 2003.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vestige.core.errors import InputError
from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import grid_votes
from vestige.forensics.jpeg_grid import dead_zones
from vestige.forensics.jpeg_parse import luma_steps
from vestige.forensics.jpeg_primary import Primary, lattice, requantised


def grid_phase(luma: np.ndarray, limit: int = 1_000_000) -> tuple[int, int]:
    """The grid phase most cells of an uncompressed picture vote for, (0, 0) on a tie."""
    votes = grid_votes(luma, dead_zones(None), None, max(1, -(-luma.size // limit)))
    counts = np.bincount(votes[votes >= 0], minlength=64)
    row, column = divmod(int(counts.argmax()), 8)
    return row, column


class History(NamedTuple):
    """The luma float32 H×W of a picture, the steps of its own table (None in files without loss), the phase of its
    JPEG grid and the best fitting earlier quantisation."""

    luma: np.ndarray
    table: np.ndarray | None
    phase: tuple[int, int]
    primary: Primary


def history(subject: ImageSubject, limit: int) -> History:
    """The best fitting earlier compression of a picture; limit: samples examined.

    Worked out once for a subject, whichever examiner asks first.

    Raises InputError with the reason where nothing can be said: small, flat, clipped or of more than eight bits.
    """
    table = luma_steps(subject)
    luma = subject.luma
    if min(luma.shape) < 64:
        raise InputError("the picture is smaller than 64×64 pixels")
    phase = (0, 0) if table is not None else subject.shared("jpeg grid phase", lambda: grid_phase(luma))
    primary = subject.shared(
        f"jpeg primary {limit}",
        lambda: lattice(luma, phase, limit) if table is None else requantised(luma, table, limit),
    )
    if primary is None:
        raise InputError("the picture is too flat or too clipped to hold DCT statistics")
    return History(luma, table, phase, primary)


class JpegDouble:
    """Finds an earlier JPEG compression: on the same grid in a JPEG file, on any grid in files without loss.

    score = log(1 + 1000·g) with g the log-likelihood gain of the best earlier quantisation, in nats for each non-zero
    coefficient of the first 15 AC frequencies (see `jpeg_primary`). A first compression finer than the last leaves
    little to see, one with the same steps leaves nothing.

    limit: samples examined. Applies to pictures of 64×64 pixels or more in luma of eight bits.

    >>> from vestige.core.image_io import encode
    >>> JpegDouble().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "jpeg_double"
    photographs = True

    def __init__(self, *, limit: int = 3_000_000) -> None:
        self.limit = limit

    def find(self, subject: ImageSubject) -> Finding:
        coded = subject.format == "JPEG"
        try:
            _, _, phase, primary = history(subject, self.limit)
        except InputError as error:
            return Finding.not_applicable(self.slug, "history", str(error))
        return Finding(
            self.slug,
            "history",
            float(np.log1p(primary.rate)),
            "The DCT coefficients show an earlier JPEG compression with other settings; saving a picture again is "
            "enough to cause this."
            if coded
            else "The DCT coefficients gather at multiples of the steps of a JPEG table, as they do where a picture "
            "was a JPEG file before it was stored in this format; that is ordinary.",
            "No earlier JPEG compression with other settings shows in the DCT coefficients."
            if coded
            else "The pixels show no trace of JPEG compression.",
            evidence=self._evidence(primary, phase, coded),
            details={
                "primary_quality": primary.quality,
                "primary_steps": {str(k): q for k, q in primary.steps.items()},
                "gain_per_coefficient": round(primary.gain / max(primary.count, 1), 5),
                "coefficients": primary.count,
                "grid": list(phase),
            },
        )

    def _evidence(self, primary: Primary, phase: tuple[int, int], coded: bool) -> tuple[str, ...]:
        table = (
            "steps that follow no libjpeg table" if primary.quality is None else f"libjpeg quality {primary.quality}"
        )
        facts = [
            f"best fitting earlier quantisation: {table}",
            f"gain of {primary.gain:.0f} nats over none, from {primary.count} coefficients",
        ]
        if not coded:
            facts.append(f"strongest JPEG grid starts at row {phase[0]}, column {phase[1]}")
        return tuple(facts)
