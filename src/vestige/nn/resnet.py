"""ResNets with stems for small and for large images; weights are named as in torchvision, so its files load."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.nn.layout import safe_strides

DEPTHS: dict[int, tuple[bool, tuple[int, int, int, int]]] = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
}


@dataclass(frozen=True)
class ResNetConfig:
    """depth: 18, 34, 50 or 101. stem: "cifar" (3×3, stride 1, no pooling) or "imagenet" (7×7, stride 2, max pooling).
    width: multiplies all channel counts (64, 128, 256, 512 at 1). classes: outputs of the head, 0 for none."""

    depth: int = 18
    stem: str = "cifar"
    width: float = 1.0
    classes: int = 0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise UsageError(f"There is no ResNet of depth {self.depth}; choose {', '.join(map(str, DEPTHS))}.")
        if self.stem not in ("cifar", "imagenet"):
            raise UsageError(f"stem is {self.stem!r}; choose cifar or imagenet.")
        if not 0 < self.width <= 16 or self.classes < 0:
            raise UsageError(f"width {self.width} must be above 0 and at most 16, classes {self.classes} at least 0.")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inside: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inside, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride), 1×1 to four times the channels, and a shortcut."""

    expansion = 4

    def __init__(self, inside: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = _shortcut(inside, 4 * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def _shortcut(inside: int, outside: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inside == outside:
        return None
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))


class ResNet(nn.Module):
    """Residual network. forward(images N×3×H×W in [0, 1]) -> logits N×classes, or features N×width without a head.

    ``maps`` gives the outputs of the four stages, ``features`` their last one averaged. Any image size from 32 on
    (imagenet stem) or 8 on (cifar stem). Raises UsageError for a configuration out of range.

    Source: Deep Residual Learning for Image Recognition, CVPR 2016.

    >>> ResNet(ResNetConfig(18, width=0.25, classes=10))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, config: ResNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ResNetConfig()
        bottleneck, counts = DEPTHS[config.depth]
        block: type[BasicBlock] | type[Bottleneck] = Bottleneck if bottleneck else BasicBlock
        planes = [max(1, round(config.width * p)) for p in (64, 128, 256, 512)]
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        small = config.stem == "cifar"
        self.conv1 = nn.Conv2d(3, planes[0], 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.pool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        inside = planes[0]
        for stage, (channels, count) in enumerate(zip(planes, counts, strict=True), 1):
            blocks = []
            for i in range(count):
                blocks.append(block(inside, channels, 2 if stage > 1 and i == 0 else 1))
                inside = channels * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.width = inside
        self.fc = nn.Linear(inside, config.classes) if config.classes else None
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        safe_strides(self)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The outputs of the four stages, N×C×h×w each."""
        x = (images - self.get_buffer("mean")) / self.get_buffer("std")
        x = self.pool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        stages = []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            stages.append(x)
        return stages

    def features(self, images: Tensor) -> Tensor:
        """N×width: the last stage, averaged over space."""
        return self.maps(images)[-1].mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return features if self.fc is None else self.fc(features)


#: Sizes by name.
RESNETS = {
    **{f"resnet{d}_cifar": ResNetConfig(d, "cifar") for d in DEPTHS},
    **{f"resnet{d}": ResNetConfig(d, "imagenet") for d in DEPTHS},
}
