"""Deep Digital Steganography Purifier: pass every picture through a network that keeps the picture and ruins payloads.

A residual auto-encoder learns to give back the cover of a stego picture, and is then refined as the generator of a GAN
whose discriminator tells covers from purified pictures. The lowest bit planes are taken off before the network and
redrawn by it from what is left, so that nothing written there can pass, whatever the network has learnt; what is
written above them, as robust marks are, stays.

Source: Destruction of Image Steganography using Generative Adversarial Networks, arXiv 1912.10070, 2019. Layers and
weights of the losses are this implementation's, in the manner of SRGAN (CVPR 2017); so is the rounding at the entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.engines.adversarial.budget import round8
from vestige.engines.run_state import load_trained, write_model
from vestige.watermark.attacks.registry import check, eight_bit

#: Weights that come with vestige, for the default sizes.
SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "ddsp.safetensors"
#: Numbers of bit planes the network learns to redraw.
PLANES = (1, 2, 3, 4)


def coarse(images: Tensor, planes: int) -> Tensor:
    """Pictures in [0, 1] without their lowest bit planes: every sample in the middle of the 2^planes possible values.

    >>> (coarse(torch.tensor([8.0, 11.0, 12.0]) / 255, 2) * 255).round(decimals=2).tolist()
    [9.5, 9.5, 13.5]
    """
    values = 2**planes
    levels = (images.float() * 255).round().clamp(0, 255)
    return ((levels / values).floor() * values + (values - 1) / 2) / 255


class _Block(nn.Module):
    """conv, batch norm, PReLU, conv, batch norm, and the input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Purifier(nn.Module):
    """Generator: 9×9 stem, two halvings, residual blocks, two sub-pixel doublings, 9×9 head and tanh.

    x -> c + q/2 · tanh(head(stem(c) + decoder(encoder(c)))), c being x without ``planes`` bits (see `coarse`) and q =
    2^planes levels: the higher bits stay, and a network that has learnt nothing leaves the middle of each range, at
    51, 46, 41 and 35 dB for one to four planes. The number of planes enters as a constant channel, and the picture a
    second time, less its 5×5 average.

    channels: 1 or 3. width: of the stem (64 in full size); the middle is four times as wide. blocks: 16 in full size.

    >>> Purifier(3, width=8, blocks=1).eval()(torch.rand(1, 3, 18, 21)).shape
    torch.Size([1, 3, 18, 21])
    """

    def __init__(self, channels: int = 3, *, width: int = 64, blocks: int = 16) -> None:
        super().__init__()
        wide = 4 * width
        self.stem = nn.Sequential(nn.Conv2d(2 * channels + 1, width, 9, 1, 4), nn.PReLU())
        self.encoder = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.PReLU(),
            nn.Conv2d(2 * width, wide, 3, 2, 1), nn.PReLU(),
        )  # fmt: skip
        self.body = nn.Sequential(*(_Block(wide) for _ in range(blocks)))
        self.decoder = nn.Sequential(
            nn.Conv2d(wide, 8 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU(),
        )  # fmt: skip
        self.head = nn.Conv2d(width, channels, 9, 1, 4)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def redrawn(self, middle: Tensor, planes: int) -> Tensor:
        """Coarse pictures N×C×H×W -> the low bits in units of half their range, in [-1, 1], to be added to them."""
        height, width = middle.shape[2:]
        padded = F.pad(middle, (0, -width % 4, 0, -height % 4), mode="replicate") * 2 - 1
        # Steps between ranges are small on the scale of the picture: shown a second time, against their surroundings.
        step = (padded - F.avg_pool2d(padded, 5, 1, 2, count_include_pad=False)) * (255 / 2**planes)
        stem = self.stem(
            torch.cat([padded, torch.tanh(step / 4), torch.full_like(padded[:, :1], planes / max(PLANES))], 1)
        )
        features = self.encoder(stem)
        made = self.head(stem + self.decoder(features + self.body(features)))
        return torch.tanh(made.float())[:, :, :height, :width]

    def forward(self, images: Tensor, planes: int = 3) -> Tensor:
        """Pictures N×C×H×W in [0, 1], any size -> the same shape in [0, 1]."""
        middle = coarse(images, planes)
        return placed(middle, self.redrawn(middle, planes), planes)


def placed(middle: Tensor, drawn: Tensor, planes: int) -> Tensor:
    """Coarse pictures with redrawn low bits; a little less than half the range, so that rounding stays inside it."""
    return middle + drawn * (0.499 * 2**planes / 255)


class Discriminator(nn.Module):
    """SRGAN's stack of 3×3 convolutions, strides 1 and 2 in turn, averaged to one logit: above 0 for a cover."""

    def __init__(self, channels: int = 3, *, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1), nn.LeakyReLU(0.2)]
        wide = width
        for i in range(1, 8):
            wider = width * min(8, 2 ** ((i + 1) // 2))
            layers += [nn.Conv2d(wide, wider, 3, 1 + i % 2, 1, bias=False), nn.BatchNorm2d(wider), nn.LeakyReLU(0.2)]
            wide = wider
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(wide, 16 * width), nn.LeakyReLU(0.2), nn.Linear(16 * width, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))[:, 0]


class DDSP(nn.Module):
    """The purifier with its losses.

    channels, width, blocks: of the `Purifier` (64 and 16 in full size). planes: lowest bit planes that are redrawn,
    1 to 4. adversarial: weight of that term (1e-3).

    weights: a safetensors file of `save`; without one the shipped file is read where the sizes are the defaults and it
    is there; ``facts`` is what was recorded with them. Raises InputError for a file of another size, UsageError for
    planes out of range.

    >>> DDSP(width=8, blocks=1).purify(np.zeros((1, 3, 9, 13), np.float32)).shape
    (1, 3, 9, 13)
    """

    slug = "ddsp"

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 32,
        blocks: int = 4,
        planes: int = 3,
        adversarial: float = 1e-3,
        seed: int = 0,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if planes not in PLANES:
            raise UsageError(f"planes is {planes}; the purifier redraws 1 to {max(PLANES)} bit planes.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Purifier(channels, width=width, blocks=blocks)
            self.discriminator = Discriminator(2 * channels, width=max(8, width))
        self.channels, self.planes, self.adversarial = channels, planes, adversarial
        self.trained = False
        self.facts: dict[str, Any] = {}
        if weights is None and (channels, width, blocks) == (3, 32, 4) and SHIPPED.is_file():
            weights = SHIPPED
        if weights is not None:
            self._load(Path(weights))

    def _load(self, path: Path) -> None:
        from safetensors import safe_open

        try:
            load_trained(path, self.generator)
        except InputError as error:
            if "another model" not in str(error):
                raise
            raise InputError(
                f"{path} does not hold a purifier of this size; give channels, width and blocks."
            ) from None
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        try:
            facts = json.loads(metadata.get("facts", "{}"))
        except ValueError:
            facts = {}
        self.facts = facts if isinstance(facts, dict) else {}
        self.trained = True

    def save(self, path: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write the generator, with JSON-like facts about its training, as safetensors, atomically."""
        write_model(Path(path), self.generator, {"facts": dict(facts or {})})

    def loss(self, batch: tuple[Tensor, Tensor], planes: int | None = None) -> Tensor:
        """Auto-encoder stage: mean squared error of the purified stego picture to its cover, in units of half the
        redrawn range; batch: (stego, cover)."""
        middle, wanted, planes = self._task(batch, planes)
        return F.mse_loss(self.generator.redrawn(middle, planes), wanted)

    def _task(self, batch: tuple[Tensor, Tensor], planes: int | None) -> tuple[Tensor, Tensor, int]:
        """The coarse stego picture, and the way from it to the cover in units of half the redrawn range."""
        planes = planes or self.planes
        stego, cover = batch
        middle = coarse(stego, planes)
        return middle, (cover - middle) * (2 * 255 / 2**planes), planes

    def adversarial_losses(self, batch: tuple[Tensor, Tensor], planes: int | None = None) -> dict[str, Tensor]:
        """GAN stage: "generator" = MSE + adversarial·BCE(D(G(x)), cover), "discriminator" = BCE on both kinds.

        The discriminator sees the coarse picture and the redrawn part, as eight bits hold it, side by side: the
        difference is too small for it otherwise. Neither term reaches the other network's weights, so one optimiser
        may take their sum.
        """
        middle, wanted, planes = self._task(batch, planes)
        drawn = self.generator.redrawn(middle, planes)
        low = (round8(placed(middle, drawn, planes)) - middle) * (2 * 255 / 2**planes)
        seen = torch.cat([middle * 2 - 1, low], 1)
        self.discriminator.requires_grad_(False)
        says = self.discriminator(seen)
        self.discriminator.requires_grad_(True)
        fooled = F.binary_cross_entropy_with_logits(says, torch.ones_like(says))
        real, fake = self.discriminator(torch.cat([middle * 2 - 1, wanted], 1)), self.discriminator(seen.detach())
        truth = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
        judged = F.binary_cross_entropy_with_logits(torch.cat([real, fake]), truth)
        return {"generator": F.mse_loss(drawn, wanted) + self.adversarial * fooled, "discriminator": judged}

    @torch.no_grad()
    def purify(self, images: np.ndarray, *, tile: int = 256) -> np.ndarray:
        """Pictures float N×C×H×W in [0, 1] of any size -> the same, rounded to eight bits, in bounded memory."""
        from vestige.watermark.attacks.regeneration import tilewise

        self.eval()
        made = np.empty(images.shape, np.float32)
        for i in range(0, len(images), 4):
            x = torch.from_numpy(np.ascontiguousarray(images[i : i + 4], np.float32))
            if max(x.shape[2:]) <= tile:
                y = self.generator(x, self.planes)
            else:
                y = tilewise(x, tile, lambda tiles, _: self.generator(tiles, self.planes), batch=4)
            made[i : i + 4] = eight_bit(y.numpy())
        return made

    def attack(self, images: np.ndarray) -> np.ndarray:
        """`purify` for pictures N×3×H×W. Raises InputError before the purifier is trained."""
        check(images)
        if not self.trained:
            raise InputError("The purifier has no trained weights; train it with: vestige learn ddsp")
        return self.purify(images)

    def erase(self, images: np.ndarray, masks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Purified pictures and the bool mask N×1×H×W of what changed; masks limit where.

        Raises UsageError for arrays that are not N×3×H×W.
        """
        check(images)
        inside = np.ones((len(images), 1, *images.shape[2:]), bool) if masks is None else masks
        if inside.shape != (len(images), 1, *images.shape[2:]):
            raise UsageError(f"Masks must have shape {(len(images), 1, *images.shape[2:])}, got {inside.shape}.")
        made = np.where(inside, self.attack(images), images) if inside.any() else images.copy()
        return made.astype(np.float32), (made != images).any(1, keepdims=True)


def destruction(sent: np.ndarray, received: np.ndarray) -> float:
    """Payload bit error rate of embedders that carry real bits; 0.5 is total."""
    return float(np.mean(np.asarray(sent, bool) != np.asarray(received, bool)))


def symbols_lost(cover: np.ndarray, stego: np.ndarray, purified: np.ndarray) -> dict[str, float]:
    """For simulated embedders, uint8 arrays: share of changed samples whose ternary symbol is no longer the stego one.

    "reference": share of unchanged samples whose value changed, the damage to everything else.
    """
    changed = stego != cover
    lost = (purified.astype(int) - stego) % 3 != 0
    other = purified != stego
    return {
        "lost": float(lost[changed].mean()) if changed.any() else float("nan"),
        "reference": float(other[~changed].mean()) if (~changed).any() else float("nan"),
    }


@dataclass(frozen=True)
class Cheap:
    """A baseline every purifier is measured against. usual: its customary strength. ladder: from mild to severe."""

    name: str
    run: Callable[[np.ndarray, float], np.ndarray]
    usual: float
    ladder: tuple[float, ...]

    def __call__(self, images: np.ndarray, strength: float | None = None) -> np.ndarray:
        """Pictures N×3×H×W in [0, 1] -> the same, with eight-bit values."""
        return eight_bit(self.run(images, self.usual if strength is None else strength))


def wavelet_threshold(images: np.ndarray, threshold: float) -> np.ndarray:
    """Soft threshold, in grey levels, on the finest Daubechies-4 detail bands of every channel."""
    import pywt

    out = images.copy()
    for picture in out:
        for channel in picture:
            bands: Sequence[Any] = pywt.wavedec2(channel, "db4", mode="periodization", level=1)
            soft = tuple(pywt.threshold(b, threshold / 255, "soft") for b in bands[1])
            back = pywt.waverec2([bands[0], soft], "db4", mode="periodization")
            channel[:] = back[: channel.shape[0], : channel.shape[1]]
    return out


def cheap_purifiers() -> tuple[Cheap, ...]:
    """Dither, the honest one, and the filters that the method is compared with."""
    from vestige.data.distortions import distort
    from vestige.watermark.attacks.registry import attack

    return (
        Cheap("dither", lambda x, s: attack(x, "dither", s), 1.0, (0.6, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12)),
        Cheap("jpeg", lambda x, s: distort(x, "jpeg", s), 75, (98, 97, 95, 92, 90, 85, 80, 75, 70, 60, 50, 40, 30)),
        Cheap(
            "bicubic", lambda x, s: distort(x, "resize_back", s), 0.5, (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
        ),
        Cheap("median", lambda x, s: distort(x, "median", s), 3, (3, 5, 7, 9)),
        Cheap(
            "wavelet", wavelet_threshold, 2, (0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 24)
        ),
    )
