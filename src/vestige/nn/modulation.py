"""Weights scaled along their input channels, one vector a sample: while running, or baked into plain weights.

W'_{oc,ic} = W_{oc,ic} · a_ic equals the layer itself on its input times a, because convolutions and linear layers sum
over input channels. Samples of one batch can therefore carry different vectors, without weights of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError

Layer = nn.Conv2d | nn.Linear


class EqualisedLinear(nn.Module):
    """y = x (s W)ᵀ + m b, s = m / √in: all layers learn at one pace, m times the rate. W starts as N(0, 1/m²).

    bias: its start. multiplier: m. Source: T. Karras et al., Analyzing and Improving the Image Quality of StyleGAN,
    CVPR 2020.

    >>> EqualisedLinear(4, 2, bias=1.0)(torch.zeros(3, 4)).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """

    def __init__(self, inside: int, outside: int, *, bias: float = 0.0, multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside) / multiplier)
        self.bias = nn.Parameter(torch.full((outside,), bias / multiplier))
        self.scale, self.multiplier = multiplier / math.sqrt(inside), multiplier

    def forward(self, x: Tensor) -> Tensor:
        """N×in -> N×out."""
        return F.linear(x, self.weight * self.scale, self.bias * self.multiplier)


class ScaledLeakyReLU(nn.Module):
    """√2 · max(x, slope·x): the gain gives back the energy that the leak takes, so that layers keep their variance.

    Source: T. Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020.

    >>> ScaledLeakyReLU()(torch.tensor([2.0, -2.0])).tolist()
    [2.8284270763397217, -0.5656854510307312]
    """

    def __init__(self, slope: float = 0.2) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope) * math.sqrt(2)


def chosen_layers(root: nn.Module, chosen: Callable[[str], bool]) -> dict[str, Layer]:
    """The ungrouped convolutions and linear layers of ``root`` whose dotted name is ``chosen``.

    Raises UsageError when there is none, or a chosen convolution is grouped.
    """
    found = {n: layer for n, layer in root.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear) and chosen(n)}
    if not found:
        raise UsageError(f"{type(root).__name__} has no layer that could be modulated.")
    if any(isinstance(layer, nn.Conv2d) and layer.groups != 1 for layer in found.values()):
        raise UsageError("Grouped convolutions do not sum over all input channels; leave them out.")
    return found


def inputs_of(layer: Layer) -> int:
    """Input channels of a layer."""
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features


@contextmanager
def modulated(layers: Mapping[str, Layer], vectors: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, every layer works with its weights scaled by its own rows of ``vectors`` (N×C, or 1×C for all samples).

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> with modulated({"x": layer}, {"x": torch.tensor([[0.0, 0.0], [1.0, 1.0]])}):
    ...     y = layer(torch.ones(2, 2))
    >>> float(y[0, 0]), bool(y[1, 0] == layer.weight.sum())
    (0.0, True)
    """
    handles = [layer.register_forward_pre_hook(_scaling(vectors[name])) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scaling(vector: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        between = (1,) * (x.ndim - 2)  # channels come second in maps and last in rows
        shape = (-1, vector.shape[1], *between) if isinstance(layer, nn.Conv2d) else (-1, *between, vector.shape[1])
        return (x * vector.to(x.dtype).view(shape), *inputs[1:])

    return hook


@torch.no_grad()
def bake(layers: Mapping[str, Layer], vectors: Mapping[str, Tensor]) -> None:
    """Multiply the weights by one vector a layer (1×C), in place: `modulated` without hooks, for one fingerprint.

    Raises UsageError for more than one row.
    """
    for name, layer in layers.items():
        if len(vectors[name]) != 1:
            raise UsageError(f"Weights take one vector a layer, got {len(vectors[name])} for {name}.")
        shape = (1, -1, *(1,) * (layer.weight.ndim - 2))
        layer.weight.mul_(vectors[name].to(layer.weight).view(shape))
