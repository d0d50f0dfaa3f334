"""Attacks that only ask for scores: gradients estimated from answers, and evolution of latents or coarse changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import MissingDependencyError, UsageError
from vestige.core.runtime import rng
from vestige.engines.adversarial.budget import Budget, check_images
from vestige.engines.adversarial.gradient import Estimate
from vestige.engines.adversarial.latent import Generator, LatentResult, check_start, draw, result_of
from vestige.engines.adversarial.objectives import Objective, Scores, cost_of, evaluate
from vestige.engines.adversarial.results import AttackResult, Best

#: Above this many dimensions CMA-ES keeps only the variances: a full covariance costs the square.
FULL_COVARIANCE = 500


@dataclass(frozen=True)
class NES:
    """Gradient from answers alone, for ``pgd(..., gradient=NES())``: antithetic Gaussian smoothing.

    ĝ = 1/(2 m σ) Σ_j (ℓ(x + σ u_j) − ℓ(x − σ u_j)) u_j,   u_j ~ N(0, I)

    directions: m; a call costs 2m + 1 queries for each picture. sigma: σ in units of [0, 1]; the queried pictures are
    clipped to [0, 1] but not rounded, so a service that stores eight bits needs σ well above 1/255.
    Raises UsageError for fewer than one direction or σ ≤ 0. Source: Ilyas et al., Black-box adversarial attacks with
    limited queries and information, ICML 2018.
    """

    directions: int = 25
    sigma: float = 0.01

    def __post_init__(self) -> None:
        if self.directions < 1 or not self.sigma > 0:
            raise UsageError("An estimate needs at least one direction and a positive sigma.")

    @property
    def cost(self) -> int:
        """Calls of the objective for one estimate."""
        return 2 * self.directions + 1

    def __call__(
        self, objective: Objective, images: Tensor, chosen: Tensor, step: int, generator: torch.Generator
    ) -> Estimate:
        """Scores at the pictures and the estimated gradient n×3×H×W."""
        with torch.no_grad():
            scores = evaluate(objective, images, chosen, step)
            slope = torch.zeros_like(images)
            for _ in range(self.directions):
                u = torch.randn(tuple(images.shape), generator=generator).to(images)
                up, down = (
                    evaluate(objective, (images + sign * self.sigma * u).clamp(0, 1), chosen, step).loss
                    for sign in (1, -1)
                )
                slope += ((up - down) / (2 * self.sigma * self.directions))[:, None, None, None] * u
        return Estimate(scores, slope)


def _cma() -> Any:
    try:
        import cma
    except ImportError:
        raise MissingDependencyError("Evolution needs the package cma; install it with pip install cma.") from None
    return cma


@dataclass(frozen=True)
class _Evolution:
    """Options of CMA-ES, checked."""

    sigma: float
    population: int | None
    max_queries: int
    early_stop: bool

    def __post_init__(self) -> None:
        if not self.sigma > 0 or self.max_queries < 1 or (self.population is not None and self.population < 2):
            raise UsageError("Evolution needs a positive sigma, a query, and a population of at least two.")

    def open(self, best: Best) -> list[int]:
        """Numbers of the pictures that are still to be searched."""
        everything = torch.arange(len(best.margin), device=best.margin.device)
        return (best.open(everything) if self.early_stop else everything).tolist()


def _evolve_one(
    candidates: Callable[[Tensor], tuple[Tensor, Tensor]],
    objective: Objective,
    index: int,
    start: Tensor,
    best: Best,
    how: _Evolution,
    generator: np.random.Generator,
) -> None:
    """CMA-ES on one flat vector; offers the best of every generation to ``best`` under ``index``.

    candidates: from vectors n×d to the pictures to be scored and what ``best`` stores of each.
    """
    cma = _cma()
    options: dict[str, Any] = {
        "verbose": -9,
        "verb_log": 0,
        "verb_disp": 0,
        "signals_filename": "",
        "CMA_diagonal": len(start) > FULL_COVARIANCE,
        # Numbers come from our generator; nan leaves the global one of numpy alone.
        "seed": np.nan,
        "randn": lambda count, n: generator.standard_normal((count, n)),
    }
    if how.population is not None:
        options["popsize"] = how.population
    search = cma.CMAEvolutionStrategy(start.double().cpu().numpy(), how.sigma, options)
    price = cost_of(objective)
    step = 0
    while not search.stop() and best.queries[index] + search.popsize * price <= how.max_queries:
        step += 1
        vectors = search.ask()
        images, stored = candidates(torch.from_numpy(np.stack(vectors)).to(start))
        chosen = torch.full((len(images),), index, dtype=torch.int64, device=images.device)
        scores = evaluate(objective, images, chosen, step)
        best.queries[index] += len(images) * price
        top = _top(scores)
        only = slice(top, top + 1)
        best.offer(stored[only], Scores(scores.loss[only], scores.margin[only]), chosen[only])
        if how.early_stop and best.margin[index] > best.confidence:
            break
        search.tell(vectors, (-scores.loss).double().cpu().tolist())


def _top(scores: Scores) -> int:
    keys = zip(scores.margin.tolist(), scores.loss.tolist(), strict=True)
    return max(enumerate(keys), key=lambda item: item[1])[0]


def evolve(
    generator: Generator,
    objective: Objective,
    start: Tensor,
    *,
    sigma: float = 1.0,
    population: int | None = None,
    max_queries: int = 2000,
    early_stop: bool = True,
    confidence: float = 0.0,
    seed: int = 0,
) -> LatentResult:
    """CMA-ES in the latent space of any generator, asking only for the loss: max over z of ℓ(G(z)), one z a picture.

    generator: latents n×… -> pictures n×3×H×W in [0, 1]. start: z₀, N×…. sigma: first standard deviation. population:
    by default 4 + ⌊3 ln d⌋; above 500 dimensions only variances are adapted. max_queries: evaluations of the model for
    each picture, the first one being G(z₀). early_stop and confidence as in `pgd`. Raises UsageError for wrong shapes
    or options, MissingDependencyError without the package cma. Source: Hansen and Ostermeier, Completely derandomized
    self-adaptation in evolution strategies, Evolutionary Computation 2001.

    >>> from vestige.engines.adversarial import Maximise
    >>> bright = Maximise(lambda x, chosen: x.mean((1, 2, 3)), threshold=0.8)
    >>> square = lambda z: torch.sigmoid(z).mean(1)[:, None, None, None].expand(-1, 3, 8, 8)
    >>> evolve(square, bright, torch.zeros(1, 2)).success.tolist()
    [True]
    """
    check_start(start)
    how = _Evolution(sigma, population, max_queries, early_stop)
    _cma()
    everything = torch.arange(len(start), device=start.device)

    def candidates(vectors: Tensor) -> tuple[Tensor, Tensor]:
        latents = vectors.reshape(-1, *start.shape[1:])
        return draw(generator, latents), latents

    with torch.no_grad():
        best = Best(start, evaluate(objective, draw(generator, start), everything, 0), confidence)
        best.queries += cost_of(objective)
        for index in how.open(best):
            origin = start[index].flatten()
            _evolve_one(candidates, objective, index, origin, best, how, rng(seed, "evolve", index))
    return result_of(best, generator)


def evolve_perturbation(
    images: Tensor,
    objective: Objective,
    budget: Budget,
    *,
    cells: int = 8,
    sigma: float = 0.5,
    population: int | None = None,
    max_queries: int = 2000,
    early_stop: bool = True,
    confidence: float = 0.0,
    seed: int = 0,
) -> AttackResult:
    """CMA-ES on a coarse change of each picture: 3×cells×cells numbers, enlarged bilinearly, within the budget.

    images: float N×3×H×W in [0, 1], eight-bit values unless the budget says otherwise. A number of 1 stands for the
    full budget at that place. The other arguments, errors and the source are as in `evolve`; queries count from the
    unchanged picture.

    >>> from vestige.engines.adversarial import Maximise
    >>> darker = Maximise(lambda x, chosen: 0.97 - x.mean((1, 2, 3)), threshold=0.0)
    >>> evolve_perturbation(torch.ones(1, 3, 8, 8), darker, Budget("linf", 16 / 255), cells=2).success.tolist()
    [True]
    """
    check_images(images, eight_bit=budget.eight_bit)
    how = _Evolution(sigma, population, max_queries, early_stop)
    height, width = images.shape[2:]
    if not 1 <= cells <= min(height, width):
        raise UsageError(f"A coarse change needs 1 to {min(height, width)} cells on a side; got {cells}.")
    _cma()
    unit = budget.radius if budget.norm == "linf" else budget.radius / (3 * height * width) ** 0.5
    everything = torch.arange(len(images), device=images.device)

    def candidates(index: int, vectors: Tensor) -> tuple[Tensor, Tensor]:
        coarse = vectors.reshape(-1, 3, cells, cells) * unit
        original = images[index : index + 1].expand(len(vectors), -1, -1, -1)
        change = F.interpolate(coarse, (height, width), mode="bilinear")
        moved = budget.settle(original + change, original)
        return moved, moved

    with torch.no_grad():
        best = Best(images, evaluate(objective, images, everything, 0), confidence)
        best.queries += cost_of(objective)
        for index in how.open(best):
            origin = images.new_zeros(3 * cells * cells)
            generator = rng(seed, "evolve perturbation", index)
            _evolve_one(partial(candidates, index), objective, index, origin, best, how, generator)
    return best.result()
