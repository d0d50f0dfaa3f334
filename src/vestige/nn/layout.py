"""The memory layout of convolutions: channels last where it is faster, and never a layout that corrupts memory.

oneDNN of torch 2.13 writes past the end of a buffer when it takes the gradient of the weight of a 1×1 convolution with
a stride above 1 and 2 to 7 input channels that is laid out channels last, on processors with AVX2 and without AVX-512
(primitive ``jit_1x1:avx2``, backward_weights). Tried over 1 to 128 channels, kernels 1 to 3, strides 1 to 4, groups,
one to three dimensions, transposed convolutions and the instruction sets SSE4.1, AVX and AVX2: nothing else fails.
Such a layout can come from a user's model, its pictures, or a permutation inside the network, and `Tensor.contiguous`
does not take it off a weight O×C×1×1, whose axes of length 1 may have any stride. What always helps is not to ask for
the stride:  conv(x; W, stride s) = conv(x[:, :, ::s, ::s]; W, stride 1)  for a 1×1 kernel.
"""

from __future__ import annotations

import platform
from statistics import median
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Model = TypeVar("Model", bound=nn.Module)

#: Strided 1×1 convolutions with fewer input channels than this skip pixels first: twice the 8 known to be needed.
_FEW = 16
_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def safe_strides(model: Model) -> Model:
    """The model itself, whose strided 1×1 convolutions of few channels now drop the pixels before they multiply.

    Values, gradients, parameters and their names stay; copies of the model keep the change, files do not know of it.

    >>> net = nn.Conv2d(4, 8, 1, stride=2)
    >>> x = torch.rand(2, 4, 6, 6)
    >>> before = net(x)
    >>> bool(torch.allclose(safe_strides(net)(x), before, atol=1e-6))
    True
    """
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and unsafe(part):
            part.__dict__["_conv_forward"] = MethodType(_conv_forward, part)
    return model


def unsafe(part: nn.Conv2d) -> bool:
    """Whether the gradient of this convolution is not known to be safe in channels last."""
    return part.kernel_size == (1, 1) and max(part.stride) > 1 and part.in_channels < _FEW


def _conv_forward(self: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`nn.Conv2d._conv_forward` for a 1×1 kernel, the stride taken by slicing. The name is the one copies look up."""
    around = self._reversed_padding_repeated_twice
    if any(around):
        x = F.pad(x, around, mode="constant" if self.padding_mode == "zeros" else self.padding_mode)
    return F.conv2d(x[..., :: self.stride[0], :: self.stride[1]], weight, bias, groups=self.groups)


def channels_last_helps(model: nn.Module) -> bool:
    """Whether channels last was measured to be faster for networks like this one where it lies.

    On x86 processors, through oneDNN, a ResNet-18 of 8 to 32 channels trains in 0.75 to 0.9 of the time; with 4
    channels it is slower. Elsewhere it was not measured.
    """
    parts = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    if not parts or not _X86 or not torch.backends.mkldnn.is_available() or parts[0].weight.device.type != "cpu":
        return False
    return median(part.out_channels for part in parts) >= 8


def channels_last(model: Model) -> Model:
    """The model itself with its convolutions in channels last, made safe."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return safe_strides(model)


def contiguous(model: Model) -> Model:
    """The model itself with every weight in the plain layout, those of 1×1 kernels too."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4 and tensor.layout == torch.strided:
                tensor.data = torch.empty_like(tensor, memory_format=torch.contiguous_format).copy_(tensor)
    return model
