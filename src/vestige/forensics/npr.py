"""NPR, and residual networks on other front ends: the learned baselines of generated-picture detectors.

NPR is x less itself reduced and enlarged by two with nearest neighbours; up-sampling layers leave a pattern in it.

Source: Rethinking the Up-Sampling Operations in CNN-based Generative Network for Generalizable Deepfake Detection,
CVPR 2024.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.forensics.generated import GeneratedExaminer, TraceDetector
from vestige.nn.residual import SRM, neighbour_residual
from vestige.nn.resnet import DEPTHS, ResNet, ResNetConfig

FRONTS = ("npr", "rgb", "srm")


class TraceResNet(TraceDetector):
    """A residual network on a residual: NPR, or the picture itself, or the 30 filters of the rich model.

    front: "npr" (2/3 of the neighbour residual), "rgb" or "srm" (filters cut off at ±0.1, a 1×1 convolution to twelve
    maps). stages: of the ResNet, NPR uses two. stem "small" is NPR's (3×3, stride two, pooled), "large" that of
    ResNet (7×7). NPR is front "npr", depth 50, stages 2; CNNSpot is front "rgb", depth 50, stages 4.

    >>> TraceResNet(width=0.125)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self, front: str = "npr", depth: int = 50, stages: int = 2, *, width: float = 1.0, stem: str = "small"
    ) -> None:
        super().__init__()
        if front not in FRONTS or stem not in ("small", "large") or depth not in DEPTHS or stages not in (1, 2, 3, 4):
            raise UsageError(
                f"front is one of {', '.join(FRONTS)}, stem small or large, depth one of {', '.join(map(str, DEPTHS))} "
                f"and stages 1 to 4; got {front}, {stem}, {depth} and {stages}."
            )
        self.settings = {"front": front, "depth": depth, "stages": stages, "width": width, "stem": stem}
        whole = ResNet(ResNetConfig(depth, "imagenet", width))
        planes = whole.conv1.out_channels
        inside = 12 if front == "srm" else 3
        self.front = front
        self.residual = nn.Sequential(SRM(30, 0.1), nn.Conv2d(90, 12, 1, bias=False)) if front == "srm" else None
        size = 3 if stem == "small" else 7
        self.stem = nn.Sequential(
            nn.Conv2d(inside, planes, size, 2, size // 2, bias=False), whole.bn1, nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.Sequential(*(whole.get_submodule(f"layer{i + 1}") for i in range(stages)))
        channels = [m.num_features for m in self.stages.modules() if isinstance(m, nn.BatchNorm2d)][-1]
        self.head = nn.Linear(channels, 1)
        self.register_buffer("mean", whole.get_buffer("mean"), persistent=False)
        self.register_buffer("std", whole.get_buffer("std"), persistent=False)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if self.front == "npr":
            x = neighbour_residual(images) * (2 / 3)
        elif self.residual is not None:
            x = self.residual(images)
        else:
            x = (images - self.get_buffer("mean")) / self.get_buffer("std")
        return self.head(F.adaptive_avg_pool2d(self.stages(self.stem(x)), 1).flatten(1)).squeeze(1)


class NPR(GeneratedExaminer):
    """NPR as an examiner of whole pictures: score, fit and find. Arguments as in `GeneratedExaminer`.

    Resized pictures lose the pattern: the score then says little.

    >>> import numpy as np
    >>> NPR(network=TraceResNet(width=0.125)).score(np.zeros((2, 3, 32, 32), np.uint8)).shape
    (2,)
    """

    slug = "npr"
    found = "repeats in blocks of two pixels, as up-sampling layers of generators make it"

    @staticmethod
    def build(**settings: Any) -> TraceResNet:
        return TraceResNet(**settings)
