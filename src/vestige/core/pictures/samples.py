"""From what a library decodes to samples: eight or sixteen bits of RGB, transparency, sRGB."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
BITS, SAMPLE_FORMAT = 258, 339


def tiff_bits(image: Any) -> int:
    """Bits a sample that a TIFF states (the most of its channels), 8 where it states none."""
    value = getattr(image, "tag_v2", {}).get(BITS, (8,))
    values = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int)]
    return max(values, default=8)


def sixteen_bit(image: Any, kind: str, data: bytes) -> tuple[np.ndarray | None, np.ndarray | None]:
    """uint16 H×W×3 and alpha H×W as stored, for 16-bit PNG and TIFF, which Pillow would cut to eight bits."""
    deep = data[24] == 16 if kind == "PNG" and len(data) > 24 else kind == "TIFF" and tiff_bits(image) == 16
    if not deep:
        return None, None
    import cv2

    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None or array.dtype != np.uint16 or array.shape[:2] != (image.height, image.width):
        return None, None
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2), None
    alpha = np.ascontiguousarray(array[..., 3]) if array.shape[2] == 4 else None
    return np.ascontiguousarray(array[:, :, 2::-1]), alpha


def to_eight(deep: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, rounded to nearest."""
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_rgb8(image: Any, notes: list[str]) -> np.ndarray:
    """uint8 H×W×3 of a loaded Pillow image of any mode."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _wide(image, notes)
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _wide(image: Any, notes: list[str]) -> np.ndarray:
    """Grey of more than eight bits a sample, brought to eight."""
    array = np.asarray(image)
    kind = getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, (1,))
    unsigned = (kind[0] if isinstance(kind, tuple) else kind) == 1
    if image.mode == "I" and unsigned and tiff_bits(image) == 32:
        array = array.view(np.uint32)  # Pillow has signed samples only: the upper half would come out negative
    array = array.astype(np.float64)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0 if high > 255 else 255.0
    else:
        notes.append(f"Its samples reach from {low:.6g} to {high:.6g} and were scaled to eight bits.")
    array = np.nan_to_num((array - low) / (high - low or 1.0)).clip(0, 1)
    return np.repeat((array * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)


def alpha_of(image: Any) -> np.ndarray | None:
    """uint8 H×W transparency of a loaded Pillow image, None when it is opaque."""
    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return alpha if alpha.min(initial=255) < 255 else None


def to_srgb(image: Any, stored: np.ndarray, notes: list[str]) -> tuple[str, np.ndarray]:
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
            notes.append(f"Its colour profile {name!r} does not fit its mode {image.mode} and was ignored.")
            return name, stored
        converted = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return name, np.asarray(converted)
    except Exception as error:  # a broken profile must not keep the picture from being read
        said = " ".join(str(error).split())[:120] or type(error).__name__
        notes.append(f"Its embedded colour profile could not be applied ({said}).")
        return "unreadable", stored


def reduced(image: Any, scale: int) -> Any:
    """The loaded Pillow image at 1/scale of its size, averaged over squares, in strips so that memory stays low."""
    from PIL import Image

    wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    mode = image.mode if image.mode in ("L", "RGB", "RGBA", "LA", "CMYK", "I", "F") else ("I" if wide else "RGB")
    if image.mode in ("P", "PA") or "transparency" in image.info:
        mode = "RGBA"
    width, height = -(-image.width // scale), -(-image.height // scale)
    out = Image.new(mode, (width, height))
    step = max(1, 2_000_000 // max(1, image.width * scale)) * scale
    for top in range(0, image.height, step):
        strip = image.crop((0, top, image.width, min(top + step, image.height)))
        if strip.mode != mode:
            strip = strip.convert(mode)
        out.paste(strip.reduce(scale), (0, top // scale))
    out.info = {k: v for k, v in image.info.items() if k == "icc_profile"}
    return out
