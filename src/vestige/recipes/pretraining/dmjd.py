"""DMJD: two masked views whose hidden parts cover the picture, gradients as targets, and a head on what is seen.

    vestige learn dmjd [--data FOLDER]

Two views of a picture are twice the tokens: the arm of one view makes twice the updates, and sees every picture twice
as often. Options as in `vestige.recipes.pretraining._masked`.
"""

from __future__ import annotations

from vestige.recipes.pretraining._masked import SEEDS, STEPS, arm, masked_recipe

RECIPE = masked_recipe(
    "dmjd",
    "Masked modelling of two disjoint views, with gradient targets.",
    {
        "dmjd": arm("two disjoint views and the head on seen tokens", "dmjd", seeds=SEEDS, steps=STEPS // 2),
        "one_view": arm("one view, twice the updates: as many tokens", "dmjd/one_view", seeds=SEEDS, steps=STEPS),
        "masked_only": arm(
            "two disjoint views, no head on seen tokens", "dmjd/masked_only", seeds=SEEDS, steps=STEPS // 2
        ),
        "independent": arm("two views drawn independently", "dmjd/independent", steps=STEPS // 2),
    },
    reach="at least that of the arm one_view",
)
