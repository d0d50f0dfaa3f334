"""Examiners around a network that looks at the whole picture, scaled: shipped, or trained by its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import InputError, UsageError
from vestige.core.findings import Finding
from vestige.forensics.learned import default_weights, load_network, stated

if TYPE_CHECKING:
    from vestige.core.subjects import ImageSubject

_FLAT = 2.0  # grey levels of standard deviation that a picture must have


class NetworkExaminer:
    """Base of the examiners: brings a picture to the side its network takes and puts the answer into words.

    network: a trained network. weights: a file that `save_network` wrote, instead. Without both, `default_weights` are
    taken: the package's or those of the user's finished run; an examiner without a network does not apply to anything,
    and says what trains one. side: the picture is scaled to side×side; 0 takes what the weights were trained at, else
    ``usual_side``.
    """

    slug = ""
    photographs = True
    recipe = ""
    usual_side = 64
    kind = "edit"
    flagged = ""
    clear = ""
    map_caption = ""

    def __init__(self, network: nn.Module | None = None, *, weights: str | Path | None = None, side: int = 0) -> None:
        if side and side < 16:
            raise UsageError(f"side is {side}; a picture is scaled to at least 16 pixels.")
        self.facts: Mapping[str, Any] = {}
        if network is None and weights is None:
            weights = default_weights(self.slug, self.recipe or None)
        if network is None and weights is not None:
            network, self.facts = load_network(self.slug, self.build, weights, recipe=self.recipe or None)
        self.side = side or int(self.facts.get("side") or self.usual_side)
        self.network = network.eval() if network is not None else None

    @staticmethod
    def build(**settings: Any) -> nn.Module:
        """The network of these settings."""
        raise NotImplementedError

    def examine(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(scores N, maps N×1×h×w in [0, 1] or None) of pictures N×3×side×side in [0, 1]."""
        raise NotImplementedError

    def needed(self) -> Any:
        """The network; raises UsageError when there is none."""
        if self.network is None:
            raise UsageError(self.lacking())
        return self.network

    def lacking(self) -> str:
        """What is said where there is no network, and what to do."""
        return f"there is no trained network of {self.slug} here; 'vestige learn {self.recipe or self.slug}' trains one"

    @torch.no_grad()
    def score(self, images: Tensor, batch: int = 64) -> Tensor:
        """Scores N of pictures N×3×H×W in [0, 1], higher for more of what is sought; scaled as `find` does."""
        self.needed()
        return torch.cat([self.examine(scaled(part, self.side))[0] for part in images.split(batch)])

    def find(self, subject: ImageSubject) -> Finding:
        """The score of the whole picture; does not apply without a network, to small and to flat pictures."""
        if self.network is None:
            return Finding.not_applicable(self.slug, self.kind, f"{self.lacking()}.")
        try:
            pixels = subject.stored
        except InputError as damage:
            return Finding.not_applicable(self.slug, self.kind, str(damage))
        if min(pixels.shape[:2]) < self.side:
            return Finding.not_applicable(
                self.slug, self.kind, f"the picture is smaller than {self.side} pixels on a side."
            )
        if pixels[::4, ::4].astype(np.float32).std((0, 1)).max() < _FLAT:
            return Finding.not_applicable(self.slug, self.kind, "the picture is flat.")
        small = cv2.resize(pixels, (self.side, self.side), interpolation=cv2.INTER_AREA)
        with torch.no_grad():
            scores, maps = self.examine(torch.from_numpy(small.transpose(2, 0, 1).copy())[None].float() / 255)
        map_, caption = None, ""
        if maps is not None:
            caption = self.map_caption
            height, width = pixels.shape[:2]
            reach = (
                max(1, round(self.side * width / max(height, width))),
                max(1, round(self.side * height / max(height, width))),
            )
            drawn = cv2.resize(maps[0, 0].numpy(), reach, interpolation=cv2.INTER_LINEAR).clip(0, 1)
            map_ = np.ascontiguousarray(subject.upright(drawn.astype(np.float32)))
        return Finding(
            self.slug, self.kind, float(scores[0]), self.flagged, self.clear,
            **stated(self.facts, float(scores[0])), evidence=(f"score {float(scores[0]):.2f}",), map=map_,
            map_caption=caption,
        )  # fmt: skip


def scaled(images: Tensor, side: int) -> Tensor:
    """Pictures N×3×H×W scaled to side×side, averaged over areas when that is smaller."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(f"Pictures must be N×3×H×W in [0, 1]; got {tuple(images.shape)}.")
    if images.shape[2:] == (side, side):
        return images
    return nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
