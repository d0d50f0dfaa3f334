"""ImagiNet's learner: features of generated pictures by self-contrast, then a calibrated judge on top.

An encoder without early down-sampling gives two views of every picture, the features of a middle stage and those of
the last; both are projected onto a sphere where pictures of one origin, and generated ones of one generator, are drawn
together. The projections and the middle exit are dropped at test time.

Source: ImagiNet: A Multi-Content Dataset for Generalizable Synthetic Image Detection via Contrastive Learning, arXiv
2407.20020 (2024); Self-Contrastive Learning: Single-Viewed Supervised Contrastive Framework Using Sub-network, AAAI
2023 (the loss).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.image_io import decode, encode
from vestige.core.runtime import rng
from vestige.data.contents import ContentSet
from vestige.engines.train import Batch, TrainConfig, Trainer
from vestige.forensics.generated import GeneratedExaminer, TraceDetector
from vestige.nn.resnet import ResNet, ResNetConfig

D = TypeVar("D", bound=TraceDetector)
Batches = Callable[[int, torch.Generator], dict[str, Tensor]]


def selfcon_loss(z: Tensor, labels: Tensor, t: float = 0.07) -> Tensor:
    """Supervised contrast over all exits of all pictures, a scalar.

    z: B×E×d of length 1, labels: B. Every exit is an anchor; its positives P are the other exits of its picture and
    all exits of pictures with its label: -mean over anchors of mean over P of log softmax(z_a·z_p / t), the anchor
    itself left out. Anchors without positives do not count; without any the loss is 0.

    >>> z = F.normalize(torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0)), dim=2)
    >>> bool(selfcon_loss(z, torch.tensor([0, 0, 1, 1])) > 0)
    True
    """
    if z.ndim != 3 or len(labels) != len(z):
        raise UsageError(f"Self-contrast takes features B×E×d and B labels; got {tuple(z.shape)} and {len(labels)}.")
    flat, own = z.flatten(0, 1), labels.repeat_interleave(z.shape[1])
    itself = torch.eye(len(flat), dtype=torch.bool, device=z.device)
    alike = (flat @ flat.T / t).masked_fill(itself, float("-inf"))
    logs = alike - alike.logsumexp(1, keepdim=True)
    positive = (own[:, None] == own[None]) & ~itself
    count = positive.sum(1)
    each = -logs.masked_fill(~positive, 0.0).sum(1) / count.clamp_min(1)
    return (each * (count > 0)).sum() / (count > 0).sum().clamp_min(1)


class SelfConEncoder(nn.Module):
    """A residual network without early down-sampling, with an exit after stage ``exit``; two projections.

    forward(images) -> B×2×``projected`` of length 1. ``features``: B×width of the last stage, what is kept.
    """

    def __init__(self, depth: int = 18, width: float = 0.25, exit: int = 2, projected: int = 64) -> None:
        super().__init__()
        if exit not in (1, 2, 3):
            raise UsageError(f"exit is {exit}; it follows stage 1, 2 or 3.")
        self.backbone, self.exit = ResNet(ResNetConfig(depth, "cifar", width)), exit
        self.width = self.backbone.width
        middle = self.width // 2 ** (4 - exit)
        self.lift = nn.Linear(middle, self.width)
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, projected))
            for _ in range(2)
        )

    def features(self, images: Tensor) -> Tensor:
        return self.backbone.features(images)

    def forward(self, images: Tensor) -> Tensor:
        stages = self.backbone.maps(images)
        middle, last = (stages[k].mean((2, 3)) for k in (self.exit - 1, 3))
        views = [project(x) for project, x in zip(self.projections, (self.lift(middle), last), strict=True)]
        return F.normalize(torch.stack(views, 1), dim=2)


class SelfConDetector(TraceDetector):
    """The encoder and its judge: BN-Linear-ReLU-Dropout-Linear on the features as they are, never normalised."""

    def __init__(self, depth: int = 18, width: float = 0.25, hidden: int = 64) -> None:
        super().__init__()
        self.settings = {"depth": depth, "width": width, "hidden": hidden}
        self.encoder = SelfConEncoder(depth, width)
        self.judge = nn.Sequential(
            nn.BatchNorm1d(self.encoder.width),
            nn.Linear(self.encoder.width, hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.judge(self.encoder.features(images)).squeeze(1)

    def loss(self, batch: Batch) -> Tensor:
        """Self-contrast by origin, over all, and by generator, over the generated ones where there are two kinds.

        batch: "images" B×3×H×W, "labels" B (1 generated), "generators" B (int).
        """
        z = self.encoder(batch["images"])
        total = selfcon_loss(z, batch["labels"])
        made = batch["labels"] > 0.5
        if int(made.sum()) > 1 and len(batch["generators"][made].unique()) > 1:
            total = total + selfcon_loss(z[made], batch["generators"][made])
        return total


class SocialNetwork:
    """What networks do to pictures: a random square scaled to ``size``, then, mostly, JPEG or WebP.

    Picture i of a call is treated by the seed and i alone. smallest: the least share of the shorter side that is cut.

    >>> SocialNetwork(0, size=32)(np.zeros((2, 3, 48, 64), np.uint8)).shape
    (2, 3, 32, 32)
    """

    def __init__(
        self, seed: int = 0, *, size: int = 48, smallest: float = 0.7, chance: float = 0.75, worst: int = 60
    ) -> None:
        if not 0 < smallest <= 1 or not 0 <= chance <= 1 or size < 8:
            raise UsageError("smallest and chance are shares, and size is at least 8 pixels.")
        self.seed, self.size, self.smallest, self.chance, self.worst = seed, size, smallest, chance, worst

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 N×3×H×W -> uint8 N×3×size×size."""
        found = np.empty((len(images), 3, self.size, self.size), np.uint8)
        for i, image in enumerate(images):
            draw = rng(self.seed, "social network", i)
            pixels = image.transpose(1, 2, 0)
            side = round(min(pixels.shape[:2]) * draw.uniform(self.smallest, 1))
            top, left = (int(draw.integers(length - side + 1)) for length in pixels.shape[:2])
            how = cv2.INTER_AREA if side > self.size else cv2.INTER_CUBIC
            cut = np.ascontiguousarray(pixels[top : top + side, left : left + side])
            cut = cv2.resize(cut, (self.size, self.size), interpolation=how)
            kind, quality = ("JPEG", "WEBP")[int(draw.integers(2))], int(draw.integers(self.worst, 101))
            share = draw.random()
            if share < self.chance:
                cut = decode(encode(cut, kind, quality=quality)).pixels
            found[i] = cut.transpose(2, 0, 1)
        return found


def contrast_batches(made: ContentSet, batch_size: int, *, crop: int = 40) -> Batches:
    """Batches for `SelfConDetector.loss`: half generated; half of the pictures through `SocialNetwork`; cut, turned.

    Raises UsageError without pictures of both origins.
    """
    real, fake = np.flatnonzero(~made.generated), np.flatnonzero(made.generated)
    if not len(real) or not len(fake) or batch_size < 4:
        raise UsageError("Contrast needs real and generated pictures, at least two of each in a batch.")
    names = {name: k for k, name in enumerate(sorted(set(made.generator)))}
    numbers = np.array([names[name] for name in made.generator])

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "contrast batch")
        half = batch_size // 2
        rows = np.concatenate([draw.choice(real, half), draw.choice(fake, half)])
        cuts = []
        for row in rows:
            picture = made.images[row]
            if draw.random() < 0.5:
                picture = SocialNetwork(int(draw.integers(2**31)), size=max(crop, 48))(picture[None])[0]
            top, left = (int(draw.integers(side - crop + 1)) for side in picture.shape[1:])
            cut = np.rot90(picture[:, top : top + crop, left : left + crop], int(draw.integers(4)), (1, 2))
            cuts.append(cut[:, :, ::-1] if draw.random() < 0.5 else cut)
        return {
            "images": torch.from_numpy(np.stack(cuts)).float() / 255,
            "labels": torch.from_numpy(made.generated[rows]).float(),
            "generators": torch.from_numpy(numbers[rows]),
        }

    return batches


def contrast_step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """One update's loss by self-contrast."""
    assert isinstance(model, SelfConDetector)
    return {"loss": model.loss(batch)}


def views_step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Supervised contrast of the last stage alone, of every picture and of itself turned: the other baseline."""
    assert isinstance(model, SelfConDetector)
    views = [model.encoder(x)[:, 1] for x in (batch["images"], batch["images"].rot90(1, (2, 3)))]
    return {"loss": selfcon_loss(torch.stack(views, 1), batch["labels"])}


def entropy_step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """One update's loss by plain cross-entropy through the judge: the baseline, and what calibrates the judge."""
    logits = model(batch["images"]).float()
    return {"loss": F.binary_cross_entropy_with_logits(logits, batch["labels"])}


class Calibrator:
    """Fits the judge on a calibration part: the encoder is frozen, but its norms' statistics follow the data."""

    def __init__(self, steps: int = 120, *, lr: float = 2e-3, batch_size: int = 64, seed: int = 0) -> None:
        self.config = TrainConfig(
            steps=steps, batch_size=batch_size, lr=lr, betas=(0.9, 0.99), weight_decay=1e-3, seed=seed
        )

    def fit(self, detector: SelfConDetector, batches: Batches) -> SelfConDetector:
        """The detector in evaluation mode, changed in place. batches: as of `contrast_batches`."""
        for parameter in detector.encoder.parameters():
            parameter.requires_grad_(False)
        train(detector, batches, entropy_step, self.config)
        return detector.requires_grad_(True).eval()


def train(detector: D, batches: Any, step: Any, config: TrainConfig) -> D:
    """Train a detector in place and return it in evaluation mode."""
    with tempfile.TemporaryDirectory() as out:
        trained = Trainer(detector, step, batches, config, out=out, device="cpu", quiet=True).run().model
    detector.load_state_dict(trained.state_dict())
    return detector.eval()


class ImagiNet(GeneratedExaminer):
    """The learner as an examiner of whole pictures. Arguments as in `GeneratedExaminer`.

    >>> ImagiNet(network=SelfConDetector(width=0.125)).score(np.zeros((2, 3, 32, 32), np.uint8)).shape
    (2,)
    """

    slug = "imaginet"
    found = "is like that of the generators which the encoder learnt to hold together"

    @staticmethod
    def build(**settings: Any) -> SelfConDetector:
        return SelfConDetector(**settings)

    def loss(self, batch: Batch) -> Tensor:
        """What the encoder learns by, see `SelfConDetector.loss`."""
        assert isinstance(self.network, SelfConDetector)
        return self.network.loss(batch)

    def measure(self, images: np.ndarray, generated: np.ndarray) -> dict[str, float]:
        """AUROC and accuracy at one half, for uint8 N×3×H×W and whether each was generated."""
        from vestige.metrics.detection import auroc

        scores, labels = self.score(images), np.asarray(generated, bool)
        return {"auroc": auroc(labels, scores), "accuracy": float(((scores > 0.5) == labels).mean())}
