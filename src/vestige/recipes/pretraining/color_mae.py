"""ColorMAE: MAE with masks cut from green noise.

    vestige learn color_mae [--data FOLDER]

Held against the runs of the recipe mae: the same network, updates, crops and pictures. Options as in
`vestige.recipes.pretraining._masked`.
"""

from __future__ import annotations

from vestige.recipes.pretraining._masked import SEEDS, arm, masked_recipe

RECIPE = masked_recipe(
    "color_mae",
    "MAE whose masks are crops of green noise.",
    {"color_mae": arm("masks from green noise", "color_mae", seeds=SEEDS)},
    reach="not below that of the recipe mae",
)
