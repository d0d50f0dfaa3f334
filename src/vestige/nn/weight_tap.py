"""Linear layers whose weights are masked per sample, in place of the layers of a frozen network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class MaskedLinear(nn.Module):
    """x (W ⊙ m)ᵀ + bias with ``mask`` m: None (the layer itself), out×in, or one mask a sample N×out×in."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.mask: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: N×L×in or N×in -> the same with out."""
        mask = self.mask
        if mask is None:
            return self.base(x)
        if mask.ndim == 2:
            return F.linear(x, self.base.weight * mask, self.base.bias)
        rows = x if x.ndim == 3 else x[:, None]
        out = rows @ (self.base.weight * mask).transpose(1, 2)
        out = out if self.base.bias is None else out + self.base.bias
        return out if x.ndim == 3 else out[:, 0]


def tap_linears(root: nn.Module, chosen: Callable[[str], bool]) -> dict[str, MaskedLinear]:
    """Replace the linear layers of ``root`` whose dotted name is ``chosen`` by masked ones; {name: layer}."""
    found = {name: layer for name, layer in root.named_modules() if isinstance(layer, nn.Linear) and chosen(name)}
    taps = {}
    for name, layer in found.items():
        taps[name] = MaskedLinear(layer)
        _set(root, name, taps[name])
    return taps


def untap_linears(root: nn.Module, taps: dict[str, MaskedLinear]) -> None:
    """Put the original layers back."""
    for name, tap in taps.items():
        _set(root, name, tap.base)


def _set(root: nn.Module, name: str, layer: Any) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, layer)
