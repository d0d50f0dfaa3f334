"""Low-rank adapters of linear layers.

Source: LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
"""

from __future__ import annotations

import torch
from torch import nn


class LowRank(nn.Module):
    """x W^T + x A^T B^T with A, B of some rank, B starting at zero; W stays as it is.

    >>> layer = nn.Linear(4, 3)
    >>> x = torch.ones(2, 4)
    >>> torch.equal(LowRank(layer, 2)(x), layer(x))
    True
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T
