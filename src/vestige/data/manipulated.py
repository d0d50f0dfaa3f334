"""Edited and unedited pictures with exact masks and histories of their own, for training and testing localisers.

Every photograph has a past before the edit (scaling, compression, tone), the donor of a splice another one, and what
comes out goes through the hands that files go through. Unedited pictures get the same treatment, so that processing
alone gives nothing away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import decode, encode
from vestige.core.runtime import rng
from vestige.data.tampering import OPERATIONS, tamper

#: Least share of a mask's pixels that an edit has to change.
_CHANGED = 0.3


@dataclass(frozen=True)
class Manipulated:
    """images: uint8 N×3×S×S. masks: bool N×1×S×S, the edited pixels. operations: of each picture, "" for unedited."""

    images: np.ndarray
    masks: np.ndarray
    operations: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def only(self, operation: str) -> Manipulated:
        """The pictures of one operation, "" for the unedited ones."""
        chosen = np.array([o == operation for o in self.operations], bool)
        return Manipulated(self.images[chosen], self.masks[chosen], (operation,) * int(chosen.sum()))


Handling = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def manipulated(
    photographs: Sequence[np.ndarray],
    count: int,
    size: int,
    *,
    operations: Sequence[str] = tuple(OPERATIONS),
    unedited: float = 0.3,
    seed: int = 0,
    handling: Handling | None = None,
) -> Manipulated:
    """``count`` squares of photographs (uint8 H×W×3, sides of at least 96), edited by one operation each or not at all.

    unedited: share of pictures without an edit. handling: what is done to the finished picture and its mask, by default
    `handled`; the result may have another size and is cut or scaled back to ``size``. The result depends on the seed
    and on a picture's number, not on ``count``. Raises UsageError for unknown operations, InputError for too few or
    too small photographs.
    """
    unknown = sorted(set(operations) - set(OPERATIONS))
    if unknown or not 0 <= unedited <= 1 or (unedited < 1 and not operations):
        raise UsageError(f"Operations are of {', '.join(OPERATIONS)}; got {', '.join(unknown) or 'none'}.")
    if len(photographs) < 2 or min(min(p.shape[:2]) for p in photographs) < 96:
        raise InputError("Edited pictures are made from at least two photographs of 96 pixels a side or more.")
    images, masks, done = np.empty((count, 3, size, size), np.uint8), np.zeros((count, 1, size, size), bool), []
    for number in range(count):
        generator = rng(seed, "manipulated", number)
        while True:
            operation = "" if generator.random() < unedited else str(generator.choice(list(operations)))
            made = _one(photographs, size, operation, generator, handling or handled)
            if made is not None:
                break
        images[number], masks[number, 0] = made[0].transpose(2, 0, 1), made[1]
        done.append(operation)
    return Manipulated(images, masks, tuple(done))


def _one(
    photographs: Sequence[np.ndarray], size: int, operation: str, generator: np.random.Generator, handling: Handling
) -> tuple[np.ndarray, np.ndarray] | None:
    """(uint8 size×size×3, bool size×size), None where the edit changed too little."""
    first, second = (photographs[int(i)] for i in generator.choice(len(photographs), 2, replace=False))
    wanted = round(size * generator.uniform(1.0, 1.35)) if generator.random() < 0.5 else size
    host = past(first, generator, least=wanted)
    top, left = (int(generator.integers(0, n - wanted + 1)) for n in host.shape[:2])
    image = np.ascontiguousarray(host[top : top + wanted, left : left + wanted])
    mask = np.zeros(image.shape[:2], bool)
    if operation:
        donor = _array(past(second, generator)) if OPERATIONS[operation].needs_donor else None
        try:
            edited = tamper(
                _array(image), operation, donor=donor, seed=int(generator.integers(2**31)),
                blend=bool(generator.integers(2)),
            )  # fmt: skip
        except InputError:
            return None
        if edited.details["changed"] < _CHANGED:
            return None
        image = np.rint(edited.image.transpose(1, 2, 0) * 255).astype(np.uint8)
        mask = edited.mask[0]
    image, mask = _to_size(*handling(image, mask, generator), size)
    return None if operation and not mask.any() else (image, mask)


def past(pixels: np.ndarray, generator: np.random.Generator, least: int = 96) -> np.ndarray:
    """What a photograph (uint8 H×W×3) may have been through: scaling, tone, grain, compression; sides stay >= least."""
    room = least / min(pixels.shape[:2])
    chance = generator.random()
    scale = max(room, float(generator.uniform(0.6, 1.0)) if chance < 0.5 else 1.0)
    if chance > 0.75:
        scale = max(room, float(generator.uniform(1.1, 1.8)))  # as smooth, pixel by pixel, as large pictures are
    if scale != 1.0:
        pixels = _scaled(pixels, scale, least)
    if generator.random() < 0.3:
        gain, gamma = generator.uniform(0.85, 1.15), generator.uniform(0.8, 1.25)
        table = (255 * (np.arange(256) / 255) ** gamma * gain).clip(0, 255).astype(np.uint8)
        pixels = table[pixels]
    if generator.random() < 0.15:
        pixels = cv2.addWeighted(pixels, 1.7, cv2.GaussianBlur(pixels, (0, 0), 1.0), -0.7, 0)
    elif generator.random() < 0.15:
        pixels = cv2.bilateralFilter(pixels, 5, float(generator.uniform(8, 25)), 2.0)  # noise reduction in the camera
    if generator.random() < 0.35:
        noise = generator.normal(0, generator.uniform(0.5, 5), pixels.shape).astype(np.float32)
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    if generator.random() < 0.7:
        pixels = _jpeg(pixels, int(generator.integers(55, 99)), int(generator.choice([0, 2])))
        # What is cut out later does not lie on the grid of this compression.
        top, left = (int(min(generator.integers(0, 8), n - least)) for n in pixels.shape[:2])
        pixels = pixels[top:, left:]
    return pixels


def handled(image: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What happens to a finished picture: often nothing, else scaling, a little blur or sharpening, compression."""
    chance = generator.random(3)
    if chance[0] < 0.3:
        scale = float(generator.uniform(0.7, 1.2))
        image = _scaled(image, scale, 32)
        mask = cv2.resize(mask.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_AREA) > 0.5
    if chance[1] < 0.15:
        soft = cv2.GaussianBlur(image, (0, 0), float(generator.uniform(0.4, 1.0)))
        image = soft if generator.random() < 0.5 else cv2.addWeighted(image, 1.6, soft, -0.6, 0)
    if chance[2] < 0.6:
        image = _jpeg(image, int(generator.integers(65, 99)), int(generator.choice([0, 2])))
    return image, mask


def travelled(image: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Half of the pictures as `handled`, half `posted` at a random scale and quality."""
    if generator.random() < 0.5:
        return handled(image, mask, generator)
    scale = float(generator.uniform(0.55, 0.95)) if generator.random() < 0.8 else 1.0
    return posted(int(generator.integers(68, 93)), scale)(image, mask, generator)


def posted(
    quality: int = 80, scale: float = 0.75
) -> Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    """A `Handling` that scales a picture and saves it as JPEG, as platforms do."""

    def handling(image: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image = _scaled(image, scale, 32) if scale != 1 else image
        mask = cv2.resize(mask.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_AREA) > 0.5
        return _jpeg(image, quality, 2), mask

    return handling


def _to_size(image: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a larger picture; a smaller one is mirrored at its borders, which leaves its pixels as they are."""
    lacking = [max(0, size - n) for n in image.shape[:2]]
    if any(lacking):
        edges = [(n // 2, n - n // 2) for n in lacking]
        image = np.pad(image, (*edges, (0, 0)), "symmetric")
        mask = np.pad(mask, edges, "symmetric")
    top, left = ((n - size) // 2 for n in image.shape[:2])
    return image[top : top + size, left : left + size], mask[top : top + size, left : left + size]


def _scaled(pixels: np.ndarray, scale: float, least: int) -> np.ndarray:
    height, width = (max(least, round(n * scale)) for n in pixels.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, (width, height), interpolation=how)


def _jpeg(pixels: np.ndarray, quality: int, subsampling: int) -> np.ndarray:
    return decode(encode(pixels, "JPEG", quality=quality, subsampling=subsampling)).pixels


def _array(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
