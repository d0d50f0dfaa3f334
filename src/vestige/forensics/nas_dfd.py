"""Architecture search for forged faces: cells of central differences, kept by how they do on other forgeries.

Candidates are pruned edge by edge. What counts is their share in the mixture times the score that networks with that
candidate alone on its edge reach on other data, best of another set of forgeries than the weights see.

Source: Searching for the Fakes: Efficient Neural Architecture Search for General Face Forgery Detection, arXiv
2306.08830 (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.forensics.network_examiner import NetworkExaminer
from vestige.metrics.detection import auroc
from vestige.nn.darts import KINDS, FoundNetwork, Genotype, SuperNetwork
from vestige.nn.residual import CentralDifferenceConv2d

#: number, generator -> (pictures N×3×H×W in [0, 1], float N, 1 forged)
Batches = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


class _None(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x[:, :, :: self.stride, :: self.stride]


class CDCSpace:
    """The candidates: nothing, the input, the maximum, and separable convolutions, plain and dilated, with central
    differences of strength θ.

    >>> len(CDCSpace().names), CDCSpace((0.0,)).names[-2:]
    (11, ('sep_0', 'dil_0'))
    """

    def __init__(self, thetas: Sequence[float] = (0.0, 0.5, 0.7, 0.8)) -> None:
        if not thetas or min(thetas) < 0 or max(thetas) > 1 or len(set(thetas)) < len(thetas):
            raise UsageError(f"The strengths of central differences are distinct, from 0 to 1; got {list(thetas)}.")
        self.thetas = tuple(thetas)
        self.names = ("none", "skip", "max_pool", *(f"{kind}_{t:g}" for kind in ("sep", "dil") for t in thetas))

    def make(self, name: str, channels: int, stride: int, affine: bool) -> nn.Module:
        """The module of a candidate, N×channels×h×w -> N×channels×h/stride×w/stride."""
        if name not in self.names:
            raise UsageError(f"There is no candidate {name!r}; the space has {', '.join(self.names)}.")
        if name == "none":
            return _None(stride)
        if name == "skip":
            if stride == 1:
                return nn.Identity()
            return nn.Sequential(
                nn.ReLU(), nn.Conv2d(channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels, affine=affine)
            )
        if name == "max_pool":
            return nn.Sequential(nn.MaxPool2d(3, stride, 1), nn.BatchNorm2d(channels, affine=affine))
        kind, theta = name.split("_")
        layers: list[nn.Module] = []
        for step in (stride, 1) if kind == "sep" else (stride,):
            reach = 1 if kind == "sep" else 2
            layers += [
                nn.ReLU(),
                CentralDifferenceConv2d(
                    channels, channels, 3, stride=step, padding=reach, dilation=reach, groups=channels, bias=False,
                    theta=float(theta),
                ),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels, affine=affine),
            ]  # fmt: skip
        return nn.Sequential(*layers)

    def differences(self, genotype: Genotype) -> float:
        """Share of a genotype's sixteen candidates that are central differences with θ above 0."""
        wanted = {f"{kind}_{t:g}" for kind in ("sep", "dil") for t in self.thetas if t > 0}
        return float(np.mean([name in wanted for name in genotype.operations]))


def build(
    genotype: Genotype, channels: int = 36, layers: int = 12, *, space: CDCSpace | None = None, drop_path: float = 0.2
) -> FoundNetwork:
    """The network of a genotype, to be trained from scratch."""
    space = space or CDCSpace()
    network = FoundNetwork(genotype, space.make, channels, layers, drop_path)
    network.settings = {
        "genotype": genotype.to_json(), "channels": channels, "layers": layers, "thetas": list(space.thetas),
        "drop_path": drop_path,
    }  # fmt: skip
    return network


def importance(
    net: SuperNetwork, sums: dict[str, list[Tensor]], counts: dict[str, list[Tensor]]
) -> dict[str, list[Tensor]]:
    """I(e, o) = softmax(α)(e, o) · s(e, o) / mean over o of s(e, o); s: mean score of the batches in which o alone was
    active on e; candidates that were never drawn get the mean of the others."""
    found: dict[str, list[Tensor]] = {}
    for kind in KINDS:
        found[kind] = []
        for share, total, count in zip(net.shares(kind), sums[kind], counts[kind], strict=True):
            seen = count > 0
            middle = total[seen].sum() / count[seen].sum() if bool(seen.any()) else torch.tensor(1.0)
            score = torch.where(seen, total / count.clamp_min(1), middle)
            found[kind].append(share.detach() * score / score.mean().clamp_min(1e-6))
    return found


def search(
    space: CDCSpace, split_a: Batches, split_b: Batches, *, channels: int = 16, cells: int = 6, k: int = 4,
    steps: int = 2000, warmup: int = 1000, prune_every: int = 200, keep: int = 1, lr: float = 0.1, seed: int = 0,
) -> Genotype:  # fmt: skip
    """Search for cells: weights learn on ``split_a`` (SGD, cosine), the architecture and its scores on ``split_b``.

    For ``warmup`` steps only weights learn. Then every step also moves α and β by Adam, first order, and scores one
    network with a single drawn candidate on every edge by its AUC on a batch of B; every ``prune_every`` steps each
    edge loses its least important candidate until ``keep`` are left. Give B other forgeries than A to search across
    sets; a third set must judge. Raises UsageError for lengths that leave nothing to search.
    """
    if steps <= warmup or min(prune_every, keep, cells) < 1:
        raise UsageError(f"A search of {steps} steps needs fewer than that to warm up ({warmup}), and a pruning.")
    torch.manual_seed(seed)
    draw = rng(seed, "search")
    net = SuperNetwork(space.names, space.make, channels, cells, k)
    weights = torch.optim.SGD(net.weights(), lr, momentum=0.9, weight_decay=3e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(weights, steps)
    outer = _outer(net)
    sums, counts = _scores(net), _scores(net)
    generator = torch.Generator().manual_seed(seed)
    for number in range(steps):
        net.train()
        if number >= warmup:
            images, labels = split_b(number, generator)
            outer.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(net(images), labels).backward()
            outer.step()
            with torch.no_grad():
                chosen = {kind: [int(draw.integers(len(own))) for own in net.names[kind]] for kind in KINDS}
                score = auroc(labels.numpy() > 0.5, net(images, chosen).numpy())
            for kind in KINDS:
                for edge, c in enumerate(chosen[kind]):
                    sums[kind][edge][c] += score
                    counts[kind][edge][c] += 1
        images, labels = split_a(number, generator)
        weights.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(net(images), labels).backward()
        nn.utils.clip_grad_norm_(net.weights(), 5.0)
        weights.step()
        cosine.step()
        after = number - warmup + 1
        if after > 0 and after % prune_every == 0 and max(len(own) for own in net.names["normal"]) > keep:
            net.prune(importance(net, sums, counts))
            # what is deleted leaves both optimisers with all their memory of it
            held = {id(p) for p in net.weights()}
            weights.param_groups[0]["params"] = [p for p in weights.param_groups[0]["params"] if id(p) in held]
            for p in [p for p in weights.state if id(p) not in held]:
                del weights.state[p]
            outer, sums, counts = _outer(net), _scores(net), _scores(net)
    return net.genotype()


def _outer(net: SuperNetwork) -> torch.optim.Adam:
    return torch.optim.Adam(net.architecture(), 6e-4, betas=(0.5, 0.999), weight_decay=1e-3)


def _scores(net: SuperNetwork) -> dict[str, list[Tensor]]:
    return {kind: [torch.zeros(len(own)) for own in net.names[kind]] for kind in KINDS}


class NasDFD(NetworkExaminer):
    """Tells forged faces by a network whose cells were searched for. For pictures of one face, cut out and upright.

    network: one that `build` made and that was trained; the score is its log-odds of a forgery.
    """

    slug = "nas_dfd"
    usual_side = 48
    flagged = (
        "The face has fine differences like those of the forgeries it learnt from; other processing can cause them."
    )
    clear = "The face has none of the differences of the forgeries it learnt from."

    @staticmethod
    def build(**settings: Any) -> nn.Module:
        space = CDCSpace(settings.pop("thetas"))
        return build(Genotype.from_json(settings.pop("genotype")), space=space, **settings)

    @staticmethod
    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of a found network, labels float N, 1 forged."""
        return F.binary_cross_entropy_with_logits(network(images), labels)

    def examine(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.needed()(images), None
