"""Scenes and photographs in one training set, for networks that must know both: autoencoders and marks inside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.packs import has_pack, named_pack
from vestige.data.scenes import render_pack


@dataclass
class PictureMix:
    """Squares of ``size`` pixels: whole rendered scenes and random crops of photographs, half of all mirrored.

    scenes: uint8 N×3×size×size. photos: uint8 M×3×S×S with S >= size, None where there are none. share: of photographs
    in a batch. zoom: smallest side of a crop over S, at least ``size``. Raises UsageError for other shapes.

    >>> mix = PictureMix(np.zeros((4, 3, 16, 16), np.uint8), np.full((2, 3, 32, 32), 255, np.uint8))
    >>> batch = mix.batch(4, torch.Generator().manual_seed(0))
    >>> batch.shape, batch.mean((1, 2, 3)).tolist()
    (torch.Size([4, 3, 16, 16]), [0.0, 0.0, 1.0, 1.0])
    """

    scenes: np.ndarray
    photos: np.ndarray | None = None
    share: float = 0.5
    zoom: float = 0.4

    def __post_init__(self) -> None:
        self.size = self.scenes.shape[3]
        smallest = self.size if self.photos is None else min(self.photos.shape[2:])
        if self.scenes.shape[2] != self.size or smallest < self.size:
            raise UsageError(f"Scenes must be squares, and photographs at least as large ({self.size} pixels).")

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """float32 count×3×size×size in [0, 1]; a pure function of the generator's state."""
        draws = rng(int(torch.randint(2**62, (), generator=generator)), "mixture")
        crops = 0 if self.photos is None else round(self.share * count)
        chosen = [torch.from_numpy(self.scenes[i]).float() for i in draws.integers(0, len(self.scenes), count - crops)]
        chosen += [self._crop(draws) for _ in range(crops)]
        pictures = torch.stack(chosen) / 255
        mirrored = torch.from_numpy(draws.random(count) < 0.5)[:, None, None, None]
        return torch.where(mirrored, pictures.flip(3), pictures)

    def _crop(self, draws: np.random.Generator) -> Tensor:
        assert self.photos is not None
        photo = self.photos[draws.integers(len(self.photos))]
        largest = min(photo.shape[1:])
        side = max(self.size, round(largest * draws.uniform(self.zoom, 1)))
        top, left = (int(draws.integers(0, full - side + 1)) for full in photo.shape[1:])
        cut = torch.from_numpy(photo[:, top : top + side, left : left + side]).float()
        return cut if side == self.size else F.interpolate(cut[None], (self.size, self.size), mode="area")[0]


def scenes_and_photos(
    size: int = 64, scenes: int = 4000, *, held: int = 128, seed: int = 0, source: int = 192, limit: int = 0,
    **options: Any,
) -> tuple[PictureMix, dict[str, np.ndarray]]:  # fmt: skip
    """Pictures to train on, and held-out ones, uint8 M×3×size×size, by kind: "scenes" and, where present, "photos".

    scenes, held: number of rendered scenes to train on and to hold out. source: side of the photographs that crops are
    taken from. limit: photographs in all, 0 for every one of the pack. options: as in `PictureMix`.
    """
    mix_scenes, kept = render_pack(scenes, size, seed).images, {"scenes": render_pack(held, size, seed + 1).images}
    photos = None
    if has_pack("photos"):
        photos = named_pack("photos", "train", size=max(source, size), limit=limit or None).images
        kept["photos"] = named_pack("photos", "val", size=size, limit=limit or None).images
    return PictureMix(mix_scenes, photos, **options), kept
