"""The frames of animated pictures, upright, each decoded whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from vestige.core.pictures.decoding import DEFAULT_LIMITS, Limits, open_image, prefill, silenced
from vestige.core.pictures.orientation import orient, orientation_of

#: Formats whose frames Pillow gives although their data breaks off: these are decoded onto two canvases and compared.
_CANVAS = ("GIF", "PNG")


class BrokenFrameError(Exception):
    """The frame whose number is given cannot be decoded, or not all of it."""


def frames_of(
    data: bytes, name: str, numbers: Iterable[int], limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[int, np.ndarray]]:
    """(number, uint8 H×W×3 RGB upright) of the frames asked for, in rising order.

    Raises BrokenFrameError at the first that is damaged, InputError where the file cannot be opened.
    """
    first, kind = open_image(data, name, limits)
    images = [first, open_image(data, name, limits)[0]] if kind in _CANVAS else [first]
    for image, level in zip(images, (0, 255), strict=False):
        if len(images) > 1:
            prefill(image, level)
    last = -1
    for number in numbers:
        try:
            with silenced():
                decoded = [_frame(image, range(last + 1, number + 1)) for image in images]
        except Exception:  # Pillow raises many types on damaged frames
            raise BrokenFrameError(number) from None
        if any((frame != decoded[0]).any() for frame in decoded[1:]):
            raise BrokenFrameError(number)
        last = number
        yield number, orient(decoded[0], orientation_of(first, kind))


def _frame(image: Any, numbers: range) -> np.ndarray:
    """The last of the frames; each on the way is decoded, since later ones are drawn over it."""
    for number in numbers[:-1] if image.format == "GIF" else ():
        image.seek(number)
        image.load()
    image.seek(numbers[-1])
    return np.asarray(image.convert("RGB"))
