"""Projected gradient ascent, with gradients from the model or estimated from its answers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vestige.core.errors import UsageError
from vestige.engines.adversarial.budget import Budget, check_images, torch_generator
from vestige.engines.adversarial.objectives import Objective, Scores, cost_of, evaluate
from vestige.engines.adversarial.results import AttackResult, Best


class Estimate(NamedTuple):
    """Scores at the pictures and the gradient of their losses, n×3×H×W."""

    scores: Scores
    gradient: Tensor


class Gradient(Protocol):
    """A way to a gradient; ``cost`` is the number of calls of the objective it takes."""

    cost: int

    def __call__(
        self, objective: Objective, images: Tensor, chosen: Tensor, step: int, generator: torch.Generator
    ) -> Estimate: ...


class _Autograd:
    cost = 1

    def __call__(
        self, objective: Objective, images: Tensor, chosen: Tensor, step: int, generator: torch.Generator
    ) -> Estimate:
        x = images.detach().requires_grad_()
        with torch.enable_grad():
            scores = evaluate(objective, x, chosen, step)
            if not scores.loss.requires_grad:
                raise UsageError("The loss does not depend differentiably on the pictures; use gradient=NES(...).")
            (gradient,) = torch.autograd.grad(scores.loss.sum(), x)
        return Estimate(Scores(scores.loss.detach(), scores.margin), gradient)


#: The gradient of the model itself (white box).
autograd: Gradient = _Autograd()


def pgd(
    images: Tensor,
    objective: Objective,
    budget: Budget,
    *,
    steps: int = 40,
    step_size: float | None = None,
    momentum: float = 0.0,
    random_start: bool = True,
    restarts: int = 1,
    early_stop: bool = True,
    confidence: float = 0.0,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    gradient: Gradient = autograd,
    max_queries: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> AttackResult:
    """Projected gradient ascent on an objective within a budget; returns the best pictures met on the way.

    g ← μ g + ∇ℓ(q(x')) / ‖∇ℓ(q(x'))‖₁,   x' ← Π(x' + α · direction(g))

    with q the eight-bit form, direction the sign (L∞) or g/‖g‖₂ (L2) and Π the projection on the budget and [0, 1].
    Losses are measured on q(x'), which is within the budget itself, so what is returned is what was measured.

    images: float N×3×H×W in [0, 1], eight-bit values unless the budget says otherwise. step_size: α, by default
    2.5 ε / steps. momentum: μ. random_start: begin at a random point of the ball (the unchanged pictures are measured
    first in any case). start: begin at these pictures instead, N×3×H×W (projected first). restarts: runs from
    different random points, on pictures that have not succeeded. early_stop: leave a picture once its margin exceeds
    ``confidence``; otherwise go on to raise it. mask: bool, broadcasts to N×1×H×W: pixels that may change.
    max_queries: evaluations of the model for each picture. batch_size: pictures attacked together. The result depends
    on the seed alone. Raises UsageError for wrong shapes or options, InputError when the objective is not finite.
    Sources: Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018; Dong et al.,
    Boosting adversarial attacks with momentum, CVPR 2018.

    >>> from vestige.engines.adversarial import Maximise
    >>> darker = Maximise(lambda x, chosen: -x.mean((1, 2, 3)))
    >>> result = pgd(torch.ones(1, 3, 4, 4), darker, Budget("linf", 8 / 255), steps=5)
    >>> (result.images * 255).unique().tolist(), result.queries.tolist()
    ([247.0], [7])
    """
    check_images(images, eight_bit=budget.eight_bit)
    if steps < 1 or restarts < 1 or momentum < 0 or (batch_size is not None and batch_size < 1):
        raise UsageError("An attack needs at least one step, one restart and one picture a batch, and momentum ≥ 0.")
    if start is not None and start.shape != images.shape:
        raise UsageError(f"Start pictures must have shape {tuple(images.shape)}; got {tuple(start.shape)}.")
    alpha = 2.5 * budget.radius / steps if step_size is None else step_size
    free = _free(mask, images)
    generator = torch_generator(seed, "pgd")
    everything = torch.arange(len(images), device=images.device)
    with torch.no_grad():
        clean = [evaluate(objective, images[p], p, 0) for p in everything.split(batch_size or len(images))]
    best = Best(images, Scores(*(torch.cat(parts) for parts in zip(*clean, strict=True))), confidence)
    best.queries += cost_of(objective)
    price = gradient.cost * cost_of(objective)
    for restart in range(restarts):
        for part in everything.split(batch_size or len(images)):
            active = best.open(part) if early_stop else part
            # Drawn for the whole part, so that a picture's start does not depend on which others are done.
            drawn = budget.random_point(images[part], generator)
            if start is not None and restart == 0:
                x = budget.project(start[part].to(images), images[part])
            else:
                x = drawn if random_start else images[part].clone()
            velocity = torch.zeros_like(x)
            if free is not None:
                x = torch.where(free[part], x, images[part])
            first = int(part[0])
            for step in range(steps + 1):
                last = step == steps
                if max_queries is not None:
                    active = active[best.queries[active] + (cost_of(objective) if last else price) <= max_queries]
                if len(active) == 0:
                    break
                here = active - first
                point = budget.settle(x[here], images[active])
                number = 1 + restart * (steps + 1) + step
                if last:
                    with torch.no_grad():
                        scores = evaluate(objective, point, active, number)
                    best.queries[active] += cost_of(objective)
                    best.offer(point, scores, active)
                    break
                scores, slope = gradient(objective, point, active, number, generator)
                best.queries[active] += price
                best.offer(point, scores, active)
                if free is not None:
                    slope = slope * free[active]
                size = slope.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-30)
                velocity[here] = momentum * velocity[here] + slope / size
                x[here] = budget.project(x[here] + alpha * budget.ascent(velocity[here]), images[active])
                if early_stop:
                    active = best.open(active)
    return best.result()


def _free(mask: Tensor | None, images: Tensor) -> Tensor | None:
    if mask is None:
        return None
    try:
        if mask.dtype != torch.bool:
            raise RuntimeError
        return mask.to(images.device).expand(len(images), 1, *images.shape[2:])
    except RuntimeError:
        raise UsageError(
            f"The mask must be bool and broadcast to {(len(images), 1, *images.shape[2:])}; "
            f"got {mask.dtype} {tuple(mask.shape)}."
        ) from None
