"""WSCL: edits found and roughly located by networks that were only told which pictures are edited.

Three streams (colours, fixed residuals, learned residuals) draw a map each; the upper group of its values is the
picture's score. What the streams agree on teaches each of them, and the places of a picture are asked in pairs whether
they belong together.

Source: Towards Generic Image Manipulation Detection with Weakly-Supervised Self-Consistency Learning, ICCV 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.forensics.network_examiner import NetworkExaminer
from vestige.nn.residual import SRM, BayarConv2d
from vestige.nn.resnet import ResNet, ResNetConfig

#: Streams and how much each counts in what they agree on.
STREAMS = {"rgb": 1.0, "srm": 2.0, "bayar": 2.0}
POOLS = ("otsu", "max", "top")


def otsu_pool(maps: Tensor, most: float = 0.5) -> Tensor:
    """N×1×h×w -> N: mean of the upper group of each map's values, split where the groups vary least within.

    min over k of k·var(highest k) + (P - k)·var(the rest); the upper group has at least one value and at most the share
    ``most``. All splits are compared, by running sums. Source of the criterion: A Threshold Selection Method from
    Gray-Level Histograms, IEEE Trans. SMC 1979.

    >>> otsu_pool(torch.tensor([[[[0.9, 0.1], [0.1, 0.1]]]])).tolist() == [torch.tensor(0.9).item()]
    True
    """
    values = maps.flatten(1).sort(1, descending=True).values
    size = values.shape[1]
    with torch.no_grad():
        exact = values.double()
        count = torch.arange(1, size + 1, device=maps.device)
        sums, squares = exact.cumsum(1), exact.square().cumsum(1)
        above = squares - sums.square() / count
        rest = (sums[:, -1:] - sums).square() / (size - count).clamp_min(1)
        below = squares[:, -1:] - squares - rest
        split = (above + below)[:, : max(1, int(most * size))].argmin(1)
    return values.cumsum(1).gather(1, split[:, None]).squeeze(1) / (split + 1)


def pool(maps: Tensor, how: str = "otsu") -> Tensor:
    """Score N of maps N×1×h×w: "otsu", "max", or "top": mean of the highest tenth."""
    if how == "otsu":
        return otsu_pool(maps)
    flat = maps.flatten(1)
    return flat.amax(1) if how == "max" else flat.topk(max(1, flat.shape[1] // 10), 1).values.mean(1)


@torch.no_grad()
def agreed(maps: dict[str, Tensor], labels: Tensor) -> Tensor:
    """What the streams agree on, float N×1×h×w in {0, 1}: the target that each of them is taught.

    Their mean by the weights of `STREAMS`, cut at one half. An authentic picture (label 0) has none; an edited one
    without any gets its highest places.
    """
    total = sum(STREAMS[name] for name in maps)
    mean = torch.stack([STREAMS[name] / total * m for name, m in maps.items()]).sum(0)
    target = mean > 0.5
    highest = mean >= mean.amax((2, 3), keepdim=True)
    target = torch.where(target.any(3, keepdim=True).any(2, keepdim=True), target, highest)
    return (target & (labels > 0.5)[:, None, None, None]).float()


def apart(target: Tensor) -> Tensor:
    """1 where two places differ in the target N×1×h×w, else 0: N×hw×hw, symmetric with a zero diagonal."""
    flat = target.flatten(1)
    return (flat[:, :, None] != flat[:, None]).float()


def ramp(progress: float) -> float:
    """exp(-5 (1 - progress)²), from 0 to 1 in the course of the training."""
    return math.exp(-5 * (1 - min(max(progress, 0.0), 1.0)) ** 2)


class Stream(nn.Module):
    """A front, the first stages of a ResNet, and a map: N×3×H×W -> (logits N×1×h×w, features N×C×h×w).

    stages: 2 gives maps of an eighth of the side, 3 of a sixteenth.
    """

    def __init__(self, front: str, depth: int = 50, width: float = 1.0, stages: int = 3) -> None:
        super().__init__()
        self.name = front
        self.front: nn.Module = nn.Identity()
        if front == "srm":
            self.front = nn.Sequential(SRM(3, limit=5.0), nn.Conv2d(9, 3, 1))
        elif front == "bayar":
            self.front = BayarConv2d(3, 3)
        net = ResNet(ResNetConfig(depth, "imagenet", width))
        later = [net.get_submodule(f"layer{stage}") for stage in range(1, stages + 1)]
        self.encoder = nn.Sequential(net.conv1, net.bn1, nn.ReLU(), net.pool, *later)
        wide = net.width // 2 ** (4 - stages)
        self.draw = nn.Sequential(
            nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, 1, 1)
        )
        self.pairs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, wide, 1), nn.LeakyReLU(), nn.Conv2d(wide, wide // 2, 1)) for _ in range(2)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # The fixed filters are cut off at five grey levels, so that edges of the content do not outshine residuals.
        x = (images - 0.5) / 0.25 if self.name == "rgb" else 255 * images
        features = self.encoder(self.front(x) if self.name != "bayar" else self.front(x) / 8)
        return self.draw(features), features

    def inconsistency(self, features: Tensor) -> Tensor:
        """Log-odds that two places do not belong together, N×hw×hw."""
        first, second = (head(features).flatten(2) for head in self.pairs)
        return -torch.einsum("ncp,ncq->npq", first, second) / math.sqrt(first.shape[1])


class WSCLNet(nn.Module):
    """Pictures N×3×H×W in [0, 1] -> {"maps": probabilities by stream, "features": by stream}.

    streams: of "rgb", "srm" and "bayar". pool: see `pool`. depth, width, stages: of the streams.

    >>> net = WSCLNet(depth=18, width=0.125).eval()
    >>> net.localize(torch.rand(2, 3, 64, 96)).shape, net.score(torch.rand(2, 3, 64, 96)).shape
    (torch.Size([2, 1, 64, 96]), torch.Size([2]))
    """

    def __init__(
        self, streams: Sequence[str] = tuple(STREAMS), pool: str = "otsu", depth: int = 50, width: float = 1.0,
        stages: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        if not streams or set(streams) - set(STREAMS) or pool not in POOLS or stages not in (2, 3):
            raise UsageError(
                f"Streams are {', '.join(STREAMS)}, pooling is {', '.join(POOLS)}, stages 2 or 3; got "
                f"{', '.join(streams) or 'none'}, {pool!r} and {stages}."
            )
        self.settings: dict[str, Any] = {
            "streams": list(streams), "pool": pool, "depth": depth, "width": width, "stages": stages,
        }  # fmt: skip
        self.pool = pool
        self.streams = nn.ModuleDict({name: Stream(name, depth, width, stages) for name in STREAMS if name in streams})

    def forward(self, images: Tensor) -> dict[str, dict[str, Tensor]]:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 32:
            raise UsageError(f"Pictures must be N×3×H×W with sides of 32 or more; got {tuple(images.shape)}.")
        found = {name: stream(images) for name, stream in self.streams.items()}
        return {
            "maps": {name: logits.sigmoid() for name, (logits, _) in found.items()},
            "features": {name: features for name, (_, features) in found.items()},
        }

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """N: mean of the streams' scores."""
        return torch.stack([pool(m, self.pool) for m in self(images)["maps"].values()]).mean(0)

    @torch.no_grad()
    def localize(self, images: Tensor) -> Tensor:
        """Mean of the streams' maps, N×1×H×W in [0, 1]."""
        mean = torch.stack(list(self(images)["maps"].values())).mean(0)
        return F.interpolate(mean, images.shape[2:], mode="bilinear", align_corners=False)


def wscl_loss(
    net: WSCLNet, images: Tensor, labels: Tensor, progress: float, *, msc: float = 0.1, ipc: float = 0.1
) -> dict[str, Tensor]:
    """Cross-entropy of every stream's score, agreement between streams and consistency between places.

    labels: float N, 1 edited. progress: share of the training that is done, for the `ramp`. msc, ipc: weights of the
    two consistencies, 0 leaves one out.
    """
    found, factor = net(images), ramp(progress)
    maps = found["maps"]
    scores = [pool(m, net.pool).clamp(1e-6, 1 - 1e-6) for m in maps.values()]
    told = torch.stack([F.binary_cross_entropy(s, labels) for s in scores]).sum()
    target = agreed(maps, labels)
    together = torch.stack([F.mse_loss(m, target) for m in maps.values()]).sum()
    total = told + factor * msc * together
    if ipc:
        wanted = apart(target)
        pairs = []
        for name, stream in net.streams.items():
            assert isinstance(stream, Stream)
            logits = stream.inconsistency(found["features"][name])
            pairs.append(F.binary_cross_entropy_with_logits(logits, wanted))
        total = total + factor * ipc * torch.stack(pairs).sum()
    return {"loss": total, "told": told.detach(), "together": together.detach()}


class WSCL(NetworkExaminer):
    """Says whether a picture was edited and roughly where, having learnt from labels of whole pictures alone.

    network: a trained `WSCLNet`. The picture is scaled to ``side``; the score is the log-odds of the mean score of the
    streams.
    """

    slug = "wscl"
    usual_side = 256
    flagged = "Some places of the picture do not belong with the rest, as after an edit; the map shows roughly where."
    clear = "The places of the picture belong together as in pictures without an edit."
    map_caption = "How likely each place was edited, roughly."

    @staticmethod
    def build(**settings: Any) -> WSCLNet:
        return WSCLNet(**settings)

    def examine(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        net = self.needed()
        return net.score(images).clamp(1e-6, 1 - 1e-6).logit(), net.localize(images)

    def localize(self, images: Tensor) -> Tensor:
        """Maps N×1×H×W of pictures at their own size."""
        return self.needed().localize(images)
