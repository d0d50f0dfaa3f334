"""Transformer blocks in which any run of tokens can ask and any run can answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.nn.linear import Linear, linear
from vestige.nn.positions import rotate

ALL = slice(None)


def take(x: Tensor, ids: Tensor) -> Tensor:
    """x[n, ids[n, k]] for every n, k: N×L×D, N×K -> N×K×D.

    Rows are copied whole, which is several times faster on a CPU than a gather over channels.
    """
    n, length, _ = x.shape
    flat = (ids + torch.arange(n, device=ids.device)[:, None] * length).flatten()
    return x.reshape(n * length, -1).index_select(0, flat).view(n, ids.shape[1], -1)


class DropPath(nn.Module):
    """Leaves a residual branch out of a sample with probability ``rate`` during training, and scales the others up.

    Source: Deep Networks with Stochastic Depth, ECCV 2016.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = torch.empty(len(x), *[1] * (x.dim() - 1), device=x.device, dtype=x.dtype).bernoulli_(keep)
        return x * kept.div_(keep)


class Attention(nn.Module):
    """Multi-head attention with one fused projection for queries, keys and values.

    softmax(q kᵀ / √d + bias) v. x: N×L×D. queries, context: runs of tokens that ask and that answer (default all).
    bias: added to the logits, N×heads×L×L. rotary: (cos, sin) that turn queries and keys, N×1×L×d. qkv: the fused
    projection of x, N×L×3D, where the caller has it already.
    Raises UsageError when the heads do not divide the width.

    >>> Attention(8, 2)(torch.zeros(1, 5, 8), queries=slice(1, 3)).shape
    torch.Size([1, 2, 8])
    """

    def __init__(self, width: int, heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageError(f"A width of {width} cannot be shared by {heads} heads.")
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=qkv_bias)
        self.proj = Linear(width, width)

    def _project(
        self, x: Tensor, queries: slice, context: slice, qkv: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        width = x.shape[-1]
        if qkv is not None:
            q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(2)
            q, k, v = q[:, queries], k[:, context], v[:, context]
        elif queries == ALL and context == ALL:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            halves = (None, None) if bias is None else (bias[:width], bias[width:])
            q = linear(x[:, queries], weight[:width], halves[0]).unflatten(-1, (self.heads, -1))
            k, v = linear(x[:, context], weight[width:], halves[1]).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        queries: slice = ALL,
        context: slice = ALL,
        bias: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        qkv: Tensor | None = None,
    ) -> Tensor:
        q, k, v = self._project(x, queries, context, qkv)
        if rotary is not None:
            q = rotate(q, (rotary[0][:, :, queries], rotary[1][:, :, queries]))
            k = rotate(k, (rotary[0][:, :, context], rotary[1][:, :, context]))
        mask = None if bias is None else bias[:, :, queries, context]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, bias: Tensor | None = None, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The attention weights themselves, N×heads×L×L (`forward` never forms them)."""
        q, k, _ = self._project(x, ALL, ALL)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return (logits if bias is None else logits + bias).softmax(-1)


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)).

    queries: the run of tokens to compute; the others serve as context only and are not returned. context: the run
    of tokens that keys and values are made of. qkv: attn.qkv(norm1(x)), where the caller has it already.

    Source: An Image is Worth 16x16 Words, ICLR 2021.

    >>> Block(8, 2)(torch.zeros(1, 5, 8), context=slice(0, 2)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0, qkv_bias: bool = True,
        eps: float = 1e-6,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        queries: slice = ALL,
        context: slice = ALL,
        bias: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        qkv: Tensor | None = None,
    ) -> Tensor:
        asked = x if queries == ALL else x[:, queries]
        normed = x if qkv is not None else self.norm1(x)
        x = asked + self.drop_path(self.attn(normed, queries, context, bias, rotary, qkv))
        return x + self.drop_path(self.mlp(self.norm2(x)))
