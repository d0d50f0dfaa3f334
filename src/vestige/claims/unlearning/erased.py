"""Models that erasers made from the shared original, kept next to it, for claims that compare many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from vestige.bench.unlearning.parameters import PARAMETERS
from vestige.bench.unlearning.world import FOLDER, Settings, World, kept
from vestige.core.catalogue import system
from vestige.core.roles import Unlearner
from vestige.engines.forgetting.loop import Phase
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import joined
from vestige.nn.access import head_name, inside
from vestige.unlearning.baselines import relabelled
from vestige.unlearning.repr_audit import silenced

#: Name in tables: (slug, parameters where the benchmark's tuning has chosen none). The latter were
#: fixed beforehand for few epochs and tuned on nothing.
ERASERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "FT": ("finetune", {"lr": 0.02, "epochs": 2}),
    "CF-3": ("cfk", {"lr": 0.02, "epochs": 2}),
    "EU-3": ("euk", {"lr": 0.1, "epochs": 3}),
    "RL": ("random_labels", {"lr": 0.02, "epochs": 2}),
    "GA": ("grad_ascent", {"lr": 1e-3, "epochs": 5}),
    "NegGrad+": ("neggrad_plus", {"weight": 0.9, "epochs": 1}),
    "bad teacher": ("bad_teacher", {"lr": 1e-3, "epochs": 3}),
    "UNSIR": ("unsir", {}),
    "boundary": ("boundary_shrink", {"lr": 1e-3, "epochs": 5}),
    "SalUn": ("salun", {"lr": 0.02, "epochs": 2}),
    "SCRUB": ("scrub", {"lr": 1e-3, "epochs": 2, "msteps": 1}),
    "SSD": ("ssd", {}),
    "LAF": ("laf", {"loops": 8}),
}


def eraser(name: str) -> Unlearner:
    """The eraser of that name, with the benchmark's parameters for classes where they were chosen."""
    slug, usual = ERASERS[name]
    return system(slug).load()(**(PARAMETERS.get(slug, {}).get("class") or usual))


def head_only(problem: ForgetProblem) -> nn.Module:
    """Random labels for D_f, but the last layer alone learns them: everything before it stays as it was."""
    name = head_name(problem.model)
    tuning = problem.tuning(lr=0.05, epochs=2, trainable=lambda n: inside(n, [name]), freeze_bn=True)
    samples = joined([relabelled(problem), problem.retain_sample(2000)])
    return problem.tune([Phase(samples, fit)], tuning).model


def erased(world: World, name: str, settings: Settings | None = None, kind: str = "class") -> nn.Module:
    """What the eraser of that name made of the world's original; also "original", "retrain", "silenced head" and "tuned
    head"."""
    problem = world.problem
    fixed: dict[str, nn.Module] = {"original": problem.model, "retrain": world.reference}
    if name in fixed:
        return fixed[name]
    if name == "silenced head":
        return silenced(problem)
    settings = settings or Settings()
    how = "tuned head" if name == "tuned head" else repr(eraser(name))
    recipe: dict[str, object] = {"settings": asdict(settings), "seed": problem.seed, "erased": kind, "by": how}

    def make() -> nn.Module:
        torch.manual_seed(problem.seed)
        return head_only(problem) if name == "tuned head" else eraser(name).erase(problem)

    return kept(FOLDER, recipe, settings.build, make)[0]
