"""DropPos: an encoder that learns by finding the positions that were withheld from patches it sees.

    vestige learn droppos [--data FOLDER]

Held against the runs of the recipe mae; fine-tuned on labels like them. Crops keep at least 60 % of the area: smaller
ones hide where a patch came from. Options as in `vestige.recipes.pretraining._masked`.
"""

from __future__ import annotations

from vestige.recipes.pretraining._masked import SEEDS, arm, masked_recipe

RECIPE = masked_recipe(
    "droppos",
    "An encoder that learns by finding withheld positions.",
    {
        "droppos": arm("three quarters of the positions of seen patches withheld", "droppos", seeds=SEEDS, tune=20),
        "mae": arm("MAE on the same crops", "mae", seeds=SEEDS, tune=20, scale=0.6),
    },
    reach="at least that of MAE on the same crops",
)
