"""What masks are held against: masks of the same rate at random places, and low-rank adapters of the same size."""

from __future__ import annotations

import torch
from torch import nn

from vestige.engines.diffusion.pipeline import TextToImage
from vestige.generation.maskunet import PROJECTIONS, MaskUNet


class RandomMasks(MaskUNet):
    """As many zeros in every mask as the trained generators ask for, at places dealt out anew."""

    def set_masks(self, block: int, hidden: torch.Tensor, temb: torch.Tensor) -> None:
        super().set_masks(block, hidden, temb)
        for number, tap in enumerate(self.taps[block].values()):
            assert tap.mask is not None
            flat = tap.mask.flatten(1)
            generator = torch.Generator().manual_seed(number)
            order = torch.randperm(flat.shape[1], generator=generator).to(flat.device)
            tap.mask = flat[:, order].view_as(tap.mask)


class LowRank(nn.Module):
    """x W^T + x A^T B^T with A, B of some rank, B starting at zero; W stays as it is (LoRA, ICLR 2022)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def add_low_rank(model: TextToImage, parameters: int) -> nn.ModuleDict:
    """Low-rank adapters in the layers that MaskUNet masks, with about so many parameters; {name: adapter}."""
    chosen = {
        f"{i}.{name}": (block, name, layer)
        for i, block in enumerate(model.unet.up_blocks)
        for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear) and "attn" in name and name.endswith(PROJECTIONS)
    }
    one = sum(layer.in_features + layer.out_features for _, _, layer in chosen.values())
    rank = max(1, round(parameters / one))
    adapters = nn.ModuleDict()
    for full, (block, name, layer) in chosen.items():
        parent, _, leaf = name.rpartition(".")
        adapters[full.replace(".", "_")] = adapter = LowRank(layer, rank)
        setattr(block.get_submodule(parent), leaf, adapter)
    return adapters


def remove_low_rank(model: TextToImage) -> None:
    """Put the layers back that `add_low_rank` wrapped."""
    for block in model.unet.up_blocks:
        for name, layer in list(block.named_modules()):
            if isinstance(layer, LowRank):
                parent, _, leaf = name.rpartition(".")
                setattr(block.get_submodule(parent), leaf, layer.base)


def trainable(module: nn.Module) -> int:
    """How many values of a module are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
