"""Soft clustering of directions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_assignment(points: Tensor, centres: Tensor, temperature: float = 0.1) -> Tensor:
    """softmax over centres of -(1 - cos) / temperature: points B×P×d and centres B×K×d, of length 1 -> B×P×K."""
    return ((points @ centres.transpose(1, 2) - 1) / temperature).softmax(2)


@torch.no_grad()
def soft_spherical_kmeans(
    points: Tensor, *, start: Tensor | None = None, weight: Tensor | None = None, iterations: int = 3,
    temperature: float = 0.1,
) -> Tensor:  # fmt: skip
    """Two centres B×2×d of length 1 of points B×P×d of length 1, without gradients.

    weight: B×P, how much a point counts. start: B×2×d centres; without it the point farthest from the mean, and the
    point farthest from that one.

    >>> x = F.normalize(torch.tensor([[[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]]]), dim=2)
    >>> soft_spherical_kmeans(x)[0, 0].round().tolist()
    [-1.0, 0.0]
    """
    counted = torch.ones(points.shape[:2]).to(points) if weight is None else weight.to(points)
    if start is None:
        outside = (counted == 0) * 4.0
        middle = F.normalize((points * counted[..., None]).sum(1), dim=1)
        first = _pick(points, (points @ middle[..., None]).squeeze(2) + outside)
        start = torch.stack([first, _pick(points, (points @ first[..., None]).squeeze(2) + outside)], 1)
    centres = start
    for _ in range(iterations):
        share = soft_assignment(points, centres, temperature) * counted[..., None]
        moved = F.normalize(share.transpose(1, 2) @ points, dim=2)
        centres = torch.where(share.sum(1)[..., None] > 1e-6, moved, centres)
    return centres


def _pick(points: Tensor, closeness: Tensor) -> Tensor:
    return points[torch.arange(len(points)), closeness.argmin(1)]
