"""Reading and writing pictures: bounded, colour-managed, upright, in eight or sixteen bits.

`decode` gives both the picture as a person sees it (upright, sRGB) and the samples exactly as the file stores them,
because forensic traces live on the stored grid.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import InputError, LimitError, UsageError
from vestige.core.files import write_atomic
from vestige.core.sniff import IMAGE_FORMATS, sniff

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
    ".bmp": "BMP", ".gif": "GIF", ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF",
}  # fmt: skip

#: How a picture stored with EXIF orientation k is made upright, as (transpose, flip rows, flip columns).
_UPRIGHT = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Bounds checked before any pixel is decoded.

    max_pixels_per_byte refuses decompression bombs: above ``ratio_from`` pixels, a file that holds fewer bytes than
    one per ``max_pixels_per_byte`` pixels is not a photograph.
    """

    max_bytes: int = 512 * 2**20
    max_pixels: int = 120_000_000
    max_side: int = 65_535
    max_pixels_per_byte: float = 400.0
    ratio_from: int = 4_000_000


DEFAULT_LIMITS = Limits()


@dataclass
class Decoded:
    """A decoded picture.

    stored: uint8 H×W×3, the samples as stored (before orientation and colour management).
    pixels: uint8 H×W×3, upright sRGB. deep: uint16 H×W×3 upright for 16-bit sources, else None.
    alpha: uint8 H×W upright, None when opaque. notes: anything the reader had to decide.
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


@cache
def _pillow() -> Any:
    from PIL import Image, PngImagePlugin

    Image.MAX_IMAGE_PIXELS = None  # our own limits are checked on every open, before decoding
    PngImagePlugin.MAX_TEXT_CHUNK = 4 * 2**20  # workflows of image generators exceed the default
    return Image


@cache
def _register_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def orient(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an h×w(×c) array from stored to display orientation (EXIF orientation 1 to 8)."""
    if orientation not in _UPRIGHT:
        return array
    transpose, rows, columns = _UPRIGHT[orientation]
    if transpose:
        array = array.swapaxes(0, 1)
    if rows:
        array = array[::-1]
    if columns:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


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


def open_image(data: bytes, name: str = "image", limits: Limits = DEFAULT_LIMITS) -> tuple[Any, str]:
    """The undecoded Pillow image and its format, after every limit was checked against the header.

    Raises InputError for unknown or damaged files, LimitError for pictures beyond the limits.
    """
    kind = sniff(data[:300])
    if kind not in IMAGE_FORMATS:
        known = ", ".join(IMAGE_FORMATS)
        raise InputError(f"{name} is not a picture vestige reads (content looks like {kind}); it reads {known}.")
    if kind == "HEIF" and not _register_heif():
        raise InputError(f"{name} is HEIF; install pillow-heif to read it.")
    Image = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            formats = [kind] if kind != "AVIF" else ["AVIF", *(["HEIF"] if _register_heif() else [])]
            formats = formats if kind != "JPEG" else ["JPEG", "MPO"]
            image = Image.open(io.BytesIO(data), formats=formats)
    except Exception as error:  # Pillow's readers raise many types on damaged headers
        raise InputError(f"{name} is a damaged {kind} file ({_reason(error)}).") from None
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


def decode(data: bytes, name: str = "image", limits: Limits = DEFAULT_LIMITS) -> Decoded:
    """Decode the first frame of a picture.

    Raises InputError for damaged files and LimitError beyond the limits.

    >>> decode(encode(np.zeros((4, 6, 3), np.uint8), "PNG")).pixels.shape
    (4, 6, 3)
    """
    image, kind = open_image(data, name, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(image, kind, data)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{name} is a damaged {kind} file ({_reason(error)}).") from None


def _decode(image: Any, kind: str, data: bytes) -> Decoded:
    notes: list[str] = []
    orientation = _orientation(image, kind)
    frames = int(getattr(image, "n_frames", 1) or 1)
    mode = image.mode
    deep_stored = _sixteen_bit(image, kind, data)
    image.load()
    if frames > 1:
        notes.append(f"first of {frames} frames")
    alpha_image = None
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        alpha_image = alpha if alpha.min() < 255 else None
    stored = _to_rgb8(image, deep_stored)
    icc_name, managed = _to_srgb(image, stored, notes)
    deep = None
    if deep_stored is not None:
        deep = orient(deep_stored, orientation)
    pixels = orient(managed, orientation)
    if deep is not None and managed is not stored:
        deep = None  # colour management happened in eight bits
    return Decoded(
        format=kind,
        mode=mode,
        stored=stored,
        pixels=pixels,
        deep=deep,
        alpha=None if alpha_image is None else orient(alpha_image, orientation),
        orientation=orientation,
        bit_depth=16 if deep_stored is not None else (1 if mode == "1" else 8),
        frames=frames,
        icc_name=icc_name,
        notes=notes,
    )


def _orientation(image: Any, kind: str) -> int:
    if kind in ("HEIF", "AVIF"):
        return 1  # the reader applies the container's transformation itself
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF must not keep the picture from being read
        return 1
    return value if value in _UPRIGHT else 1


def _sixteen_bit(image: Any, kind: str, data: bytes) -> np.ndarray | None:
    """uint16 H×W×3 as stored for 16-bit PNG and TIFF, which Pillow would cut to eight bits in colour."""
    deep = image.mode.startswith("I;16") or image.mode in ("I", "F")
    if kind == "PNG":
        deep = deep or (len(data) > 24 and data[24] == 16)
    elif kind == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        deep = deep or max(bits if isinstance(bits, tuple) else (bits,)) == 16
    if kind not in ("PNG", "TIFF") or not deep:
        return None
    import cv2

    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None or array.dtype != np.uint16 or array.shape[:2] != (image.height, image.width):
        return None
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array[:, :, 2::-1])


def _to_rgb8(image: Any, deep: np.ndarray | None) -> np.ndarray:
    if deep is not None:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        array = np.asarray(image).astype(np.float64)
        finite = array[np.isfinite(array)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if image.mode != "F" and low >= 0 and high <= 65535:
            low, high = 0.0, 65535.0 if high > 255 else 255.0
        array = np.nan_to_num((array - low) / (high - low or 1.0)).clip(0, 1)
        return np.repeat((array * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _to_srgb(image: Any, stored: np.ndarray, notes: list[str]) -> tuple[str, np.ndarray]:
    """Name of the embedded profile and the sRGB samples (``stored`` itself when nothing had to change)."""
    profile = image.info.get("icc_profile")
    if not profile:
        return "", stored
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = (ImageCms.getProfileDescription(source) or "").strip()[:80]
        if "srgb" in name.lower():
            return name, stored
        space = source.profile.xcolor_space.strip()
        if space == "CMYK" and image.mode == "CMYK":
            base = image
        elif space == "RGB":
            base = Image.fromarray(stored)
        elif space == "GRAY" and image.mode in ("L", "LA"):
            base = image.convert("L")
        else:
            notes.append(f"colour profile {name!r} does not fit mode {image.mode} and was ignored")
            return name, stored
        converted = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return name, np.asarray(converted)
    except Exception as error:  # a broken profile must not keep the picture from being read
        notes.append(f"embedded colour profile could not be applied ({_reason(error)})")
        return "unreadable", stored


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
        return _encode_deep(pixels, format)
    image = _pillow().fromarray(np.ascontiguousarray(pixels))
    if alpha is not None and format in ("PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        image = image.convert("RGB")
        image.putalpha(_pillow().fromarray(alpha))
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
    if format == "HEIF" and not _register_heif():
        raise UsageError("Writing HEIF needs pillow-heif; install it or choose another format.")
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **options)
    except (RuntimeError, ValueError, OSError, struct.error) as error:
        advice = "write it without metadata" if exif or xmp or icc else "choose another format"
        raise UsageError(f"{format} cannot hold this picture ({_reason(error)}); {advice}.") from None
    return buffer.getvalue()


def _encode_deep(pixels: np.ndarray, format: str) -> bytes:
    if format not in ("PNG", "TIFF"):
        raise UsageError(f"{format} holds eight bits a channel; write 16-bit pictures as PNG or TIFF.")
    import cv2

    ordered = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
    _, buffer = cv2.imencode(".png" if format == "PNG" else ".tiff", ordered)
    return buffer.tobytes()


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
    return np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1)[None] / scale)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """float32 3×H×W or 1×3×H×W in [0, 1] -> uint8 H×W×3, rounded to nearest."""
    array = np.asarray(images)
    array = array[0] if array.ndim == 4 else array
    return np.ascontiguousarray((array.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
