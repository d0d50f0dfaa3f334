"""The threshold of a trained examiner of generated pictures, on a collection that it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vestige.bench.forensics.corpus import innocent, photographs, untouched
from vestige.core.image_io import decode, encode
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject
from vestige.data.fakes import FakeSource, as_float
from vestige.data.packs import find_data_root
from vestige.forensics.learned import calibration


def threshold_on_photographs(
    examiner: Finder, makers: Sequence[FakeSource], rate: float, *, limit: int = 0, seed: int = 0
) -> dict[str, float]:
    """Facts for `vestige.forensics.learned.stated`; empty without the scenery pack.

    Authentic: the validation half of scenery, untouched and after ordinary handling. Made: every photograph through one
    of the ``makers`` in turn, without loss or as JPEG 70 to 97. rate: the share of photographs that may be flagged; the
    threshold is set for half of it, because it flags more of other photographs than of those it was set on.
    """
    root = find_data_root()
    photos = photographs(root, "validation", packs=("scenery",), limit=limit) if root else []
    if len(photos) < 4:
        return {}

    def scored(files: list[bytes]) -> np.ndarray:
        found = [examiner.find(ImageSubject(data)) for data in files]
        return np.array([finding.score for finding in found if finding.applies])

    clean = scored([case.data for photo in photos for case in (*untouched(photo), *innocent(photo, seed))])
    made = []
    for i, photo in enumerate(photos):
        pixels = decode(photo[1]).pixels
        height, width = (side // 8 * 8 for side in pixels.shape[:2])
        picture = as_float(pixels[None, :height, :width].transpose(0, 3, 1, 2))
        pixels = np.round(makers[i % len(makers)](picture, seed=seed)[0] * 255).astype(np.uint8).transpose(1, 2, 0)
        pixels = np.ascontiguousarray(pixels)
        made.append(encode(pixels, "PNG") if i % 2 else encode(pixels, "JPEG", quality=int(70 + i % 28)))
    return {**calibration(clean, scored(made), rate / 2), "false_positive_rate": rate}
