"""Detectors of forged faces that others are compared with: one encoder with plain, consistent or self-blended training,
two classifiers that nobody searched for, and a small convolutional one to audit.

Sources: CORE: Consistent Representation Learning for Face Forgery Detection, CVPR workshops 2022; Detecting Deepfakes
with Self-Blended Images, CVPR 2022; Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.forensics.ucf import separable_encoder
from vestige.nn.residual import SRM
from vestige.nn.resnet import ResNet, ResNetConfig


class PlainNet(nn.Module):
    """UCF's forgery encoder with one head, without all that UCF adds: N×3×H×W in [0, 1] -> log-odds N of a forgery.

    srm: a front of fixed residual filters. width, features: of the encoder.
    """

    def __init__(self, width: int = 12, features: int = 64, srm: bool = False) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"width": width, "features": features, "srm": srm}
        self.front = nn.Sequential(SRM(3), nn.Conv2d(9, 3, 1)) if srm else nn.Identity()
        self.encoder = separable_encoder(width, 2, features)
        self.head = nn.Linear(features, 1)

    def features(self, images: Tensor) -> Tensor:
        return self.encoder(self.front(2 * images - 1)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).squeeze(1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return (low + (high - low) * torch.rand(count, generator=generator)).view(count, 1, 1, 1)


def _relit(images: Tensor, generator: torch.Generator) -> Tensor:
    """Other contrast and brightness for every picture."""
    n = len(images)
    return ((images - 0.5) * _uniform(n, 0.8, 1.2, generator) + 0.5 + _uniform(n, -0.1, 0.1, generator)).clamp(0, 1)


def core_loss(model: PlainNet, images: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """CORE: cross-entropy of two views, and 1 - the cosine of their features."""
    found = []
    for _ in range(2):
        view, side = _relit(images, generator), images.shape[2] // 4
        top, left = (int(torch.randint(images.shape[2] - side, (), generator=generator)) for _ in range(2))
        view[:, :, top : top + side, left : left + side] = 0.5  # a square erased
        found.append(model.features(view))
    each = [F.binary_cross_entropy_with_logits(model.head(x).squeeze(1), fake) for x in found]
    return (each[0] + each[1]) / 2 + (1 - F.cosine_similarity(found[0], found[1])).mean()


def self_blended(faces: Tensor, generator: torch.Generator) -> Tensor:
    """SBI: real faces whose middle is the face itself in other light, a little moved and softened, with soft edges."""
    n, side = len(faces), faces.shape[2]
    moved = [int(torch.randint(-1, 2, (), generator=generator)) for _ in range(2)]
    other = _relit(faces, generator).roll(moved, (2, 3))
    soft = F.avg_pool2d(other, 3, 1, 1, count_include_pad=False)
    other = torch.lerp(other, soft, _uniform(n, 0.0, 1.0, generator))
    place = torch.linspace(-1, 1, side)
    down, across = ((place.view(shape) / _uniform(n, 0.5, 0.85, generator)).square()
                    for shape in ((1, 1, side, 1), (1, 1, 1, side)))  # fmt: skip
    inside = (4 * (1 - (down + across).sqrt()) + 0.5).clamp(0, 1)
    return torch.lerp(faces, other, inside)


class _Separable(nn.Module):
    """Separable convolutions beside a residual link; ``halve`` halves the size."""

    def __init__(self, widths: Sequence[int], halve: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.ReLU(), nn.Conv2d(a, a, 3, padding=1, groups=a, bias=False)]
            layers += [nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b)]
        self.body = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1)) if halve else nn.Sequential(*layers)
        self.link: nn.Module = nn.Identity()
        if halve:
            ends = widths[0], widths[-1]
            self.link = nn.Sequential(nn.Conv2d(*ends, 1, 2, bias=False), nn.BatchNorm2d(widths[-1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.link(x)


class XceptionSmall(nn.Module):
    """N×3×H×W in [0, 1] -> logits N×1; a fifth of Xception's width, one block in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), _Separable((24, 48, 48), True),
            _Separable((48, 96, 96), True), _Separable((96, 144, 144), True), _Separable((144,) * 4, False), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(144, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body((images - 0.5) / 0.25).mean((2, 3)))


#: Networks that nobody searched for, of about the size of those that are found by search.
KNOWN: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ResNet(ResNetConfig(18, width=0.25, classes=1)),
    "xception": XceptionSmall,
}


def small_detector() -> nn.Sequential:
    """Four convolutions: N×3×H×W in [0, 1] -> logits N×1."""
    layers: list[nn.Module] = []
    for inside, outside in ((3, 24), (24, 32), (32, 48), (48, 64)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if inside > 3 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 1))
