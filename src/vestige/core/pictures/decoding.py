"""Decoding pictures strictly: what the file holds, all of it, and a word for everything the reader decided.

`vestige.core.pictures.orientation.READERS` says for each format what the library does and how a file that lacks samples
shows; `vestige.core.pictures.completeness` looks for them.
"""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from vestige.core.containers import MAX_PARTS, layout
from vestige.core.errors import InputError, LimitError
from vestige.core.pictures.completeness import END_OF_IMAGE, jpeg_scans, png_rows, tiff_strips, whole_png
from vestige.core.pictures.orientation import READERS, blank_tiff, orient, orientation_of
from vestige.core.pictures.raw_files import raw_file
from vestige.core.pictures.samples import alpha_of, reduced, sixteen_bit, to_eight, to_rgb8, to_srgb
from vestige.core.pictures.tiff import tiff_directories
from vestige.core.sniff import IMAGE_FORMATS, sniff, told

#: Pictures of more pixels are examined at a smaller scale, so that a process stays below about a gigabyte.
EXAMINED_PIXELS = 16_000_000
_TRUNCATED = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """Bounds checked before any pixel is decoded, and what to do with pictures that are damaged or large.

    max_pixels_per_byte refuses decompression bombs: above ``ratio_from`` pixels, a file that holds fewer bytes than
    one per ``max_pixels_per_byte`` pixels is not a photograph. partial: read what is there of a damaged picture.
    reduce_above: pictures of more pixels are decoded at 1/2, 1/4 ... of their size, which is said; 0: never.
    """

    max_bytes: int = 512 * 2**20
    max_pixels: int = 120_000_000
    max_side: int = 65_535
    max_pixels_per_byte: float = 400.0
    ratio_from: int = 4_000_000
    partial: bool = False
    reduce_above: int = 0


DEFAULT_LIMITS = Limits()
#: For examining alone: nothing is written of what was decoded at a smaller scale.
EXAMINE_LIMITS = Limits(reduce_above=EXAMINED_PIXELS)


@dataclass
class Decoded:
    """A decoded picture.

    stored: uint8 H×W×3, the samples as stored (before orientation and colour management).
    pixels: uint8 H×W×3, upright sRGB. deep, deep_alpha: uint16 H×W×3 and H×W, upright, for 16-bit sources, else None.
    alpha: uint8 H×W upright, None when opaque. notes: sentences on whatever the reader had to decide.
    scale: the samples are those of the file divided by this number on both sides. missing: what of the picture was not
    decoded, as a sentence; empty where everything was. ended: the file has the marker of its end.
    """

    format: str
    mode: str
    stored: np.ndarray
    pixels: np.ndarray
    deep: np.ndarray | None
    alpha: np.ndarray | None
    orientation: int
    bit_depth: int
    frames: int
    icc_name: str
    notes: list[str] = field(default_factory=list)
    deep_alpha: np.ndarray | None = None
    scale: int = 1
    missing: str = ""
    ended: bool = True


@cache
def pillow() -> Any:
    """Pillow's Image module, its own limits replaced by ours, which are checked before anything is decoded."""
    from PIL import Image, PngImagePlugin

    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = 4 * 2**20  # workflows of image generators exceed the default
    return Image


@cache
def register_heif() -> bool:
    """Whether HEIF can be read."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def open_image(data: bytes, name: str = "image", limits: Limits = DEFAULT_LIMITS) -> tuple[Any, str]:
    """The undecoded Pillow image and its format, after every limit was checked against the header.

    Raises InputError for unknown or damaged files, LimitError for pictures beyond the limits.
    """
    kind = sniff(data[:300])
    if kind not in IMAGE_FORMATS:
        known = ", ".join(IMAGE_FORMATS)
        raise InputError(f"{name} is not a picture vestige reads (content looks like {told(kind)}); it reads {known}.")
    if kind == "HEIF" and not register_heif():
        raise InputError(f"{name} is HEIF; install pillow-heif to read it.")
    if kind == "PNG" and data[12:16] == b"CgBI":
        raise InputError(
            f"{name} is a PNG in Apple's CgBI variant, whose samples are packed and ordered in another way; turn it "
            "into a plain PNG first (pngcrush -revert-iphone-optimizations)."
        )
    if len(layout(data, kind).parts) >= MAX_PARTS.get(kind, MAX_PARTS[""]):
        raise LimitError(f"{name} has more segments than any camera or program writes; it was not decoded.")
    try:
        image = _open(data, kind)
    except Exception as error:  # Pillow's readers raise many types on damaged headers
        raise InputError(f"{name} is a damaged {kind} file ({reason(error)}).") from None
    width, height = image.size
    pixels = width * height
    if pixels > limits.max_pixels or max(width, height) > limits.max_side:
        raise LimitError(
            f"{name} is {width}×{height} ({pixels / 1e6:.0f} megapixels); the limit is "
            f"{limits.max_pixels / 1e6:.0f} megapixels (--max-megapixels raises it)."
        )
    if pixels > limits.ratio_from and pixels > limits.max_pixels_per_byte * len(data):
        raise LimitError(
            f"{name} claims {pixels / 1e6:.0f} megapixels in {len(data) / 1024:.0f} KiB, like a decompression bomb; "
            f"it was not decoded."
        )
    return image, kind


def _open(data: bytes, kind: str) -> Any:
    formats = {"AVIF": ["AVIF", *(["HEIF"] if register_heif() else [])], "JPEG": ["JPEG", "MPO"]}.get(kind, [kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pillow().open(io.BytesIO(data), formats=formats)


def decode(data: bytes, name: str = "image", limits: Limits = DEFAULT_LIMITS) -> Decoded:
    """Decode the first frame of a picture.

    Raises InputError for damaged files, with ``limits.partial`` only for those of which nothing can be read, and
    LimitError beyond the limits.

    >>> from vestige.core.image_io import encode
    >>> decode(encode(np.zeros((4, 6, 3), np.uint8), "PNG")).pixels.shape
    (4, 6, 3)
    """
    image, kind = open_image(data, name, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(image, kind, data, limits)
    except MemoryError:
        raise
    except _DamageError as error:
        raise InputError(f"{name} is a damaged {kind} file ({error}){_advice(kind)}.") from None
    except Exception as error:
        raise InputError(f"{name} is a damaged {kind} file ({reason(error)}){_advice(kind)}.") from None


def _advice(kind: str) -> str:
    return "; find --partial examines what is there" if READERS[kind].partial else ""


class _DamageError(Exception):
    """Not all samples are there; the message says why."""


@dataclass
class _Loaded:
    """A loaded Pillow image and what is known of it; ``data`` are the bytes that were decoded in the end."""

    image: Any
    data: bytes
    notes: list[str] = field(default_factory=list)
    missing: str = ""
    ended: bool = True


def _decode(image: Any, kind: str, data: bytes, limits: Limits) -> Decoded:
    frames, (width, height) = _frames(image, kind, data), image.size
    scale, orientation = _scale(width * height, limits), 1
    if kind == "TIFF":
        data, orientation = blank_tiff(data)
    loaded = _LOADERS.get(kind, _plain)(data, kind, limits, scale)
    image, data, notes = loaded.image, loaded.data, loaded.notes
    if kind != "TIFF":
        orientation = orientation_of(image, kind)
    mode, bits = image.mode, 8
    with silenced():
        deep, deep_alpha = (None, None) if scale > 1 or loaded.missing else sixteen_bit(image, kind, data)
    if deep is not None:
        bits = 16
    if scale > 1:
        notes.append(f"It was examined at 1/{scale} of its size of {width}×{height} pixels, to stay within memory.")
        if kind != "JPEG" or image.size == (width, height):
            image = reduced(image, scale)
    alpha = alpha_of(image)
    stored = to_rgb8(image, notes) if deep is None else to_eight(deep)
    icc_name, managed = to_srgb(image, stored, notes)
    if deep is not None and managed is not stored:
        deep = None  # colour management happened in eight bits
    return Decoded(
        format=kind,
        mode=mode,
        stored=stored,
        pixels=orient(managed, orientation),
        deep=None if deep is None else orient(deep, orientation),
        alpha=None if alpha is None else orient(alpha, orientation),
        orientation=orientation,
        bit_depth=1 if mode == "1" else bits,
        frames=frames,
        icc_name=icc_name,
        notes=notes,
        deep_alpha=None if deep_alpha is None or deep is None else orient(deep_alpha, orientation),
        scale=scale,
        missing=loaded.missing,
        ended=loaded.ended,
    )


def _frames(image: Any, kind: str, data: bytes) -> int:
    if kind == "TIFF":  # Pillow counts pages in quadratic time
        return max(1, sum(d.name.startswith("IFD") for d in tiff_directories(data).items))
    return int(getattr(image, "n_frames", 1) or 1)


def _scale(pixels: int, limits: Limits) -> int:
    if not limits.reduce_above or pixels <= limits.reduce_above:
        return 1
    return 2 ** int(np.ceil(np.log2(pixels / limits.reduce_above) / 2))  # JPEG decoders scale by powers of two


def _plain(data: bytes, kind: str, limits: Limits, scale: int) -> _Loaded:
    """Formats whose libraries refuse what is not whole."""
    image = _open(data, kind)
    image.load()
    return _Loaded(image, data)


def _png(data: bytes, kind: str, limits: Limits, scale: int) -> _Loaded:
    rows = png_rows(data)
    stated, notes = rows.stated, list(rows.stated.notes)
    if not stated.damage:
        image = _open(data, kind)
        image.load()
        return _Loaded(image, data, notes, ended=not notes)
    if not limits.partial or not rows.held:
        raise _DamageError(stated.damage)
    data = whole_png(data)
    image = _open(data, kind)
    image.load()
    return _Loaded(image, data, notes, _partly(stated.rows, image.height, stated.damage))


def _jpeg(data: bytes, kind: str, limits: Limits, scale: int) -> _Loaded:
    scans = jpeg_scans(data)
    if scans.stated.damage and not limits.partial:
        raise _DamageError(scans.stated.damage)
    if not scans.ended:
        data += END_OF_IMAGE
    image = _draft(_open(data, kind), scale)
    image.load()
    loaded = _Loaded(image, data, list(scans.stated.notes), ended=scans.ended)
    if scans.stated.damage:
        loaded.missing = _partly(None, image.height, scans.stated.damage)
    if scans.probed:
        other = _draft(_open(scans.probed, kind), scale)
        other.load()
        rows = _first_difference(np.asarray(image), np.asarray(other))
        if rows is not None:
            damage = "its compressed data breaks off" if scans.ended else "the file breaks off"
            if not limits.partial or not rows:
                raise _DamageError(damage)
            loaded.missing = _partly(rows, image.height, damage)
    return loaded


def _draft(image: Any, scale: int) -> Any:
    if scale > 1:  # the codec scales by whole powers of two as it decodes, at a fraction of the memory
        image.draft(image.mode, (image.width // scale, image.height // scale))
    return image


def _canvas(data: bytes, kind: str, limits: Limits, scale: int) -> _Loaded:
    """Formats decoded twice, onto a dark and a bright canvas: where the two differ nothing was decoded."""
    said = raw_file(data) if kind == "TIFF" else ""
    wrong = _strips(data) if kind == "TIFF" else ""
    if wrong and not limits.partial:
        raise _DamageError(wrong)
    with _lenient(limits.partial), silenced():
        images = []
        for level in (0, 255):
            image = _open(data, kind)
            prefill(image, level)
            image.load()
            images.append(image)
    lacking = _rows_that_differ(np.asarray(images[0]), np.asarray(images[1]))
    loaded = _Loaded(images[0], data, missing=_partly(None, images[0].height, wrong) if wrong else said)
    if lacking.any():
        damage = "not all of its samples are there"
        if not limits.partial or lacking.all():
            raise _DamageError(damage)
        loaded.missing = _partly(int((~lacking).sum()), images[0].height, damage)
    return loaded


def _strips(data: bytes) -> str:
    """What is wrong with a TIFF's compressed strips."""
    wrong, streams = tiff_strips(data)
    for stream in streams:
        scans = jpeg_scans(stream)
        if scans.stated.damage or not scans.ended:
            return scans.stated.damage or "its compressed data breaks off"
        if scans.probed:
            one, other = (np.asarray(_open(s, "JPEG")) for s in (stream, scans.probed))
            if _first_difference(one, other) is not None:
                return "its compressed data breaks off"
    return wrong


_LOADERS: dict[str, Any] = {"PNG": _png, "JPEG": _jpeg, "TIFF": _canvas, "GIF": _canvas, "BMP": _canvas}


def prefill(image: Any, level: int) -> None:
    """Let the decoder write every frame onto a canvas of one level, in the parts that the file says it fills."""
    prepare = image.load_prepare

    def prepared() -> None:
        prepare()
        for tile in image.tile:
            image.im.paste(level if image.im.bands == 1 else (level,) * image.im.bands, tuple(tile[1]))

    image.load_prepare = prepared


@contextmanager
def _lenient(partial: bool) -> Iterator[None]:
    """Pillow's switch for damaged files, which is one for the whole process."""
    if not partial:
        yield
        return
    from PIL import ImageFile

    with _TRUNCATED:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


@contextmanager
def silenced() -> Iterator[None]:
    """Keep what C libraries write to the error stream off the terminal: the caller says it in a sentence."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # there is no such stream
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _rows_that_differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Bool (rows,): in which rows two decodings differ."""
    if one.shape != other.shape:
        return np.ones(len(one), bool)
    out = np.zeros(len(one), bool)
    for k in range(0, len(one), 256):  # in strips: the comparison takes as much memory as the samples
        differs = one[k : k + 256] != other[k : k + 256]
        out[k : k + 256] = differs.reshape(len(differs), -1).any(axis=1)
    return out


def _first_difference(one: np.ndarray, other: np.ndarray) -> int | None:
    """The first row in which two decodings differ, None where they are equal."""
    differs = _rows_that_differ(one, other)
    return int(np.argmax(differs)) if differs.any() else None


def _partly(rows: int | None, height: int, damage: str) -> str:
    held = "what is there" if rows is None else f"{rows} of {height} rows"
    return f"The file is damaged ({damage}): only {held} could be decoded, the rest is filled up."


def reason(error: BaseException) -> str:
    """A library's error in at most 120 characters on one line."""
    if isinstance(error, struct.error | zlib.error | IndexError | KeyError):
        return "inconsistent structure"
    text = " ".join(re.sub(r"<[^>]*>", "data", str(error)).split())
    return (text or type(error).__name__)[:120]
