"""A picture as a subject: its file's bytes and, on demand, its samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vestige.core.errors import InputError, LimitError
from vestige.core.image_io import (
    DEFAULT_LIMITS,
    Decoded,
    Limits,
    decode,
    open_image,
    orient,
    read_bytes,
    to_float,
)
from vestige.core.pictures.completeness import END_OF_IMAGE

T = TypeVar("T")


@dataclass
class ImageSubject:
    """A picture: its file's bytes and, on demand, its samples.

    ``stored`` is uint8 H×W×3 exactly as in the file; ``pixels`` is the same upright and in sRGB; ``image`` is float32
    1×3×H×W in [0, 1]. Decoding happens once, on first use.

    >>> from vestige.core.image_io import encode
    >>> ImageSubject(encode(np.zeros((4, 6, 3), np.uint8), "PNG")).image.shape
    (1, 3, 4, 6)
    """

    data: bytes = field(repr=False)
    source: str = "image"
    limits: Limits = DEFAULT_LIMITS
    _shared: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def shared(self, name: str, compute: Callable[[], T]) -> T:
        """A measurement that several examiners use, computed by the first that asks."""
        if name not in self._shared:
            self._shared[name] = compute()
        return self._shared[name]

    @classmethod
    def open(cls, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> ImageSubject:
        """Read a file and check its header; raises InputError or LimitError."""
        subject = cls(read_bytes(path, limits), str(path), limits)
        subject._header  # noqa: B018 - refuse bad files here, not at first use
        return subject

    @classmethod
    def of_pixels(cls, pixels: np.ndarray, source: str) -> ImageSubject:
        """A picture without a file: uint8 H×W×3, upright sRGB, for what works on pixels alone."""
        height, width = pixels.shape[:2]
        subject = cls(b"", source)
        subject.__dict__["_header"] = ("PNG", width, height, {})
        subject.__dict__["decoded"] = Decoded("PNG", "RGB", pixels, pixels, None, None, 1, 8, 1, "")
        return subject

    @cached_property
    def file_alone(self) -> ImageSubject:
        """The same file without its samples, for what reads only the file; using them raises LimitError."""
        subject = _FileAlone(self.data, self.source, self.limits)
        subject.__dict__["_header"] = self._header
        return subject

    @cached_property
    def _header(self) -> tuple[str, int, int, dict[str, Any]]:
        image, kind = open_image(self.data, self.source, self.limits)
        return kind, image.width, image.height, dict(image.info)

    @cached_property
    def decoded(self) -> Decoded:
        return decode(self.data, self.source, self.limits)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height that the file states, upright, whatever the scale it was decoded at."""
        _, width, height, _ = self._header
        decoded = self.decoded
        if decoded.scale == 1:
            return decoded.pixels.shape[1], decoded.pixels.shape[0]
        upright = decoded.pixels.shape[1] >= decoded.pixels.shape[0]
        return (max(width, height), min(width, height)) if upright else (min(width, height), max(width, height))

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be said of how the file was read: what was not decoded first."""
        decoded = self.decoded
        return tuple(s for s in (decoded.missing, *decoded.notes) if s)

    def whole(self) -> ImageSubject:
        """The picture itself, for verbs that write one; raises InputError where not all of it was decoded."""
        if self.decoded.missing or self.decoded.scale > 1:
            raise InputError(f"{self.source} cannot be changed and written. {' '.join(self.notes)}")
        return self

    @property
    def format(self) -> str:
        return self._header[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the file's header states them, before any turning."""
        return self._header[1:3]

    @property
    def info(self) -> dict[str, Any]:
        """Pillow's header information (text chunks, profiles, density), untrusted."""
        return self._header[3]

    @property
    def stored(self) -> np.ndarray:
        return self.decoded.stored

    @property
    def pixels(self) -> np.ndarray:
        return self.decoded.pixels

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def alpha(self) -> np.ndarray | None:
        return self.decoded.alpha

    @property
    def image(self) -> np.ndarray:
        """float32 1×3×H×W in [0, 1], upright sRGB, from sixteen bits where the file has them."""
        return to_float(self.pixels if self.decoded.deep is None else self.decoded.deep)

    @cached_property
    def luma(self) -> np.ndarray:
        """float32 H×W in [0, 255], as stored: the JPEG's own Y samples, BT.601 luma of ``stored`` otherwise."""
        decoded = self.decoded
        if decoded.format == "JPEG" and decoded.scale == 1 and not decoded.missing:
            own = _jpeg_luma(self.data if decoded.ended else self.data + END_OF_IMAGE, self.source, self.limits)
            if own is not None:
                return own
        r, g, b = (self.stored[..., c].astype(np.float32) for c in range(3))
        return 0.299 * r + 0.587 * g + 0.114 * b

    def upright(self, map: np.ndarray) -> np.ndarray:
        """Turn a map made on the stored grid into display orientation."""
        return orient(map, self.decoded.orientation)


class _FileAlone(ImageSubject):
    """A picture of which only the file is looked at."""

    @cached_property
    def decoded(self) -> Decoded:
        raise LimitError(
            "the picture is so large that it is examined at a smaller scale, where this one cannot be used"
        )


def _jpeg_luma(data: bytes, name: str, limits: Limits) -> np.ndarray | None:
    """The Y samples of a JPEG known to be whole, None where it stores others (RGB, CMYK)."""
    image, _ = open_image(data, name, limits)
    if image.mode not in ("RGB", "L"):
        return None
    try:
        image.draft("YCbCr" if image.mode == "RGB" else "L", image.size)
        image.load()
    except OSError:  # the decoder turns RGB into nothing else
        return None
    return np.asarray(image.getchannel(0)).astype(np.float32)
