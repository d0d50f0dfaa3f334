"""Hierarchical contrastive learning: where a picture is corrupted, whatever by, and what was there before.

Features of corrupted and of sound places are driven apart within each picture, from coarse to fine; two clusters give
the mask, so that a corruption that was never seen is found by being unlike its surroundings. What was there before is
the matter of `vestige.forensics.hcl_restore`.

Source: Hierarchical Contrastive Learning for Pattern-Generalizable Image Corruption Detection, ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.forensics.network_examiner import NetworkExaminer
from vestige.nn.blocks import Block
from vestige.nn.clustering import soft_assignment, soft_spherical_kmeans
from vestige.nn.positions import RelativeBias

_WINDOW = 8


class WindowBlock(nn.Module):
    """A transformer block within windows of 8×8, moved by half a window where asked: N×C×H×W, sides multiples of 8."""

    def __init__(self, width: int, heads: int, shifted: bool) -> None:
        super().__init__()
        self.block, self.shift = Block(width, heads, 2.0), _WINDOW // 2 if shifted else 0
        self.bias = RelativeBias((_WINDOW, _WINDOW), heads)

    def forward(self, x: Tensor, missing: Tensor | None = None) -> Tensor:
        """missing: N×1×H×W in [0, 1]; what is missing is not attended to, but for windows that hold nothing else."""
        n, channels, height, width = x.shape
        x = x.roll((-self.shift, -self.shift), (2, 3))
        bias = self.bias(torch.arange(_WINDOW**2, device=x.device)[None])
        if self.shift:
            bias = bias + self._apart(height, width).to(x).repeat(n, 1, 1)[:, None]
        if missing is not None:
            gone = missing.roll((-self.shift, -self.shift), (2, 3))
            gone = gone.view(n, height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW).permute(0, 1, 3, 2, 4)
            bias = bias - 100 * gone.reshape(-1, 1, 1, _WINDOW**2)
        cut = x.view(n, channels, height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW)
        tokens = self.block(cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, _WINDOW**2, channels), bias=bias)
        back = tokens.view(n, height // _WINDOW, width // _WINDOW, _WINDOW, _WINDOW, channels)
        back = back.permute(0, 5, 1, 3, 2, 4).reshape(n, channels, height, width)
        return back.roll((self.shift, self.shift), (2, 3))

    def _apart(self, height: int, width: int) -> Tensor:
        """-100 between places that only the roll brought into one window, windows×64×64."""
        parts = [
            (torch.arange(n) >= n - _WINDOW).long() + (torch.arange(n) >= n - self.shift).long()
            for n in (height, width)
        ]
        region = 3 * parts[0][:, None] + parts[1][None]
        cut = region.view(height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW).permute(0, 2, 1, 3).reshape(-1, 64)
        return (cut[:, :, None] != cut[:, None]).float() * -100


class HCLNet(nn.Module):
    """Pictures N×3×H×W in [0, 1], sides multiples of 32 -> projections of length 1 at scales 1, 1/2 and 1/4.

    dims, depths: channels and window blocks of the three scales (64, 128, 256 and 6, 4, 2 in the paper; heads 1, 2, 4).
    proj: d of the projections; each scale's sees its own features and those of the next coarser one.

    >>> [tuple(z.shape) for z in HCLNet((8, 16, 32), (1, 1, 1))(torch.rand(1, 3, 32, 64))]
    [(1, 64, 32, 64), (1, 64, 16, 32), (1, 64, 8, 16)]
    """

    def __init__(self, dims: Sequence[int] = (64, 128, 256), depths: Sequence[int] = (6, 4, 2), proj: int = 64) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"dims": list(dims), "depths": list(depths), "proj": proj}
        self.stem = nn.Conv2d(3, dims[0], 5, 1, 2)
        self.stages, self.joins, self.down = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (width, depth) in enumerate(zip(dims, depths, strict=True)):
            self.stages.append(nn.Sequential(*(WindowBlock(width, 2**level, bool(k % 2)) for k in range(depth))))
            self.joins.append(nn.Conv2d(width, width, 3, 1, 1))
            if level < len(dims) - 1:
                self.down.append(nn.Conv2d(width, dims[level + 1], 2, 2))
        quarter = [dims[i + 1] // 4 for i in range(len(dims) - 1)]
        self.reduce = nn.ModuleList(nn.Conv2d(dims[i + 1], q, 1) for i, q in enumerate(quarter))
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width + extra, 2 * proj, 1), nn.GELU(), nn.Conv2d(2 * proj, proj, 1))
            for width, extra in zip(dims, [*quarter, 0], strict=True)
        )
        self.judge = nn.Sequential(
            nn.Linear(proj, proj), nn.GELU(), nn.Linear(proj, proj), nn.GELU(), nn.Linear(proj, 1)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.projections(self.maps(images))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Features at scales 1, 1/2 and 1/4."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 32 or images.shape[3] % 32:
            raise UsageError(f"Pictures must be N×3×H×W with sides in multiples of 32; got {tuple(images.shape)}.")
        x, maps = self.stem(2 * images - 1), []
        for level, (stage, join) in enumerate(zip(self.stages, self.joins, strict=True)):
            x = x + join(stage(x))
            maps.append(x)
            if level < len(self.down):
                x = self.down[level](x)
        return maps

    def projections(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What `maps` are projected to, of length 1."""
        found = []
        for level, own in enumerate(maps):
            if level < len(maps) - 1:
                coarser = F.interpolate(self.reduce[level](maps[level + 1]), scale_factor=2, mode="bilinear")
                own = torch.cat([own, coarser], 1)
            found.append(F.normalize(self.project[level](own), dim=1))
        return found


class Level(NamedTuple):
    """One scale of the hierarchy. corrupted: probability N×1×h×w. uncertain: bool, where this scale was asked.
    settled: bool, places that need no finer look. centres: N×2×d, sound then corrupted."""

    corrupted: Tensor
    uncertain: Tensor
    settled: Tensor
    centres: Tensor


def settled(corrupted: Tensor, uncertain: Tensor, share: float) -> Tensor:
    """Of the places asked, the ``share`` that are surest in each cluster of each picture and not on its boundary."""
    hard, sure = corrupted >= 0.5, (corrupted - 0.5).abs()
    kept = torch.zeros_like(uncertain)
    for n in range(len(corrupted)):
        for cluster in (hard[n], ~hard[n]):
            mine = cluster & uncertain[n]
            if bool(mine.any()):
                kept[n] |= mine & (sure[n] >= sure[n][mine].quantile(1 - share))
    around = F.pad(hard.float(), (1, 1, 1, 1), mode="replicate")
    inner = F.max_pool2d(around, 3, 1) == -F.max_pool2d(-around, 3, 1)
    return kept & inner


@torch.no_grad()
def coarse_to_fine(
    projections: Sequence[Tensor], judge: nn.Module, mask: Tensor | None = None, *, share: float = 0.95,
    iterations: int = 3, gate: bool = True,
) -> list[Level]:  # fmt: skip
    """The levels from coarse to fine; a finer one looks only at what the coarser ones left open.

    projections: fine to coarse, as the network gives them. mask: bool N×1×H×W, which tells the clusters apart in
    training; without it ``judge`` does, and with ``gate`` a picture of which it calls neither cluster corrupted is
    sound everywhere.
    """
    levels: list[Level] = []
    for z in reversed(list(projections)):
        n, _d, height, width = z.shape
        points = z.flatten(2).transpose(1, 2)
        if not levels:
            uncertain = torch.ones(n, 1, height, width, dtype=torch.bool, device=z.device)
            centres = soft_spherical_kmeans(points, iterations=iterations)
            if mask is None:
                second = judge(centres).squeeze(2)
                sound = gate & (second.amax(1) < 0)
                swap = second[:, 0] > second[:, 1]
            else:
                sound = torch.zeros(n, dtype=torch.bool, device=z.device)
                wanted = F.interpolate(mask.float(), (height, width), mode="area").flatten(1)
                assigned = soft_assignment(points, centres)
                inside = torch.einsum("np,npk->nk", wanted, assigned) / assigned.sum(1).clamp_min(1e-6)
                swap = inside[:, 0] > inside[:, 1]
            centres = torch.where(swap[:, None, None], centres.flip(1), centres)
            answer = None
        else:
            last = levels[-1]
            uncertain = ~_larger(last.settled.float()).bool()
            answer = _larger(last.corrupted)
            known = torch.cat([1 - answer, answer], 1).flatten(2)
            begun = F.normalize(known @ points, dim=2)
            centres = soft_spherical_kmeans(points, start=begun, weight=uncertain.flatten(1), iterations=iterations)
        found = soft_assignment(points, centres)[..., 1].view(n, 1, height, width)
        found = found * (~sound)[:, None, None, None]
        corrupted = found if answer is None else torch.where(uncertain, found, answer)
        done = settled(corrupted, uncertain, share) | ~uncertain
        levels.append(Level(corrupted, uncertain, done, centres))
    return levels


def _larger(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def patch_labels(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """int64 N×h×w: 0 where a place is sound throughout, 1 where corrupted throughout, -1 where it is mixed."""
    inside = F.adaptive_avg_pool2d(mask.float(), size).squeeze(1)
    return torch.where(inside == 0, 0, torch.where(inside == 1, 1, -1))


def circle_loss(
    anchors: Tensor, labels: Tensor, references: Tensor, others: Tensor, temperature: float = 0.1
) -> Tensor:
    """Mean over anchors of log(1 + Σ_neg exp(s/τ) · Σ_pos exp(-s/τ)), s the cosine with a reference.

    anchors A×d with labels A, references R×d with labels R, all of length 1; an anchor that is its own reference adds
    a constant. Anchors without a reference of both kinds do not count.
    """
    s, same = anchors @ references.T / temperature, labels[:, None] == others[None]
    # A sum over nothing must stay finite, or its gradient is not a number.
    away = s.masked_fill(same, -1e12).logsumexp(1)
    near = (-s).masked_fill(~same, -1e12).logsumexp(1)
    counted = (same.any(1) & (~same).any(1)).float()
    return (F.softplus(away + near) * counted).sum() / counted.sum().clamp_min(1)


def hcl_loss(
    net: HCLNet, images: Tensor, mask: Tensor, generator: torch.Generator, *, samples: int = 512, hard: int = 256,
    scales: int = 3, projections: Sequence[Tensor] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Contrast at every scale within every picture, and the judge's cross-entropy on the centres.

    Both centres of a picture whose mask is empty are sound to the judge; such a picture has nothing to contrast.

    Anchors: ``samples`` of the places a scale is asked about that are sound or corrupted throughout; references: these
    and the surest and least sure ``hard`` of the coarser scale, without gradient. scales: 1 uses the coarsest alone.
    projections: of these pictures, where they are known already.
    """
    projections = net(images) if projections is None else projections
    levels = coarse_to_fine(list(projections)[-scales:], net.judge, mask)
    losses = []
    for index, level in enumerate(levels):
        z = projections[len(projections) - 1 - index]
        labels = patch_labels(mask, (z.shape[2], z.shape[3]))
        for n in range(len(images)):
            usable = (level.uncertain[n, 0] & (labels[n] >= 0)).flatten().nonzero().squeeze(1)
            picked = usable[torch.randperm(len(usable), generator=generator)[:samples]]
            anchors, own = z[n].flatten(1)[:, picked].T, labels[n].flatten()[picked]
            references, others = anchors, own
            if index:
                past = projections[len(projections) - index][n].detach().flatten(1)
                told = patch_labels(mask[n : n + 1], levels[index - 1].corrupted.shape[2:]).flatten()  # type: ignore[arg-type]
                order = (levels[index - 1].corrupted[n].flatten() - 0.5).abs().argsort()
                order = order[told[order] >= 0]
                order = torch.cat([order[: hard // 2], order[len(order) - hard // 2 :]]) if len(order) > hard else order
                references, others = torch.cat([anchors, past[:, order].T]), torch.cat([own, told[order]])
            if len(picked):
                losses.append(circle_loss(anchors, own, references, others))
    centres = torch.cat([level.centres for level in levels])
    present = mask.flatten(1).any(1).to(centres).repeat(len(levels))
    told_apart = torch.stack([torch.zeros_like(present), present], 1)
    judged = F.binary_cross_entropy_with_logits(net.judge(centres).squeeze(2), told_apart)
    contrast = torch.stack(losses).mean() if losses else projections[0].sum() * 0
    return {"loss": contrast + judged, "contrast": contrast.detach(), "judge": judged.detach()}


class HCL(NetworkExaminer):
    """Marks the corrupted region of a picture.

    network: a trained `HCLNet`, by default the shipped one; side: a multiple of 32, 128 by default. The score is the
    log-odds of the judge for the cluster it holds to be corrupted.

    >>> HCL(HCLNet((8, 16, 32), (1, 1, 1)), side=32).detect(torch.rand(2, 3, 32, 32))[0].shape
    torch.Size([2, 1, 32, 32])
    """

    slug = "hcl"
    usual_side = 128
    flagged = "A region is unlike the rest of the picture as something that covers it is; the map shows where."
    clear = "No region stands out as something that covers the picture."
    map_caption = "How likely each pixel is covered or lost."

    @staticmethod
    def build(**settings: Any) -> HCLNet:
        return HCLNet(**settings)

    @torch.no_grad()
    def detect(self, images: Tensor, *, scales: int = 3, gate: bool = True) -> tuple[Tensor, Tensor]:
        """(bool mask, confidence in [0, 1]), N×1×H×W each, of pictures with sides in multiples of 32."""
        net = self.needed()
        projections = net(images)
        levels = coarse_to_fine(projections[-scales:], net.judge, iterations=5, gate=gate)
        found = F.interpolate(levels[-1].corrupted, images.shape[2:], mode="nearest")
        return found >= 0.5, found

    def examine(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        net = self.needed()
        levels = coarse_to_fine(net(images), net.judge, iterations=5)
        return net.judge(levels[-1].centres).squeeze(2).amax(1), levels[-1].corrupted
