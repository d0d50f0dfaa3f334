"""One face for any model: head, features, blocks, fresh weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.nn.access import (
    activations,
    block_names,
    evaluating,
    features_and_outputs,
    head,
    last_blocks,
    outputs,
    reinitialise,
)
from vestige.nn.resnet import ResNet, ResNetConfig


@pytest.fixture
def net() -> ResNet:
    torch.manual_seed(0)
    return ResNet(ResNetConfig(18, width=0.0625, classes=3)).eval()


def test_features_are_the_input_of_the_head(net):
    x = torch.rand(2, 3, 16, 16)
    features, said = features_and_outputs(net, x)
    torch.testing.assert_close(features, net.features(x))
    torch.testing.assert_close(head(net)(features), said)
    assert not net.fc._forward_pre_hooks
    assert features.requires_grad


def test_outputs_of_transformers_models_are_their_logits():
    class Wrapped(nn.Module):
        def forward(self, x):
            return SimpleNamespace(logits=x + 1)

    assert outputs(Wrapped(), torch.zeros(2)).tolist() == [1, 1]

    class Strange(nn.Module):
        def forward(self, x):
            return [x]

    with pytest.raises(UsageError, match="list"):
        outputs(Strange(), torch.zeros(2))


def test_activations_are_those_of_the_named_modules(net):
    x = torch.rand(2, 3, 16, 16)
    found = activations(net, x, ["layer1", "layer4"])
    torch.testing.assert_close(found["layer4"], net.maps(x)[3])
    assert not net.layer1._forward_hooks


def test_blocks_of_a_resnet_and_of_a_trunk(net):
    assert block_names(net)[-3:] == ["layer4.0", "layer4.1", "fc"]
    assert last_blocks(net, 2) == ["layer4.1", "fc"]

    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Module()
            self.encoder.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
            self.classifier = nn.Linear(2, 2)

    assert block_names(Trunk()) == ["encoder.layers.0", "encoder.layers.1", "encoder.layers.2", "classifier"]
    with pytest.raises(UsageError, match="blocks"):
        last_blocks(net, 40)


def test_fresh_weights_are_drawn_by_seed_and_only_where_asked(net):
    one, two, other = (reinitialise(net, seed) for seed in (1, 1, 2))
    assert torch.equal(one.conv1.weight, two.conv1.weight)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)
    part = reinitialise(net, 1, ["fc"])
    assert torch.equal(part.conv1.weight, net.conv1.weight)
    assert not torch.equal(part.fc.weight, net.fc.weight)
    state = torch.random.get_rng_state()
    reinitialise(net, 3)
    assert torch.equal(state, torch.random.get_rng_state())


def test_every_part_gets_its_mode_back(net):
    net.train()
    net.layer2.eval()
    with evaluating(net):
        assert not any(part.training for part in net.modules())
    assert net.training
    assert not net.layer2[0].training
    with pytest.raises(UsageError, match="no linear layer"):
        head(nn.Conv2d(1, 1, 1))
