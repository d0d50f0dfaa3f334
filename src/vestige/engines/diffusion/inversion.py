"""DDIM inversion: the noise from which deterministic sampling returns a given image.

Source: Denoising Diffusion Implicit Models, ICLR 2021; the fixed-point form after Effective Real Image Editing with
Accelerated Iterative Diffusion Inversion, ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.samplers import Denoiser, Step, ddim_step


@torch.no_grad()
def invert(
    denoiser: Denoiser,
    x0: torch.Tensor,
    levels: torch.Tensor | Sequence[int],
    *,
    fixed_point: int = 0,
    on_step: Callable[[Step], Any] | None = None,
) -> torch.Tensor:
    """Clean latents N×... -> latents at the first (noisiest) of the falling ``levels``.

    Runs the DDIM step backwards, x' = a' x0(x) + s' e(x), with the estimates at the less noisy x, which is exact only
    for infinitely small steps. ``fixed_point`` iterations then correct every step: the sampler's own step from x' must
    lead back to x, so x' = (a'/a)(x - s e(x')) + s' e(x') is solved. Each costs one more call of the network; 2 to
    5 are usual. The clean image is read at the lowest level, where the sampler's last step ends.
    Raises UsageError for levels that do not fall.
    """
    steps = [int(level) for level in levels]
    if not steps or any(b >= a for a, b in pairwise(steps)):
        raise UsageError("Levels must fall, as the sampler's do.")
    table = denoiser.schedule
    x, here = x0, (1.0, 0.0)
    rising = steps[::-1]
    for i, level in enumerate(rising):
        there = (float(table.alpha[level]), float(table.sigma[level]))
        clean, eps = denoiser.estimate(x, rising[max(i - 1, 0)])
        ahead = ddim_step(x0 if i == 0 else clean, eps, here, there)
        for _ in range(fixed_point):
            clean, eps = denoiser.estimate(ahead, level)
            ahead = there[0] / here[0] * (x - here[1] * eps) + there[1] * eps
        if on_step is not None:
            state = Step(i, level, level, ahead, clean, eps)
            on_step(state)
            ahead = state.x
        x, here = ahead, there
    return x
