"""The oneDNN product against torch's own, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vestige.nn import linear as module
from vestige.nn.linear import Linear, linear


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (1, 1), (4, 0, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_torch(shape: tuple[int, ...], bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = Linear(shape[-1], 6, bias=bias), nn.Linear(shape[-1], 6, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, generator=generator)
    grads = []
    for layer in (ours, theirs):
        asked = x.clone().requires_grad_()
        y = layer(asked)
        (y * torch.linspace(-1, 1, max(y.numel(), 1))[: y.numel()].view(y.shape)).sum().backward()
        grads.append((y.detach(), asked.grad, *(p.grad for p in layer.parameters())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_transposed_and_sliced_operands() -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(7, 9, 4, generator=generator), torch.randn(12, 9, generator=generator)
    asked = x.transpose(1, 2)[1:, ::2]
    torch.testing.assert_close(
        linear(asked, weight[3:8], None), nn.functional.linear(asked, weight[3:8]), rtol=1e-5, atol=1e-5
    )


def test_second_derivatives() -> None:
    x = torch.tensor([[1.0, -2.0, 0.5]], requires_grad=True)
    weight = torch.tensor([[0.3, 0.7, -1.0], [1.0, 0.2, 0.4]], requires_grad=True)
    y = linear(x, weight).square().sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first[0, 0], x)
    torch.testing.assert_close(second[0], 2 * (weight.T @ weight)[0].detach())


def test_transforms_and_autocast_fall_back() -> None:
    layer = Linear(3, 2)
    per_sample = torch.func.vmap(layer)(torch.ones(4, 1, 3))
    torch.testing.assert_close(per_sample[:, 0], layer(torch.ones(4, 3)))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(4, 3)).dtype == torch.bfloat16
    assert layer.double()(torch.ones(4, 3, dtype=torch.float64)).dtype == torch.float64


def test_a_build_without_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object) -> torch.Tensor:
        raise AttributeError("no such operation")

    monkeypatch.setattr(module, "_product", missing)
    monkeypatch.setattr(module, "_ONEDNN", None)
    assert linear(torch.ones(2, 3), torch.ones(4, 3)).shape == (2, 4)
    assert module._ONEDNN is False
