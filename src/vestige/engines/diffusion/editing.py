"""Editing with an unchanged model: SDEdit and inpainting by resampling (RePaint).

Sources: SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, ICLR 2022; RePaint:
Inpainting using Denoising Diffusion Probabilistic Models, CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.samplers import Denoiser, Sampler, Step, ddim_step, sample


def start_at(levels: torch.Tensor | Sequence[int], strength: float) -> list[int]:
    """The part of a grid that an edit of this strength runs: the last ``strength`` share of its steps, at least one.

    Raises UsageError for a strength outside (0, 1].
    """
    if not 0 < strength <= 1:
        raise UsageError(f"strength is {strength}; it must be above 0 and at most 1.")
    steps = [int(level) for level in levels]
    return steps[len(steps) - max(1, round(strength * len(steps))) :]


def sdedit(
    denoiser: Denoiser,
    x0: torch.Tensor,
    levels: torch.Tensor | Sequence[int],
    strength: float,
    generator: torch.Generator,
    method: Sampler = "ddim",
    *,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Noise clean latents x0 (N×C×H×W) to the level that ``strength`` reaches and sample from there.

    mask: bool or float N×1×H×W, 1 where the edit may act; elsewhere x0 is put back at every step and at the end.
    """
    steps = start_at(levels, strength)
    table = denoiser.schedule
    noise = _noise(x0, generator)
    x = _renoise(x0, noise, (float(table.alpha[steps[0]]), float(table.sigma[steps[0]])))
    if mask is None:
        return sample(denoiser, x, steps, method, generator=generator)
    inside = mask.to(x0.dtype)

    def keep(state: Step) -> None:
        level = state.next_level
        pair = (1.0, 0.0) if level < 0 else (float(table.alpha[level]), float(table.sigma[level]))
        state.x = inside * state.x + (1 - inside) * _renoise(x0, noise, pair)

    return sample(denoiser, x, steps, method, generator=generator, on_step=keep)


@torch.no_grad()
def repaint(
    denoiser: Denoiser,
    x0: torch.Tensor,
    mask: torch.Tensor,
    levels: torch.Tensor | Sequence[int],
    generator: torch.Generator,
    *,
    jump: int = 10,
    repeats: int = 5,
    eta: float = 1.0,
) -> torch.Tensor:
    """Fill the masked part of clean latents x0 N×C×H×W; the rest comes back exactly.

    mask: bool N×1×H×W, True where the picture is missing. Each step joins a sampled inside with a freshly noised
    outside. After every ``jump`` steps the picture is noised back by as many and those are done again, ``repeats``
    times in all, so that the inside comes to agree with the outside; repeats=1 is plain replacement.
    Raises UsageError for a jump or repeats below 1, or a mask of another size.
    """
    steps = [int(level) for level in levels]
    if jump < 1 or repeats < 1:
        raise UsageError(f"jump is {jump} and repeats {repeats}; both must be at least 1.")
    if mask.shape[-2:] != x0.shape[-2:] or mask.shape[0] not in (1, len(x0)):
        raise UsageError(f"The mask {tuple(mask.shape)} does not fit the picture {tuple(x0.shape)}.")
    missing = mask.bool()
    table = denoiser.schedule
    pairs = [(float(table.alpha[i]), float(table.sigma[i])) for i in steps] + [(1.0, 0.0)]
    x = _noise(x0, generator)
    for begin in range(0, len(steps), jump):
        end = min(begin + jump, len(steps))
        for turn in range(repeats):
            if turn:
                x = _forward(x, pairs[end], pairs[begin], generator)
            for i in range(begin, end):
                clean, eps = denoiser.estimate(x, steps[i])
                noise = _noise(x0, generator)
                x = ddim_step(clean, eps, pairs[i], pairs[i + 1], eta, noise)
                known = _renoise(x0, _noise(x0, generator), pairs[i + 1])
                x = torch.where(missing, x, known)
    return torch.where(missing, x, x0)


def _forward(
    x: torch.Tensor, here: tuple[float, float], there: tuple[float, float], generator: torch.Generator
) -> torch.Tensor:
    """From a level to a noisier one: x' = (a'/a) x + sqrt(s'² - (a'/a)² s²) n."""
    scale = there[0] / here[0]
    return scale * x + max(0.0, there[1] ** 2 - (scale * here[1]) ** 2) ** 0.5 * _noise(x, generator)


def _renoise(x0: torch.Tensor, noise: torch.Tensor, pair: tuple[float, float]) -> torch.Tensor:
    return pair[0] * x0 + pair[1] * noise


def _noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
