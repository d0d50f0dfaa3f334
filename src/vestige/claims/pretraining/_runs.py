"""The runs that claims of the masked models load."""

from __future__ import annotations

from vestige.claims import ClaimContext
from vestige.engines.recipe import load_recipe
from vestige.engines.runs import Run


def runs_of(context: ClaimContext, recipe: str, variant: str) -> list[Run]:
    """The finished runs of every seed of an arm."""
    return [context.run(recipe, variant, seed) for seed in load_recipe(recipe).variant(variant).seeds]
