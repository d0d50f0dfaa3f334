"""LUT: MAE whose seen tokens must also tell what the whole picture is, from another view of it.

    vestige learn lut [--data FOLDER]

LUT makes its own views; the arm no_context is MAE on these views, so that what differs is the second loss alone.
Options as in `vestige.recipes.pretraining._masked`.
"""

from __future__ import annotations

from vestige.recipes.pretraining._masked import SEEDS, arm, masked_recipe

RECIPE = masked_recipe(
    "lut",
    "MAE with targets of the whole picture for its seen tokens.",
    {
        "lut": arm("reconstruction and whole-picture targets", "lut", seeds=SEEDS),
        "no_context": arm("reconstruction alone, on the same views", "lut/no_context", seeds=SEEDS),
    },
    reach="above that of the arm no_context and of the recipe mae",
)
