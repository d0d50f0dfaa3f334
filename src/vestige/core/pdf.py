"""The pictures in PDF documents, read by PDFium (``pip install 'vestige[documents]'``)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import InputError, LimitError
from vestige.core.image_io import DEFAULT_LIMITS, Limits, encode
from vestige.core.parts import MOST, MadeSubject, Part, Parts, spread
from vestige.core.picture import ImageSubject
from vestige.core.records.text import clean

EXTRA = "a PDF document, whose pictures are read with: pip install 'vestige[documents]'"
_MOST_PAGES, _MOST_PICTURES, _MAX_BYTES = 5000, 20_000, 2 * 2**30


def can_read() -> bool:
    """Whether the optional package that reads PDF documents is installed."""
    return find_spec("pypdfium2") is not None


def pictures_of(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Parts:
    """The pictures of a document, each once, however many pages show it; JPEG pictures with their own bytes.

    Raises InputError for a damaged document or one with a password, LimitError beyond the limits.
    """
    import pypdfium2 as pdfium

    path = Path(path)
    size = path.stat().st_size
    if not size:
        raise InputError(f"{path} is empty.")
    if size > _MAX_BYTES:
        raise LimitError(f"{path} is {size / 2**30:.1f} GiB; the limit for documents is {_MAX_BYTES / 2**30:.0f} GiB.")
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        locked = "password" in str(error).lower()
        why = "needs a password; save it without one" if locked else f"is a damaged PDF document ({clean(error, 80)})"
        raise InputError(f"{path} {why}.") from None
    pages = min(len(document), _MOST_PAGES)
    notes = [f"Only its first {_MOST_PAGES} of {len(document)} pages were read."] if len(document) > pages else []
    notes += _facts(document)
    found: list[tuple[int, int]] = []
    seen: set[bytes] = set()
    for number in range(pages):
        try:
            for index, picture in enumerate(_images(document[number])):
                digest = hashlib.sha256(bytes(picture.get_data(decode_simple=False))).digest()
                digest += repr(picture.get_px_size()).encode()
                if digest not in seen and len(found) < _MOST_PICTURES:
                    seen.add(digest)
                    found.append((number, index))
        except (pdfium.PdfiumError, ValueError, MemoryError) as error:
            notes.append(f"Page {number + 1} cannot be read ({clean(error, 80)}).")
    shown = f"{pages} page" + "s" * (pages != 1)
    notes.insert(0, f"The document has {shown} and {len(found)} different picture{'s' * (len(found) != 1)} in them.")

    def opener(number: int, index: int) -> Callable[[], ImageSubject]:
        return lambda: _open(document, number, index, f"{path}, page {number + 1}, picture {index + 1}", limits)

    taken = []
    for k in spread(len(found), MOST):
        number, index = found[k]
        taken.append(Part(f"page {number + 1}, picture {index + 1}", opener(number, index)))
    return Parts("picture", len(found), taken, notes=notes)


def _images(page: Any) -> list[Any]:
    import pypdfium2 as pdfium

    return list(page.get_objects(filter=[pdfium.raw.FPDF_PAGEOBJ_IMAGE], max_depth=15))


def _open(document: Any, number: int, index: int, source: str, limits: Limits) -> ImageSubject:
    import pypdfium2 as pdfium

    try:
        page = document[number]
        picture = _images(page)[index]
        width, height = picture.get_px_size()
        if width * height > limits.max_pixels or max(width, height) > limits.max_side:
            raise LimitError(
                f"it is {width}×{height} ({width * height / 1e6:.0f} megapixels); the limit is "
                f"{limits.max_pixels / 1e6:.0f} megapixels (--max-megapixels raises it)."
            )
        if picture.get_filters() == ["DCTDecode"]:
            return ImageSubject(bytes(picture.get_data(decode_simple=False)), source, limits)
        pixels = np.array(picture.get_bitmap(render=False).to_numpy())
    except (pdfium.PdfiumError, ValueError, IndexError) as error:
        raise InputError(f"it cannot be decoded ({clean(error, 80)}).") from None
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        rgb = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, 2)
    else:
        rgb = np.ascontiguousarray(pixels[..., 2::-1])  # PDFium's order is blue, green, red
    return MadeSubject(encode(rgb, "PNG"), source, limits)


def _facts(document: Any) -> list[str]:
    """What the document says of itself."""
    try:
        table = document.get_metadata_dict(skip_empty=True)
    except Exception:  # a damaged table is no reason to leave the pictures out
        return []
    names = ("Producer", "Creator", "Author", "Title", "CreationDate", "ModDate")
    said = [f"{name} {clean(table[name], 80)}" for name in names if table.get(name)]
    return [f"The document says of itself: {'; '.join(said)}."] if said else []
