"""Records that image generators hide in the lowest bits of the alpha channel or of the colours.

The picture is read column by column, from the top left; the first 15 bytes name the layout, the next four give the
length in bits, then comes the text, packed with gzip where the name says so ("stealth_pngcomp", "stealth_rgbcomp").

Source: the WebUI extension sd-webui-stealth-pnginfo; NovelAI's reader novelai-image-metadata.
"""

from __future__ import annotations

import zlib

import numpy as np

from vestige.core.image_io import orient
from vestige.core.records.embedded import Text
from vestige.core.subjects import ImageSubject

_NAMES = {
    b"stealth_pnginfo": ("alpha", False), b"stealth_pngcomp": ("alpha", True),
    b"stealth_rgbinfo": ("rgb", False), b"stealth_rgbcomp": ("rgb", True),
}  # fmt: skip
_HEADER = 15 + 4
#: Formats that keep every bit of a sample.
_LOSSLESS = ("PNG", "WEBP", "TIFF", "BMP")
MAX_RECORD = 4 * 2**20
#: The orientation that undoes each.
_BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def read_stealth(subject: ImageSubject) -> list[Text]:
    """The records hidden in a picture's lowest bits, [] where there are none.

    Raises what decoding the picture raises.
    """
    if subject.format not in _LOSSLESS or (subject.format == "WEBP" and b"VP8 " in subject.data[:4096]):
        return []
    found = []
    alpha = subject.alpha
    if alpha is not None:
        alpha = orient(alpha, _BACK.get(subject.decoded.orientation, 1))
    for name, samples in (("alpha", alpha), ("rgb", subject.stored)):
        if samples is None:
            continue
        for rows_first in (False, True):
            text = _record(samples, name, rows_first)
            if text:
                found.append(Text(f"lowest bits of {'the alpha channel' if name == 'alpha' else 'the colours'}",
                                  "parameters", text))  # fmt: skip
                break
    return found


def _record(samples: np.ndarray, channel: str, rows_first: bool) -> str:
    """Text of the record in h×w or h×w×3 samples, "" where none starts there."""
    header = _bits(samples, _HEADER, rows_first)
    name = header[:15]
    if _NAMES.get(name, ("", False))[0] != channel or len(header) < _HEADER:
        return ""
    size = int.from_bytes(header[15:19], "big") // 8
    if not 0 < size <= min(MAX_RECORD, samples.size // 8 - _HEADER):
        return ""
    body = _bits(samples, _HEADER + size, rows_first)[_HEADER:]
    if _NAMES[name][1]:
        try:
            body = zlib.decompressobj(31).decompress(body, MAX_RECORD)
        except zlib.error:
            return ""
    return body.decode("utf-8", "replace")


def _bits(samples: np.ndarray, count: int, rows_first: bool) -> bytes:
    """The lowest bits of the first samples as ``count`` bytes, at most what there is."""
    needed = 8 * count
    grid = samples if rows_first else samples.swapaxes(0, 1)
    depth = grid.shape[2] if grid.ndim == 3 else 1
    lines = -(-needed // (grid.shape[1] * depth))
    low = np.ascontiguousarray(grid[:lines]).reshape(-1)[:needed] & 1
    return np.packbits(low[: len(low) // 8 * 8]).tobytes()
