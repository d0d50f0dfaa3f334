"""Limits of image detectors: what purification must cost, substitute models, spoofing.

Marks of small perturbation die in diffusion purification, and a bound says how much any detector then errs. Marks of
large perturbation survive it, but a classifier trained on marked and unmarked pictures stands in for their detector,
and an adversarial step against it carries over. Access to the marking service alone suffices to forge.

Source: Robustness of AI-Image Detectors: Fundamental Limits and Practical Attacks, ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.adversarial import Budget, Maximise, pgd, round8
from vestige.engines.diffusion.schedules import Schedule
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.watermark.attacks.regeneration import native, regenerate
from vestige.watermark.attacks.registry import Context, attack

#: Standard deviation of the colours that `ResNet` divides by, to which its training noise refers.
_STD = 0.226


def coupling_distance(clean: np.ndarray, marked: np.ndarray) -> float:
    """E‖x_w − x‖₂ over pairs (N×...), an upper bound of the Wasserstein-1 distance of the two laws.

    >>> coupling_distance(np.zeros((2, 3, 1, 1)), np.ones((2, 3, 1, 1))).__round__(3)
    1.732
    """
    if clean.shape != marked.shape or len(clean) == 0:
        raise UsageError(f"Pairs must have one shape, got {clean.shape} and {marked.shape}.")
    return float(np.linalg.norm((marked - clean).reshape(len(clean), -1).astype(np.float64), axis=1).mean())


def sample_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein-1 distance (L2 ground) of two equally large samples N×..., by optimal assignment.

    It is that of the samples; the distance of the laws behind them is smaller in expectation when both are the same
    law. Raises UsageError for samples of different shape.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if first.shape != second.shape or len(first) == 0:
        raise UsageError(f"Samples must have one shape, got {first.shape} and {second.shape}.")
    costs = cdist(first.reshape(len(first), -1).astype(np.float64), second.reshape(len(second), -1).astype(np.float64))
    return float(costs[linear_sum_assignment(costs)].mean())


def error_bound(distance: float, alpha: float, sigma: float) -> float:
    """Least sum of evasion and spoofing error of any detector behind purification: 1 − erf(α W / (2√2 σ)).

    distance: W between marked and unmarked pictures, in the units of the diffusion. alpha, sigma: of x_t = α x + σ e
    (α = sqrt(ᾱ_t), σ = sqrt(1 − ᾱ_t)). It holds for every W at or above the true one, more weakly.

    >>> error_bound(0.0, 0.9, 0.4)
    1.0
    """
    if distance < 0 or sigma <= 0 or alpha < 0:
        raise UsageError(f"The bound needs W and alpha at least 0 and sigma above 0; got {distance}, {alpha}, {sigma}.")
    return 1.0 - math.erf(alpha * distance / (2 * math.sqrt(2) * sigma))


def auroc_bound(distance: float, sigma: float) -> float:
    """Largest AUROC of a detector smoothed by Gaussian noise σ: ½ + TV − TV²/2 with TV ≤ erf(W / (2√2 σ)).

    >>> auroc_bound(0.0, 0.1), round(auroc_bound(10.0, 0.1), 6)
    (0.5, 1.0)
    """
    variation = 1.0 - error_bound(distance, 1.0, sigma)
    return 0.5 + variation - variation**2 / 2


def level_at(table: Schedule, strength: float, steps: int = 50) -> tuple[float, float]:
    """(alpha, sigma) of the level from which `regenerate` starts at that strength and number of steps."""
    from vestige.engines.diffusion.editing import start_at
    from vestige.engines.diffusion.schedules import grid

    level = start_at(grid(table, min(steps, len(table))), strength)[0]
    return float(table.alpha[level]), float(table.sigma[level])


class Substitute:
    """A classifier of marked against unmarked pictures that stands in for an unknown detector.

    Trained with noise on its inputs, which is what makes its gradients carry over to the detector. noise: standard
    deviation in units of the network's normalised input (0.4 in the paper). side: pictures are scaled to side×side
    before they are classified (224 in the paper), None for their own size. config: of the `ResNet`. net: a network of
    its own instead, as the recipe trains it.

    >>> Substitute(config=ResNetConfig(18, width=0.125, classes=1)).logits(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self, config: ResNetConfig | None = None, *, noise: float = 0.4, side: int | None = None, seed: int = 0,
        net: nn.Module | None = None,
    ) -> None:  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = net or ResNet(config or ResNetConfig(18, width=0.5, classes=1))
        self.noise, self.side, self.seed = noise, side, seed

    def logits(self, images: Tensor) -> Tensor:
        """Pictures N×3×H×W in [0, 1] -> (N,), above 0 for marked."""
        if self.side is not None and tuple(images.shape[2:]) != (self.side, self.side):
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        return self.net(images)[:, 0]

    def loss(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        """Binary cross-entropy on noisy pictures; batch: (pictures, labels float (N,), 1 for marked)."""
        images, labels = batch
        noise = torch.randn(images.shape, generator=generator, device=images.device) * (self.noise * _STD)
        return F.binary_cross_entropy_with_logits(self.logits(images + noise), labels)

    def fit(
        self, marked: np.ndarray, unmarked: np.ndarray, *, epochs: int = 10, batch: int = 16, lr: float = 1e-3
    ) -> dict[str, float]:
        """Train on 80 % of both sets; returns the accuracy on the rest, without noise.

        Raises UsageError for sets of different shape or of fewer than 10 pictures.
        """
        if marked.shape[1:] != unmarked.shape[1:] or min(len(marked), len(unmarked)) < 10:
            raise UsageError("The substitute needs at least 10 marked and 10 unmarked pictures of one size.")
        images = torch.from_numpy(np.concatenate([marked, unmarked]).astype(np.float32))
        labels = torch.cat([torch.ones(len(marked)), torch.zeros(len(unmarked))])
        generator = torch.Generator().manual_seed(int(rng(self.seed, "substitute").integers(2**62)))
        order = torch.randperm(len(images), generator=generator)
        train, held = order[: int(0.8 * len(order))], order[int(0.8 * len(order)) :]
        optimiser = torch.optim.Adam(self.net.parameters(), lr)
        self.net.train()
        for _ in range(epochs):
            for part in train[torch.randperm(len(train), generator=generator)].split(batch):
                if len(part) < 2:
                    continue  # batch norm needs two
                optimiser.zero_grad(set_to_none=True)
                self.loss((images[part], labels[part]), generator).backward()
                optimiser.step()
        self.net.eval().requires_grad_(False)
        with torch.no_grad():
            said = torch.cat([self.logits(images[part]) for part in held.split(64)]) > 0
        return {"accuracy": float((said == (labels[held] > 0.5)).float().mean())}

    def attack(
        self, images: np.ndarray, *, marked: bool = True, epsilon: float = 8 / 255, steps: int = 100, passes: int = 2
    ) -> np.ndarray:
        """Move marked pictures to "unmarked" (or unmarked ones to "marked") within L∞ epsilon.

        PGD with steps of 0.05 epsilon on the substitute's loss. Each picture starts from the change found for the one
        before it, and the whole set is gone through ``passes`` times, so the order matters: it is seeded.
        """
        x = round8(torch.from_numpy(np.ascontiguousarray(images, np.float32)))
        aim = Maximise(lambda p, chosen: self.logits(p) * (-1.0 if marked else 1.0))
        order = rng(self.seed, "order").permutation(len(x))
        made, change = x.clone(), torch.zeros_like(x[:1])
        for _ in range(passes):
            for i in order:
                found = pgd(
                    x[i : i + 1], aim, Budget("linf", epsilon), steps=steps, step_size=0.05 * epsilon,
                    random_start=False, start=(x[i : i + 1] + change).clamp(0, 1), early_stop=False, seed=self.seed,
                )  # fmt: skip
                made[i] = found.images[0]
                change = made[i : i + 1] - x[i : i + 1]
        return made.numpy()


class RobustLimits:
    """The paper's attacks on a mark, and the bounds on what any detector can do.

    model: a diffusion model for purification. strength: share of its chain (0.1 to 0.3 in the paper), in ``steps``.

    >>> RobustLimits().measure(np.zeros((2, 3, 4, 4)), np.full((2, 3, 4, 4), 0.01), sigma=0.5)["auroc at most"] < 0.6
    True
    """

    slug = "robust_limits"

    def __init__(self, model: Any = None, *, strength: float = 0.2, steps: int = 50, seed: int = 0) -> None:
        self.model, self.strength, self.steps, self.seed = model, strength, steps, seed

    def attack(self, images: np.ndarray) -> np.ndarray:
        """Diffusion purification: noise to x_t = α x + σ e, then back. Raises UsageError without a model."""
        if self.model is None:
            raise UsageError("Purification needs a diffusion model; give RobustLimits(model=...).")
        return regenerate(images, self.model, self.strength, seed=self.seed, steps=self.steps)

    def spoof(
        self, images: np.ndarray, service: Callable[[np.ndarray], np.ndarray], *, level: float = 255
    ) -> np.ndarray:
        """Unmarked pictures with marked noise blended in: read as marked, 30 % darker. level: of the noise, to 255."""
        return attack(images, "spoof", level, seed=self.seed, context=Context(service=service))

    def measure(self, clean: np.ndarray, marked: np.ndarray, *, sigma: float | None = None) -> dict[str, float]:
        """Bounds from pairs of pictures N×3×H×W in [0, 1].

        With a model, "errors at least": the least sum of evasion and spoofing error after purification. sigma: the
        noise of a smoothed detector on the scale [0, 1], for "auroc at most". Latent models are measured on latents.
        """
        found = {"distance": coupling_distance(clean, marked)}
        if sigma is not None:
            found["auroc at most"] = auroc_bound(found["distance"], sigma)
        if self.model is not None:
            parts = native(self.model)
            with torch.no_grad():
                pair = [parts.encode(torch.from_numpy(x.astype(np.float32))).numpy() for x in (clean, marked)]
            alpha, sigma_t = level_at(parts.table, self.strength, self.steps)
            found |= {"model distance": coupling_distance(*pair), "alpha": alpha, "sigma": sigma_t}
            found["errors at least"] = error_bound(found["model distance"], alpha, sigma_t)
        return found


def least_errors(marked_scores: np.ndarray, clean_scores: np.ndarray) -> float:
    """Smallest sum of evasion and spoofing error over all thresholds: 1 − max_t (TPR(t) − FPR(t)).

    >>> least_errors(np.array([1.0, 2.0]), np.array([0.0, 0.5]))
    0.0
    """
    thresholds = np.concatenate([marked_scores, clean_scores, [np.inf]])
    evaded = (marked_scores[:, None] < thresholds).mean(0)
    spoofed = (clean_scores[:, None] >= thresholds).mean(0)
    return float((evaded + spoofed).min())
