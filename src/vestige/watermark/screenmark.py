"""ScreenMark: one faint tiled overlay, rendered once for a message, marks whatever a screen shows.

The reader brings a screenshot to the pattern's size, folds all repetitions of the pattern into one, finds its phase by
a pilot that every message shares, and decodes it.

Source: ScreenMark: Watermarking Arbitrary Visual Content on Screen, AAAI 2025 (arXiv 2409.03487).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.roles import Reading
from vestige.watermark.learned import BitCode, LearnedMark, as_tensor, reading_of
from vestige.watermark.screenmark_net import ScreenMarkNet, local_contrast

_ZONE = 2  # sides of a zone in patterns
_SCALES_READ = 4  # of the ladder, tried with a key
_KEYED = 64  # raw bits of a keyed payload of 32 bits
#: Sizes of the pattern in a screenshot, over its own, that are searched; neighbours 7 % apart.
SCALES = tuple(1.07**k for k in range(-11, 12))


class Seen(NamedTuple):
    """What a reader makes of a screenshot whose overlay carries one message.

    soft: (L,) logits. presence: deviations by which the pilot's peak stands out, higher: marked. scale: of the pattern.
    false_alarms: share of the unmarked screens recorded with the weights that speak as clearly, None without.
    """

    soft: np.ndarray
    presence: float
    scale: float
    false_alarms: float | None = None


class ScreenMark(LearnedMark):
    """Marks screens by compositing an overlay; reads screenshots of any crop, scaled 0.5 to 2.

    `overlay` renders the pattern of a message once; `composite` blends it into every frame; `decode` reads a message of
    L raw bits. As a keyed mark (`mark`, `read`) the payload is 32 bits: a raw word longer than L is laid out in zones
    of two by two patterns, each with its part of the word, and the block of zones repeats.

    alpha: opacity of the overlay, by default that of the training. scales: searched sizes of the pattern over its own.
    region: largest side, in mark pixels, of the middle that is read. The other arguments are those of `LearnedMark`.
    An overlay that never changes can be averaged out of many screenshots of changing content, and is plain on a
    single flat one: change the message or the phase often where that matters.

    Source: ScreenMark: Watermarking Arbitrary Visual Content on Screen, AAAI 2025.

    >>> from vestige.core.keys import PUBLIC_KEY
    >>> mark = ScreenMark(network=ScreenMarkNet(16, 32, diffuser=16, reader=8))
    >>> mark.mark(np.zeros((1, 3, 40, 50), np.float32), np.ones(32, bool), PUBLIC_KEY).shape
    (1, 3, 40, 50)
    """

    slug = "screenmark"

    def __init__(
        self,
        weights: Any = None,
        *,
        alpha: float | None = None,
        scales: Sequence[float] = SCALES,
        region: int = 512,
        **options: Any,
    ) -> None:
        super().__init__(weights, **options)
        assert isinstance(self.network, ScreenMarkNet)
        self.net = self.network
        self.alpha = round(255 * self.strength * (self.net.alpha if alpha is None else alpha)) / 255
        self.scales, self.region = tuple(sorted(scales, key=lambda s: abs(math.log(s)))), region
        if not 1 <= round(255 * self.alpha) < 255:
            raise UsageError(f"The opacity of an overlay is 1 to 254 of 255; got {255 * self.alpha:g}.")
        if not self.scales or region < self.net.size:
            raise UsageError(f"There must be scales, and a region of at least {self.net.size} pixels.")
        parts = max(1, math.ceil(_KEYED / self.bits))
        rows = 1 if parts <= 2 else 2
        self._zones = (rows, math.ceil(parts / rows))

    @staticmethod
    def build(**settings: Any) -> ScreenMarkNet:
        return ScreenMarkNet(**settings)

    # marking ----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def overlay(self, bits: np.ndarray) -> np.ndarray:
        """RGBA uint8 4×S×S of one message (L,), straight alpha; raises UsageError for another number of bits."""
        raw = torch.from_numpy(np.asarray(bits, np.float32))[None]
        tile = self.net.pattern(raw.to(next(self.net.parameters()).device))[0].cpu().numpy()
        colour = np.floor(255 * tile + 0.5).astype(np.uint8)
        return np.concatenate([colour, np.full_like(colour[:1], round(255 * self.alpha))])

    def keyed_overlay(self, payload: str | np.ndarray, key: bytes) -> np.ndarray:
        """RGBA uint8 4×h×w of a keyed payload, to be tiled over a screen from its corner; raises as `mark`."""
        rows, columns = self._zones
        raw = BitCode(key, rows * columns * self.bits).encode(payload).reshape(rows, columns, self.bits)
        if rows * columns == 1:
            return self.overlay(raw[0, 0])
        return np.block([[np.tile(self.overlay(part), (1, _ZONE, _ZONE)) for part in row] for row in raw])

    def mark(
        self, images: np.ndarray, payload: str | np.ndarray, key: bytes, masks: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 N×3×H×W of any size -> the same with the keyed overlay, in [0, 1] with eight-bit values.

        payload: 32 bits or up to 5 letters (see `BitCode`). masks: bool N×1×H×W, where the overlay goes. Raises
        UsageError when the payload does not fit or shapes do not, InputError for samples that are not finite.
        """
        x = as_tensor(images).numpy()
        marked = composite(x, self.keyed_overlay(payload, key))
        if masks is None:
            return marked
        if masks.dtype != bool or masks.shape != (len(x), 1, *x.shape[2:]):
            raise UsageError(f"Masks must be bool {(len(x), 1, *x.shape[2:])}; got {masks.dtype} {masks.shape}.")
        return np.where(masks, marked, x)

    # reading ----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, images: np.ndarray, scale: float | None = None) -> list[Seen]:
        """One `Seen` a screenshot (float32 N×3×H×W), for overlays of one message. scale: of the pattern, if known."""
        found = []
        null = np.asarray(self.facts.get("unmarked presence", []), float)
        for picture in as_tensor(images).split(1):
            looks = [self._look(picture, s) for s in ((scale,) if scale else self.scales)]
            best = max(looks, key=lambda look: look.clear)
            if not scale:  # once more between the scales of the ladder
                best = max([best, *(self._look(picture, best.scale * f) for f in (1 / 1.023, 1.023))], key=_clear)
            alarms = float((1 + (null >= best.clear).sum()) / (1 + len(null))) if len(null) else None
            everything = torch.ones(1, *best.tiles.shape[:2], dtype=torch.bool)
            found.append(Seen(self._logits(best, everything)[0], best.clear, best.scale, alarms))
        return found

    @torch.no_grad()
    def read(self, images: np.ndarray, key: bytes) -> list[Reading]:
        """One `Reading` a screenshot: "read" when the tag verifies, otherwise "absent" (see `LearnedMark.read`).

        The scales at which the pilot stands out most are tried; ``details``: see `reading_of`.
        """
        code = BitCode(key, math.prod(self._zones) * self.bits)
        readings = []
        for picture in as_tensor(images).split(1):
            looks = sorted((self._look(picture, s) for s in self.scales), key=_clear)[-_SCALES_READ:]
            best = looks[-1]
            looks += [self._look(picture, best.scale * factor) for factor in (1 / 1.023, 1.023)]
            words = [word for look in sorted(looks, key=_clear)[: -_SCALES_READ - 1 : -1] for word in self._words(look)]
            readings.append(reading_of(code, words))
        return readings

    def _look(self, picture: Tensor, scale: float) -> _Look:
        """The middle of a screenshot at that scale, cut into patterns."""
        size, side = self.net.size, self.net.size // 2
        seen = _middle(picture, round(self.region * scale))
        height, width = (max(size, 2 * round(n / scale / 2)) for n in seen.shape[2:])
        if seen.shape[2:] != (height, width):
            seen = F.interpolate(seen, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        contrast = local_contrast(F.avg_pool2d(seen, 2))[0].to(next(self.net.parameters()).device)
        weight = torch.ones_like(contrast[:1])
        folded, _ = _mean_of(*(_cut(part, side, (0, 0)) for part in (contrast, weight)))
        shifts, clear = self.net.phase(folded[None])
        start = (int(shifts[0, 0]), int(shifts[1, 0]))
        return _Look(scale, float(clear[0]), _cut(contrast, side, start), _cut(weight, side, start))

    def _logits(self, look: _Look, chosen: Tensor) -> np.ndarray:
        """chosen: bool Z×R×C, the patterns that carry the same word -> logits Z×L, 0 where none is chosen."""
        folded, seen = zip(*(_mean_of(look.tiles[one], look.weights[one]) for one in chosen), strict=True)
        soft = self.net.decode(torch.stack(folded)) * torch.tensor(seen, device=folded[0].device)[:, None]
        return soft.cpu().numpy()

    def _words(self, look: _Look) -> list[np.ndarray]:
        """Soft raw words under the most plausible places of the zones' grid."""
        rows, columns = self._zones
        across, down = (torch.arange(n) for n in (look.tiles.shape[1], look.tiles.shape[0]))
        tried = []
        for top in range(_ZONE * rows if rows > 1 else 1):
            for left in range(_ZONE * columns if columns > 1 else 1):
                zones = ((down + top) // _ZONE % rows)[:, None] * columns + (across + left) // _ZONE % columns
                chosen = zones == torch.arange(rows * columns)[:, None, None]
                word = self._logits(look, chosen)
                tried.append((float(np.abs(word).mean()), word.ravel()))
        # Shifts by whole zones agree equally well; the tag tells them apart.
        best = sorted(tried, key=lambda t: -t[0])[: 3 * rows * columns]
        return [word for _, word in best]


class _Look(NamedTuple):
    """A screenshot at one scale. clear: deviations of the pilot's peak. tiles: contrast R×C×3×T×T of the patterns in
    their own phase, zero where cut off. weights: R×C×1×T×T, 1 where there is a pixel."""

    scale: float
    clear: float
    tiles: Tensor
    weights: Tensor


def _clear(look: _Look) -> float:
    return look.clear


def _cut(plane: Tensor, side: int, start: tuple[int, int]) -> Tensor:
    """C×h×w -> R×C'×C×side×side, squares that begin at ``start`` modulo side; what is missing of them is zero."""
    channels, height, width = plane.shape
    top, left = (-s % side for s in start)
    padded = F.pad(plane, (left, -(width + left) % side, top, -(height + top) % side))
    squares = padded.view(channels, padded.shape[1] // side, side, padded.shape[2] // side, side)
    return squares.permute(1, 3, 0, 2, 4)


def _mean_of(tiles: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """(mean of tiles ...×3×T×T where there are pixels, 1 or, without any tile, 0)."""
    if tiles.numel() == 0:
        return tiles.new_zeros(tiles.shape[-3:]), 0.0
    summed, count = tiles.flatten(0, -4).sum(0), weights.flatten(0, -4).sum(0)
    return summed / count.clamp_min(1), float(bool(count.any()))


def composite(screens: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """S' = (A·C + (1 − A)·S), rounded to eight bits, with the overlay tiled from the corner of every screen.

    screens: uint8 or float N×3×H×W in [0, 1]; the result has the same type. overlay: uint8 4×h×w of one opacity.
    Raises UsageError for other shapes.
    """
    import cv2

    if screens.ndim != 4 or screens.shape[1] != 3 or overlay.dtype != np.uint8 or overlay.shape[::2][:1] != (4,):
        raise UsageError("A frame is N×3×H×W and an overlay uint8 4×h×w.")
    height, width = screens.shape[2:]
    repeats = (1, -(-height // overlay.shape[1]), -(-width // overlay.shape[2]))
    tiled = np.ascontiguousarray(np.tile(overlay[:3], repeats)[:, :height, :width])
    opacity = int(overlay[3].flat[0]) / 255
    whole = screens.dtype == np.uint8
    frames = screens if whole else np.floor(screens.clip(0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    marked = np.stack([cv2.addWeighted(f, 1 - opacity, tiled, opacity, 0) for f in np.ascontiguousarray(frames)])
    return marked if whole else marked.astype(np.float32) / np.float32(255)


def _middle(picture: Tensor, side: int) -> Tensor:
    top, left = (max(0, (n - side) // 2) for n in picture.shape[2:])
    return picture[:, :, top : top + side, left : left + side]
