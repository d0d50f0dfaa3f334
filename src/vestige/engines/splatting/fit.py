"""Fitting Gaussians to views by gradient descent, with the usual loss and groups of parameters.

The number of Gaussians stays what it is at the start: nothing is split, cloned or pruned.
Source: 3D Gaussian Splatting for Real-Time Radiance Field Rendering, SIGGRAPH 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.splatting.cameras import Cameras
from vestige.engines.splatting.gaussians import Gaussians
from vestige.engines.splatting.render import render
from vestige.metrics.perceptual import ms_ssim

#: Background of scenes: black.
BLACK = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Rates:
    """Learning rates of the groups, for scenes about as large as the unit ball; xyz falls exponentially to xyz_last.

    The defaults are the published ones, made for 30,000 steps.
    """

    xyz: float = 1.6e-4
    xyz_last: float = 1.6e-6
    scale: float = 5e-3
    rotation: float = 1e-3
    opacity: float = 0.05
    sh: float = 2.5e-3

    def xyz_at(self, fraction: float) -> float:
        """The rate of the centres when that share of the run is done."""
        return self.xyz * (self.xyz_last / self.xyz) ** fraction


#: Rates for about a thousand steps, in which the published ones would leave Gaussians where they began.
SHORT = Rates(xyz=8e-3, xyz_last=8e-4, scale=2e-2, rotation=1e-2, opacity=0.05, sh=2e-2)


def photometric(rendered: Tensor, target: Tensor, ssim_weight: float = 0.2) -> Tensor:
    """(1 − λ)·mean |a − b| + λ·(1 − SSIM); pictures N×3×H×W with sides of at least 11 pixels."""
    similarity = ms_ssim(target, rendered, scales=1).mean() if ssim_weight > 0 else rendered.new_ones(())
    return (1 - ssim_weight) * F.l1_loss(rendered, target) + ssim_weight * (1 - similarity)


def batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of camera numbers, each camera once in a round; what is left of a round is not used."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, count)
    while True:
        yield from torch.randperm(count, generator=generator)[: count // size * size].split(size)


def check_views(cameras: Cameras, images: Tensor, what: str) -> None:
    """Raises UsageError unless the pictures are finite C×3×H×W of the cameras' number and size."""
    wanted = (len(cameras), 3, cameras.height, cameras.width)
    if tuple(images.shape) != wanted or not images.is_floating_point() or not bool(images.isfinite().all()):
        raise UsageError(f"{what} must be finite float pictures of shape {wanted}; got {tuple(images.shape)}.")


@torch.enable_grad()
def descend(
    start: Gaussians,
    loss: Callable[[Gaussians, Tensor], Tensor],
    cameras: int,
    *,
    iterations: int,
    rates: Rates = SHORT,
    batch: int = 1,
    seed: int = 0,
    others: torch.optim.Optimizer | None = None,
    decay: float = 1.0,
) -> Gaussians:
    """Lower ``loss(gaussians, camera numbers)`` from ``start`` by Adam, and return new Gaussians.

    cameras: how many there are. batch: views of a step. others: an optimiser of what else the loss depends on; its
    rates fall exponentially to ``decay`` times what they are. Raises UsageError for settings out of range or when the
    loss is no longer finite.
    """
    if iterations < 1 or batch < 1:
        raise UsageError(f"A fit needs at least one step of one view; got {iterations} steps of {batch}.")
    scene = start.leaves()
    # Gradients of a single Gaussian are small beside Adam's usual epsilon.
    groups = [{"params": [tensor], "lr": getattr(rates, name)} for name, tensor in scene.tensors().items()]
    optimizer = torch.optim.Adam(groups, eps=1e-15)
    first = [group["lr"] for group in others.param_groups] if others else []
    for step, views in zip(range(iterations), batches(cameras, batch, seed)):
        optimizer.param_groups[0]["lr"] = rates.xyz_at(step / iterations)
        for group, rate in zip(others.param_groups if others else [], first, strict=True):
            group["lr"] = rate * decay ** (step / iterations)
        value = loss(scene, views)
        if not bool(value.isfinite()):
            raise UsageError(f"The fit diverged at step {step + 1}; lower the learning rates.")
        for each in (optimizer, others):
            if each is not None:
                each.zero_grad()
        value.backward()
        for each in (optimizer, others):
            if each is not None:
                each.step()
    return scene.detached()


def fit(
    start: Gaussians,
    cameras: Cameras,
    images: Tensor,
    *,
    iterations: int,
    rates: Rates = SHORT,
    batch: int = 1,
    ssim_weight: float = 0.2,
    background: tuple[float, float, float] = BLACK,
    seed: int = 0,
) -> Gaussians:
    """Plain Gaussian splatting: Gaussians whose renderings are the pictures C×3×H×W of the cameras.

    Raises UsageError for pictures that do not fit the cameras or settings out of range.

    >>> from vestige.engines.splatting import random_gaussians, ring
    >>> len(fit(random_gaussians(30), ring(3, 16), torch.zeros(3, 3, 16, 16), iterations=2))
    30
    """
    check_views(cameras, images, "The views")

    def loss(scene: Gaussians, views: Tensor) -> Tensor:
        return photometric(render(scene, cameras[views], background=background), images[views], ssim_weight)

    return descend(start, loss, len(cameras), iterations=iterations, rates=rates, batch=batch, seed=seed)
