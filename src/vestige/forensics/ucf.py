"""UCF: forged faces told by the features that forgeries have in common, kept apart from content and from the method.

One encoder reads the forgery, one the content; the forgery's features are split into those of the method and those
common to all methods, and a decoder has to rebuild faces from any content with any forgery. Only the common features
decide.

Source: UCF: Uncovering Common Features for Generalizable Deepfake Detection, ICCV 2023.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.forensics.network_examiner import NetworkExaminer

BACKBONES = {"small": (1.0, 2), "xception": (1.0, 8)}


class Separable(nn.Module):
    """Xception's block: two separable 3×3 convolutions and a shortcut, halving where ``stride`` is 2."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a in (inside, outside):
            layers += [
                nn.ReLU(),
                nn.Conv2d(a, a, 3, 1, 1, groups=a, bias=False),
                nn.Conv2d(a, outside, 1, bias=False),
                nn.BatchNorm2d(outside),
            ]
        self.body = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1) if stride == 2 else nn.Identity())
        same = inside == outside and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


def separable_encoder(width: int, middle: int, features: int) -> nn.Sequential:
    """Pictures N×3×H×W in [-1, 1] -> N×features×H/8×W/8; as in Xception, the first convolution halves the size, and
    ``middle`` blocks of the full width follow the others."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        Separable(width, 2 * width, 2), Separable(2 * width, 4 * width, 2),
        *(Separable(4 * width, 4 * width) for _ in range(middle)),
        nn.ReLU(), nn.Conv2d(4 * width, features, 1),
    )  # fmt: skip


def adain(content: Tensor, style: Tensor, eps: float = 1e-5) -> Tensor:
    """The content with the mean and deviation of each of the style's channels, N×C×h×w both.

    Source: Arbitrary Style Transfer in Real-Time with Adaptive Instance Normalization, ICCV 2017.

    >>> x, y = torch.randn(1, 2, 4, 4), 3 + torch.randn(1, 2, 4, 4)
    >>> torch.allclose(adain(x, y).mean((2, 3)), y.mean((2, 3)), atol=1e-4)
    True
    """
    if content.shape[:2] != style.shape[:2]:
        raise UsageError(f"Content and style need the same channels; got {content.shape[1]} and {style.shape[1]}.")
    means = [x.mean((2, 3), keepdim=True) for x in (content, style)]
    spreads = [(x.var((2, 3), keepdim=True, correction=0) + eps).sqrt() for x in (content, style)]
    return (content - means[0]) / spreads[0] * spreads[1] + means[1]


class _Head(nn.Module):
    """Mean over the map, two linear layers, dropout on the logits: (logits, pooled features)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inside, 2 * inside), nn.LeakyReLU(), nn.Linear(2 * inside, outside))
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = x.mean((2, 3))
        return self.drop(self.layers(pooled)), pooled


class Decoder(nn.Module):
    """Forgery features (style) and content N×F×h×w -> faces N×3×8h×8w in [-1, 1]; style and content pass the same
    convolutions, and the content takes the style's statistics before each. As published, enlargement keeps the corners
    in place and activations are ReLU; the published encoder is four times coarser, and its decoder ends in another
    enlargement by four."""

    def __init__(self, features: int) -> None:
        super().__init__()
        widths = (features, features // 2, features // 4, features // 8)
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU()
            )
            for a, b in itertools.pairwise(widths)
        )  # fmt: skip
        self.drop, self.last = nn.Dropout(0.3), nn.Conv2d(widths[-1], 3, 1)

    def forward(self, style: Tensor, content: Tensor) -> Tensor:
        for conv in self.convs:
            content = conv(self._larger(adain(content, style)))
            if conv is not self.convs[-1]:
                style = conv(self._larger(style))
        return self.last(content).tanh()

    def _larger(self, x: Tensor) -> Tensor:
        return self.drop(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class UCFNet(nn.Module):
    """Faces N×3×H×W in [0, 1], sides multiples of 8 -> log-odds N of being forged, from the common features.

    backbone: "small" or "xception" (more blocks). n_methods: forgeries in training, numbered from 1; 0 is real.
    width, features: of the encoders (32 to 128 and 512 at full size).

    >>> UCFNet(width=8, features=32).eval()(torch.rand(2, 3, 48, 40)).shape
    torch.Size([2])
    """

    def __init__(self, backbone: str = "small", n_methods: int = 4, width: int = 32, features: int = 512) -> None:
        super().__init__()
        if backbone not in BACKBONES or n_methods < 1 or features % 8 or width < 1:
            raise UsageError(
                f"A backbone is {' or '.join(BACKBONES)}, with a method or more and features in multiples of 8; got "
                f"{backbone!r}, {n_methods} and {features}."
            )
        self.settings: dict[str, Any] = {
            "backbone": backbone, "n_methods": n_methods, "width": width, "features": features,
        }  # fmt: skip
        middle = BACKBONES[backbone][1]
        self.forgery, self.content = (separable_encoder(width, middle, features) for _ in range(2))
        half = features // 2
        self.specific, self.common = (
            nn.Sequential(
                nn.Conv2d(features, half, 1), nn.LeakyReLU(), nn.Conv2d(half, half, 1), nn.LeakyReLU(),
                nn.Conv2d(half, half, 1),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head_specific, self.head_common = _Head(half, n_methods + 1), _Head(half, 2)
        self.decode = Decoder(features)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """{"common", "specific": N×F/2×h×w, "content": N×F×h×w}."""
        x = 2 * images - 1
        f = self.forgery(x)
        return {"common": self.common(f), "specific": self.specific(f), "content": self.content(x)}

    def forward(self, images: Tensor) -> Tensor:
        logits, _ = self.head_common(self.common(self.forgery(2 * images - 1)))
        return logits[:, 1] - logits[:, 0]


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 3.0) -> Tensor:
    """mean max(0, ‖a - p‖ - ‖a - n‖ + margin), 0 where negatives are farther by the margin.

    >>> triplet(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[4.0, 0.0]])).item()
    0.0
    """
    near, far = ((anchor - x).square().sum(1).clamp_min(1e-12).sqrt() for x in (positive, negative))
    return F.relu(near - far + margin).mean()


def ucf_loss(
    net: UCFNet, images: Tensor, methods: Tensor, generator: torch.Generator, *,
    weights: Sequence[float] = (1.0, 0.1, 0.3, 0.05), margin: float = 3.0, swap: float = 0.7,
) -> dict[str, Tensor]:  # fmt: skip
    """The paper's four terms for a batch whose first half is real and whose second half is forged.

    images: 2B×3×H×W in [0, 1]. methods: int64 2B, 0 for the real half. weights: of the common cross-entropy, the
    specific one, the reconstructions (L1, two of each half with its own content and two with the forgery features of
    the other; the owner of the content is the target) and the contrast. swap: chance that common features are permuted
    within the halves. Raises UsageError for batches that are not paired.
    """
    half = len(images) // 2
    if len(images) % 2 or not half or bool((methods[:half] != 0).any()) or bool((methods[half:] == 0).any()):
        raise UsageError("A batch is paired: its first half real (method 0), its second half forged.")
    maps = net.maps(images)
    common, specific, content = maps["common"], maps["specific"], maps["content"]
    if torch.rand(1, generator=generator).item() < swap:
        order = [torch.randperm(half, generator=generator) + start for start in (0, half)]
        common = common[torch.cat(order).to(images.device)]
    (logits, pooled), (told, pooled_specific) = net.head_common(common), net.head_specific(specific)
    style, target = torch.cat([specific, common], 1), 2 * images - 1
    other = style.roll(half, 0)  # real content with forged style and the other way round
    rebuilt = F.l1_loss(net.decode(style, content), target) + F.l1_loss(net.decode(other, content), target)
    contrast = _contrast(pooled, pooled_specific, methods, half, generator, margin)
    terms = {
        "common": F.cross_entropy(logits, (methods > 0).long()),
        "specific": F.cross_entropy(told, methods),
        # Every mean over the batch is that of two halves, and the paper sums the halves.
        "rebuilt": 2 * rebuilt,
        "contrast": contrast,
    }
    total = torch.stack([w * t for w, t in zip(weights, terms.values(), strict=True)]).sum()
    return {"loss": total, **{name: term.detach() for name, term in terms.items()}}


def _contrast(
    common: Tensor, specific: Tensor, methods: Tensor, half: int, generator: torch.Generator, margin: float
) -> Tensor:
    """Four triplets: common and specific features, anchored in the real and in the forged half."""
    total = common.sum() * 0
    for start, away in ((0, half), (half, 0)):
        near, far = (torch.randint(half, (half,), generator=generator) + place for place in (start, away))
        total = total + triplet(common[start : start + half], common[near], common[far], margin)
        own = methods[start : start + half]
        # drawn among those of the anchor's method; every anchor has at least itself
        drawn = torch.rand(half, half, generator=generator).to(common.device)
        drawn = drawn.masked_fill(own[:, None] != own[None], -1)
        alike = drawn.argmax(1) + start
        total = total + triplet(specific[start : start + half], specific[alike], specific[far], margin)
    return total


class UCF(NetworkExaminer):
    """Tells forged faces by what forgeries have in common. For pictures that show one face, cut out and upright.

    network: a trained `UCFNet`; the score is the log-odds of being forged.

    >>> sorted(UCF(UCFNet(width=8, features=32), side=48).features(torch.rand(2, 3, 48, 48)))
    ['common', 'content', 'specific']
    """

    slug = "ucf"
    flagged = "The face has features that the forgeries it learnt from have in common; other processing can cause them."
    clear = "The face has none of the features that the forgeries it learnt from have in common."

    @staticmethod
    def build(**settings: Any) -> UCFNet:
        return UCFNet(**settings)

    def examine(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.needed()(images), None

    @torch.no_grad()
    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Means over the maps: common and specific N×F/2, content N×F."""
        return {name: x.mean((2, 3)) for name, x in self.needed().maps(images).items()}
