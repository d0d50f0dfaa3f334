"""Layouts of convolutions: values stay, and no small training corrupts memory where a stride meets channels last."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from vestige.core import runtime
from vestige.nn.layout import channels_last, channels_last_helps, contiguous, safe_strides, unsafe
from vestige.nn.resnet import ResNet, ResNetConfig


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_safe_form_computes_the_same(padding, mode, groups):
    plain = nn.Conv2d(4, 8, 1, stride=(2, 3), padding=padding, padding_mode=mode, groups=groups).double()
    safe = safe_strides(copy.deepcopy(plain))
    found = []
    for layer in (plain, safe, copy.deepcopy(safe)):
        x = torch.rand(3, 4, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        layer(x).square().sum().backward()
        found.append((layer(x).detach(), x.grad, layer.weight.grad, layer.bias.grad))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_copies_and_pickles_of_a_safe_layer_have_weights_of_their_own():
    layer = safe_strides(nn.Conv2d(4, 8, 1, stride=2))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad():
            other.weight.zero_()
            other.bias.zero_()
        assert not other(torch.ones(1, 4, 4, 4)).any()
    assert layer(torch.ones(1, 4, 4, 4)).any()
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_only_strided_pointwise_convolutions_of_few_channels_are_unsafe():
    assert unsafe(nn.Conv2d(4, 8, 1, stride=2))
    assert unsafe(nn.Conv2d(4, 8, 1, stride=(1, 2)))
    for safe in (nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, stride=2), nn.Conv2d(32, 8, 1, stride=2)):
        assert not unsafe(safe)


def test_contiguous_takes_the_layout_off_weights_of_one_pixel_too():
    net = channels_last(nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3)))
    assert net[0].weight.stride() != (4, 1, 1, 1)
    values = copy.deepcopy(net.state_dict())
    contiguous(net)
    assert net[0].weight.stride() == (4, 1, 1, 1)
    assert net[1].weight.stride() == (72, 9, 3, 1)
    assert all(torch.equal(value, values[name]) for name, value in net.state_dict().items())


def test_channels_last_is_for_convolutions_wide_enough():
    assert not channels_last_helps(nn.Linear(8, 8))
    assert not channels_last_helps(ResNet(ResNetConfig(18, width=1 / 32)))


#: What people and the house do with networks whose shortcuts shrink 3 to 7 channels.
_TRAINING = """
import tempfile, torch
from torch import nn
from torch.nn import functional as F
from vestige.engines.forgetting.fisher import importance, mean_gradient, sample_gradients
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.samples import Samples
from vestige.engines.train import TrainConfig, Trainer
from vestige.nn.residual import CentralDifferenceConv2d
from vestige.nn.resnet import ResNet, ResNetConfig

torch.manual_seed(0)
torch.set_num_threads(1)
last = torch.channels_last

class Shrinking(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1, 2), nn.Conv2d(8, 4, 1)
        self.third, self.difference = nn.Conv2d(4, 8, 1, 2), CentralDifferenceConv2d(8, 8, 1, stride=2)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.first(x) + self.wide(x)[..., ::2, ::2])
        return self.fc(self.difference(self.third(self.second(x))).mean((2, 3)))

samples = Samples(torch.rand(64, 3, 24, 24), torch.randint(0, 4, (64,)))
for net in (ResNet(ResNetConfig(18, width=4 / 64, classes=4)), Shrinking(), Shrinking().to(memory_format=last)):
    tuned = tune(net, [Phase(samples, fit)], Tuning(2, 0.01, batch_size=32)).model
    for model in (net, tuned):
        importance(model, samples)
        importance(model, samples, per_sample=False)
        mean_gradient(model, samples)
        next(sample_gradients(model, samples))

def batches(number, generator):
    return torch.rand(32, 3, 24, 24, generator=generator), torch.zeros(32, dtype=torch.int64)

def step(model, batch, generator):
    return {"loss": F.cross_entropy(model(batch[0]), batch[1])}

for layout in (True, False):  # without it, the user's own model comes in channels last
    with tempfile.TemporaryDirectory() as out:
        Trainer(Shrinking().to(memory_format=last), step, batches, TrainConfig(steps=12, channels_last=layout),
                out=out, device="cpu", quiet=True).run()
print("survived")
"""


def test_small_trainings_survive_on_a_processor_with_avx2_only():
    """Where the unsafe layout comes back, the process dies of "double free or corruption"."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", _TRAINING], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "survived"), ended.stderr[-2000:]


@pytest.mark.parametrize(
    ("has", "allowed", "pays"),
    [
        ({"avx512_bf16": True}, "", True),
        ({"amx_bf16": True}, "AVX512_CORE_AMX", True),
        ({"avx512_bf16": True}, "AVX2", False),
        ({"avx512_f": True}, "", False),
        ({"avx2": True}, "", False),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_has_units_for_it(has, allowed, pays, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert runtime.bf16_pays(torch.device("cpu")) is pays
