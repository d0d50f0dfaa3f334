"""Recoloured pictures: re-mapping colours breaks how neighbouring pixels and channels go together.

Source: Detecting Recolored Image by Spatial Correlation, arXiv 2204.10973, 2022. The paper leaves the details open;
features, network and training data are this project's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.findings import Finding
from vestige.core.runtime import rng

if TYPE_CHECKING:
    from torch import Tensor

    from vestige.core.subjects import ImageSubject
    from vestige.forensics.recolor_net import RecolorNet

_TILE, _TILES = 256, 24
_SMALLEST = 128


class RecolorDetector:
    """Says whether the colours of a photograph were re-mapped, without knowing how, from co-occurrence maps.

    weights: a file that the recipe ``forensics/recolor`` wrote, by default the shipped one, read at first use. network:
    a network to use instead. device: as in ``--device``. A picture is judged by its squares of 256 pixels (24 at most,
    spread over it); its score is their mean log-odds. Applies to colour pictures of 128×128 pixels or more that are not
    mostly flat.

    >>> from vestige.core.image_io import encode
    >>> from vestige.core.subjects import ImageSubject
    >>> RecolorDetector().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "recolor"
    photographs = True
    kind = "history"

    def __init__(
        self, weights: str | Path | None = None, *, network: RecolorNet | None = None, device: str = "cpu"
    ) -> None:
        self._weights, self._given, self._device = weights, network, device
        self._network: RecolorNet | None = None
        self.facts: dict[str, Any] = {}

    @property
    def network(self) -> RecolorNet:
        """The network; raises InputError with the command that trains it when there are no weights."""
        if self._network is None:
            from vestige.core.runtime import device as device_of
            from vestige.forensics.learned import load_network
            from vestige.forensics.recolor_net import RecolorNet

            if self._given is None:
                self._network, self.facts = load_network(self.slug, RecolorNet, self._weights)
            else:
                self._network = self._given
            self._network.eval().to(device_of(self._device))
        return self._network

    def score(self, images: np.ndarray) -> np.ndarray:
        """Log-odds float32 N of pictures float N×3×H×W in [0, 1] (or uint8): above 0 for recoloured.

        Raises UsageError for other arrays, InputError when there are no weights.
        """
        import torch

        from vestige.forensics.recolor_net import log_odds_of

        network = self.network
        device = next(network.parameters()).device
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        maps = torch.cat([network.maps(part) for part in tensor.split(64)])
        return log_odds_of(network, maps.to(device)).cpu().numpy()

    def fit(
        self,
        loader: Iterable[tuple[Any, Any]],
        *,
        steps: int = 500,
        batch_size: int = 64,
        lr: float = 1e-3,
        seed: int = 0,
    ) -> RecolorDetector:
        """Train a network of its own on (pictures N×3×H×W, labels N: true for recoloured); returns itself.

        Maps are counted once; then Adam on binary cross-entropy. The recipe trains with held-out validation instead.
        Raises UsageError when one of the classes is missing.
        """
        import torch
        from torch.nn import functional as F

        from vestige.forensics.recolor_net import RecolorNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = (self._given or RecolorNet()).train().requires_grad_(True)
            maps, labels = [], []
            for images, flags in loader:
                maps.append(network.maps(torch.as_tensor(images)))
                labels.append(torch.as_tensor(np.asarray(flags)).float())
            if not maps or torch.cat(labels).unique().numel() < 2:
                raise UsageError("Training needs genuine and recoloured pictures, with labels 0 and 1.")
            x, y = torch.cat(maps), torch.cat(labels)
            optimizer = torch.optim.Adam(network.parameters(), lr)
            draw = rng(seed, "recolor fit")
            for _ in range(steps):
                rows = torch.from_numpy(draw.choice(len(x), min(batch_size, len(x)), replace=False))
                loss = F.binary_cross_entropy_with_logits(network(x[rows]), y[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        self._given = self._network = network.eval().requires_grad_(False)
        return self

    def find(self, subject: ImageSubject) -> Finding:
        try:
            pixels = subject.stored
        except InputError as damage:
            return self._not(str(damage))
        height, width = pixels.shape[:2]
        if min(height, width) < _SMALLEST:
            return self._not(f"the picture is smaller than {_SMALLEST}×{_SMALLEST} pixels")
        tiles, grid = squares(height, width)
        chosen = [pixels[top : top + h, left : left + w] for top, left, h, w in tiles]
        grey = np.mean([np.abs(t[::2, ::2, 0].astype(np.int16) - t[::2, ::2, 1]).mean() for t in chosen])
        grey += np.mean([np.abs(t[::2, ::2, 2].astype(np.int16) - t[::2, ::2, 1]).mean() for t in chosen])
        if grey < 1.0:
            return self._not("the picture is grey, so it has no colours that could have been re-mapped")
        flat = np.array([(np.diff(t[..., 1].astype(np.int16), axis=1) == 0).mean() > 0.85 for t in chosen])
        if flat.mean() > 0.7:
            return self._not("most of the picture is flat, so neighbouring pixels tell nothing about its colours")
        try:
            odds = np.array([
                -np.inf if empty else float(self.score(np.ascontiguousarray(tile.transpose(2, 0, 1))[None])[0])
                for tile, empty in zip(chosen, flat, strict=True)
            ])  # fmt: skip
        except InputError as missing:
            return self._not(str(missing))
        used = odds[~flat]
        map_ = (1 / (1 + np.exp(-np.clip(odds, -30, 30)))).astype(np.float32).reshape(grid)
        return Finding(
            self.slug,
            self.kind,
            float(used.mean()),
            "Neighbouring pixels and channels go together as in pictures whose colours were re-mapped; colour grading "
            "and filters of ordinary editing programs do that too.",
            "Neighbouring pixels and channels go together as in pictures whose colours were left as they were.",
            evidence=(
                f"mean log-odds of {len(used)} square{'s' if len(used) > 1 else ''}: {used.mean():+.2f}",
                f"highest of a square: {used.max():+.2f}",
            ),
            map=np.ascontiguousarray(subject.upright(map_)),
            map_caption="How recoloured each square of the picture looks.",
            details={"squares": len(used), "highest": round(float(used.max()), 3)},
        )

    def _not(self, why: str) -> Finding:
        return Finding.not_applicable(self.slug, self.kind, why)


def squares(
    height: int, width: int, tile: int = _TILE, most: int = _TILES
) -> tuple[list[tuple[int, ...]], tuple[int, int]]:
    """(top, left, height, width) of up to ``most`` tiles spread over a picture, row by row, and their grid.

    >>> squares(600, 256)[1]
    (2, 1)
    """
    rows, columns = max(1, round(height / tile)), max(1, round(width / tile))
    if rows * columns > most:
        shrink = math.sqrt(most / (rows * columns))
        rows, columns = max(1, int(rows * shrink)), max(1, int(columns * shrink))
        columns = min(columns, most)
        rows = min(rows, most // columns)
    sides = min(tile, height), min(tile, width)
    tops = np.linspace(0, height - sides[0], rows) if rows > 1 else np.array([(height - sides[0]) / 2])
    lefts = np.linspace(0, width - sides[1], columns) if columns > 1 else np.array([(width - sides[1]) / 2])
    return [(int(t), int(x), *sides) for t in tops for x in lefts], (rows, columns)


def neighbour_correlation(images: Tensor | np.ndarray) -> np.ndarray:
    """Correlation of each pixel's residual with its right neighbour's, mean over the channels: float64 N.

    images: uint8 or float N×3×H×W. A channel without residuals counts as 0. The paper's premise is that recolouring
    lowers it.

    >>> neighbour_correlation(np.random.default_rng(0).random((1, 3, 64, 64))).round(1).tolist()
    [-0.5]
    """
    x = np.asarray(images, np.float64)
    if x.ndim != 4 or x.shape[1] != 3 or x.shape[3] < 4:
        raise UsageError(f"Correlations are taken of N×3×H×W, at least 4 pixels wide; got {x.shape}.")
    residual = np.diff(x, axis=3)
    first, second = residual[..., :-1], residual[..., 1:]
    first = first - first.mean((2, 3), keepdims=True)
    second = second - second.mean((2, 3), keepdims=True)
    scale = np.sqrt((first**2).mean((2, 3)) * (second**2).mean((2, 3)))
    return ((first * second).mean((2, 3)) / np.maximum(scale, 1e-12)).mean(1)


def effect_size(before: np.ndarray, after: np.ndarray) -> float:
    """Cohen's d of two samples: difference of means over the pooled deviation, below 0 where ``after`` is lower.

    >>> effect_size(np.array([0.0, 2.0]), np.array([2.0, 4.0])).round(3)
    np.float64(1.414)
    """
    pooled = math.sqrt((np.var(before, ddof=1) + np.var(after, ddof=1)) / 2)
    return (np.mean(after) - np.mean(before)) / max(pooled, 1e-12)
