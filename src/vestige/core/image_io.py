"""Reading and writing pictures: bounded, colour-managed, upright, in eight or sixteen bits.

`decode` gives both the picture as a person sees it (upright, sRGB) and the samples exactly as the file stores them,
because forensic traces live on the stored grid. It is strict: a file that does not hold all its samples is refused,
unless ``Limits.partial`` asks for what is there, which `Decoded.notes` then says.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import InputError, LimitError, UsageError
from vestige.core.files import write_atomic
from vestige.core.pictures.completeness import png_chunk
from vestige.core.pictures.decoding import (
    DEFAULT_LIMITS,
    EXAMINE_LIMITS,
    EXAMINED_PIXELS,
    Decoded,
    Limits,
    decode,
    open_image,
    pillow,
    register_heif,
)  # fmt: skip
from vestige.core.pictures.orientation import orient
from vestige.core.sniff import IMAGE_FORMATS

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
    ".bmp": "BMP", ".gif": "GIF", ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF",
}  # fmt: skip

__all__ = [
    "DEFAULT_LIMITS", "EXAMINED_PIXELS", "EXAMINE_LIMITS", "SUFFIXES", "Decoded", "Limits", "decode", "encode",
    "format_for", "open_image", "orient", "read_bytes", "save_image", "to_float", "to_uint8",
]  # fmt: skip


def read_bytes(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a file, within ``limits.max_bytes``.

    Raises InputError when it is missing, not a file or empty; LimitError when it is too large.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it.")
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise LimitError(f"{path} is {size / 2**20:.0f} MiB; the limit is {limits.max_bytes / 2**20:.0f} MiB.")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file; copy its content to a file first.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    if not data:
        raise InputError(f"{path} is empty.")
    return data


def _reason(error: BaseException) -> str:
    if isinstance(error, struct.error | zlib.error | IndexError | KeyError):
        return "inconsistent structure"
    text = " ".join(re.sub(r"<[^>]*>", "data", str(error)).split())
    return (text or type(error).__name__)[:120]


def encode(
    pixels: np.ndarray,
    format: str = "PNG",
    *,
    quality: int = 95,
    alpha: np.ndarray | None = None,
    subsampling: int = 0,
    exif: bytes | None = None,
    icc: bytes | None = None,
    xmp: bytes | None = None,
) -> bytes:
    """Encode uint8 or uint16 H×W×3 (or H×W) samples with defaults that keep faint signals alive.

    JPEG and AVIF are written without chroma subsampling; WebP is lossless at quality 100. uint16 goes to PNG or TIFF.
    Raises UsageError for a format vestige does not write.
    """
    format = {"JPG": "JPEG", "TIF": "TIFF", "HEIC": "HEIF"}.get(format.upper(), format.upper())
    if format not in IMAGE_FORMATS:
        raise UsageError(f"Cannot write {format}; choose one of {', '.join(IMAGE_FORMATS)}.")
    if pixels.dtype == np.uint16:
        return _encode_deep(pixels, format, alpha, exif, xmp)
    image = pillow().fromarray(np.ascontiguousarray(pixels))
    if alpha is not None and format in ("PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        image = image.convert("RGB")
        image.putalpha(pillow().fromarray(alpha))
    options: dict[str, Any] = {
        "JPEG": {"quality": quality, "subsampling": subsampling},
        "PNG": {"compress_level": 6},
        "WEBP": {"lossless": True} if quality >= 100 else {"quality": quality, "method": 4},
        "TIFF": {"compression": "tiff_deflate"},
        "AVIF": {"quality": quality, "subsampling": "4:4:4" if subsampling == 0 else "4:2:0"},
        "HEIF": {"quality": quality, "chroma": 444 if subsampling == 0 else 420},
    }.get(format, {})
    if format not in ("GIF", "BMP"):
        carried = {"exif": exif, "icc_profile": icc, "xmp": xmp if format not in ("PNG", "TIFF") else None}
        options |= {name: value for name, value in carried.items() if value}
        if xmp and format == "PNG":
            from PIL.PngImagePlugin import PngInfo

            options["pnginfo"] = PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    if format == "HEIF" and not register_heif():
        raise UsageError("Writing HEIF needs pillow-heif; install it or choose another format.")
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **options)
    except (RuntimeError, ValueError, OSError, struct.error) as error:
        advice = "write it without metadata" if exif or xmp or icc else "choose another format"
        raise UsageError(f"{format} cannot hold this picture ({_reason(error)}); {advice}.") from None
    return buffer.getvalue()


def _encode_deep(
    pixels: np.ndarray, format: str, alpha: np.ndarray | None, exif: bytes | None, xmp: bytes | None
) -> bytes:
    """Sixteen bits a channel, which Pillow does not write in colour."""
    if format not in ("PNG", "TIFF"):
        raise UsageError(f"{format} holds eight bits a channel; write 16-bit pictures as PNG or TIFF.")
    import cv2

    ordered = pixels if pixels.ndim == 2 else pixels[:, :, ::-1]
    if alpha is not None and pixels.ndim == 3:
        ordered = np.dstack([ordered, alpha])
    _, buffer = cv2.imencode(".png" if format == "PNG" else ".tiff", np.ascontiguousarray(ordered))
    data = buffer.tobytes()
    if format == "TIFF":
        return data
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + (xmp or b"")
    chunks = [(b"eXIf", exif.removeprefix(b"Exif\0\0"))] if exif else []
    chunks += [(b"iTXt", text)] if xmp else []
    after = 8 + 25  # the header chunk
    return b"".join((data[:after], *(png_chunk(*c) for c in chunks), data[after:]))


def format_for(path: str | Path) -> str:
    """The format a file name asks for; raises UsageError for an unknown ending."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path} has no picture ending; use one of {', '.join(SUFFIXES)}.")
    return SUFFIXES[suffix]


def save_image(path: str | Path, pixels: np.ndarray, **options: Any) -> None:
    """Write a picture atomically, in the format of the file name; options as in `encode`."""
    write_atomic(path, encode(pixels, format_for(path), **options))


def to_float(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 H×W×3 -> float32 1×3×H×W in [0, 1]."""
    scale = np.float32(np.iinfo(pixels.dtype).max)
    out = np.empty((1, 3, *pixels.shape[:2]), np.float32)
    np.divide(pixels.transpose(2, 0, 1), scale, out=out[0], dtype=np.float32)
    return out


def to_uint8(images: np.ndarray) -> np.ndarray:
    """float32 3×H×W or 1×3×H×W in [0, 1] -> uint8 H×W×3, rounded to nearest."""
    array = np.asarray(images)
    array = array[0] if array.ndim == 4 else array
    return np.ascontiguousarray((array.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
