"""Residual front ends: what they cancel, what they keep, and that gradients pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from vestige.core.errors import UsageError
from vestige.nn.residual import (
    SRM,
    BayarConv2d,
    CentralDifferenceConv2d,
    block_dct,
    local_mean_residual,
    neighbour_residual,
    srm_kernels,
)


def _random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_rich_model_filters_are_thirty_different_ones_with_a_centre_of_one():
    kernels = srm_kernels(30)
    assert kernels.shape == (30, 5, 5)
    assert len({k.tobytes() for k in kernels}) == 30
    np.testing.assert_allclose(np.abs(kernels).max((1, 2)), 1, rtol=1e-6)
    np.testing.assert_allclose(kernels[:, 2, 2], -1, rtol=1e-6)
    # second and third order, edges and squares cancel straight lines of grey, first order does not
    ramp = np.add.outer(2.0 * np.arange(5), 3.0 * np.arange(5))
    response = np.abs((kernels * ramp).sum((1, 2)))
    assert (response[:8] > 0.9).all()
    np.testing.assert_allclose(response[8:], 0, atol=1e-5)


@pytest.mark.parametrize("count", [3, 30])
def test_srm_filters_every_channel_alone_and_cuts_off(count):
    x = _random(2, 3, 9, 11)
    found = SRM(count)(x)
    assert found.shape == (2, 3 * count, 9, 11)
    alone = SRM(count)(x[:, 1:2])
    torch.testing.assert_close(found[:, count : 2 * count], alone)
    assert SRM(count, limit=0.01)(x).abs().max() <= 0.01 + 1e-7
    with pytest.raises(UsageError):
        srm_kernels(5)


def test_bayar_filters_stay_prediction_errors_while_they_learn():
    torch.manual_seed(0)
    layer = BayarConv2d(2, 4)
    optimiser = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.weight.detach().clone()
    layer(_random(1, 2, 8, 8)).square().mean().backward()
    optimiser.step()
    after = layer.weight.detach()
    assert not torch.equal(before, after)
    assert (after[:, :, 2, 2] == -1).all()
    torch.testing.assert_close(after.sum((2, 3)), torch.zeros(4, 2), atol=1e-6, rtol=0)
    with pytest.raises(UsageError):
        BayarConv2d(1, 1, 4)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 2), (2, 0, 1)])
def test_central_difference_convolution_is_the_plain_one_less_its_centre(stride, padding, dilation):
    torch.manual_seed(0)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = CentralDifferenceConv2d(3, 4, 3, theta=0.7, **options)
    x = _random(1, 3, 9, 9)
    changed = layer.weight.detach().clone()
    changed[:, :, 1, 1] -= 0.7 * layer.weight.detach().sum((2, 3))
    wanted = torch.nn.functional.conv2d(x, changed, layer.bias, **options)
    torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-5)
    layer.theta = 0.0
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias, **options))


def test_neighbour_residual_shows_up_sampling():
    small = _random(1, 3, 6, 6)
    enlarged = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert neighbour_residual(enlarged).abs().max() == 0
    assert neighbour_residual(_random(1, 3, 13, 12)).shape == (1, 3, 12, 12)
    assert neighbour_residual(_random(1, 3, 12, 12)).abs().max() > 0.1


def test_local_mean_residual_of_a_constant_is_zero_and_passes_gradients():
    assert local_mean_residual(torch.full((1, 3, 2, 2), 0.3)).abs().max() < 1e-6
    x = _random(1, 3, 6, 6).requires_grad_()
    local_mean_residual(x, 5).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_block_dct_is_scipys_and_keeps_energy():
    x = _random(2, 3, 17, 24)
    found = block_dct(x)
    assert found.shape == (2, 192, 2, 3)
    wanted = dctn(x[1, 2, 8:16, 16:24].numpy(), norm="ortho")
    np.testing.assert_allclose(found[1, 128:, 1, 2].numpy().reshape(8, 8), wanted, atol=1e-5)
    torch.testing.assert_close(found.square().sum(), x[:, :, :16].square().sum())
    assert block_dct(x, 4, stride=2).shape == (2, 48, 7, 11)
    with pytest.raises(UsageError):
        block_dct(x, 32)
