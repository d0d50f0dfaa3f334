"""Pairs of analytic scenes that KeySS is tested on, and the baselines it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vestige.engines.splatting import (
    SHORT,
    Cameras,
    Gaussians,
    cast,
    descend,
    ellipsoid_scene,
    fit,
    from_points,
    join,
    photometric,
    render,
    ring,
    surface_points,
)

#: Share of the Gaussians that begin on the cover's surfaces where a scene is hidden too.
COVER_SHARE = 0.75
#: Cameras are near enough for the scenes to fill most of the pictures, which differ more then.
RADIUS = 2.6
#: What opens the secrets of the tests.
KEY = "Ab3dEf6hIj9lMn2p"


@dataclass(frozen=True)
class Scale:
    """How large the fits are."""

    size: int = 32
    gaussians: int = 400
    steps: int = 1000
    views: int = 24
    held_out: int = 8


@dataclass(frozen=True)
class Pair:
    """A cover and a secret: views C×3×S×S to fit, and views from cameras between those, to judge by.

    points: starts on the surfaces of the "cover", the "secret", and the cover "elsewhere".
    """

    train: Cameras
    test: Cameras
    cover: Tensor
    secret: Tensor
    cover_truth: Tensor
    secret_truth: Tensor
    points: dict[str, Gaussians]

    def start(self, share: float = COVER_SHARE) -> Gaussians:
        """As many Gaussians as ever, that share on the cover's surfaces and the others on the secret's."""
        first, second = self.points["cover"], self.points["secret"]
        count = round(share * len(first))
        return join(first[:count], second[: len(first) - count])


def pair(number: int, scale: Scale) -> Pair:
    """The pair of that number: scenes 2 n and 2 n + 1."""
    train = ring(scale.views, scale.size, radius=RADIUS)
    test = ring(scale.held_out, scale.size, radius=RADIUS, start=180 / scale.views)
    cover, secret = ellipsoid_scene(2 * number), ellipsoid_scene(2 * number + 1)
    drawn = {"cover": (cover, number), "secret": (secret, number), "elsewhere": (cover, number + 1000)}
    points = {
        name: from_points(*surface_points(scene, train, scale.gaussians, seed=seed), degree=1)
        for name, (scene, seed) in drawn.items()
    }
    return Pair(train, test, cast(cover, train), cast(secret, train), cast(cover, test), cast(secret, test), points)


def quality(images: Tensor, truth: Tensor) -> float:
    """Mean PSNR of pictures as they would be saved, in decibels."""
    from vestige.metrics.quality import psnr

    saved = (images.detach().clamp(0, 1) * 255).round() / 255
    return float(psnr(truth.numpy(), saved.numpy()).mean())


def plain(scenes: Pair, scale: Scale, points: str = "cover", *, seed: int, count: int | None = None) -> Gaussians:
    """Gaussian splatting of one scene and nothing else, from the first ``count`` of these points or all."""
    images = scenes.secret if points == "secret" else scenes.cover
    return fit(scenes.points[points][:count], scenes.train, images, iterations=scale.steps, rates=SHORT, seed=seed)


class FeatureHider(nn.Module):
    """GS-Hider-like: blended features instead of colours, one network that draws the cover and one for the secret.

    The features stand where a file of degree 1 has its colours, 12 for each Gaussian.
    Source: GS-Hider: Hiding Messages into 3D Gaussian Splatting, NeurIPS 2024 (here with two small networks).
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.scene, self.message = (
            nn.Sequential(nn.Conv2d(12, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, 3, 3, 1, 1)) for _ in range(2)
        )

    def forward(self, gaussians: Gaussians, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Pictures of the cover and of the secret."""
        maps = render(gaussians, cameras, features=gaussians.sh.flatten(1), background=(0.0,) * 12)
        return self.scene(maps).sigmoid(), self.message(maps).sigmoid()


def fitted(scenes: Pair, scale: Scale, *, seed: int) -> tuple[Gaussians, FeatureHider]:
    """The Gaussians and the networks of a `FeatureHider`, from the start that KeySS has."""
    start = scenes.start()
    noise = torch.randn(start.sh[:, 1:].shape, generator=torch.Generator().manual_seed(seed))
    start = replace(start, sh=torch.cat([start.sh[:, :1], 0.3 * noise], 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = FeatureHider()

    def loss(gaussians: Gaussians, views: Tensor) -> Tensor:
        cover, secret = networks(gaussians, scenes.train[views])
        return 0.5 * photometric(cover, scenes.cover[views]) + 0.5 * photometric(secret, scenes.secret[views])

    optimizer = torch.optim.Adam(networks.parameters(), lr=5e-3)
    gaussians = descend(start, loss, len(scenes.train), iterations=scale.steps, seed=seed, others=optimizer, decay=0.1)
    return gaussians, networks
