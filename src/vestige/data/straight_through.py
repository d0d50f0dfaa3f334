"""Distortions as files suffer them, with a gradient: the real twin forwards, the identity backwards."""

from __future__ import annotations

import torch
from torch import Tensor

from vestige.core.errors import UsageError
from vestige.data.distortions import distort


def straight_through(images: Tensor, name: str, strength: float, *, seed: int | None = 0) -> Tensor:
    """The real twin's result with the gradient of the identity, for distortions that keep the size.

    images: float N×3×H×W in [0, 1]. Raises UsageError when the distortion changes the size, and as `distort` does.

    >>> import torch
    >>> straight_through(torch.zeros(1, 3, 16, 16), "jpeg", 50).shape
    torch.Size([1, 3, 16, 16])
    """
    result = distort(images.detach().float().cpu().numpy(), name, strength, seed=seed)
    if result.shape != tuple(images.shape):
        raise UsageError(f"{name} changes the size, so it has no straight-through form; use distort.")
    return images + (torch.from_numpy(result).to(images) - images).detach()
