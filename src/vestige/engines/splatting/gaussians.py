"""A scene as Gaussians, in the raw parameters that 3D Gaussian splatting optimises and stores.

Source: 3D Gaussian Splatting for Real-Time Radiance Field Rendering, SIGGRAPH 2023.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError

#: Value of the constant spherical harmonic: colour = 0.5 + SH_CONSTANT · coefficient.
SH_CONSTANT = 0.28209479177387814
#: Numbers of coefficients for degrees 0 to 3.
SH_COUNTS = (1, 4, 9, 16)


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians. xyz: N×3 centres. scale: N×3, natural logarithms of the standard deviations along the own axes.
    rotation: N×4 quaternions (w, x, y, z) of any length. opacity: N×1 logits. sh: N×K×3 coefficients of spherical
    harmonics for red, green, blue, K = (degree + 1)², degree 0 to 3.

    Raises UsageError for shapes that do not fit together.
    """

    xyz: Tensor
    scale: Tensor
    rotation: Tensor
    opacity: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        shapes = {f.name: tuple(getattr(self, f.name).shape) for f in fields(self)}
        n = len(self.xyz)
        wanted = {"xyz": (n, 3), "scale": (n, 3), "rotation": (n, 4), "opacity": (n, 1)}
        if any(shapes[name] != shape for name, shape in wanted.items()) or n == 0:
            raise UsageError(f"Gaussians need N×3 xyz, N×3 scale, N×4 rotation and N×1 opacity, N > 0; got {shapes}.")
        if self.sh.ndim != 3 or shapes["sh"] not in {(n, k, 3) for k in SH_COUNTS}:
            raise UsageError(f"Spherical harmonics need shape N×K×3 with K in {SH_COUNTS}; got {shapes['sh']}.")

    def __len__(self) -> int:
        return len(self.xyz)

    def tensors(self) -> dict[str, Tensor]:
        """The five tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def vectors(self) -> Tensor:
        """All of a Gaussian in one row, N×(11 + 3K): 59 numbers at degree 3."""
        return torch.cat([t.flatten(1) for t in self.tensors().values()], 1)

    def leaves(self) -> Gaussians:
        """Copies that are optimised: detached, with gradients."""
        return Gaussians(**{k: t.detach().clone().requires_grad_() for k, t in self.tensors().items()})

    def detached(self) -> Gaussians:
        """Copies without gradients."""
        return Gaussians(**{k: t.detach().clone() for k, t in self.tensors().items()})

    def __getitem__(self, chosen: Tensor | slice) -> Gaussians:
        """Some of the Gaussians: by a slice, indices or a mask."""
        return Gaussians(**{k: t[chosen] for k, t in self.tensors().items()})


def join(*parts: Gaussians) -> Gaussians:
    """All Gaussians of several scenes of one degree."""
    return Gaussians(**{k: torch.cat([p.tensors()[k] for p in parts]) for k in parts[0].tensors()})


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """N×4 (w, x, y, z) of any length but 0 -> N×3×3.

    >>> rotation_matrices(torch.tensor([[2.0, 0, 0, 0]]))[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    w, x, y, z = F.normalize(quaternions, dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).view(-1, 3, 3)


def from_points(points: Tensor, colors: Tensor, *, degree: int = 0, opacity: float = 0.1) -> Gaussians:
    """Round Gaussians on a point cloud, as large as the root mean square distance to the three nearest neighbours.

    points: N×3, N > 3. colors: N×3 in [0, 1]. opacity: of all, in (0, 1). Raises UsageError for other shapes.

    >>> len(from_points(torch.rand(9, 3), torch.rand(9, 3), degree=1))
    9
    """
    if points.ndim != 2 or points.shape != colors.shape or points.shape[1] != 3 or len(points) < 4:
        raise UsageError(f"A start needs N×3 points and colours, N > 3; got {points.shape} and {colors.shape}.")
    if not 0 <= degree < len(SH_COUNTS) or not 0 < opacity < 1:
        raise UsageError(f"The degree must be 0 to 3 and the opacity in (0, 1); got {degree} and {opacity}.")
    nearest = torch.cdist(points, points).topk(4, largest=False).values[:, 1:]
    spread = nearest.square().mean(1).clamp_min(1e-7).sqrt().log()
    sh = points.new_zeros(len(points), SH_COUNTS[degree], 3)
    sh[:, 0] = (colors - 0.5) / SH_CONSTANT
    rotation = points.new_zeros(len(points), 4)
    rotation[:, 0] = 1
    logits = torch.full_like(points[:, :1], opacity).logit()
    return Gaussians(points.clone(), spread[:, None].repeat(1, 3), rotation, logits, sh)


def random_gaussians(
    count: int, radius: float = 1.0, *, degree: int = 0, opacity: float = 0.1, seed: int = 0
) -> Gaussians:
    """Grey-to-bright Gaussians spread evenly in a ball: where fits start when nothing is known about the scene."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(count, 3, generator=generator), dim=1)
    lengths = radius * torch.rand(count, 1, generator=generator) ** (1 / 3)
    colors = torch.rand(count, 3, generator=generator)
    return from_points(directions * lengths, colors, degree=degree, opacity=opacity)
