"""Recoloured pictures for training and testing detectors: the colours are re-mapped, the shapes stay.

Four methods are meant for training and five to be held out. A recolouring counts only when it moves colours by a mean
of 5 in Lab: with the picture itself as reference a method returns it almost unchanged, and such a picture is genuine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import Limits, decode, encode, to_uint8
from vestige.core.runtime import rng
from vestige.data import recolouring_methods as methods
from vestige.data.recolouring_methods import Work, to_lab

#: Smallest mean shift in Lab for a picture to count as recoloured.
LEAST_SHIFT = 5.0
_STRENGTHS = (1.0, 1.6, 2.4)
#: Files written here are trusted: a flat picture may compress as well as it likes.
_TRUSTED = Limits(max_pixels_per_byte=math.inf)


@dataclass(frozen=True)
class Method:
    """A way of recolouring. held_out: meant for tests alone."""

    description: str
    run: Callable[[Work], np.ndarray] = field(repr=False)
    needs_reference: bool = False
    held_out: bool = False


METHODS: dict[str, Method] = {
    "reinhard": Method("mean and deviation in Lab from a reference", methods.statistics_transfer, True),
    "histogram": Method("histograms of R, G and B from a reference", methods.histogram_matching, True),
    "palette": Method("main colours from a reference", methods.palette_transfer, True),
    "segments": Method("segments turned to other hues", methods.segment_hues),
    "curves": Method("hue rotation and tone curves", methods.hue_and_curves, held_out=True),
    "graded": Method("colour grading with a 3-D table", methods.graded, held_out=True),
    "bands": Method("statistics of pyramid bands from a reference", methods.feature_statistics, True, True),
    "colourised": Method("the grey picture, coloured after a reference", methods.colourised, True, True),
    "painted": Method("one region dyed, with soft edges", methods.painted, held_out=True),
}
TRAINING = tuple(name for name, m in METHODS.items() if not m.held_out)
HELD_OUT = tuple(name for name, m in METHODS.items() if m.held_out)


@dataclass
class Recoloured:
    """A picture with new colours.

    image: float32 in the shape of the input, eight-bit values. mask: bool 1×H×W, where colours were re-mapped. shift:
    mean distance in Lab from the input, over the mask.
    """

    image: np.ndarray
    mask: np.ndarray
    method: str
    shift: float
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether the colours moved far enough for the picture to be called recoloured."""
        return self.shift >= LEAST_SHIFT


def lab_shift(before: np.ndarray, after: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean distance |Lab(after) - Lab(before)| (CIE 1976 colour difference) of uint8 H×W×3, over a bool mask H×W.

    >>> lab_shift(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8))
    100.0
    """
    distance = np.linalg.norm(to_lab(after) - to_lab(before), axis=2)
    chosen = distance if mask is None else distance[mask]
    return float(chosen.mean()) if chosen.size else 0.0


def recolour(
    image: np.ndarray,
    method: str,
    reference: np.ndarray | None = None,
    seed: int = 0,
    *,
    least: float = LEAST_SHIFT,
) -> Recoloured:
    """Give a picture new colours.

    image, reference: float 3×H×W sRGB in [0, 1], at least 32 pixels a side; sizes may differ. least: smallest mean
    shift in Lab; methods with a strength try stronger ones. With ``least=0`` and the picture as its own reference the
    result is the picture after the method's arithmetic: a genuine picture that a detector has to leave alone.
    Raises UsageError for an unknown method, a wrong shape or a missing reference; InputError for samples that are not
    finite and where the colours move too little.

    >>> picture = np.random.default_rng(0).random((3, 32, 32)).astype(np.float32)
    >>> recolour(picture, "curves").counts
    True
    """
    if method not in METHODS:
        raise UsageError(f"There is no recolouring method {method!r}; choose one of {', '.join(METHODS)}.")
    chosen = METHODS[method]
    if chosen.needs_reference and reference is None:
        raise UsageError(f"The method {method} takes its colours from a picture; pass reference=.")
    pixels = _pixels(image, "The picture")
    other = _pixels(reference, "The reference") if chosen.needs_reference and reference is not None else None
    result = _best(pixels, other, method, seed, least)
    planes = np.ascontiguousarray(result[0].transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    return Recoloured(planes, result[1][None], method, result[2], result[3])


def _best(
    pixels: np.ndarray, reference: np.ndarray | None, method: str, seed: int, least: float
) -> tuple[np.ndarray, np.ndarray, float, dict[str, Any]]:
    """The first attempt that moves the colours far enough: uint8 H×W×3, mask, shift, details."""
    shift = 0.0
    for attempt, strength in enumerate(_STRENGTHS):
        work = Work(pixels, reference, rng(seed, "recolour", method, attempt), strength)
        found = METHODS[method].run(work)
        mask = np.ones(pixels.shape[:2], bool) if work.mask is None else work.mask
        shift = lab_shift(pixels, found, mask)
        if shift >= least:
            return found, mask, shift, {**work.details, "strength": strength, "seed": seed}
    raise InputError(
        f"The method {method} moves the colours of this picture by {shift:.1f} in Lab, less than {least:g}; take "
        "another reference or method."
    )


@dataclass(frozen=True)
class Versions:
    """Genuine and recoloured versions of pictures after one and the same treatment.

    images: uint8 M×3×S×S. recoloured: bool M. kinds: "as it is", "identity METHOD" or the method's name. sources: int
    M, the picture each was made of.
    """

    images: np.ndarray = field(repr=False)
    recoloured: np.ndarray = field(repr=False)
    kinds: tuple[str, ...] = field(repr=False)
    sources: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: np.ndarray) -> Versions:
        """Those at ``chosen`` (indices or bool)."""
        where = np.arange(len(self))[chosen]
        return Versions(
            self.images[where], self.recoloured[where], tuple(self.kinds[i] for i in where), self.sources[where]
        )

    def of(self, *kinds: str) -> np.ndarray:
        """bool M: versions of these kinds."""
        return np.isin(np.array(self.kinds), kinds)


def versions(
    pictures: np.ndarray,
    use: Sequence[str],
    *,
    each: int | None = None,
    genuine: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Versions:
    """Versions of every picture: ``each`` recoloured ones (all of ``use`` by default) and ``genuine`` ones.

    pictures: uint8 N×3×H×W of one part of the data; references come from the same. Of the genuine versions (as many
    as recoloured ones by default) every third has gone through a method with itself as reference. All are then treated
    alike: two fifths scaled down by up to 12 %, cut to ``size`` at random, three fifths saved as JPEG of quality 85 to
    98, so that neither the grid, interpolation nor the combed histograms of a fresh recolouring tell the classes apart.
    A recolouring that moves colours too little is tried with other references and then left out.
    Raises UsageError for an unknown method or a wrong shape, or when there are fewer than two pictures.
    """
    unknown = [name for name in use if name not in METHODS]
    if unknown or not use:
        raise UsageError(f"Methods must be among {', '.join(METHODS)}; got {', '.join(unknown) or 'none'}.")
    if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.dtype != np.uint8 or len(pictures) < 2:
        raise UsageError(f"Give at least two pictures as uint8 N×3×H×W; got {pictures.dtype} {pictures.shape}.")
    side = min(pictures.shape[2:]) * 7 // 8 if size is None else size
    if not 32 <= side <= min(pictures.shape[2:]) * 7 // 8:
        raise UsageError(f"Versions of these pictures have sides of 32 to {min(pictures.shape[2:]) * 7 // 8} pixels.")
    count = len(use) if each is None else each
    images, labels, kinds, sources = [], [], [], []

    def add(pixels: np.ndarray, kind: str, index: int, number: int) -> None:
        images.append(_treated(pixels, side, rng(seed, "treatment", index, number)))
        labels.append(kind in METHODS)
        kinds.append(kind)
        sources.append(index)

    for index, planes in enumerate(pictures):
        pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
        draw = rng(seed, "versions", index)
        made = 0
        for name in draw.permutation(np.array(use)):
            found = None if made == count else _with_any_reference(pixels, pictures, index, str(name), draw)
            if found is not None:
                add(found, str(name), index, made)
                made += 1
        for number in range(made if genuine is None else genuine):
            kind, version = "as it is", pixels
            if number % 3 == 2:
                name = ("reinhard", "histogram", "palette")[int(draw.integers(3))]
                kind = f"identity {name}"
                version = _best(pixels, pixels, name, int(draw.integers(2**31)), 0.0)[0]
            add(version, kind, index, 1000 + number)
    return Versions(np.stack(images), np.array(labels), tuple(kinds), np.array(sources))


def _with_any_reference(
    pixels: np.ndarray, pictures: np.ndarray, index: int, method: str, draw: np.random.Generator
) -> np.ndarray | None:
    for _ in range(3):
        other = (index + 1 + int(draw.integers(len(pictures) - 1))) % len(pictures)
        reference = np.ascontiguousarray(pictures[other].transpose(1, 2, 0))
        try:
            return _best(pixels, reference, method, int(draw.integers(2**31)), LEAST_SHIFT)[0]
        except InputError:
            continue
    return None


def _treated(pixels: np.ndarray, side: int, draw: np.random.Generator) -> np.ndarray:
    """What genuine and recoloured versions alike go through: uint8 3×side×side."""
    scale, place, saving = draw.random(), draw.random(2), draw.random()
    quality, coarse = int(draw.integers(85, 99)), bool(draw.integers(2))
    if scale < 0.4:
        factor = max(1 - 0.3 * scale, side / min(pixels.shape[:2]))
        shape = (max(side, round(pixels.shape[1] * factor)), max(side, round(pixels.shape[0] * factor)))
        pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
    top, left = (int(u * (n - side + 1)) for u, n in zip(place, pixels.shape[:2], strict=True))
    pixels = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if saving < 0.6:
        pixels = saved(pixels, quality, coarse)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def saved(pixels: np.ndarray, quality: int, coarse: bool = False) -> np.ndarray:
    """uint8 H×W×3 after JPEG; coarse: chroma at half the resolution."""
    data = encode(pixels, "JPEG", quality=quality, subsampling=2 if coarse else 0)
    return decode(data, "version", _TRUSTED).pixels


def _pixels(image: np.ndarray, what: str) -> np.ndarray:
    """uint8 H×W×3 from float 3×H×W."""
    if np.ndim(image) != 3 or image.shape[0] != 3 or image.dtype.kind != "f":
        got = f"{getattr(image, 'dtype', type(image).__name__)} {np.shape(image)}"
        raise UsageError(f"{what} must be floating point 3×H×W in [0, 1]; got {got}.")
    if min(image.shape[1:]) < 32:
        raise InputError(f"{what} is {image.shape[2]}×{image.shape[1]}; recolouring needs at least 32 pixels a side.")
    if not np.isfinite(image).all():
        raise InputError(f"{what} holds samples that are not finite (NaN or infinity); repair it first.")
    return to_uint8(image)
