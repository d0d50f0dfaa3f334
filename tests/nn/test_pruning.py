"""Pruning masks: how much they keep, and of what."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.nn.pruning import apply_mask, density, magnitude_mask, prunable, synflow_mask
from vestige.nn.resnet import ResNet, ResNetConfig


@pytest.fixture
def net() -> ResNet:
    torch.manual_seed(0)
    return ResNet(ResNetConfig(18, width=0.0625, classes=3)).eval()


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.95])
def test_masks_keep_the_share_asked_for(net, rate):
    masks = (magnitude_mask(net, rate), synflow_mask(net, rate, (3, 16, 16), rounds=10))
    for mask in masks:
        assert density(mask)["all"] == pytest.approx(1 - rate, abs=0.01)
        assert set(mask) == set(prunable(net))
        assert not any("bn" in name or "bias" in name for name in mask)


def test_magnitude_keeps_the_largest(net):
    mask = magnitude_mask(net, 0.5)
    weights = prunable(net)
    kept = min(float(weights[n].detach()[m > 0].abs().min()) for n, m in mask.items() if m.any())
    dropped = max(float(weights[n].detach()[m == 0].abs().max()) for n, m in mask.items() if not m.all())
    assert kept > dropped


def test_synflow_needs_no_data_and_keeps_every_layer_connected(net):
    before = {n: v.clone() for n, v in net.state_dict().items()}
    mask = synflow_mask(net, 0.9, (3, 16, 16), rounds=20)
    assert density(mask)["least"] > 0
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())


def test_pruned_weights_are_zero_in_a_copy(net):
    mask = magnitude_mask(net, 0.8)
    pruned = apply_mask(net, mask)
    assert (dict(pruned.named_parameters())["conv1.weight"][mask["conv1.weight"] == 0] == 0).all()
    assert (net.conv1.weight != 0).all()
    with pytest.raises(UsageError, match="rate"):
        magnitude_mask(nn.Linear(2, 2), 1.0)
