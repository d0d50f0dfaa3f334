"""A small causal transformer over sequences of vectors: it knows from its weights, and learns from its context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError


class InContextNet(nn.Module):
    """Vectors N×T×inside, or N×inside for a question without context -> logits N×outputs of the last vector.

    Earlier vectors are the context (an example with its answer, a definition), the last one is the question. Nothing
    tells positions apart but the causal mask, so any number of examples fits. width: of the trunk, a multiple of heads.

    >>> InContextNet(6, 3, width=8, depth=1, heads=2)(torch.zeros(4, 5, 6)).shape
    torch.Size([4, 3])
    """

    def __init__(self, inside: int, outputs: int, *, width: int = 64, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        if width % heads or depth < 1:
            raise UsageError(f"width {width} must be a multiple of heads {heads}, and depth {depth} at least 1.")
        self.inside = inside
        self.embed = nn.Linear(inside, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None] if x.ndim == 2 else x
        if x.ndim != 3 or x.shape[2] != self.inside:
            raise UsageError(f"Sequences are N×T×{self.inside} or N×{self.inside}; got {tuple(x.shape)}.")
        h = self.embed(x)
        mask = torch.full((x.shape[1],) * 2, -torch.inf, device=x.device).triu(1)
        for block in self.blocks:
            h = block(h, src_mask=mask, is_causal=True)
        return self.head(self.norm(h[:, -1]))
