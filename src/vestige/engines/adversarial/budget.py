"""How far a picture may move, kept exactly after saving: projections that end on the eight-bit grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng

Norm = Literal["linf", "l2"]


def torch_generator(seed: int, *path: object) -> torch.Generator:
    """A CPU generator of torch for one place in a computation, as `vestige.core.runtime.rng` is one of numpy."""
    return torch.Generator().manual_seed(int(rng(seed, *path).integers(2**62)))


def round8(images: Tensor) -> Tensor:
    """The nearest eight-bit values in [0, 1], with the gradient of the identity.

    >>> round8(torch.tensor([0.1])).mul(255).tolist()
    [26.0]
    """
    return images + ((images.detach().clamp(0, 1) * 255).round() / 255 - images).detach()


def check_images(images: Tensor, *, eight_bit: bool = True) -> None:
    """Raises UsageError unless images are float N×3×H×W in [0, 1] (on the eight-bit grid), InputError for NaN."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise UsageError(f"Pictures must be a tensor N×3×H×W; got {getattr(images, 'shape', type(images).__name__)}.")
    if not images.is_floating_point():
        raise UsageError(f"Pictures must be floating point in [0, 1]; got {images.dtype}, so divide by 255 first.")
    if not torch.isfinite(images).all():
        raise InputError("The pictures hold samples that are not finite (NaN or infinity); repair them first.")
    if images.min() < 0 or images.max() > 1:
        raise UsageError(f"Pictures must lie in [0, 1]; got {float(images.min()):g} … {float(images.max()):g}.")
    levels = images * 255
    if eight_bit and (levels - levels.round()).abs().max() > 1e-2:
        raise UsageError(
            "Pictures must hold eight-bit values (multiples of 1/255); round them, or use eight_bit=False."
        )


def norms(change: Tensor, norm: Norm) -> Tensor:
    """L∞ or L2 norm of every picture's change, (N,)."""
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


@dataclass(frozen=True)
class Budget:
    """‖x' − x‖ ≤ ε in the L∞ or L2 norm, x' in [0, 1].

    epsilon: in units of [0, 1], for example 8/255. eight_bit: results are multiples of 1/255, so that the budget holds
    for the saved file: in L∞ by whole levels (⌊255 ε⌋), in L2 by shrinking the change until its rounded form fits.
    Raises UsageError for another norm, or an ε below what eight bits can show.

    >>> Budget("linf", 8.4 / 255).radius * 255
    8.0
    """

    norm: Norm
    epsilon: float
    eight_bit: bool = True

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise UsageError(f"A budget is in the norm 'linf' or 'l2'; got {self.norm!r}.")
        if not self.radius > 0:
            raise UsageError(f"A budget of {self.epsilon:g} allows no change; eight bits need at least 1/255.")

    @property
    def radius(self) -> float:
        """The ε that is in force: whole levels for L∞ on eight bits."""
        if self.eight_bit and self.norm == "linf":
            return int(self.epsilon * 255 + 1e-6) / 255
        return self.epsilon if not self.eight_bit or self.epsilon * 255 >= 1 else 0.0

    def shrink(self, change: Tensor) -> Tensor:
        """The nearest change (N×3×H×W) within the ball, not yet rounded."""
        if self.norm == "linf":
            return change.clamp(-self.radius, self.radius)
        size = norms(change, "l2").clamp_min(1e-12)
        return change * (self.radius / size).clamp_max(1)[:, None, None, None]

    def project(self, images: Tensor, original: Tensor) -> Tensor:
        """Pictures within the ball around ``original`` and in [0, 1]; clipping only moves towards the original."""
        return (original + self.shrink(images - original)).clamp(0, 1)

    def settle_change(self, change: Tensor) -> Tensor:
        """A change on the eight-bit grid within the ball; with eight_bit=False only within the ball."""
        change = self.shrink(change)
        if not self.eight_bit:
            return change
        levels = (change * 255).double()
        rounded = levels.round()
        if self.norm == "l2":
            over = norms(rounded, "l2") > self.radius * 255
            if over.any():
                rounded[over] = self._largest_fitting(levels[over])
        return (rounded / 255).to(change.dtype)

    def _largest_fitting(self, levels: Tensor) -> Tensor:
        """round(s · levels) for the largest s that fits: |round(s·v)| never falls as s grows, so bisection is exact."""
        low = torch.zeros(len(levels), 1, 1, 1, dtype=levels.dtype, device=levels.device)
        high = torch.ones_like(low)
        for _ in range(12):
            middle = (low + high) / 2
            fits = (norms((middle * levels).round(), "l2") <= self.radius * 255)[:, None, None, None]
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return (low * levels).round()

    def settle(self, images: Tensor, original: Tensor) -> Tensor:
        """The pictures as they would be saved: within the budget of ``original``, in [0, 1], on the eight-bit grid."""
        moved = (original + self.settle_change(self.project(images, original) - original)).clamp(0, 1)
        return (moved * 255).round() / 255 if self.eight_bit else moved

    def random_point(self, original: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the ball around ``original``, clipped to [0, 1]; drawn on the CPU for any device."""
        shape = tuple(original.shape)
        if self.norm == "linf":
            change = (2 * torch.rand(shape, generator=generator) - 1) * self.radius
        else:
            direction = torch.randn(shape, generator=generator)
            share = torch.rand(shape[0], generator=generator) ** (1 / direction[0].numel())
            change = direction * (self.radius * share / norms(direction, "l2"))[:, None, None, None]
        return (original + change.to(original)).clamp(0, 1)

    def ascent(self, gradient: Tensor) -> Tensor:
        """Direction of steepest ascent with unit norm: sign (L∞) or the normalised gradient (L2)."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / norms(gradient, "l2").clamp_min(1e-30)[:, None, None, None]
