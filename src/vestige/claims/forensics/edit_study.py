"""Edited photographs for claims about localisers: made from parts of the photos pack that share no photograph."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vestige.claims import ClaimContext
from vestige.data.manipulated import Manipulated, manipulated
from vestige.data.packs import load_pack, split


@lru_cache(maxsize=1)
def photographs(context: ClaimContext) -> dict[str, list[np.ndarray]]:
    """{"train", "val", "test"}: uint8 192×192×3 each."""
    pack = load_pack(context.pack("photos"), 192)
    return {
        part: [pack.images[i].transpose(1, 2, 0) for i in chosen[: 6 * context.limit or None]]
        for part, chosen in split(pack.names).items()
    }


def as_it_is(image: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The finished picture is stored without loss."""
    return image, mask


@lru_cache(maxsize=16)
def edited(
    context: ClaimContext, part: str, operations: tuple[str, ...], count: int, size: int, unedited: float = 0.5
) -> Manipulated:
    """``count`` squares with histories of their own, a share of them unedited."""
    number = ("train", "val", "test").index(part)
    return manipulated(
        photographs(context)[part], min(count, 8 * context.limit) if context.limit else count, size,
        operations=operations, unedited=unedited, seed=3 * context.seed + number, handling=as_it_is,
    )  # fmt: skip
