"""ScreenMark: one faint tiled overlay, rendered once for a message, marks whatever a screen shows.

Source: ScreenMark: Watermarking Arbitrary Visual Content on Screen, AAAI 2025 (arXiv 2409.03487).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.roles import Reading
from vestige.data.distortions_torch import round8
from vestige.engines.marking.model import BitReading, EmbedderReader, Level, Trial
from vestige.nn.messages import check_bits
from vestige.watermark.learned import BitCode, LearnedMark, as_tensor, reading_of

_START = 8  # side of the diffuser's first maps
_LOCAL = 5  # window of the local mean and contrast that the reader takes out, in pixels of half size
_ZONE = 2  # sides of a zone in patterns
_SCALES_READ = 3  # besides the pattern's own
_KEYED = 64  # raw bits of a keyed payload of 32 bits
#: Sizes of the pattern in a screenshot, over its own, that are searched; neighbours 7 % apart.
SCALES = tuple(1.07**k for k in range(-11, 12))


def local_contrast(images: Tensor) -> Tensor:
    """(x − mean) / (local deviation + 1/255), limited to ±3: content's edges weigh no more than a faint pattern.

    On a flat page the pattern alone is left. N×3×H×W.
    """
    half = _LOCAL // 2

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (half,) * 4, mode="replicate"), _LOCAL, 1)

    detail = images - around(images)
    spread = around(detail.square().mean(1, keepdim=True)).clamp_min(1e-8).sqrt()
    return (detail / (spread + 1 / 255)).clamp(-3, 3)


def _wrapped(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, 1, 1, padding_mode="circular")


class Diffuser(nn.Module):
    """Bits N×L -> pattern N×3×S×S in (0, 1): a dense layer to 8×8 maps, doublings with 3×3 convolutions that wrap
    around, so that it tiles without seams, and a bilinear doubling: finer detail would not survive compression."""

    def __init__(self, bits: int, size: int, width: int) -> None:
        super().__init__()
        if size < 2 * _START or size & (size - 1):
            raise UsageError(f"A pattern's side is a power of two of at least {2 * _START}, got {size}.")
        self.bits, self.width = bits, width
        self.spread = nn.Linear(bits, width * _START**2)
        layers: list[nn.Module] = [_wrapped(width, width), nn.GroupNorm(4, width), nn.SiLU()]
        inside = width
        for _ in range(int(math.log2(size // (2 * _START)))):
            outside = max(inside // 2, 16)
            layers += [nn.Upsample(scale_factor=2), _wrapped(inside, outside), nn.GroupNorm(4, outside), nn.SiLU()]
            inside = outside
        self.refine = nn.Sequential(*layers, _wrapped(inside, 3))

    def forward(self, bits: Tensor) -> Tensor:
        maps = self.spread(2 * check_bits(bits, self.bits) - 1).view(-1, self.width, _START, _START)
        coarse = F.pad(self.refine(maps).float(), (1, 1, 1, 1), mode="circular")
        return torch.sigmoid(2 * F.interpolate(coarse, scale_factor=2, mode="bilinear")[:, :, 2:-2, 2:-2])


class Reverser(nn.Module):
    """Pattern or window at half size, whatever its phase -> logits N×L: strided convolutions and a global mean."""

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()

        def block(inside: int, outside: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(inside, outside, 3, stride, 1), nn.GroupNorm(8, outside), nn.SiLU()]

        self.net = nn.Sequential(
            *block(3, width, 1), *block(width, 2 * width, 2), *block(2 * width, 2 * width, 1),
            *block(2 * width, 4 * width, 2), *block(4 * width, 4 * width, 1),
        )  # fmt: skip
        self.head = nn.Linear(4 * width, bits)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x).mean((2, 3))).float()


class ScreenMarkNet(EmbedderReader):
    """S' = a·P(m) + (1 − a)·S, rounded to eight bits, with P tiled over the screen; read from windows of any phase.

    P: message diffuser. Reader: message reverser after local contrast and a residual block that starts as the identity
    and joins it with the stage "screen". Three stages: without any picture (a = 1: what is read is the pattern); with
    the stage "screen", a = α^level sinks to α; with the stage "fidelity" the perceptual loss grows:

        L1 = MSE(soft + ½, m) + w_r R(P),    R = (mean P − 0.55)² + max(std P − 0.4, 0)² + mean cos²(P_i, P_j)
        L2 = BCE(soft, m) + w_r R(P) + w_c mean soft(S)²,    L3 = L2 + level · (w_i MSE(S', S) + w_p d(S', S))

    with d a distance of deep features. bits: L. size: side of P and of a window, a power of two. alpha: α.
    diffuser, reader: first widths. Raises UsageError for sizes that do not fit.

    Source: ScreenMark: Watermarking Arbitrary Visual Content on Screen, AAAI 2025. The networks, R and the loss on
    unmarked screens are this implementation's.

    >>> net = ScreenMarkNet(8, 32, diffuser=16, reader=8).eval()
    >>> x = net.embed(torch.rand(2, 3, 32, 32), torch.zeros(2, 8))
    >>> x.shape, net.read(x).soft.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        bits: int = 32,
        size: int = 128,
        *,
        alpha: float = 6 / 255,
        diffuser: int = 96,
        reader: int = 32,
        pattern_weight: float = 0.3,
        clean_weight: float = 0.05,
        image_weight: float = 300.0,
        perceptual_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < alpha < 1 or bits < 1 or diffuser < 4 or diffuser % 4 or reader < 8 or reader % 8:
            raise UsageError("alpha lies in (0, 1), bits is at least 1, diffuser a multiple of 4 and reader one of 8.")
        self.bits, self.size, self.alpha = bits, size, alpha
        self.pattern_weight, self.clean_weight = pattern_weight, clean_weight
        self.image_weight, self.perceptual_weight = image_weight, perceptual_weight
        self.settings = {
            "bits": bits, "size": size, "alpha": alpha, "diffuser": diffuser, "reader": reader,
            "pattern_weight": pattern_weight, "clean_weight": clean_weight, "image_weight": image_weight,
            "perceptual_weight": perceptual_weight,
        }  # fmt: skip
        self.diffuser = Diffuser(bits, size, diffuser)
        self.reverser = Reverser(bits, reader)
        self.deeper = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.SiLU(), nn.Conv2d(16, 3, 3, 1, 1))
        nn.init.zeros_(self.deeper[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.deeper[2].bias)  # type: ignore[arg-type]
        self.open = 1.0  # level of the stage "screen": 0 without pictures, 1 with the overlay at α
        self._features: list[Any] = []  # the judge of d, not a part of the mark's weights

    def prepare(self, level: Level) -> None:
        self.open = level("screen")

    def pattern(self, bits: Tensor) -> Tensor:
        """N×3×S×S in (0, 1)."""
        return self.diffuser(bits)

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        """The pattern starts at the first pixel; in training at a random one, like that of a window on a screen."""
        tile = self.pattern(bits)
        if self.training:
            tile = _rolled(tile, torch.randint(self.size, (2, len(tile))))
        return round8(blend(images, tile, self.alpha**self.open))

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        x = local_contrast(F.avg_pool2d(images.float(), 2))
        return BitReading(self.reverser(x if self.open == 0 else x + self.deeper(x)))

    def objective(self, trial: Trial, level: Level) -> dict[str, Tensor]:
        if self.open == 0:
            message = trial.bit_loss(F.mse_loss, trial.reading.soft + 0.5)
            loss = message + self.pattern_weight * spread_loss(trial.embedded)  # which is the pattern
            return {"loss": loss, "message": message.detach()}
        message = trial.bit_loss(F.binary_cross_entropy_with_logits, trial.reading.soft)
        few = max(2, len(trial.images) // 8)
        unmarked = self.read(trial.images[:few]).soft.square().mean()
        apart = spread_loss(self.pattern(trial.bits[:few]))
        loss = message + self.clean_weight * unmarked + self.pattern_weight * apart
        fidelity = level("fidelity")
        if fidelity > 0:
            loss = loss + fidelity * self.image_weight * F.mse_loss(trial.embedded, trial.images)
            if self.perceptual_weight > 0:
                loss = loss + fidelity * self.perceptual_weight * self._distance(trial)
        return {"loss": loss, "message": message.detach(), "unmarked": unmarked.detach()}

    def _distance(self, trial: Trial) -> Tensor:
        from vestige.metrics.perceptual import perceptual_distance
        from vestige.nn.features import load_feature_net

        if not self._features:
            self._features.append(load_feature_net().to(trial.images.device))
        few = max(1, len(trial.images) // 4)  # it costs more than the rest of the step
        return perceptual_distance(trial.images[:few], trial.embedded[:few], self._features[0].maps).mean()


def blend(images: Tensor, pattern: Tensor, alpha: float) -> Tensor:
    """a·P + (1 − a)·S in sRGB values, as compositors do."""
    return images + alpha * (pattern - images)


def spread_loss(patterns: Tensor) -> Tensor:
    """(mean − 0.55)² + max(std − 0.4, 0)² + mean squared cosine between patterns of a batch, N×3×S×S -> scalar.

    A mean a little above the middle costs bright pages, which most are, and dark ones about the same.
    """
    flat = patterns.flatten(1) - 0.55
    mean, std = flat.mean(1), flat.std(1)
    unit = F.normalize(flat - mean[:, None], dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(0)
    apart = cosines.square().sum() / max(1, len(flat) * (len(flat) - 1))
    return mean.square().mean() + F.relu(std - 0.4).square().mean() + apart


def _rolled(patterns: Tensor, shifts: Tensor) -> Tensor:
    """Each pattern moved cyclically by its own (down, right)."""
    steps = torch.arange(patterns.shape[2], device=patterns.device)
    rows, columns = ((steps + s[:, None].to(patterns.device)) % len(steps) for s in shifts)
    which = torch.arange(len(patterns), device=patterns.device)
    # Advanced indices around the slice move the channels to the end.
    return patterns[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Seen(NamedTuple):
    """What a reader makes of a screenshot whose overlay carries one message.

    soft: (L,) mean logits over windows. presence: their mean size over a few windows, higher: marked. scale: of the
    pattern. false_alarms: share of the unmarked screens recorded with the weights that speak as clearly, None without.
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

    def mark(
        self, images: np.ndarray, payload: str | np.ndarray, key: bytes, masks: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 N×3×H×W of any size -> the same with the keyed overlay, in [0, 1] with eight-bit values.

        payload: 32 bits or up to 5 letters (see `BitCode`). masks: bool N×1×H×W, where the overlay goes. Raises
        UsageError when the payload does not fit or shapes do not, InputError for samples that are not finite.
        """
        x = as_tensor(images).numpy()
        rows, columns = self._zones
        raw = BitCode(key, rows * columns * self.bits).encode(payload).reshape(rows, columns, self.bits)
        zones = [[np.tile(self.overlay(part), (1, _ZONE, _ZONE)) for part in row] for row in raw]
        marked = composite(x, zones[0][0][:, : self.net.size] if rows * columns == 1 else np.block(zones))
        if masks is None:
            return marked
        if masks.dtype != bool or masks.shape != (len(x), 1, *x.shape[2:]):
            raise UsageError(f"Masks must be bool {(len(x), 1, *x.shape[2:])}; got {masks.dtype} {masks.shape}.")
        return np.where(masks, marked, x)

    # reading ----------------------------------------------------------------------------------------------------------

    def decode(self, images: np.ndarray, scale: float | None = None) -> list[Seen]:
        """One `Seen` a screenshot (float32 N×3×H×W), for overlays of one message. scale: of the pattern, if known."""
        found = []
        null = np.asarray(self.facts.get("unmarked presence", []), float)
        for picture in as_tensor(images).split(1):
            best, presence = self._clearest(picture, (scale,) if scale else self.scales)
            if not scale:  # once more between the scales of the ladder
                best, presence = self._clearest(picture, (best, best / 1.023, best * 1.023))
            alarms = float((1 + (null >= presence).sum()) / (1 + len(null))) if len(null) else None
            found.append(Seen(self._windows(picture, best, 64)[0].mean(0), presence, best, alarms))
        return found

    def read(self, images: np.ndarray, key: bytes) -> list[Reading]:
        """One `Reading` a screenshot: "read" when the tag verifies, otherwise "absent" (see `LearnedMark.read`).

        The pattern's own size and the three others that speak most clearly are tried; ``details``: see `reading_of`.
        """
        code = BitCode(key, math.prod(self._zones) * self.bits)
        readings = []
        for picture in as_tensor(images).split(1):
            clear = {s: float(np.abs(self._windows(picture, s, 9)[0]).mean()) for s in self.scales[1:]}
            scales = (self.scales[0], *sorted(clear, key=lambda s: -clear[s])[:_SCALES_READ])
            words = [word for s in scales for word in self._words(*self._windows(picture, s, 256))]
            readings.append(reading_of(code, words))
        return readings

    def _clearest(self, picture: Tensor, scales: Sequence[float]) -> tuple[float, float]:
        """(scale, mean |logit|) at which a few windows, which carry one message, agree most clearly."""
        clear = {s: float(np.abs(self._windows(picture, s, 9)[0].mean(0)).mean()) for s in scales}
        best = max(clear, key=lambda s: clear[s])
        return best, clear[best]

    def _words(self, soft: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
        """Soft raw words under the most plausible places of the zones' grid; windows across a border are left out."""
        if math.prod(self._zones) == 1:
            return [soft.mean(0)]
        side, size = _ZONE * self.net.size, self.net.size
        period = np.array(self._zones) * side
        starts = [np.arange(0, p, size // 4) for p in period]
        tried = []
        for top in starts[0]:
            for left in starts[1]:
                inside = (places + np.array((top, left))) % period
                whole = (inside % side <= side - size).all(1)
                zone = (inside // side) @ (self._zones[1], 1)
                sums = np.zeros((math.prod(self._zones), self.bits))
                np.add.at(sums, zone[whole], soft[whole])
                counts = np.maximum(np.bincount(zone[whole], minlength=len(sums)), 1)[:, None]
                word = sums / counts
                tried.append((float(np.abs(word).mean()), word.ravel()))
        # Shifts by whole zones agree equally well; the tag tells them apart.
        best = sorted(tried, key=lambda t: -t[0])[: 3 * math.prod(self._zones)]
        return [word for _, word in best]

    @torch.no_grad()
    def _windows(self, picture: Tensor, scale: float, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(logits (K, L), top left corners (K, 2) in mark pixels) of up to ``most`` windows, evenly spread."""
        size = self.net.size
        seen = _middle(picture, round(self.region * scale))
        height, width = (max(size, round(n / scale)) for n in seen.shape[2:])
        if seen.shape[2:] != (height, width):
            seen = F.interpolate(seen, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        tops, lefts = _starts(height, size, most), _starts(width, size, most)
        places = np.array([(t, c) for t in tops for c in lefts])
        device, found = next(self.net.parameters()).device, []
        for part in np.array_split(places, -(-len(places) // 64)):
            windows = torch.cat([seen[:, :, t : t + size, c : c + size] for t, c in part])
            found.append(self.net.read(windows.to(device)).soft.cpu().numpy())
        return np.concatenate(found), places


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


def _starts(length: int, size: int, most: int) -> list[int]:
    """Even starts of windows along a side, no closer than half a window; their product stays within ``most``."""
    count = max(1, min(math.isqrt(most), 1 + (length - size) // (size // 2)))
    return [round(k * (length - size) / max(count - 1, 1)) for k in range(count)] if length > size else [0]
