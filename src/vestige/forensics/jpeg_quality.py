"""How a JPEG file was encoded: quality, tables, subsampling, process. It describes; it seldom accuses.

Source: ITU-T T.81, 1992, Annex K, and the scaling of its tables by the Independent JPEG Group's library.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vestige.core.errors import InputError
from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import standard_table
from vestige.forensics.jpeg_parse import JpegStructure, parse_jpeg

#: Base of the tables that MozJPEG scales by default, for luma and chroma alike.
_MOZJPEG = np.array(
    [16, 16, 16, 18, 25, 37, 56, 85, 16, 17, 20, 27, 34, 40, 53, 75, 16, 20, 24, 31, 43, 62, 91, 135,
     18, 27, 31, 40, 53, 74, 106, 156, 25, 34, 43, 53, 69, 94, 131, 189, 37, 40, 62, 74, 94, 124, 169, 238,
     56, 53, 91, 106, 131, 169, 226, 311, 85, 75, 135, 156, 189, 238, 311, 418]
).reshape(8, 8)  # fmt: skip


@lru_cache(maxsize=4)
def _ladder(kind: str) -> np.ndarray:
    """Tables (100, 8, 8) of qualities 1 to 100: "luma" and "chroma" of libjpeg, or "mozjpeg"."""
    if kind != "mozjpeg":
        return np.stack([standard_table(q, kind) for q in range(1, 101)])
    scales = np.array([5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)])
    return np.clip((_MOZJPEG * scales[:, None, None] + 50) // 100, 1, 255)


def nearest_quality(table: np.ndarray, kind: str = "luma") -> tuple[int, float]:
    """The quality whose standard table is nearest to an 8×8 table, and the distance.

    The distance is the mean of |log(step / standard step)|: 0 for the standard table itself.

    >>> nearest_quality(standard_table(83))
    (83, 0.0)
    """
    distance = np.abs(np.log(np.maximum(table, 1) / _ladder(kind))).mean(axis=(1, 2))
    best = int(distance.argmin())
    return best + 1, float(distance[best])


def table_family(structure: JpegStructure) -> str:
    """Where the tables come from, where that is certain: "libjpeg", "MozJPEG", "constant" or "custom"."""
    luma, chroma = structure.luma_table, structure.chroma_table
    if luma is None:
        return "custom"
    if luma.min() == luma.max() and luma.max() > 1:
        return "constant"
    if nearest_quality(luma)[1] == 0 and (chroma is None or nearest_quality(chroma, "chroma")[1] == 0):
        return "libjpeg"
    shared = chroma is None or np.array_equal(luma, chroma)
    return "MozJPEG" if shared and nearest_quality(luma, "mozjpeg")[1] == 0 else "custom"


class JpegQuality:
    """Reads the encoding of a JPEG file: libjpeg quality of luma and chroma, tables, subsampling, process.

    The score is 0, unless luma and chroma tables are both libjpeg's own but of different quality, which no program
    writes by default: then log(1 + difference). Applies to JPEG files only.

    >>> from vestige.core.image_io import encode
    >>> file = encode(np.zeros((16, 16, 3), np.uint8), "JPEG", quality=75)
    >>> JpegQuality().find(ImageSubject(file)).details["quality"]
    75
    """

    slug = "jpeg_quality"

    def find(self, subject: ImageSubject) -> Finding:
        try:
            if subject.format != "JPEG":
                why = f"the file is {subject.format}, not JPEG"
                return Finding.not_applicable(self.slug, "history", why)
            structure = parse_jpeg(subject.data)
        except InputError as error:
            return Finding.not_applicable(self.slug, "history", str(error))
        luma, chroma = structure.luma_table, structure.chroma_table
        if luma is None:
            return Finding.not_applicable(self.slug, "history", "the file holds no quantisation table")
        family = table_family(structure)
        ladder = "mozjpeg" if family == "MozJPEG" else ""
        quality, distance = nearest_quality(luma, ladder or "luma")
        chroma_quality, chroma_distance = (None, 0.0) if chroma is None else nearest_quality(chroma, ladder or "chroma")
        disagreement = 0
        if family == "libjpeg" and chroma_quality is not None and chroma is not None:
            # at the ends of the scale several qualities share a table, so the tables are compared, not the numbers
            fits = (_ladder("luma") == luma).all(axis=(1, 2)) & (_ladder("chroma") == chroma).all(axis=(1, 2))
            disagreement = 0 if fits.any() else abs(chroma_quality - quality)
        evidence = [
            {
                "libjpeg": f"quantisation tables match libjpeg quality {quality}",
                "MozJPEG": f"quantisation tables match MozJPEG quality {quality}",
                "constant": f"all luma steps are {int(luma[0, 0])}",
                "custom": f"custom quantisation tables, nearest to libjpeg quality {quality}",
            }[family],
            f"{structure.subsampling} {structure.process} JPEG"
            + (f" in {structure.scans} scans" if structure.scans > 1 else ""),
        ]
        if disagreement:
            evidence[0] = f"luma table of libjpeg quality {quality}, chroma table of quality {chroma_quality}"
        if structure.adobe_transform is not None:
            evidence.append("the file carries an Adobe segment")
        evidence.extend(structure.problems[:3])
        return Finding(
            self.slug,
            "history",
            float(np.log1p(disagreement)),
            "Luma and chroma were quantised with libjpeg tables of different quality, which takes a deliberate choice "
            "or an unusual program.",
            f"The file is a JPEG of about quality {quality}; its tables do not contradict each other.",
            evidence=tuple(evidence),
            details={
                "quality": quality,
                "quality_chroma": chroma_quality,
                "table_distance": round(max(distance, chroma_distance), 4),
                "family": family,
                "subsampling": structure.subsampling,
                "process": structure.process,
                "progressive": structure.progressive,
                "precision": structure.precision,
                "scans": structure.scans,
                "restart_interval": structure.restart_interval,
                "app_markers": list(structure.app_markers[:16]),
                "trailing_bytes": structure.trailing,
                "problems": list(structure.problems),
            },
        )
