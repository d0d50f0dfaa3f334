"""DADM: live faces told from presented ones by colours, depth and infrared, on cameras never seen.

One transformer reads all modalities; in every block, each pair of them decides by masks what it takes from the other,
and what they share is made large. Heads of the training domains are turned towards each other, and the mean of them
decides. The paper's modulation of the gradients of single modalities is left out.

Source: DADM: Dual Alignment of Domain and Modality for Face Anti-spoofing, ICCV 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.forensics.network_examiner import NetworkExaminer
from vestige.nn.blocks import Block
from vestige.nn.residual import CentralDifferenceConv2d

MODALITIES = ("rgb", "depth", "ir")
PAIRS = tuple(combinations(range(3), 2))
#: patch, width, depth, heads
SIZES = {"tiny": (8, 96, 4, 4), "base": (16, 768, 12, 12)}


def as_map(tokens: Tensor) -> Tensor:
    """Patch tokens N×P×D of a square grid -> N×D×√P×√P."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


class MutualMask(nn.Module):
    """What two modalities take from each other: tokens N×(1+P)×D of both -> (fused, masked info tokens, masks).

    Interaction features of both maps give a mask for each; masked tokens and half of the interaction are projected back
    to D. The info token of a modality is the mean of its masked tokens.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.interact = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width), nn.Conv2d(2 * width, hidden, 1), nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, 1, 1),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Conv2d(hidden, hidden, 1), nn.GELU(), nn.Conv2d(hidden, hidden // 2, 1), nn.GELU(),
            nn.Conv2d(hidden // 2, 2 * width, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.of_class = nn.Linear(2 * width, hidden)
        self.back = nn.ModuleList(nn.Linear(width + hidden // 2, width) for _ in range(2))

    def forward(self, first: Tensor, second: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        both = (first, second)
        inter = self.interact(torch.cat([as_map(x[:, 1:]) for x in both], 1))
        masks = list(self.head(inter).flatten(2).transpose(1, 2).chunk(2, 2))
        masked = [torch.cat([x[:, :1], m * x[:, 1:]], 1) for x, m in zip(both, masks, strict=True)]
        shared = self.of_class(torch.cat([x[:, :1] for x in both], 2))
        halves = torch.cat([shared, inter.flatten(2).transpose(1, 2)], 1).chunk(2, 2)
        parts = zip(self.back, masked, halves, strict=True)
        return [back(torch.cat([x, half], 2)) for back, x, half in parts], [x.mean(1) for x in masked], masks


class DifferenceAdapter(nn.Module):
    """D -> 8 -> central differences on the map -> D, silent at first; the class token is a map of one place."""

    def __init__(self, width: int, hidden: int = 8, theta: float = 0.7) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.differ, self.drop = CentralDifferenceConv2d(hidden, hidden, 3, padding=1, theta=theta), nn.Dropout(0.1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        x = _quick_gelu(self.down(tokens))
        maps = self.differ(as_map(x[:, 1:])).flatten(2).transpose(1, 2)
        first = self.differ(x[:, :1].transpose(1, 2)[..., None]).flatten(2).transpose(1, 2)
        return self.up(self.drop(_quick_gelu(torch.cat([first, maps], 1))))


def _quick_gelu(x: Tensor) -> Tensor:
    return x * (1.702 * x).sigmoid()


def shared_information(first: Tensor, second: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The bound of Donsker and Varadhan with the mean of both info tokens N×D as critic, a scalar.

    mean((t₁ + t₂)/2) - log mean(exp((t₁[π] + t₂[π'])/2)) with two permutations; tokens pass a tanh, since the bound
    would else be raised by their size alone.
    """
    t1, t2 = first.tanh(), second.tanh()
    orders = [torch.randperm(len(t1), generator=generator).to(t1.device) for _ in range(2)]
    apart = (t1[orders[0]] + t2[orders[1]]) / 2
    return ((t1 + t2) / 2).mean() - apart.exp().mean().log()


class DADMNet(nn.Module):
    """{"rgb", "depth", "ir"}: N×3×S×S in [0, 1] -> log-odds N of a presented face; a missing modality is black.

    vit: "tiny" (for 64 pixels) or "base". n_domains: of the training, one head each. mim: mutual masks; without them a
    plain shared transformer. hidden: channels of the interaction (256 at full size).

    >>> DADMNet(size=32, hidden=16).eval()({"rgb": torch.rand(2, 3, 32, 32)}).shape
    torch.Size([2])
    """

    def __init__(
        self, vit: str = "tiny", n_domains: int = 3, *, size: int = 64, mim: bool = True, hidden: int = 64
    ) -> None:
        super().__init__()
        if vit not in SIZES or n_domains < 1 or size % SIZES.get(vit, (1,))[0]:
            raise UsageError(
                f"A transformer is {' or '.join(SIZES)}, with a domain or more and a side of whole patches."
            )
        self.settings: dict[str, Any] = {
            "vit": vit, "n_domains": n_domains, "size": size, "mim": mim, "hidden": hidden,
        }  # fmt: skip
        patch, width, depth, heads = SIZES[vit]
        self.size, self.width, self.mim = size, width, mim
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(0.02 * torch.randn(3, 1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(3, 1, 1 + (size // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.masks = nn.ModuleList(
            nn.ModuleList(MutualMask(width, hidden) for _ in PAIRS) for _ in range(depth if mim else 0)
        )
        self.adapters = nn.ModuleList(DifferenceAdapter(width) for _ in range(depth if mim else 0))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.Parameter(0.02 * torch.randn(n_domains, 2, 3 * width))
        self.prototypes: Tensor
        self.register_buffer("prototypes", torch.zeros(3, n_domains, 2, width))

    def tokens(self, pictures: Mapping[str, Tensor]) -> tuple[Tensor, list[tuple[Tensor, Tensor]], list[list[Tensor]]]:
        """(class tokens N×3×D, info tokens of every pair and block, masks of each pair in the last block)."""
        known = next((pictures[name] for name in MODALITIES if name in pictures), None)
        if known is None or set(pictures) - set(MODALITIES):
            raise UsageError(f"Pictures are given for one or more of {', '.join(MODALITIES)}.")
        states = []
        for k, name in enumerate(MODALITIES):
            x = pictures.get(name, torch.zeros_like(known))
            if x.shape[1:] != (3, self.size, self.size):
                raise UsageError(f"Pictures must be N×3×{self.size}×{self.size}; got {tuple(x.shape)}.")
            patches = self.embed(2 * x - 1).flatten(2).transpose(1, 2)
            states.append(torch.cat([self.first[k].expand(len(x), -1, -1), patches], 1) + self.places[k])
        info: list[tuple[Tensor, Tensor]] = []
        masks: list[list[Tensor]] = []
        for level, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            seen = [block.attn(block.norm1(x)) for x in states]
            taken: list[list[Tensor]] = [[], [], []]
            if self.mim:
                masks, pairs = [], self.masks[level]
                assert isinstance(pairs, nn.ModuleList)
                for (i, j), pair in zip(PAIRS, pairs, strict=True):
                    fused, told, mask = pair(seen[i], seen[j])
                    taken[i].append(fused[0])
                    taken[j].append(fused[1])
                    info.append((told[0], told[1]))
                    masks.append(mask)
            after = []
            for x, a, mine in zip(states, seen, taken, strict=True):
                x = x + a
                x = x + block.mlp(block.norm2(x))
                after.append(x + self.adapters[level](torch.stack(mine).mean(0)) if mine else x)
            states = after
        return torch.stack([self.norm(x)[:, 0] for x in states], 1), info, masks

    def forward(self, pictures: Mapping[str, Tensor]) -> Tensor:
        logits = self.tokens(pictures)[0].flatten(1) @ self.deployed().T
        return logits[:, 0] - logits[:, 1]

    def deployed(self) -> Tensor:
        """The head that decides, 2×3D (presented, live): the mean of the domains' heads, without gradient."""
        return self.heads.detach().mean(0)

    @torch.no_grad()
    def align(self, rate: float = 0.005) -> None:
        """After a step: turn each domain's hyperplanes a little towards the farthest ones; lengths stay."""
        self.heads.copy_(turned(self.heads, rate))


def turned(heads: Tensor, rate: float = 0.005) -> Tensor:
    """W_d <- ‖W_d‖ · normalise((1 - rate) Ŵ_d + rate Ŵ_far), by rows; far: the domain with the least mean cosine.

    >>> w = torch.randn(3, 2, 4)
    >>> torch.allclose(turned(w).norm(dim=2), w.norm(dim=2), atol=1e-5)
    True
    """
    if len(heads) < 2:
        return heads
    unit = F.normalize(heads, dim=2)
    cosine = torch.einsum("dkc,ekc->de", unit, unit) / heads.shape[1]
    far = cosine.fill_diagonal_(2).argmin(1)
    return F.normalize((1 - rate) * unit + rate * unit[far], dim=2) * heads.norm(dim=2, keepdim=True)


def angle_loss(features: Tensor, labels: Tensor, domains: Tensor, targets: tuple[float, float] = (0.85, 1.0)) -> Tensor:
    """Means of squared errors of angles between domains, a scalar; 0 with fewer than two domains of a class.

    features: N×3×D by modality. For each pair of domains and each class (0 presented, 1 live), from mean directions:
    the cosine of the same modality is to be ``targets`` of the class, and the cosines of modalities within a domain are
    to be the same in both.
    """
    unit = F.normalize(features, dim=2)
    errors = []
    for label, wanted in enumerate(targets):
        middles = []
        for domain in domains.unique():
            mine = (labels == label) & (domains == domain)
            if bool(mine.any()):
                middles.append(F.normalize(unit[mine].mean(0), dim=1))
        for one, two in combinations(middles, 2):
            errors.append(((one * two).sum(1) - wanted).square().mean())
            across = [torch.stack([m[i] @ m[j] for i, j in PAIRS]) for m in (one, two)]
            errors.append((across[0] - across[1]).square().mean())
    return torch.stack(errors).mean() if errors else features.sum() * 0


def dadm_loss(
    net: DADMNet, pictures: Mapping[str, Tensor], live: Tensor, domains: Tensor,
    generator: torch.Generator | None = None, *, weights: tuple[float, float, float] = (0.2, 0.3, 0.15),
) -> dict[str, Tensor]:  # fmt: skip
    """Cross-entropy of every domain's head on its own pictures, plus angles, prototypes and shared information.

    live: int64 N, 1 live. domains: int64 N. weights: of the angles, of the prototypes and of -I (0.3 times 0.5). The
    prototypes follow the features with momentum 0.2 while the network is in training mode.
    """
    features, info, _ = net.tokens(pictures)
    flat = features.flatten(1)
    logits = torch.einsum("nc,nkc->nk", flat, net.heads[domains])
    told = F.cross_entropy(logits, live)  # the mean over all is the heads' means weighted by their share
    angles = angle_loss(features, live, domains)
    if net.training:
        _follow(net, features.detach(), live, domains)
    distance = (
        (features[:, :, None] - net.prototypes[:, domains].transpose(0, 1)).square().sum(3).clamp_min(1e-12).sqrt()
    )
    near = F.cross_entropy(-distance.flatten(0, 1), live.repeat_interleave(3))
    shared = torch.stack([shared_information(a, b, generator) for a, b in info]).sum() if info else told * 0
    total = told + weights[0] * angles + weights[1] * near - weights[2] * shared
    return {"loss": total, "told": told.detach(), "angles": angles.detach(), "shared": shared.detach()}


@torch.no_grad()
def _follow(net: DADMNet, features: Tensor, live: Tensor, domains: Tensor, momentum: float = 0.2) -> None:
    for domain in range(len(net.heads)):
        for label in (0, 1):
            mine = (domains == domain) & (live == label)
            if bool(mine.any()):
                held, mean = net.prototypes[:, domain, label], features[mine].mean(0)
                fresh = held.abs().sum() == 0
                net.prototypes[:, domain, label] = mean if fresh else (1 - momentum) * held + momentum * mean


class DADM(NetworkExaminer):
    """Tells presented faces from live ones. For pictures of one face, cut out and upright.

    network: a trained `DADMNet`; the score is the log-odds of a presentation. A picture file has colours alone, so
    `find` works with two modalities missing; `score` takes all that there are.
    """

    slug = "dadm"
    flagged = "The face looks like one that was presented to the camera: printed, on a screen, or a mask."
    clear = "The face looks like a live one, from its colours alone."

    @staticmethod
    def build(**settings: Any) -> DADMNet:
        return DADMNet(**settings)

    def examine(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.needed()({"rgb": images}), None

    @torch.no_grad()
    def score(self, images: Tensor | Mapping[str, Tensor], batch: int = 64) -> Tensor:
        """Scores N of colours N×3×H×W, or of a dictionary of modalities at the network's size."""
        if isinstance(images, Tensor):
            return super().score(images, batch)
        count = len(next(iter(images.values())))
        parts = [{k: v[at : at + batch] for k, v in images.items()} for at in range(0, count, batch)]
        return torch.cat([self.needed()(part) for part in parts])
