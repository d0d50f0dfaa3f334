"""Fisher information against autograd, one sample at a time, and against dense linear algebra."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting import fisher
from vestige.engines.forgetting.cost import measured
from vestige.engines.forgetting.losses import task_loss
from vestige.engines.forgetting.samples import Samples
from vestige.nn.resnet import ResNet, ResNetConfig


class Tokens(nn.Module):
    """A class token, attention and two kinds of normalisation: partly beyond what layers tell by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)[..., :1].expand(-1, -1, 8)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        y = self.norm(x)
        return self.head((x + self.attention(y, y, y, need_weights=False)[0])[:, 0])


def convolutional() -> nn.Module:
    """Strides, dilation, biases and three kinds of normalisation."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, (1, 3), dilation=(1, 2)), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.LayerNorm(5), nn.Linear(5, 3),
    )  # fmt: skip


MODELS = {
    "convolutional": convolutional,
    "resnet": lambda: ResNet(ResNetConfig(18, width=0.0625, classes=3)),
    "tokens": Tokens,
}


def setting(name: str, n: int = 9) -> tuple[nn.Module, Samples]:
    torch.manual_seed(1)
    model = MODELS[name]()
    samples = Samples(torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8), torch.arange(n) % 3)
    with torch.no_grad():
        model.train()(samples.inputs.float() / 255)  # running statistics of its own
    return model, samples


def by_hand(model: nn.Module, samples: Samples, output: str = "loss") -> dict[str, torch.Tensor]:
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    model.eval()
    for i in range(len(samples)):
        batch = samples.batch(torch.tensor([i]))
        said = model(batch.x)
        loss = task_loss(said, batch.labels) if output == "loss" else said.pow(2).sum()
        for name, g in zip(total, torch.autograd.grad(loss, list(model.parameters()))):
            total[name] += g.abs() if output == "output_norm" else g**2
    return {name: value / len(samples) for name, value in total.items()}


@pytest.mark.parametrize("output", ["loss", "output_norm"])
@pytest.mark.parametrize("name", MODELS)
def test_importance_is_the_mean_of_single_gradients(name, output):
    model, samples = setting(name)
    model.train()
    flags = [p.requires_grad for p in model.parameters()]
    found = fisher.importance(model, samples, output=output, batch_size=4)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == flags
    for key, value in by_hand(model, samples, output).items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-7, msg=key)


def test_a_layer_that_is_used_twice_counts_its_whole_gradient():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.one(torch.relu(self.one(x))))

    torch.manual_seed(0)
    model, samples = Twice(), Samples(torch.rand(5, 4), torch.arange(5) % 3)
    found = fisher.importance(model, samples)
    for key, value in by_hand(model, samples).items():
        torch.testing.assert_close(found[key], value, msg=key)


def test_squares_of_batch_means_depend_on_the_batch():
    model, samples = setting("convolutional")
    single = fisher.importance(model, samples, per_sample=True)
    one = fisher.importance(model, samples, per_sample=False, batch_size=1)
    nine = fisher.importance(model, samples, per_sample=False, batch_size=9)
    for key in single:
        torch.testing.assert_close(one[key], single[key], rtol=1e-3, atol=1e-7)
    mean = fisher.mean_gradient(model, samples)
    for key, value in nine.items():
        torch.testing.assert_close(value, mean[key] ** 2, rtol=1e-3, atol=1e-9)


def test_sample_gradients_are_of_the_wanted_parameters_alone():
    model, samples = setting("resnet", 5)
    (found,) = fisher.sample_gradients(model, samples, only=["fc.weight", "conv1.weight"])
    assert {n: g.shape for n, g in found.items()} == {
        "fc.weight": (5, *model.fc.weight.shape), "conv1.weight": (5, *model.conv1.weight.shape)
    }  # fmt: skip
    whole = fisher.mean_gradient(model, samples)
    for name, g in found.items():
        torch.testing.assert_close(g.mean(0), whole[name], rtol=1e-3, atol=1e-6)


def test_regression_has_an_importance_too():
    torch.manual_seed(0)
    model, samples = nn.Linear(3, 1), Samples(torch.rand(6, 3), torch.rand(6))
    found = fisher.importance(model, samples)
    torch.testing.assert_close(found["weight"], samples.inputs.pow(2).mean(0)[None])


def test_refusals_and_cost():
    model, samples = setting("convolutional")
    with pytest.raises(UsageError, match="no samples"):
        fisher.importance(model, samples.take([]))
    with pytest.raises(InputError, match="labels"):
        fisher.importance(model, samples.with_targets(None))
    with pytest.raises(InputError, match="outputs"):
        fisher.importance(model, samples.with_targets(samples.labels + 5))
    with measured() as cost:
        fisher.importance(model, samples)
    assert (cost.forward, cost.backward) == (9, 9)


def test_woodbury_and_blocks_agree_with_dense_algebra():
    torch.manual_seed(0)
    g, v = torch.randn(6, 10, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    dense = g.T @ g / 6 + 0.3 * torch.eye(10, dtype=torch.float64)
    torch.testing.assert_close(fisher.woodbury(g, v, 0.3), torch.linalg.solve(dense, v))
    blocks = fisher.block_fisher(g, 4, 0.3)
    assert blocks.shape == (3, 4, 4)
    torch.testing.assert_close(blocks[1], dense[4:8, 4:8])
    torch.testing.assert_close(blocks[2][:2, :2], dense[8:, 8:])
    with pytest.raises(UsageError, match="damping"):
        fisher.woodbury(g, v, 0.0)


def test_woodfisher_follows_its_recursion():
    torch.manual_seed(0)
    rows, v = torch.randn(3, 4), torch.randn(4)
    o, k = rows[0], v
    for g in rows[1:]:
        k, o = k - (k @ g) / (3 + o @ g) * o, o - (o @ g) / (3 + o @ g) * o
    torch.testing.assert_close(fisher.woodfisher(iter(rows), v, 3), k)
    with pytest.raises(UsageError, match="at least one"):
        fisher.woodfisher(iter(()), v, 3)


def test_flat_and_back():
    model, samples = setting("convolutional")
    names = [n for n, _ in model.named_parameters()]
    whole = fisher.mean_gradient(model, samples)
    back = fisher.unflat(fisher.flat(whole, names), model, names)
    assert all(torch.equal(back[n], whole[n]) for n in names)
