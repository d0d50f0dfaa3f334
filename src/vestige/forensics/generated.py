"""What learned detectors of generated pictures share: training on real and generated squares, weights, examination."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.findings import Finding
from vestige.core.runtime import device as device_of
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.engines.train import Batch, TrainConfig, Trainer
from vestige.forensics.learned import load_network, stated

if TYPE_CHECKING:
    from vestige.core.subjects import ImageSubject

#: Standard deviation in grey levels that a square must have to be looked at.
_FLAT = 2.0


class TraceDetector(nn.Module):
    """Base of the networks. forward(images N×3×H×W in [0, 1], generator) -> logits N, above 0 for generated.

    generator: for networks that sample the picture; None makes the draws from the picture itself, so that the same
    picture gets the same logit in any batch. ``settings``: the keyword arguments the network was built with.
    """

    settings: dict[str, Any]

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise NotImplementedError


def training(
    real: np.ndarray, fake: np.ndarray, batch_size: int, *, crop: int = 56, augment: float = 0.1
) -> tuple[
    Callable[[int, torch.Generator], dict[str, Tensor]],
    Callable[[nn.Module, Batch, torch.Generator], dict[str, Tensor]],
]:
    """(batches, step) for `Trainer`: half of a batch real, half generated, cut, mirrored, and cross-entropy.

    real, fake: uint8 N×3×S×S. crop: side of the random cuts, which keep a detector from learning the phase of a
    pattern. augment: chance of blur (σ 0 to 3) and, apart from it, of JPEG (quality 30 to 100), for both classes.
    Raises UsageError for empty sets and cuts larger than the pictures.

    Source: CNN-generated images are surprisingly easy to spot... for now, CVPR 2020 (the augmentation).
    """
    if not len(real) or not len(fake) or batch_size < 2:
        raise UsageError("A detector learns from real and generated pictures, at least one of each in a batch.")
    if crop > min(*real.shape[2:], *fake.shape[2:]):
        raise UsageError(f"The cuts of {crop} pixels are larger than the pictures.")

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "detector batch")
        half = batch_size // 2
        cuts = []
        for images in (real, fake):
            for row in draw.integers(0, len(images), half):
                top, left = (int(draw.integers(0, side - crop + 1)) for side in images.shape[2:])
                cut = images[row, :, top : top + crop, left : left + crop].astype(np.float32) / np.float32(255)
                cuts.append(_augmented(cut[:, :, ::-1] if draw.random() < 0.5 else cut, augment, draw))
        labels = torch.arange(2 * half) >= half
        return {"images": torch.from_numpy(np.stack(cuts)), "labels": labels.float()}

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        logits = model(batch["images"], generator)
        loss = F.binary_cross_entropy_with_logits(logits.float(), batch["labels"])
        return {"loss": loss, "right": ((logits > 0) == (batch["labels"] > 0.5)).float().mean()}

    return batches, step


def _augmented(cut: np.ndarray, chance: float, draw: np.random.Generator) -> np.ndarray:
    image = np.ascontiguousarray(cut)[None]
    if draw.random() < chance:
        image = distort(image, "blur", float(draw.uniform(0.05, 3)))
    if draw.random() < chance:
        image = distort(image, "jpeg", int(draw.integers(30, 101)))
    return image[0]


def fit_detector(
    model: TraceDetector, real: np.ndarray, fake: np.ndarray, config: TrainConfig, *, crop: int = 56,
    augment: float = 0.1,
) -> TraceDetector:  # fmt: skip
    """Train a network on real and generated squares (uint8 N×3×S×S) and return it in evaluation mode."""
    batches, step = training(real, fake, config.batch_size, crop=crop, augment=augment)
    with tempfile.TemporaryDirectory() as out:
        trained = Trainer(model, step, batches, config, out=out, device="cpu", quiet=True).run().model
    assert isinstance(trained, TraceDetector)
    return trained.eval()


@torch.no_grad()
def logits(model: TraceDetector, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """float64 N for uint8 or float images N×3×H×W, in evaluation mode."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        found = []
        for at in range(0, len(images), batch_size):
            part = torch.from_numpy(np.ascontiguousarray(images[at : at + batch_size])).to(device)
            found.append(model(part.float() / 255 if part.dtype == torch.uint8 else part.float()).double().cpu())
    finally:
        model.train(training)
    return torch.cat(found).numpy() if found else np.zeros(0)


def picture_digest(image: Tensor) -> str:
    """What draws that must follow from the picture alone are seeded with: a digest of its eight-bit values."""
    data = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy()
    return hashlib.blake2b(data.tobytes() + str(tuple(image.shape)).encode(), digest_size=16).hexdigest()


def windows(pixels: np.ndarray, side: int, count: int) -> np.ndarray:
    """Up to count² squares of ``side``, evenly spread at multiples of eight: uint8 M×3×side×side; flat ones left out.

    pixels: uint8 H×W×3 as stored. Nothing is resized, because that would take the traces away.

    >>> windows(np.random.default_rng(0).integers(0, 256, (100, 300, 3), dtype=np.uint8), 64, 3).shape
    (3, 3, 64, 64)
    """
    places = []
    for length in pixels.shape[:2]:
        last = (length - side) // 8
        steps = max(1, min(count, 2 * (length // side) - 1, last + 1))
        places.append(np.unique(np.linspace(0, last, steps).astype(int)) * 8 if last >= 0 else np.zeros(0, int))
    cut = [pixels[top : top + side, left : left + side] for top in places[0] for left in places[1]]
    kept = [square.transpose(2, 0, 1) for square in cut if square.std((0, 1)).mean() >= _FLAT]
    return np.stack(kept) if kept else np.zeros((0, 3, side, side), np.uint8)


def squares_of(subject: ImageSubject, side: int, count: int) -> tuple[np.ndarray, str]:
    """(up to ``count`` squares of a picture, see `windows`; why there are none, in words, empty where there are)."""
    nothing = np.empty((0, 3, side, side), np.uint8)
    try:
        pixels = subject.stored
    except InputError as damage:
        return nothing, str(damage)
    if min(pixels.shape[:2]) < side:
        return nothing, f"the picture is smaller than {side} pixels on a side."
    squares = windows(pixels, side, count)
    return squares, "" if len(squares) else "the picture is flat, so it has no texture to judge."


class GeneratedExaminer:
    """An examiner around a `TraceDetector`: the mean logit over squares of the picture at its own resolution.

    weights: a file that its recipe wrote, by default the package's or that of the finished run. network: one to use
    instead. side, count: of the squares, see `windows`. draws: how often networks that sample are asked.
    The weights are read at first use; InputError, with the command that trains them, is raised when there are none.
    """

    slug = ""
    photographs = True
    kind = "generated"
    found = "has the traces that generators leave"

    def __init__(
        self, weights: str | Path | None = None, *, network: TraceDetector | None = None, side: int = 64,
        count: int = 4, draws: int = 1, device: str = "cpu",
    ) -> None:  # fmt: skip
        if draws < 1 or count < 1 or side < 8:
            raise UsageError("Squares need sides of at least 8 pixels; count and draws start at 1.")
        self.side, self.count, self.draws = side, count, draws
        self.facts: dict[str, Any] = {}
        self._weights, self._device = weights, device
        self._network = None if network is None else network.eval().to(device_of(device))

    @property
    def network(self) -> TraceDetector:
        if self._network is None:
            network, self.facts = load_network(self.slug, self.build, self._weights)
            self._network = network.to(device_of(self._device))
        return self._network

    @staticmethod
    def build(**settings: Any) -> TraceDetector:
        """The network for these settings."""
        raise NotImplementedError

    def fit(
        self, real: np.ndarray, fake: np.ndarray, *, steps: int = 300, batch_size: int = 32, lr: float = 1e-3,
        seed: int = 0, **options: Any,
    ) -> GeneratedExaminer:  # fmt: skip
        """Train the network on uint8 N×3×S×S real and generated pictures; options as in `training`."""
        config = TrainConfig(steps=steps, batch_size=batch_size, lr=lr, weight_decay=0.0, betas=(0.9, 0.99), seed=seed)
        torch.manual_seed(seed)
        self._network = fit_detector(self.network, real, fake, config, **options)
        return self

    def score(self, images: np.ndarray) -> np.ndarray:
        """Probability N of being generated, for uint8 or float images N×3×H×W, as the network gives it."""
        return 1 / (1 + np.exp(-np.clip(self.logits(images), -500, 500)))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float64 N."""
        return logits(self.network, images)

    def find(self, subject: ImageSubject) -> Finding:
        """Score and spread over the squares; does not apply to small and flat pictures, nor without weights."""
        squares, why = squares_of(subject, self.side, self.count)
        if why:
            return Finding.not_applicable(self.slug, self.kind, why)
        try:
            values = self.logits(squares)
        except InputError as missing:
            return Finding.not_applicable(self.slug, self.kind, str(missing))
        return Finding(
            self.slug,
            self.kind,
            float(values.mean()),
            f"The texture {self.found}; detectors of this kind know the generators they learnt from and their like, "
            "and processing can imitate or hide such traces.",
            "No trace of the generators it learnt from; others may leave none that it knows.",
            **stated(self.facts, float(values.mean())),
            evidence=(
                f"mean score of {len(values)} squares of {self.side} pixels: {values.mean():.2f}, from "
                f"{values.min():.2f} to {values.max():.2f}",
            ),
            details={"squares": len(values), "lowest": round(float(values.min()), 4),
                     "highest": round(float(values.max()), 4)},
        )  # fmt: skip
