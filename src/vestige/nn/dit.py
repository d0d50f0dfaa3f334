"""Diffusion transformers: blocks that the time and the condition modulate (adaLN-zero), and a small image model.

Source: Scalable Diffusion Models with Transformers, ICCV 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.nn.blocks import Attention, Mlp
from vestige.nn.positions import sincos_2d
from vestige.nn.vit import patchify, unpatchify


class TimeEmbedding(nn.Module):
    """Time N -> N×width: sines and cosines of 256 frequencies, then a two-layer perceptron."""

    def __init__(self, width: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.first = nn.Linear(frequencies, width)
        self.second = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        from diffusers.models.embeddings import get_timestep_embedding

        waves = get_timestep_embedding(time.float(), self.frequencies, flip_sin_to_cos=True, downscale_freq_shift=0)
        return self.second(F.silu(self.first(waves.to(self.first.weight.dtype))))


class AdaBlock(nn.Module):
    """x + g1·attention(norm(x)·(1 + s1) + b1), then the same with an MLP; (s, b, g) come from the condition c N×width.

    The last map of c starts at zero, so that the block starts as the identity.

    >>> x = torch.randn(2, 5, 8)
    >>> bool((AdaBlock(8, 2)(x, torch.randn(2, 8)) == x).all())
    True
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.modulation = zero_(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        s1, b1, g1, s2, b2, g2 = self.modulation(F.silu(c)).unsqueeze(1).chunk(6, -1)
        x = x + g1 * self.attn(self.norm1(x) * (1 + s1) + b1)
        return x + g2 * self.mlp(self.norm2(x) * (1 + s2) + b2)


class AdaHead(nn.Module):
    """Modulated norm and a linear map to ``out`` channels that starts at zero."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero_(nn.Linear(width, 2 * width))
        self.out = zero_(nn.Linear(width, out))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.modulation(F.silu(c)).unsqueeze(1).chunk(2, -1)
        return self.out(self.norm(x) * (1 + scale) + shift)


def zero_(layer: nn.Linear) -> nn.Linear:
    """The layer with weight and bias at zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DiT(nn.Module):
    """A diffusion transformer over patches of images or latents.

    forward: x N×C×S×S, time N, condition -> prediction N×C×S×S. condition: class numbers int64 N (``classes`` stands
    for none), text tokens float N×L×context (put in front of the patches), or None. Defaults: the Ti size, about 5
    million parameters. Raises UsageError when the patches do not tile the image.

    >>> DiT(16, 3, patch=4, width=32, depth=1, heads=2)(torch.zeros(2, 3, 16, 16), torch.tensor([1, 2])).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        *,
        patch: int = 4,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        classes: int = 0,
        context: int = 0,
    ) -> None:
        super().__init__()
        if size % patch:
            raise UsageError(f"Patches of {patch} do not tile an image of {size}.")
        self.patch, self.grid, self.classes = patch, (size // patch, size // patch), classes
        self.embed = nn.Linear(channels * patch * patch, width)
        self.register_buffer("positions", sincos_2d(*self.grid, width)[None], persistent=False)
        self.time = TimeEmbedding(width)
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.text = nn.Linear(context, width) if context else None
        self.blocks = nn.ModuleList(AdaBlock(width, heads) for _ in range(depth))
        self.head = AdaHead(width, channels * patch * patch)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        tokens = self.embed(patchify(x.contiguous(), self.patch)) + self.get_buffer("positions")
        c = self.time(time)
        extra = 0
        if self.label is not None:
            none = torch.full((len(x),), self.classes, device=x.device)
            c = c + self.label(none if condition is None else condition)
        elif self.text is not None and condition is not None:
            text = self.text(condition)
            c = c + text.mean(1)
            tokens, extra = torch.cat([text, tokens], 1), text.shape[1]
        for block in self.blocks:
            tokens = block(tokens, c)
        return unpatchify(self.head(tokens[:, extra:], c), self.patch, self.grid)
