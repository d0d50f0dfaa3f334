"""ScreenMark on files: the overlay of a message as a picture with transparency, for a compositor to tile."""

from __future__ import annotations

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.files import write_atomic
from vestige.core.image_io import encode
from vestige.core.work import Result, Work
from vestige.watermark.screenmark import ScreenMark


def make(work: Work) -> Result:
    """Write the overlay of ``--message`` and the key as a .png with transparency, to be tiled over a screen.

    Setting: width and height (0 for one period), the size of the screen it covers.
    """
    work.only(0)
    out = work.out_file(".png")
    width, height = work.option("width", 0), work.option("height", 0)
    work.settled()
    if not work.message:
        raise UsageError("screenmark needs --message, up to 5 letters that the overlay carries.")
    if not 0 <= min(width, height) <= max(width, height) <= 16384:
        raise UsageError(f"A screen is 1 to 16384 pixels wide and high; got {width}×{height}.")
    mark = ScreenMark(work.model, device=work.device)
    period = mark.keyed_overlay(work.message, work.key)
    height, width = height or period.shape[1], width or period.shape[2]
    tiled = np.tile(period, (1, -(-height // period.shape[1]), -(-width // period.shape[2])))[:, :height, :width]
    write_atomic(out, encode(np.ascontiguousarray(tiled[:3].transpose(1, 2, 0)), "PNG", alpha=tiled[3]))
    return Result({"width": width, "height": height, "opacity": mark.alpha}, [out])
