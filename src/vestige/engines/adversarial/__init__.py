"""Adversarial optimisation: change pictures, patches or latents until a model says what is wanted.

An `Objective` scores pictures (loss to raise, margin above 0 when the aim is reached); a `Budget` says how far
pictures may move. On them work projected gradients (`pgd`, with `autograd` or black-box `NES` gradients), shared
perturbations and patches (`universal_perturbation`, `universal_patch`), and searches in the latent space of a
generator (`latent_search` by gradients, `evolve` by CMA-ES; `evolve_perturbation` for pixels). `Expected` averages any
objective over distortions. Everything returned is on the eight-bit grid and was measured there.
"""

from vestige.engines.adversarial.black_box import NES, evolve, evolve_perturbation
from vestige.engines.adversarial.budget import Budget, Norm, round8
from vestige.engines.adversarial.gradient import autograd, pgd
from vestige.engines.adversarial.latent import LatentResult, latent_search
from vestige.engines.adversarial.objectives import Classification, Expected, Maximise, Objective, Scores
from vestige.engines.adversarial.results import AttackResult
from vestige.engines.adversarial.universal import (
    Placement,
    UniversalResult,
    place_patch,
    random_placement,
    universal_patch,
    universal_perturbation,
)

__all__ = [
    "NES",
    "AttackResult",
    "Budget",
    "Classification",
    "Expected",
    "LatentResult",
    "Maximise",
    "Norm",
    "Objective",
    "Placement",
    "Scores",
    "UniversalResult",
    "autograd",
    "evolve",
    "evolve_perturbation",
    "latent_search",
    "pgd",
    "place_patch",
    "random_placement",
    "round8",
    "universal_patch",
    "universal_perturbation",
]
