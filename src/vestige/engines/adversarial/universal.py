"""One change for all pictures: a universal perturbation within a budget, and a patch that is pasted anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.adversarial.budget import Budget, check_images, round8, torch_generator
from vestige.engines.adversarial.objectives import Objective, cost_of, evaluate


@dataclass(frozen=True)
class UniversalResult:
    """change: 1×3×H×W perturbation in [-1, 1], or patch 3×h×w in [0, 1], on the eight-bit grid.

    success_rate, clean_success_rate: share of the pictures that reach the aim with and without it; measured on the
    pictures it was made from, so measure it again on others. history: success rate after every epoch. queries:
    evaluations of the model for each picture.
    """

    change: Tensor = field(repr=False)
    success_rate: float
    clean_success_rate: float
    history: tuple[float, ...]
    queries: int


class _Record:
    """The best shared change so far: by success rate, then by mean margin, then by mean loss."""

    def __init__(self) -> None:
        self.key = (-1.0, -math.inf, -math.inf)
        self.change: Tensor | None = None
        self.history: list[float] = []

    def offer(self, change: Tensor, margin: Tensor, loss: Tensor) -> None:
        key = (float((margin > 0).double().mean()), float(margin.double().mean()), float(loss.double().mean()))
        self.history.append(key[0])
        if key > self.key or self.change is None:
            self.key, self.change = key, change.detach().clone()


def _measure(objective: Objective, images: Tensor, batch_size: int, step: int) -> tuple[Tensor, Tensor]:
    everything = torch.arange(len(images), device=images.device)
    with torch.no_grad():
        scores = [evaluate(objective, images[part], part, step) for part in everything.split(batch_size)]
    return torch.cat([s.margin for s in scores]), torch.cat([s.loss for s in scores])


def _check(epochs: int, batch_size: int, *positive: float) -> None:
    if min(epochs, batch_size) < 1 or any(not p > 0 for p in positive):
        raise UsageError(
            "A universal attack needs at least one epoch and one picture a batch, and positive step sizes."
        )


def universal_perturbation(
    images: Tensor,
    objective: Objective,
    budget: Budget,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    step_size: float | None = None,
    loss_ceiling: float | None = None,
    seed: int = 0,
) -> UniversalResult:
    """One δ within the budget that raises the mean objective of all pictures: max over ‖δ‖ ≤ ε of Σ_i ℓ_i(x_i + δ).

    Batches in random order; each moves δ by ``step_size`` (default ε/5) along the sign (L∞) or the normalised gradient
    (L2) and projects it. x_i + δ is clipped to [0, 1]. The best δ at the end of an epoch, rounded, is kept.

    images: float N×3×H×W in [0, 1]. loss_ceiling: losses above it stop counting, so that a few pictures do not
    dominate an unbounded loss. Raises UsageError and InputError as `pgd` does. Source: Shafahi et al., Universal
    adversarial training, AAAI 2020 (problem: Moosavi-Dezfooli et al., Universal adversarial perturbations, CVPR 2017).

    >>> from vestige.engines.adversarial import Maximise
    >>> darker = Maximise(lambda x, chosen: -x.mean((1, 2, 3)))
    >>> result = universal_perturbation(torch.ones(2, 3, 4, 4), darker, Budget("linf", 4 / 255), epochs=6)
    >>> (result.change * 255).unique().tolist()
    [-4.0]
    """
    check_images(images, eight_bit=budget.eight_bit)
    alpha = budget.radius / 5 if step_size is None else step_size
    _check(epochs, batch_size, alpha)
    generator = torch_generator(seed, "universal perturbation")
    clean, _ = _measure(objective, images, batch_size, 0)
    record = _Record()
    change = torch.zeros_like(images[:1])
    step = 0
    for _ in range(epochs):
        for part in torch.randperm(len(images), generator=generator).to(images.device).split(batch_size):
            step += 1
            moved = change.detach().requires_grad_()
            with torch.enable_grad():
                scores = evaluate(objective, (images[part] + moved).clamp(0, 1), part, step)
                loss = scores.loss if loss_ceiling is None else scores.loss.clamp_max(loss_ceiling)
                (slope,) = torch.autograd.grad(loss.mean(), moved)
            change = budget.shrink(change + alpha * budget.ascent(slope))
        settled = budget.settle_change(change)
        record.offer(settled, *_measure(objective, (images + settled).clamp(0, 1), batch_size, step))
    assert record.change is not None
    queries = (1 + 2 * epochs) * cost_of(objective)
    return UniversalResult(
        record.change, record.key[0], float((clean > 0).double().mean()), tuple(record.history), queries
    )


class Placement(NamedTuple):
    """Where patches go, (N,) each: centre in pixels from the top-left corner, turn in degrees, scale."""

    column: Tensor
    row: Tensor
    turn: Tensor
    scale: Tensor


def random_placement(
    count: int,
    size: tuple[int, int],
    patch: tuple[int, int],
    generator: torch.Generator,
    *,
    turn: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Placement:
    """Uniform placements with the patch inside the picture; unturned and unscaled ones fall on whole pixels.

    size, patch: height and width. turn: largest angle either way, degrees. scale: range of the factor on the patch's
    sides. Raises UsageError when the largest turned patch does not fit.

    >>> random_placement(1, (8, 8), (8, 8), torch.Generator()).row.tolist()
    [4.0]
    """
    if not 0 < scale[0] <= scale[1] or turn < 0:
        raise UsageError(f"A placement needs 0 < lowest scale ≤ highest and turn ≥ 0; got {scale} and {turn}.")
    factor = scale[0] + (scale[1] - scale[0]) * torch.rand(count, generator=generator)
    angle = turn * (2 * torch.rand(count, generator=generator) - 1)
    cos, sin = torch.cos(torch.deg2rad(angle)).abs(), torch.sin(torch.deg2rad(angle)).abs()
    half_height = factor * (patch[0] * cos + patch[1] * sin) / 2
    half_width = factor * (patch[1] * cos + patch[0] * sin) / 2
    centres = []
    for half, side in ((half_width, size[1]), (half_height, size[0])):
        room = side - 2 * half
        if room.min() < -1e-3:
            raise UsageError(f"A patch of {patch} pixels at scale {scale[1]:g} does not fit into pictures of {size}.")
        u = torch.rand(count, generator=generator)
        whole = torch.floor(u * (room.clamp_min(0) + 1))  # corner on a pixel
        centres.append(half + (whole if turn == 0 and scale == (1.0, 1.0) else u * room.clamp_min(0)))
    return Placement(centres[0], centres[1], angle, factor)


def place_patch(images: Tensor, patch: Tensor, placement: Placement) -> Tensor:
    """Paste a patch 3×h×w on each picture N×3×H×W, differentiably in both; sampled bilinearly, edges hard.

    >>> where = Placement(*(torch.tensor([v]) for v in (1.0, 1.0, 0.0, 1.0)))
    >>> place_patch(torch.zeros(1, 3, 4, 4), torch.ones(3, 2, 2), where)[0, 0].tolist()[:2]
    [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    """
    height, width = patch.shape[1:]
    column, row, angle, scale = (v.to(images)[:, None, None] for v in placement)
    x = torch.arange(images.shape[3]).to(images) + 0.5 - column
    y = torch.arange(images.shape[2]).to(images)[:, None] + 0.5 - row
    cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    u, v = 2 * (cos * x + sin * y) / (scale * width), 2 * (cos * y - sin * x) / (scale * height)
    inside = ((u.abs() <= 1) & (v.abs() <= 1))[:, None]
    pasted = F.grid_sample(
        patch.to(images).expand(len(images), *patch.shape), torch.stack([u, v], -1), "bilinear", "border",
        align_corners=False,
    )  # fmt: skip
    return torch.where(inside, pasted, images)


def universal_patch(
    images: Tensor,
    objective: Objective,
    size: tuple[int, int],
    *,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    turn: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> UniversalResult:
    """One visible patch that reaches the aim wherever it is pasted: max over p of E_{i, placement}[ℓ_i(paste(x_i, p))].

    Adam on the patch, clipped to [0, 1], over random batches and `random_placement`s; wrap the objective in `Expected`
    for printing and recapture. The patch is rounded to eight bits before it is pasted. At the end of every epoch it is
    measured at one fixed set of placements, and the best is kept.

    images: float N×3×H×W in [0, 1]. size: height and width of the patch. Raises UsageError and InputError as `pgd`
    does. Source: Brown et al., Adversarial patch, NeurIPS Workshop on Machine Learning and Computer Security 2017.

    >>> from vestige.engines.adversarial import Maximise
    >>> brighter = Maximise(lambda x, chosen: x.mean((1, 2, 3)))
    >>> universal_patch(torch.zeros(2, 3, 8, 8), brighter, (2, 2), epochs=20).change.min().item()
    1.0
    """
    check_images(images)
    _check(epochs, batch_size, learning_rate, *size)
    generator = torch_generator(seed, "universal patch")
    plane = (images.shape[2], images.shape[3])

    def place(count: int, g: torch.Generator) -> Placement:
        return random_placement(count, plane, size, g, turn=turn, scale=scale)

    fixed = place(len(images), torch_generator(seed, "universal patch", "measured at"))
    clean, _ = _measure(objective, images, batch_size, 0)
    patch = torch.rand(3, *size, generator=generator).to(images).requires_grad_()
    optimiser = torch.optim.Adam([patch], lr=learning_rate)
    record = _Record()
    step = 0
    for _ in range(epochs):
        for part in torch.randperm(len(images), generator=generator).to(images.device).split(batch_size):
            step += 1
            with torch.enable_grad():
                pasted = round8(place_patch(images[part], round8(patch), place(len(part), generator)))
                loss = -evaluate(objective, pasted, part, step).loss.mean()
                optimiser.zero_grad()
                (patch.grad,) = torch.autograd.grad(loss, patch)
            optimiser.step()
            with torch.no_grad():
                patch.clamp_(0, 1)
        with torch.no_grad():
            settled = round8(patch)
            record.offer(settled, *_measure(objective, round8(place_patch(images, settled, fixed)), batch_size, step))
    assert record.change is not None
    queries = (1 + 2 * epochs) * cost_of(objective)
    return UniversalResult(
        record.change, record.key[0], float((clean > 0).double().mean()), tuple(record.history), queries
    )
