"""Search in the latent space of a generator, by its gradients: pictures that stay on what it can draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vestige.core.errors import UsageError
from vestige.engines.adversarial.budget import round8
from vestige.engines.adversarial.objectives import Objective, cost_of, evaluate
from vestige.engines.adversarial.results import Best

Generator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LatentResult:
    """latents: N×…, the best found. images: N×3×H×W, what they draw, on eight bits; the rest as in `AttackResult`."""

    latents: Tensor = field(repr=False)
    images: Tensor = field(repr=False)
    margin: Tensor
    success: Tensor
    loss: Tensor
    queries: Tensor
    clean_margin: Tensor


def draw(generator: Generator, latents: Tensor) -> Tensor:
    """The generator's pictures in [0, 1], rounded to eight bits straight through; UsageError for other shapes."""
    images = generator(latents)
    if images.ndim != 4 or len(images) != len(latents) or images.shape[1] != 3:
        raise UsageError(f"A generator must draw N×3×H×W pictures for N latents; got {tuple(images.shape)}.")
    return round8(images)


def result_of(best: Best, generator: Generator) -> LatentResult:
    """The best latents with their pictures."""
    with torch.no_grad():
        images = torch.cat([draw(generator, z) for z in best.images.split(64)])
    return LatentResult(
        best.images, images, best.margin, best.margin > best.confidence, best.loss, best.queries, best.clean_margin
    )


def check_start(start: Tensor) -> None:
    """Raises UsageError unless start latents are finite floats N×…."""
    if start.ndim < 2 or start.numel() == 0 or not start.is_floating_point() or not torch.isfinite(start).all():
        raise UsageError(f"Start latents must be finite floats N×…; got {start.dtype} {tuple(start.shape)}.")


def latent_search(
    generator: Generator,
    objective: Objective,
    start: Tensor,
    *,
    steps: int = 50,
    learning_rate: float = 0.01,
    radius: float | None = None,
    prior_weight: float = 0.0,
    early_stop: bool = True,
    confidence: float = 0.0,
) -> LatentResult:
    """Adam on latents through a differentiable generator: max over z of ℓ(G(z)) − λ ½‖z‖², ‖z − z₀‖₂ ≤ radius.

    generator: latents n×… -> pictures n×3×H×W in [0, 1], frozen and in evaluation mode. start: z₀, N×…. radius: keeps
    each latent near its start (None: free). prior_weight: λ, the pull of a standard normal prior. The best latents
    met, measured on rounded pictures, come back; early_stop and confidence as in `pgd`. No randomness. Raises
    UsageError for wrong shapes or options, InputError when the objective is not finite.
    Source: the search that CLIP2Protect (Shamshad et al., CVPR 2023) and other generator-based attacks share.

    >>> from vestige.engines.adversarial import Maximise
    >>> bright = Maximise(lambda x, chosen: x.mean((1, 2, 3)), threshold=0.8)
    >>> square = lambda z: torch.sigmoid(z)[:, :, None, None].expand(-1, 3, 8, 8)
    >>> latent_search(square, bright, torch.zeros(1, 1), learning_rate=0.2).success.tolist()
    [True]
    """
    check_start(start)
    if steps < 1 or not learning_rate > 0 or prior_weight < 0 or (radius is not None and not radius > 0):
        raise UsageError("A latent search needs a step, a positive learning rate and radius, and prior_weight ≥ 0.")
    origin = start.detach()
    everything = torch.arange(len(start), device=start.device)
    z = origin.clone().requires_grad_()
    optimiser = torch.optim.Adam([z], lr=learning_rate)
    best: Best | None = None
    active = everything
    for step in range(steps + 1):
        with torch.enable_grad():
            point = z[active]
            scores = evaluate(objective, draw(generator, point), active, step)
            if best is None:
                best = Best(origin, scores, confidence)
            best.offer(point, scores, active)
            best.queries[active] += cost_of(objective)
            if early_stop:
                active = best.open(active)
            if step == steps or len(active) == 0:
                break
            if not scores.loss.requires_grad:
                raise UsageError("The loss does not depend differentiably on the latents; use evolve.")
            loss = -scores.loss.sum() + prior_weight * 0.5 * point.square().sum()
            (z.grad,) = torch.autograd.grad(loss, z)
        optimiser.step()
        if radius is not None:
            with torch.no_grad():
                moved = z - origin
                size = moved.flatten(1).norm(dim=1).clamp_min(1e-12)
                z.copy_(origin + moved * (radius / size).clamp_max(1).reshape(-1, *[1] * (z.ndim - 1)))
    assert best is not None
    return result_of(best, generator)
