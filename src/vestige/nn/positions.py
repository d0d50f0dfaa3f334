"""Where a token is: sine-cosine tables, relative bias and rotary angles on a grid of patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError


def sincos_1d(places: Tensor, width: int, base: float = 10000.0) -> Tensor:
    """[sin(p·w_i), cos(p·w_i)] with w_i = base^(-2i/width): places P -> float32 P×width.

    Raises UsageError for an odd width.
    """
    if width % 2:
        raise UsageError(f"The width is {width}; sine-cosine positions need an even one.")
    frequencies = base ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = places.double().cpu()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1).float().to(places.device)


def sincos_2d(height: int, width: int, dim: int, base: float = 10000.0) -> Tensor:
    """Fixed positions of a patch grid: float32 (height·width)×dim, cells in reading order.

    The first half of the channels encodes the column and the second the row, as in the published MAE weights.
    Raises UsageError unless dim is a multiple of 4.

    Source: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.

    >>> sincos_2d(4, 4, 8).shape
    torch.Size([16, 8])
    """
    if dim % 4:
        raise UsageError(f"The width is {dim}; positions on a grid need a multiple of 4.")
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.cat([sincos_1d(columns.flatten(), dim // 2, base), sincos_1d(rows.flatten(), dim // 2, base)], 1)


def resize_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Bicubic change of grid of a position table (old h·w)×D -> (new h·w)×D.

    Raises UsageError when the table does not have one row for each old cell.
    """
    if len(table) != old[0] * old[1]:
        raise UsageError(f"The position table has {len(table)} rows, but the grid is {old[0]}×{old[1]}.")
    if old == new:
        return table
    grid = table.T.reshape(1, -1, *old)
    resized = F.interpolate(grid.float(), size=new, mode="bicubic", align_corners=False)
    return resized.flatten(2)[0].T.to(table.dtype)


class RelativeBias(nn.Module):
    """A learned bias for every head and every offset between two cells, added to the attention logits.

    forward: ids N×K (cells that are present) -> heads' bias N×heads×(K+extra)×(K+extra); ``extra`` leading tokens
    (the class token) get none.

    Source: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021.

    >>> RelativeBias((4, 4), heads=2)(torch.arange(16)[None], extra=1).shape
    torch.Size([1, 2, 17, 17])
    """

    def __init__(self, grid: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros((2 * grid[0] - 1) * (2 * grid[1] - 1), heads))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, ids: Tensor, extra: int = 0) -> Tensor:
        height, width = self.grid
        row, column = ids // width, ids % width
        down = row[:, :, None] - row[:, None, :] + height - 1
        right = column[:, :, None] - column[:, None, :] + width - 1
        bias = F.embedding(down * (2 * width - 1) + right, self.table).permute(0, 3, 1, 2)
        return F.pad(bias, (extra, 0, extra, 0)) if extra else bias


class Rotary(nn.Module):
    """Rotary angles on a grid: half of a head's channels turn with the row, half with the column.

    forward: ids N×K -> (cos, sin), each N×1×(K+extra)×dim; `rotate` applies them to queries and keys, so that their
    product depends on the offset between two cells only. Raises UsageError unless dim is a multiple of 4.

    Source: RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, on two axes.
    """

    def __init__(self, grid: tuple[int, int], dim: int, base: float = 100.0) -> None:
        super().__init__()
        if dim % 4:
            raise UsageError(f"A head has {dim} channels; rotary positions on a grid need a multiple of 4.")
        frequencies = base ** (-torch.arange(dim // 4).double() / (dim // 4))
        rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        angles = torch.cat([rows.flatten()[:, None] * frequencies, columns.flatten()[:, None] * frequencies], 1)
        angles = torch.cat([angles, angles], 1).float()
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor, extra: int = 0) -> tuple[Tensor, Tensor]:
        cos, sin = F.embedding(ids, self.get_buffer("cos")), F.embedding(ids, self.get_buffer("sin"))
        if extra:
            cos, sin = F.pad(cos, (0, 0, extra, 0), value=1.0), F.pad(sin, (0, 0, extra, 0))
        return cos[:, None], sin[:, None]


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of channels of x (N×heads×K×dim) by the angles of `Rotary`."""
    first, second = x.chunk(2, -1)
    return x * angles[0] + torch.cat([-second, first], -1) * angles[1]
