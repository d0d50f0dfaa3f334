"""Differentiable search of cells: candidates mixed on every edge, pruned one by one, and the network that is left.

Sources: DARTS: Differentiable Architecture Search, ICLR 2019; PC-DARTS: Partial Channel Connections for
Memory-Efficient Architecture Search, ICLR 2020.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.nn.blocks import DropPath

NODES = 4
#: (node, source) of every edge; sources 0 and 1 are the two cells before, 2 and more the nodes of this one.
EDGES = tuple((node, source) for node in range(NODES) for source in range(2 + node))
KINDS = ("normal", "reduce")
#: (name of the candidate, channels, stride, whether its norms have gains) -> module
Maker = Callable[[str, int, int, bool], nn.Module]


@dataclass(frozen=True)
class Genotype:
    """What was found: for each kind of cell two (candidate, source) for each node, in order.

    >>> Genotype.random(("skip", "sep_0"), np.random.default_rng(0)) == Genotype.random(
    ...     ("skip", "sep_0"), np.random.default_rng(0))
    True
    """

    normal: tuple[tuple[str, int], ...]
    reduce: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        for cell in (self.normal, self.reduce):
            right = len(cell) == 2 * NODES and all(0 <= s < 2 + k // 2 for k, (_, s) in enumerate(cell))
            if not right or any(name == "none" for name, _ in cell):
                raise InputError(f"A cell has two edges into each of {NODES} nodes, from before it; got {cell}.")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Raises InputError for text that is no genotype."""
        try:
            held = json.loads(text)
            return cls(*(tuple((str(name), int(source)) for name, source in held[kind]) for kind in KINDS))
        except (ValueError, KeyError, TypeError):
            raise InputError("The text is no genotype; give what to_json wrote.") from None

    @classmethod
    def random(cls, candidates: Sequence[str], generator: np.random.Generator) -> Genotype:
        """Two different sources for each node and any candidate but none: the baseline of a search."""
        usable = [name for name in candidates if name != "none"]
        cells = []
        for _ in KINDS:
            sources = [int(s) for n in range(NODES) for s in sorted(generator.choice(2 + n, 2, replace=False))]
            cells.append(tuple((usable[int(generator.integers(len(usable)))], s) for s in sources))
        return cls(*cells)

    @property
    def operations(self) -> list[str]:
        """The sixteen candidates that were chosen."""
        return [name for cell in (self.normal, self.reduce) for name, _ in cell]


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels dealt out in turn from ``groups`` runs.

    >>> channel_shuffle(torch.arange(4.0).view(1, 4, 1, 1), 2).flatten().tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class MixedOperation(nn.Module):
    """Candidates on the first 1/k of the channels, weighed; the rest passes, pooled where the stride is 2."""

    def __init__(self, names: Sequence[str], make: Maker, channels: int, stride: int, k: int) -> None:
        super().__init__()
        if channels % k:
            raise UsageError(f"{channels} channels have no share of 1/{k}.")
        self.k, self.stride, self.names = k, stride, list(names)
        self.candidates = nn.ModuleList(make(name, channels // k, stride, False) for name in names)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        mixed, rest = x.split([x.shape[1] // self.k, x.shape[1] - x.shape[1] // self.k], 1)
        found = torch.stack(
            [w * c(mixed) for w, c in zip(weights, self.candidates, strict=True) if float(w.detach()) != 0]
        ).sum(0)
        if self.k == 1:
            return found
        rest = F.max_pool2d(rest, 2) if self.stride == 2 else rest
        return channel_shuffle(torch.cat([found, rest], 1), self.k)

    def drop(self, index: int) -> None:
        del self.candidates[index]
        del self.names[index]


def _entry(inside: int, outside: int, stride: int, affine: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside, affine=affine)
    )


class _Cell(nn.Module):
    """The entries both kinds of cells share: earlier outputs brought to this cell's channels and size."""

    def __init__(self, two: int, one: int, channels: int, halved: bool, affine: bool) -> None:
        super().__init__()
        self.enter = nn.ModuleList(
            [_entry(two, channels, 2 if halved else 1, affine), _entry(one, channels, 1, affine)]
        )

    def entered(self, two: Tensor, one: Tensor) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.enter, (two, one), strict=True)]


class SearchCell(_Cell):
    """A cell with all edges; kind: "normal" or "reduce" (halves the size)."""

    def __init__(
        self,
        kind: str,
        names: Sequence[Sequence[str]],
        make: Maker,
        two: int,
        one: int,
        channels: int,
        halved: bool,
        k: int,
    ) -> None:
        super().__init__(two, one, channels, halved, False)
        self.kind = kind
        self.edges = nn.ModuleList(
            MixedOperation(own, make, channels, 2 if kind == "reduce" and source < 2 else 1, k)
            for own, (_, source) in zip(names, EDGES, strict=True)
        )

    def forward(self, two: Tensor, one: Tensor, alphas: Sequence[Tensor], betas: Tensor) -> Tensor:
        states = self.entered(two, one)
        for node in range(NODES):
            mine = [e for e, (n, _) in enumerate(EDGES) if n == node]
            share = betas[mine].softmax(0)
            states.append(
                torch.stack(
                    [w * self.edges[e](states[EDGES[e][1]], alphas[e]) for w, e in zip(share, mine, strict=True)]
                ).sum(0)
            )
        return torch.cat(states[2:], 1)


def reductions(layers: int, at: Sequence[float]) -> set[int]:
    """Which of the cells halve the size: those that end these shares of the depth, each once."""
    return {max(0, round(share * layers) - 1) for share in at}


class SuperNetwork(nn.Module):
    """Pictures N×3×H×W in [0, 1] -> logits N, with every candidate on every edge. Cells halve at the half and the end.

    names: candidates. make: builds one. channels: of the first cells. k: 1/k of the channels are mixed.
    ``architecture`` are the parameters of the search (α by kind and edge, β by kind), apart from the weights.
    """

    def __init__(self, names: Sequence[str], make: Maker, channels: int = 16, cells: int = 6, k: int = 4) -> None:
        super().__init__()
        self.make, self.k = make, k
        self.names = {kind: [list(names) for _ in EDGES] for kind in KINDS}
        self.alphas = nn.ModuleDict({
            kind: nn.ParameterList(nn.Parameter(1e-3 * torch.randn(len(names))) for _ in EDGES) for kind in KINDS
        })  # fmt: skip
        self.betas = nn.ParameterDict({kind: nn.Parameter(1e-3 * torch.randn(len(EDGES))) for kind in KINDS})
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * channels, 3, 2, 1, bias=False), nn.BatchNorm2d(3 * channels))
        halving = reductions(cells, (0.5, 1.0))
        self.cells = nn.ModuleList()
        two = one = 3 * channels
        before = False
        for i in range(cells):
            now = i in halving
            channels *= 2 if now else 1
            cell = SearchCell(KINDS[now], self.names[KINDS[now]], make, two, one, channels, before, k)
            self.cells.append(cell)
            two, one, before = one, NODES * channels, now
        self.head = nn.Linear(one, 1)

    def architecture(self) -> list[nn.Parameter]:
        return [*self.alphas.parameters(), *self.betas.parameters()]

    def weights(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if not name.startswith(("alphas", "betas"))]

    def shares(self, kind: str) -> list[Tensor]:
        """softmax(α) of every edge."""
        alphas = self.alphas[kind]
        assert isinstance(alphas, nn.ParameterList)
        return [a.softmax(0) for a in alphas]

    def forward(self, images: Tensor, chosen: dict[str, list[int]] | None = None) -> Tensor:
        """chosen: by kind, the only candidate of each edge that is active; None mixes them all."""
        weights = {
            kind: self.shares(kind) if chosen is None else [
                F.one_hot(torch.tensor(c), len(own)).to(images)
                for c, own in zip(chosen[kind], self.names[kind], strict=True)
            ]
            for kind in KINDS
        }  # fmt: skip
        two = one = self.stem((images - 0.5) / 0.25)
        for cell in self.cells:
            assert isinstance(cell, SearchCell)
            two, one = one, cell(two, one, weights[cell.kind], self.betas[cell.kind])
        return self.head(one.mean((2, 3))).squeeze(1)

    def prune(self, importance: dict[str, list[Tensor]]) -> None:
        """Delete the least important candidate of every edge that has more than one, with its α."""
        for kind in KINDS:
            alphas = self.alphas[kind]
            assert isinstance(alphas, nn.ParameterList)
            for edge in range(len(EDGES)):
                if len(self.names[kind][edge]) < 2:
                    continue
                worst = int(importance[kind][edge].argmin())
                del self.names[kind][edge][worst]
                kept = [i for i in range(len(alphas[edge])) if i != worst]
                alphas[edge] = nn.Parameter(alphas[edge].detach()[kept])
                for cell in self.cells:
                    assert isinstance(cell, SearchCell)
                    if cell.kind == kind:
                        mixed = cell.edges[edge]
                        assert isinstance(mixed, MixedOperation)
                        mixed.drop(worst)

    @torch.no_grad()
    def genotype(self) -> Genotype:
        """For each node the two sources with the largest α·β, and on each the candidate with the largest α but none."""
        cells = []
        for kind in KINDS:
            shares, found = self.shares(kind), []
            for node in range(NODES):
                mine = [e for e, (n, _) in enumerate(EDGES) if n == node]
                beta = self.betas[kind][mine].softmax(0)
                ranked = []
                for b, e in zip(beta, mine, strict=True):
                    usable = [
                        (float(s), name)
                        for s, name in zip(shares[e], self.names[kind][e], strict=True)
                        if name != "none"
                    ]
                    best = max(usable) if usable else (0.0, "skip")
                    ranked.append((float(b) * best[0], EDGES[e][1], best[1]))
                two = sorted(sorted(ranked, reverse=True)[:2], key=lambda r: r[1])
                found += [(name, source) for _, source, name in two]
            cells.append(tuple(found))
        return Genotype(*cells)


class FoundCell(_Cell):
    """A cell of a genotype, with drop-path on its edges."""

    def __init__(
        self, edges: Sequence[tuple[str, int]], make: Maker, two: int, one: int, channels: int, halved: bool,
        reduce: bool, drop_path: float,
    ) -> None:  # fmt: skip
        super().__init__(two, one, channels, halved, True)
        self.sources = [source for _, source in edges]
        self.edges = nn.ModuleList(
            make(name, channels, 2 if reduce and source < 2 else 1, True) for name, source in edges
        )
        self.drop = DropPath(drop_path)

    def forward(self, two: Tensor, one: Tensor) -> Tensor:
        states = self.entered(two, one)
        for node in range(NODES):
            parts = [self.drop(self.edges[e](states[self.sources[e]])) for e in (2 * node, 2 * node + 1)]
            states.append(parts[0] + parts[1])
        return torch.cat(states[2:], 1)


class FoundNetwork(nn.Module):
    """The pyramid of a genotype: pictures N×3×H×W in [0, 1] -> logits N; cells halve at a quarter, half, three quarters
    and the end of the depth and double the channels. ``settings``: what it was built with, set by the builder."""

    settings: dict[str, Any]

    def __init__(
        self, genotype: Genotype, make: Maker, channels: int = 36, layers: int = 12, drop_path: float = 0.2
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * channels, 3, 1, 1, bias=False), nn.BatchNorm2d(3 * channels))
        halving = reductions(layers, (0.25, 0.5, 0.75, 1.0))
        self.cells = nn.ModuleList()
        two = one = 3 * channels
        before = False
        for i in range(layers):
            now = i in halving
            channels *= 2 if now else 1
            edges = genotype.reduce if now else genotype.normal
            self.cells.append(FoundCell(edges, make, two, one, channels, before, now, drop_path))
            two, one, before = one, NODES * channels, now
        self.head = nn.Linear(one, 1)

    def forward(self, images: Tensor) -> Tensor:
        two = one = self.stem((images - 0.5) / 0.25)
        for cell in self.cells:
            two, one = one, cell(two, one)
        return self.head(one.mean((2, 3))).squeeze(1)
