"""Laundering: a photograph through an autoencoder looks the same and carries the traces of a generator.

A detector that only tells real from synthetic then dismisses real evidence as fake. Two stages keep the cases apart: A
asks "real or synthetic", B, for what A calls synthetic, "laundered or synthetic from the start". Both look at many
small crops and average the highest logits.

Source: When Synthetic Traces Hide Real Content: Analysis of Stable Diffusion Image Laundering, WIFS 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.findings import Finding
from vestige.core.runtime import rng
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.diffusion.latent import decode_latents, shrink_factor
from vestige.engines.train import Batch
from vestige.forensics.generated import picture_digest
from vestige.forensics.learned import load_network, stated
from vestige.forensics.npr import TraceResNet
from vestige.nn.vae import encode as encode_pixels

if TYPE_CHECKING:
    from vestige.core.subjects import ImageSubject

LABELS = ("pristine", "laundered", "full")
#: Side in pixels from which on files are examined.
SMALLEST = 64


class Launderer:
    """Encode and decode at strength zero: x' = clamp(D(E(x))), rounded to eight bits.

    autoencoder: the folder of a diffusers autoencoder, that of a pipeline (its "vae"), or such a model.
    sample_posterior: a draw of the posterior instead of its mode. Sides are cut to multiples of the autoencoder's
    factor. Raises InputError when the folder holds no autoencoder.
    """

    def __init__(self, autoencoder: Any, *, sample_posterior: bool = False, seed: int = 0) -> None:
        vae = load_autoencoder(autoencoder, tiny=True) if isinstance(autoencoder, str | Path) else autoencoder
        self.autoencoder, self.stride = vae.eval(), shrink_factor(vae)
        self.sample_posterior, self.seed = sample_posterior, seed

    @torch.no_grad()
    def launder(self, images: np.ndarray, passes: int = 1, *, quantise: bool = True, batch: int = 32) -> np.ndarray:
        """float32 N×3×H×W in [0, 1] -> N×3×⌊H/f⌋f×⌊W/f⌋f; 0 passes only cut and round.

        Raises UsageError for other arrays and pictures smaller than the factor.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype.kind != "f" or passes < 0:
            raise UsageError("Laundering takes float pictures N×3×H×W in [0, 1], and 0 or more passes.")
        if not np.isfinite(images).all():
            raise InputError("The pictures hold samples that are not finite (NaN or infinity).")
        height, width = (side // self.stride * self.stride for side in images.shape[2:])
        if not min(height, width):
            raise UsageError(f"Pictures need sides of at least {self.stride} pixels.")
        x = torch.from_numpy(np.ascontiguousarray(images[:, :, :height, :width], np.float32))
        for k in range(passes):
            generator = torch.Generator().manual_seed(self.seed + k) if self.sample_posterior else None
            latents = [encode_pixels(self.autoencoder, 2 * part - 1, generator) for part in x.split(batch)]
            x = decode_latents(self.autoencoder, torch.cat(latents), batch=batch)
            x = (x * 255).round() / 255 if quantise else x
        return x.numpy()

    def attack(self, images: Any) -> np.ndarray:
        """`launder` once, for arrays and tensors."""
        return self.launder(np.asarray(images, np.float32))


def top_mean(logits: Tensor, count: int) -> Tensor:
    """N×K -> N: mean of the ``count`` highest; of all when there are no more.

    >>> top_mean(torch.tensor([[3.0, 1.0, 2.0]]), 2).tolist()
    [2.5]
    """
    if count < 1:
        raise UsageError(f"The highest {count} logits have no mean; take at least one.")
    return logits.topk(min(count, logits.shape[1]), dim=1).values.mean(1)


class LaunderingNet(nn.Module):
    """Both stages, of one design and with nothing in common. forward(crops N×3×h×w) -> logits N×2 of A and B.

    width: of both residual networks (depth 18, two stages, on the rich model's residuals); the paper has an
    EfficientNet-B4 on the pixels.
    """

    def __init__(self, width: float = 0.25, front: str = "srm") -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"width": width, "front": front}
        self.stages = nn.ModuleList(TraceResNet(front, 18, 2, width=width) for _ in range(2))

    def forward(self, crops: Tensor) -> Tensor:
        return torch.stack([stage(crops) for stage in self.stages], 1)


def laundering_training(
    sets: Mapping[str, np.ndarray], batch_size: int, *, crop: int = 32, augment: Callable[[np.ndarray, int], np.ndarray]
    | None = None, laundered: bool = True,
) -> tuple[
    Callable[[int, torch.Generator], dict[str, Tensor]],
    Callable[[nn.Module, Batch, torch.Generator], dict[str, Tensor]],
]:  # fmt: skip
    """(batches, step) for `Trainer`: A on real against synthetic, B on laundered against full; both classes as often.

    sets: uint8 N×3×S×S by `LABELS`. augment: (uint8 3×S×S, seed) -> uint8 of a size that holds a crop, applied to
    every picture before cutting. Crops lie anywhere, so that the place in a block is no cue. laundered=False leaves
    laundered pictures out of A and B untrained: the detector that laundering deceives.
    """
    if any(not len(sets.get(label, ())) for label in LABELS):
        raise UsageError(f"The stages learn from pictures of all three kinds: {', '.join(LABELS)}.")
    shares = (0.4, 0.3, 0.3) if laundered else (0.5, 0.0, 0.5)

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "laundering batch")
        kinds, cuts = draw.choice(3, batch_size, p=shares), []
        for kind in kinds:
            images = sets[LABELS[kind]]
            picture = images[draw.integers(len(images))]
            if augment is not None:
                picture = augment(picture, int(draw.integers(2**31)))
            top, left = (int(draw.integers(side - crop + 1)) for side in picture.shape[1:])
            cut = picture[:, top : top + crop, left : left + crop]
            cut = np.rot90(cut, int(draw.integers(4)), (1, 2))
            cuts.append(cut[:, :, ::-1] if draw.random() < 0.5 else cut)
        return {"images": torch.from_numpy(np.stack(cuts)).float() / 255, "kinds": torch.from_numpy(kinds)}

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        logits, kinds = model(batch["images"]).float(), batch["kinds"]
        first = F.binary_cross_entropy_with_logits(logits[:, 0], (kinds > 0).float())
        loss, synthetic = first, kinds > 0
        if laundered and bool(synthetic.any()):
            second = F.binary_cross_entropy_with_logits(logits[synthetic, 1], (kinds[synthetic] > 1).float())
            loss = loss + second
        return {"loss": loss, "first": first.detach()}

    return batches, step


class LaunderingDetector:
    """Pristine, laundered or synthetic from the start.

    weights: a file that its recipe wrote, by default the shipped one; network: one to use instead.
    crop, n_crops, top_m: side and number of the random crops and how many of the highest logits are averaged; the
    paper has 96, 800 and 600. Pictures with a shorter side below ``smallest`` are enlarged to it for ``score``; the
    paper enlarges to 256, which makes photographs look synthetic to networks that learnt from small squares.

    >>> detector = LaunderingDetector(network=LaunderingNet(0.125), n_crops=4, top_m=2)
    >>> detector.classify(np.zeros((1, 3, 40, 40), np.uint8))[0] in LABELS
    True
    """

    slug = "laundering"
    photographs = True
    kind = "generated"

    def __init__(
        self, weights: str | Path | None = None, *, network: LaunderingNet | None = None, crop: int = 32,
        n_crops: int = 48, top_m: int = 36, smallest: int = 48,
    ) -> None:  # fmt: skip
        if min(crop, n_crops, top_m) < 1 or smallest < crop:
            raise UsageError("Crops, their number and how many are averaged start at 1; pictures must hold a crop.")
        self.crop, self.n_crops, self.top_m, self.smallest = crop, n_crops, top_m, smallest
        self._weights, self._network = weights, network
        self.facts: Mapping[str, Any] = {}

    @property
    def network(self) -> LaunderingNet:
        """Loaded when it is first needed; raises InputError, with the command that trains it, when it is missing."""
        if self._network is None:
            self._network, self.facts = load_network(self.slug, LaunderingNet, self._weights)
        return self._network.eval()

    @torch.no_grad()
    def _logits(self, image: Tensor) -> Tensor:
        """3×H×W in [0, 1] -> (2,): the mean of the highest logits of both stages."""
        short = min(image.shape[1:])
        if short < self.smallest:
            scale = self.smallest / short
            size = [max(self.smallest, round(side * scale)) for side in image.shape[1:]]
            image = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
        draw = rng(0, "laundering crops", picture_digest(image))
        places = [draw.integers(0, side - self.crop + 1, self.n_crops) for side in image.shape[1:]]
        crops = [image[:, y : y + self.crop, x : x + self.crop] for y, x in zip(*places, strict=True)]
        return top_mean(self.network(torch.stack(crops)).T, self.top_m)

    def score(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 or float N×3×H×W -> "real_vs_synth" and "laundered_vs_full" float64 N, logits above 0 for the second.

        The second means nothing where the first is below 0, and is nan there.
        """
        x = torch.from_numpy(np.ascontiguousarray(images))
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        found = torch.stack([self._logits(image) for image in x]).double().numpy()
        return {"real_vs_synth": found[:, 0], "laundered_vs_full": np.where(found[:, 0] < 0, np.nan, found[:, 1])}

    def classify(self, images: np.ndarray) -> list[str]:
        """One of `LABELS` for each picture."""
        scores = self.score(images)
        return [
            "pristine" if first < 0 else "full" if second >= 0 else "laundered"
            for first, second in zip(scores["real_vs_synth"], scores["laundered_vs_full"], strict=True)
        ]

    def attack(self, images: Any) -> np.ndarray:
        """Launder pictures with the small autoencoder that comes with vestige; `Launderer` takes others."""
        from vestige.forensics.learned import WEIGHTS

        return Launderer(WEIGHTS / "laundering_model").attack(images)

    def measure(self, images: np.ndarray, labels: Any) -> dict[str, float]:
        """Shares recognised of each of `LABELS`, and their mean, for uint8 N×3×H×W and N labels."""
        given = np.asarray(labels)
        found = np.array(self.classify(images))
        shares = {label: float((found[given == label] == label).mean()) for label in LABELS if (given == label).any()}
        if not shares:
            raise UsageError(f"labels are out of {', '.join(LABELS)}, one for each picture.")
        return {**shares, "balanced accuracy": float(np.mean(list(shares.values())))}

    def find(self, subject: ImageSubject) -> Finding:
        """Logit of "synthetic"; does not apply to small and flat pictures, nor without weights."""
        try:
            pixels, _ = subject.stored, self.network
        except InputError as damage:
            return Finding.not_applicable(self.slug, self.kind, str(damage))
        if min(pixels.shape[:2]) < SMALLEST:
            why = f"the picture is smaller than {SMALLEST} pixels on a side."
            return Finding.not_applicable(self.slug, self.kind, why)
        if float(pixels.std((0, 1)).mean()) < 2:
            why = "the picture is flat, so it has no texture to judge."
            return Finding.not_applicable(self.slug, self.kind, why)
        first, second = self._logits(torch.from_numpy(np.array(pixels.transpose(2, 0, 1))).float() / 255).tolist()
        kind = "photographs that went through an autoencoder" if second < 0 else "pictures made by a generator"
        return Finding(
            self.slug,
            self.kind,
            first,
            f"The texture is closest to {kind}; this detector knows few autoencoders and generators.",
            "No trace of the autoencoders and generators that this detector learnt from.",
            **stated(self.facts, first),
            evidence=(f"real or synthetic {first:+.2f}, laundered or synthetic from the start {second:+.2f}",),
            details={"real_vs_synth": round(first, 4), "laundered_vs_full": round(second, 4) if first >= 0 else None},
        )
