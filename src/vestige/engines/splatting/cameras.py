"""Pinhole cameras. Camera axes as in COLMAP: x to the right, y down, z forward; pixel centres at half-integers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError


@dataclass(frozen=True)
class Cameras:
    """C cameras of one size. rotation: C×3×3 and translation: C×3 take world to camera, x_c = R x + t.
    focal: in pixels, for both axes; the principal point is the middle of the picture. height, width: in pixels.

    Raises UsageError for other shapes.
    """

    rotation: Tensor
    translation: Tensor
    focal: float
    height: int
    width: int

    def __post_init__(self) -> None:
        c = len(self.rotation)
        if c == 0 or self.rotation.shape != (c, 3, 3) or self.translation.shape != (c, 3):
            raise UsageError(
                f"Cameras need rotations C×3×3 and translations C×3; got {tuple(self.rotation.shape)} and "
                f"{tuple(self.translation.shape)}."
            )
        if not (self.focal > 0 and self.height > 0 and self.width > 0):
            raise UsageError(f"Focal length and size must be positive; got {self.focal}, {self.height}×{self.width}.")

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, chosen: Tensor | slice) -> Cameras:
        """Some of the cameras: by a slice or indices."""
        return Cameras(self.rotation[chosen], self.translation[chosen], self.focal, self.height, self.width)

    def to(self, device: torch.device | str) -> Cameras:
        rotation, translation = self.rotation.to(device), self.translation.to(device)
        return Cameras(rotation, translation, self.focal, self.height, self.width)

    @property
    def centers(self) -> Tensor:
        """Positions in the world, C×3: −Rᵀ t."""
        return -(self.rotation.transpose(1, 2) @ self.translation[:, :, None])[:, :, 0]

    def pixels(self) -> Tensor:
        """Pixel centres relative to the principal point, (H·W)×2 as (x, y)."""
        device = self.rotation.device
        y = torch.arange(self.height, device=device) + 0.5 - self.height / 2
        x = torch.arange(self.width, device=device) + 0.5 - self.width / 2
        return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 2)


def look_at(centers: Tensor, focal: float, height: int, width: int) -> Cameras:
    """Cameras at C×3 positions that look at the origin, the world's z axis upwards.

    Raises UsageError for a camera on that axis.
    """
    forward = -F.normalize(centers, dim=1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=centers.dtype, device=centers.device).expand_as(forward)
    right = torch.linalg.cross(forward, up)
    if centers.ndim != 2 or (right.norm(dim=1) < 1e-6).any():
        raise UsageError("A camera above or below what it looks at has no upright; move it off the z axis.")
    right = F.normalize(right, dim=1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], 1)
    return Cameras(rotation, -(rotation @ centers[:, :, None])[:, :, 0], focal, height, width)


def ring(
    count: int, size: int, *, radius: float = 3.0, elevation: float = 25.0, field: float = 45.0, start: float = 0.0
) -> Cameras:
    """``count`` cameras around the z axis, ``elevation`` degrees above the ground, that look at the origin.

    size: side of the square pictures. field: angle of view in degrees. start: azimuth of the first, in degrees.

    >>> ring(4, 32).centers.norm(dim=1).round().tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    azimuth = torch.deg2rad(start + 360 * torch.arange(count) / count)
    height = math.sin(math.radians(elevation))
    flat = math.cos(math.radians(elevation))
    centers = radius * torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), torch.full_like(azimuth, height)], 1)
    return look_at(centers, size / 2 / math.tan(math.radians(field) / 2), size, size)
