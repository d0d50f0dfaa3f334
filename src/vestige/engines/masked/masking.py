"""Which tokens are seen: every strategy is a pure function of a generator and returns a `MaskPlan`.

Numbers are drawn on the generator's device, so a sequence of masks can be replayed bit for bit from its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from vestige.core.errors import UsageError

Grid: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class MaskPlan:
    """What is seen of N images of L tokens.

    ids_keep: int64 N×K, seen cells in the order the encoder gets them. ids_masked: int64 N×(L-K), hidden cells.
    ids_restore: int64 N×L with cat(keep, masked).gather(1, ids_restore) = 0 ... L-1. mask: bool N×L, True is hidden.

    >>> plan = MaskPlan.from_order(torch.tensor([[2, 0, 1]]), keep=1)
    >>> plan.ids_keep.tolist(), plan.mask.tolist()
    ([[2]], [[True, True, False]])
    """

    ids_keep: Tensor
    ids_restore: Tensor
    mask: Tensor
    ids_masked: Tensor

    @classmethod
    def from_order(cls, order: Tensor, keep: int) -> MaskPlan:
        """From permutations N×L of the cells: the first ``keep`` are seen."""
        ids_restore = order.argsort(1)
        return cls(order[:, :keep], ids_restore, ids_restore >= keep, order[:, keep:])

    @property
    def order(self) -> Tensor:
        return torch.cat([self.ids_keep, self.ids_masked], 1)

    def to(self, device: torch.device | str) -> MaskPlan:
        parts = (self.ids_keep, self.ids_restore, self.mask, self.ids_masked)
        return MaskPlan(*(p.to(device) for p in parts))

    def __len__(self) -> int:
        return len(self.ids_keep)

    def __getitem__(self, rows: slice) -> MaskPlan:
        """The plans of some of the images."""
        return MaskPlan(self.ids_keep[rows], self.ids_restore[rows], self.mask[rows], self.ids_masked[rows])

    @staticmethod
    def cat(plans: list[MaskPlan]) -> MaskPlan:
        """Views of equal size, one after the other along the batch."""
        names = ("ids_keep", "ids_restore", "mask", "ids_masked")
        return MaskPlan(*(torch.cat([getattr(p, name) for p in plans]) for name in names))


#: (number of images, token grid, generator) -> plan; a plan of v·N rows holds v views, one after the other.
MaskStrategy: TypeAlias = Callable[[int, Grid, torch.Generator], MaskPlan]


def kept(length: int, ratio: float) -> int:
    """floor(L·(1-r)) tokens are seen, computed without the rounding error of 1-r.

    Raises UsageError unless 0 <= ratio < 1 and a token is left.

    >>> kept(64, 0.75), kept(10, 0.9)
    (16, 1)
    """
    count = int(length * (1 - ratio) + 1e-9) if 0 <= ratio < 1 else 0
    if count < 1:
        raise UsageError(f"A mask ratio of {ratio} leaves none of {length} tokens; choose one from 0 to below 1.")
    return count


def from_scores(scores: Tensor, ratio: float) -> MaskPlan:
    """The tokens with the highest scores (N×L) are seen."""
    return MaskPlan.from_order(scores.argsort(dim=1, descending=True, stable=True), kept(scores.shape[1], ratio))


def uniform(n: int, grid: Grid, generator: torch.Generator, *, ratio: float = 0.75) -> MaskPlan:
    """Every set of tokens of the right size is equally likely.

    Source: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
    """
    return from_scores(_noise(n, grid[0] * grid[1], generator), ratio)


def block(n: int, grid: Grid, generator: torch.Generator, *, ratio: float = 0.75, size: int = 2) -> MaskPlan:
    """Whole blocks of size×size tokens are seen or hidden: size²·floor(L/size²·(1-r)) tokens are seen.

    Raises UsageError when the grid has no whole number of blocks.

    Source: SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022.
    """
    if size < 1 or grid[0] % size or grid[1] % size:
        raise UsageError(f"A grid of {grid[0]}×{grid[1]} tokens has no whole number of {size}×{size} blocks.")
    rows, columns = grid[0] // size, grid[1] // size
    count = kept(rows * columns, ratio) * size**2
    place = _noise(n, rows * columns, generator).argsort(1).argsort(1).view(n, rows, columns)
    place = place.repeat_interleave(size, 1).repeat_interleave(size, 2).flatten(1)
    return MaskPlan.from_order(place.argsort(dim=1, stable=True), count)


def disjoint(n: int, grid: Grid, generator: torch.Generator, *, ratio: float = 0.75, views: int = 2) -> MaskPlan:
    """Views of an image that share no seen token: view v sees the v-th run of one permutation.

    Returns views·N rows. Raises UsageError when there are too few tokens.

    Source: Learning with Unmasked Tokens Drives Stronger Vision Learners, ECCV 2024.
    """
    length = grid[0] * grid[1]
    count = kept(length, ratio)
    if views < 1 or count * views > length:
        raise UsageError(f"{views} views of {count} tokens each cannot be disjoint among {length} tokens.")
    order = _noise(n, length, generator).argsort(1)
    return MaskPlan.cat([MaskPlan.from_order(order.roll(-v * count, 1), count) for v in range(views)])


def complement(plan: MaskPlan, generator: torch.Generator, *, union: float = 1.0) -> MaskPlan:
    """A second view of the same size whose hidden tokens fill up those of the first to a share ``union`` of all.

    With M hidden tokens of L, e = min(union·L - M, M, L - M) of the seen ones become hidden, and M - e hidden ones
    stay so. Raises UsageError for a union outside (0, 1] or below the share hidden already.

    Source: Disjoint Masking with Joint Distillation for Efficient Masked Image Modeling, 2022.
    """
    n, count = plan.ids_keep.shape
    hidden = plan.ids_masked.shape[1]
    length = count + hidden
    if not hidden / length - 1e-9 <= union <= 1:
        raise UsageError(f"union is {union}; it must lie between the mask ratio {hidden / length:.2f} and 1.")
    fresh = min(round(union * length) - hidden, hidden, count)
    seen = plan.ids_keep.gather(1, _noise(n, count, generator).argsort(1))
    masked = plan.ids_masked.gather(1, _noise(n, hidden, generator).argsort(1))
    order = torch.cat([seen[:, fresh:], masked[:, :fresh], seen[:, :fresh], masked[:, fresh:]], 1)
    return MaskPlan.from_order(order, count)


def sampled(weights: Tensor, ratio: float, generator: torch.Generator) -> MaskPlan:
    """Tokens drawn without replacement with probability proportional to ``weights`` (N×L, such as a teacher's
    attention) are seen: the order is a multinomial sample, so heavy tokens are more often seen, not always.

    The Gumbel trick: argsort(log w + g) is that sample. Raises UsageError for negative or non-finite weights.

    Source: Stare at What You See: Masked Image Modeling without Reconstruction, CVPR 2023.
    """
    if not torch.isfinite(weights).all() or (weights < 0).any():
        raise UsageError("Sampling weights must be finite and not negative.")
    noise = _noise(weights.shape[0], weights.shape[1], generator).to(weights.device).clamp(1e-12, 1 - 1e-7)
    return from_scores(weights.clamp_min(1e-8).log() - (-noise.log()).log(), ratio)


def some_of(n: int, count: int, chosen: int, generator: torch.Generator) -> Tensor:
    """bool N×count with exactly ``chosen`` True in every row, at random."""
    return _noise(n, count, generator).argsort(1).argsort(1) < chosen


def _noise(n: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, length, generator=generator, device=generator.device)
