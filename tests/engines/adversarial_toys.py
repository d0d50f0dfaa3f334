"""A small world for attacks: three patterns, a classifier of them and a generator that draws them."""

from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 3


def make(n, seed):
    """16×16 pictures on eight bits: stripes across, along or a chequered pattern, in random tone and noise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, n)
    y, x = np.mgrid[:16, :16] // 2 % 2
    patterns = np.stack([x, y, x ^ y]) - 0.5
    images = 0.5 + 0.055 * patterns[labels][:, None] + 0.1 * generator.normal(size=(n, 3, 1, 1))
    images = (images + 0.04 * generator.normal(size=(n, 3, 16, 16))).clip(0, 1)
    return torch.from_numpy(np.round(images * 255) / 255).float(), torch.from_numpy(labels)


class Scale(nn.Module):
    def forward(self, x):
        return (x - 0.5) * 8


def accuracy(model, images, labels):
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def assert_on_grid(images):
    levels = images.double() * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    assert images.min() >= 0
    assert images.max() <= 1


def levels_changed(result, original):
    return (result * 255).round().to(torch.int64) - (original * 255).round().to(torch.int64)


class Blobs(nn.Module):
    """A generator: latents of 6 numbers draw mixtures of the three patterns and a tone."""

    def forward(self, z):
        y, x = torch.meshgrid(torch.arange(16) // 2 % 2, torch.arange(16) // 2 % 2, indexing="ij")
        patterns = torch.stack([x, y, x ^ y]).to(z) - 0.5
        drawn = torch.einsum("nk,khw->nhw", 0.1 * z[:, :3].tanh(), patterns)
        return 0.5 + drawn[:, None] + 0.05 * z[:, 3:6, None, None].tanh()


@cache
def trained():
    """A small classifier of these pictures."""
    torch.manual_seed(0)
    net = nn.Sequential(
        Scale(), nn.Conv2d(3, 12, 5, 1, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(12, 24, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(24 * 16, CLASSES),
    )  # fmt: skip
    images, labels = make(384, 0)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(72):
        part = torch.arange(64) + step % 6 * 64
        loss = F.cross_entropy(net(images[part]), labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval().requires_grad_(False)
