"""Analytic scenes of coloured ellipsoids and a small ray caster: views whose truth is known, to fit Gaussians to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.splatting.cameras import Cameras
from vestige.engines.splatting.gaussians import rotation_matrices

_LIGHT = (0.4, 0.3, 0.87)
_AMBIENT = 0.55


@dataclass(frozen=True)
class Ellipsoids:
    """M ellipsoids. centers: M×3. axes: M×3×3, columns are the semi-axes. colors: M×3 in [0, 1]."""

    centers: Tensor
    axes: Tensor
    colors: Tensor


def ellipsoid_scene(seed: int, count: int = 9) -> Ellipsoids:
    """A flat ground with ``count`` ellipsoids in bright colours on and above it, inside the unit ball."""
    draw = rng(seed, "ellipsoid scene")
    centers = draw.uniform(-0.6, 0.6, (count, 3)) * [1, 1, 0.75]
    lengths = draw.uniform(0.12, 0.42, (count, 3))
    turns = rotation_matrices(torch.from_numpy(draw.normal(size=(count, 4))).float())
    hues = np.stack([draw.permutation(count) for _ in range(3)], 1) / max(count - 1, 1)
    ground = np.diag([1.0, 1.0, 0.06])
    return Ellipsoids(
        torch.tensor(np.concatenate([[[0, 0, -0.55]], centers]), dtype=torch.float32),
        torch.cat([torch.tensor(ground[None], dtype=torch.float32), turns * torch.tensor(lengths).float()[:, None]]),
        torch.tensor(np.concatenate([draw.uniform(0, 1, (1, 3)), hues]), dtype=torch.float32),
    )


def cast(
    scene: Ellipsoids, cameras: Cameras, *, background: tuple[float, float, float] = (0.0, 0.0, 0.0), samples: int = 3
) -> Tensor:
    """Pictures C×3×H×W in [0, 1] with diffuse light from one side, each pixel the mean of samples² rays.

    Raises UsageError for fewer than one sample.

    >>> from vestige.engines.splatting import ring
    >>> cast(ellipsoid_scene(0), ring(2, 16)).shape
    torch.Size([2, 3, 16, 16])
    """
    if samples < 1:
        raise UsageError(f"A pixel needs at least one ray; got samples={samples}.")
    offsets = (torch.arange(samples) + 0.5) / samples - 0.5
    total = torch.zeros(len(cameras), cameras.height * cameras.width, 3)
    for dy in offsets:
        for dx in offsets:
            shifted = cameras.pixels() + torch.stack([dx, dy])
            total += _trace(scene, cameras, shifted, torch.tensor(background))[0]
    mean = total / samples**2
    return mean.transpose(1, 2).reshape(len(cameras), 3, cameras.height, cameras.width)


def surface_points(scene: Ellipsoids, cameras: Cameras, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``count`` points that the cameras see, and their colours, N×3 each: what structure from motion would give."""
    color, points, hit = _trace(scene, cameras, cameras.pixels(), torch.zeros(3))
    seen = hit.flatten().nonzero()[:, 0]
    if len(seen) < count:
        raise UsageError(f"The cameras see {len(seen)} points of the scene, fewer than {count}.")
    chosen = seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))[:count]]
    return points.flatten(0, 1)[chosen], color.flatten(0, 1)[chosen]


def _trace(scene: Ellipsoids, cameras: Cameras, pixels: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colours C×P×3, points C×P×3 and hits C×P of the rays through pixels P×2."""
    rays = torch.cat([pixels / cameras.focal, torch.ones(len(pixels), 1)], 1)
    rays = F.normalize(torch.einsum("cji,pj->cpi", cameras.rotation, rays), dim=-1)
    # In the coordinates where an ellipsoid is the unit ball: |o + t d|² = 1.
    unit = torch.linalg.inv(scene.axes)
    origins = torch.einsum("mij,cmj->cmi", unit, cameras.centers[:, None] - scene.centers)[:, None]
    directions = torch.einsum("mij,cpj->cpmi", unit, rays)
    a, b = directions.square().sum(-1), (origins * directions).sum(-1)
    root = b * b - a * (origins.square().sum(-1) - 1)
    distance = (-b - root.clamp_min(0).sqrt()) / a
    distance = torch.where((root > 0) & (distance > 0), distance, torch.inf)
    nearest, index = distance.min(-1)
    hit = nearest.isfinite()
    points = cameras.centers[:, None] + torch.where(hit, nearest, 0.0)[..., None] * rays
    local = torch.einsum("cpij,cpj->cpi", unit[index], points - scene.centers[index])
    normals = F.normalize(torch.einsum("cpji,cpj->cpi", unit[index], local), dim=-1)
    light = F.normalize(torch.tensor(_LIGHT), dim=0)
    shade = _AMBIENT + (1 - _AMBIENT) * (normals @ light).clamp_min(0)
    color = torch.where(hit[..., None], scene.colors[index] * shade[..., None], background)
    return color, points, hit
