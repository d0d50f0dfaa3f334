"""What sort of picture it is: a cheap check, because examiners and their error rates were made on photographs.

Photographs have sensor noise and many colours. Flat graphics, line art and screenshots have neither, so examiners of
photographs do not apply to them; where light, colour, detail or pixels are few, their error rates are not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vestige.core.verdict import Domain

if TYPE_CHECKING:
    from vestige.core.picture import ImageSubject

GRAPHICS = "flat graphics"
#: Side of the squares looked at, and how many at most in each direction.
_SIDE, _ACROSS = 256, 3
#: A square is graphics where this share of it equals its neighbours, and 64 colours cover that one; without colour,
#: where there are 256 values at most, the second pair, and 16 of them. Of 1,736 published photographs 1.3 % are such
#: pictures (objects on a plain ground), of 100 screenshots 99 %, of 61 drawn graphics 90 %; as JPEG 75 85 % and 61 %.
_FLAT, _COVERED = 0.35, 0.6
_FLAT_GREY, _COVERED_GREY = 0.5, 0.7
#: Share of the squares from which on the picture as a whole, or in part, is graphics.
_WHOLE, _PART = 0.6, 0.2
#: Bounds below (or above) which a picture is outside what rates were measured on; together they touch 4 % of the same
#: photographs. Shorter side in pixels; 90th percentile of luma; mean spread of the channels; share of luma above 225;
#: share of 8×8 blocks without noise.
_TINY, _DARK, _GREY, _WHITE, _PLAIN = 128, 60.0, 2.0, 0.5, 0.2

_SAYS = {
    GRAPHICS: "The picture is as flat as graphics, line art and screenshots are: examiners made for photographs do not "
    "apply.",
    "partly flat graphics": "Parts are flat graphics, as in a screenshot or a page with pictures: noise and "
    "compression differ between the parts without any edit.",
    "tiny": "The picture is tiny: few pixels carry few traces, and error rates were measured on larger ones.",
    "dark": "The picture is dark, as at night: error rates were measured on photographs in ordinary light.",
    "without colour": "The picture is without colour (black and white, infrared or a scan): error rates were measured "
    "mostly on colour photographs.",
    "mostly white": "The ground is mostly white (a scan, a drawing or an object before white): sharp and empty parts "
    "differ there without any edit.",
    "plain": "Large parts carry no noise at all (plain ground, strong smoothing or shallow focus): noise differs "
    "between the parts without any edit.",
}


def domain_of(subject: ImageSubject) -> Domain:
    """What sort of picture the subject is; measured once a subject. Raises InputError when it cannot be decoded."""
    return subject.shared("domain", lambda: measure(subject.pixels))


def measure(pixels: np.ndarray) -> Domain:
    """The domain of upright samples, uint8 H×W×3.

    >>> measure(np.full((200, 200, 3), 128, np.uint8)).names[0]
    'flat graphics'
    """
    squares = _squares(pixels)
    rows = [_square(s) for s in squares]
    flat, covered, white, dead, p90, spread = (np.array(column) for column in zip(*rows, strict=True))
    grey = spread < _GREY
    edges = np.where(grey, _FLAT_GREY, _FLAT), np.where(grey, _COVERED_GREY, _COVERED)
    graphic = float(((flat > edges[0]) & (covered > edges[1])).mean())
    names = []
    if graphic >= _WHOLE:
        names.append(GRAPHICS)
    elif graphic >= _PART and len(rows) > 1:
        names.append("partly flat graphics")
    outside = {
        "tiny": min(pixels.shape[:2]) < _TINY,
        "dark": float(p90.max()) < _DARK,
        "without colour": float(spread.mean()) < _GREY,
        "mostly white": float(white.mean()) > _WHITE,
        "plain": float(dead.mean()) > _PLAIN,
    }
    if graphic < _WHOLE:
        names += [name for name, out in outside.items() if out]
    measured = {
        "graphic": graphic, "flat": float(flat.mean()), "covered_by_few_colours": float(covered.mean()),
        "white": float(white.mean()), "without_noise": float(dead.mean()), "bright_end": float(p90.max()),
        "colour": float(spread.mean()), "shorter_side": float(min(pixels.shape[:2])),
    }  # fmt: skip
    return Domain(tuple(names), tuple(_SAYS[n] for n in names), {k: round(v, 4) for k, v in measured.items()})


def _squares(pixels: np.ndarray) -> list[np.ndarray]:
    """Up to 3×3 squares spread evenly over the picture."""
    starts = [
        np.unique(np.linspace(0, max(n - _SIDE, 0), min(_ACROSS, -(-n // _SIDE))).astype(int)) for n in pixels.shape[:2]
    ]
    return [pixels[y : y + _SIDE, x : x + _SIDE] for y in starts[0] for x in starts[1]]


def _square(pixels: np.ndarray) -> tuple[float, float, float, float, float, float]:
    """Of one square: shares of samples equal to the next ones, of its commonest colours, of white, and of blocks
    without noise; 90th percentile of luma; mean spread of the channels."""
    codes = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    corner = codes[:-1, :-1]
    same = (corner == codes[1:, :-1]) & (corner == codes[:-1, 1:])
    counts = np.unique(codes, return_counts=True)[1]
    colour = float((pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)).mean())
    few = 16 if colour < _GREY else 64
    covered = float(np.sort(counts)[-few:].sum() / codes.size)
    luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    height, width = (n // 8 * 8 for n in luma.shape)
    blocks = luma[:height, :width].reshape(height // 8, 8, width // 8, 8)
    spread, mean = blocks.std(axis=(1, 3)), blocks.mean(axis=(1, 3))
    inner = (mean > 4) & (mean < 251)
    dead = float(((spread < 0.5) & inner).sum() / max(int(inner.sum()), 1))
    return (
        float(same.mean()) if same.size else 1.0, covered, float((luma > 225).mean()), dead,
        float(np.quantile(luma, 0.9)), colour,
    )  # fmt: skip
