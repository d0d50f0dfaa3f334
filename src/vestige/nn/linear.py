"""The linear layer of our transformers: on a CPU its products go through oneDNN instead of the BLAS behind torch.

y = x Wᵀ + b. oneDNN adds the bias inside the product and is up to a third faster than MKL on tall, narrow float32
operands, which is what a transformer with few tokens multiplies; the gradient of W stays with the BLAS, which is faster
there. Everywhere else (GPU, other types, autocast, compilation, function transforms) this is `torch.nn.Linear`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weightᵀ + bias by oneDNN, without autograd."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _available() -> bool:
    """Whether this build has the operation; it is not part of torch's public interface."""
    try:
        found = _product(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return found.shape == (2, 4) and bool((found == 4).all())


_ONEDNN: bool | None = None


def _use_onednn(x: Tensor, weight: Tensor) -> bool:
    global _ONEDNN
    if (
        x.device.type != "cpu"
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or x.dim() < 2
        or x.numel() == 0
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
    ):
        return False
    if _ONEDNN is None:
        _ONEDNN = torch.backends.mkldnn.is_available() and _available()
    return _ONEDNN


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            # With create_graph the gradient is itself differentiated, which the plain product supports.
            dx = F.linear(grad, weight.t()) if torch.is_grad_enabled() else _product(grad, weight.t())
        rows = grad.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            dw = rows.t() @ x.flatten(0, -2)
        if ctx.needs_input_grad[2]:
            db = rows.sum(0)
        return dx, dw, db


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weightᵀ + bias: ...×I, O×I, O -> ...×O, by the fastest product at hand.

    >>> linear(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(4)).shape
    torch.Size([2, 4])
    """
    if _use_onednn(x, weight):
        return _Linear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear`, computed by `linear`; weights and their names are the same."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
