"""Deep Digital Steganography Purifier: pass every picture through a network that keeps the picture and ruins payloads.

A residual auto-encoder learns to give back the cover of a stego picture, and is then refined as the generator of a GAN
whose discriminator tells covers from purified pictures. Squeezing the picture to a quarter of its sides is what loses
the payload.

Source: Destruction of Image Steganography using Generative Adversarial Networks, arXiv 1912.10070, 2019. Layers and
weights of the losses are this implementation's, in the manner of SRGAN (CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.watermark.attacks.registry import check, eight_bit

#: Weights that come with vestige, for the default sizes.
SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "ddsp.safetensors"


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

    With c = x without its ``drop`` lowest bits, moved to the middle of the q = 2^drop values it may have had, the
    output is c + (q/2 levels)·tanh(D(E(c))). Nothing but c enters, so bits in the dropped planes cannot leave; the
    higher ones stay. A pass costs 40.6 dB for three bits where the network has learnt nothing, and less with it.

    channels: 1 or 3. width: of the stem (64 in full size); the middle is four times as wide. blocks: 16 in full size.
    drop: 1 to 4 bits.

    >>> Purifier(3, width=8, blocks=1).eval()(torch.rand(1, 3, 18, 21)).shape
    torch.Size([1, 3, 18, 21])
    """

    values: Tensor

    def __init__(self, channels: int = 3, *, width: int = 64, blocks: int = 16, drop: int = 2) -> None:
        super().__init__()
        if not 1 <= drop <= 4:
            raise UsageError(f"drop is {drop}; from 1 to 4 of the eight bits can be redrawn.")
        wide = 4 * width
        self.register_buffer("values", torch.tensor(2.0**drop))
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 9, 1, 4), nn.PReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.PReLU(),
            nn.Conv2d(2 * width, wide, 3, 2, 1), nn.PReLU(),
        )  # fmt: skip
        self.body = nn.Sequential(*(_Block(wide) for _ in range(blocks)))
        self.decoder = nn.Sequential(
            nn.Conv2d(wide, 8 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU(),
            nn.Conv2d(width, channels, 9, 1, 4),
        )  # fmt: skip
        last = self.decoder[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)  # an untrained network gives the middle values

    def coarse(self, images: Tensor) -> Tensor:
        """Pictures with every sample in the middle of the values it may have had, still in [0, 1]."""
        levels = (images.float() * 255).round().clamp(0, 255)
        return ((levels / self.values).floor() * self.values + (self.values - 1) / 2) / 255

    def redrawn(self, coarse: Tensor) -> Tensor:
        """What is added to the middle values, in units of half the dropped range: N×C×H×W in [-1, 1]."""
        height, width = coarse.shape[2:]
        padded = F.pad(coarse, (0, -width % 4, 0, -height % 4), mode="replicate") * 2 - 1
        features = self.encoder(padded)
        return torch.tanh(self.decoder(features + self.body(features)).float())[:, :, :height, :width]

    def forward(self, images: Tensor) -> Tensor:
        """Pictures N×C×H×W in [0, 1], any size -> the same shape in [0, 1]."""
        coarse = self.coarse(images)
        # A little less than half the range, so that rounding cannot reach the next one.
        return coarse + self.redrawn(coarse) * (0.499 * self.values / 255)


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
        return self.head(self.features(images * 2 - 1).mean((2, 3)))[:, 0]


class DDSP(nn.Module):
    """The purifier with its losses.

    channels, width, blocks: of the `Purifier` (64 and 16 in full size). adversarial: weight of that term (1e-3).

    weights: a safetensors file of `save`; without one the shipped file is read where the sizes are the defaults and it
    is there. Raises InputError for a file of another size.

    >>> DDSP(width=8, blocks=1).purify(np.zeros((1, 3, 9, 13), np.float32)).shape
    (1, 3, 9, 13)
    """

    slug = "ddsp"

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 32,
        blocks: int = 6,
        adversarial: float = 1e-3,
        seed: int = 0,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Purifier(channels, width=width, blocks=blocks)
            self.discriminator = Discriminator(channels, width=max(8, width))
        self.channels, self.adversarial = channels, adversarial
        self.trained = False
        if weights is None and (channels, width, blocks) == (3, 32, 6) and SHIPPED.is_file():
            weights = SHIPPED
        if weights is not None:
            self._load(Path(weights))

    def _load(self, path: Path) -> None:
        from vestige.core.checkpoint import ModelSubject

        try:
            self.generator.load_state_dict(ModelSubject.open(path).state_dict())
        except RuntimeError:
            raise InputError(
                f"{path} does not hold a purifier of this size; give channels, width and blocks."
            ) from None
        self.trained = True

    def save(self, path: str | Path) -> None:
        """Write the generator as safetensors, atomically."""
        from safetensors.torch import save

        write_atomic(path, save({n: v.detach().cpu().contiguous() for n, v in self.generator.state_dict().items()}))

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Auto-encoder stage: mean squared error of the purified stego picture to its cover; batch: (stego, cover)."""
        stego, cover = batch
        return F.mse_loss(self.generator(stego), cover)

    def adversarial_losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """GAN stage: "generator" = MSE + adversarial·BCE(D(G(x)), cover), "discriminator" = BCE on both kinds.

        Neither term reaches the other network's weights, so one optimiser may take their sum.
        """
        stego, cover = batch
        made = self.generator(stego)
        self.discriminator.requires_grad_(False)
        says = self.discriminator(made)
        self.discriminator.requires_grad_(True)
        wanted = F.binary_cross_entropy_with_logits(says, torch.ones_like(says))
        real, fake = self.discriminator(cover), self.discriminator(made.detach())
        truth = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
        judged = F.binary_cross_entropy_with_logits(torch.cat([real, fake]), truth)
        return {"generator": F.mse_loss(made, cover) + self.adversarial * wanted, "discriminator": judged}

    @torch.no_grad()
    def purify(self, images: np.ndarray, *, tile: int = 256) -> np.ndarray:
        """Pictures float N×C×H×W in [0, 1] of any size -> the same, rounded to eight bits, in bounded memory."""
        from vestige.watermark.attacks.regeneration import tilewise

        self.eval()
        x = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        if max(x.shape[2:]) <= tile:
            return eight_bit(self.generator(x).numpy())
        return eight_bit(tilewise(x, tile, lambda tiles, _: self.generator(tiles), batch=4).numpy())

    def attack(self, images: np.ndarray) -> np.ndarray:
        """`purify` for pictures N×3×H×W. Raises InputError before the purifier is trained."""
        check(images)
        if not self.trained:
            raise InputError("The purifier has no trained weights; train it with: vestige learn recipes/watermark/ddsp")
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


def cheap_purifiers() -> dict[str, Any]:
    """The baselines every purifier is measured against: name -> (pictures in [0, 1] -> pictures)."""
    from vestige.data.distortions import distort
    from vestige.watermark.attacks.registry import attack

    def wavelet(images: np.ndarray) -> np.ndarray:
        import pywt

        out = images.copy()
        for picture in out:
            for channel in picture:
                bands: Sequence[Any] = pywt.wavedec2(channel, "db4", mode="periodization", level=1)
                soft = tuple(pywt.threshold(b, 2 / 255, "soft") for b in bands[1])
                back = pywt.waverec2([bands[0], soft], "db4", mode="periodization")
                channel[:] = back[: channel.shape[0], : channel.shape[1]]
        return eight_bit(out)

    return {
        "dither": lambda x: attack(x, "dither", 1.0),
        "jpeg 75": lambda x: distort(x, "jpeg", 75),
        "bicubic half": lambda x: distort(x, "resize_back", 0.5),
        "median 3": lambda x: distort(x, "median", 3),
        "wavelet": wavelet,
    }
