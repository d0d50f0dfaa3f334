"""MP3: an encoder without positions that learns to say where each patch came from.

    vestige learn mp3 [--data FOLDER]

Crops keep at least 60 % of the area. Options as in `vestige.recipes.pretraining._masked`.
"""

from __future__ import annotations

from vestige.recipes.pretraining._masked import SEEDS, arm, masked_recipe

RECIPE = masked_recipe(
    "mp3",
    "An encoder without positions that learns to place patches.",
    {
        "mp3": arm("a quarter of the patches as keys and values", "mp3", seeds=SEEDS, tune=20, timing=10),
        "patch_alone": arm("the same task for a network that sees one patch at a time", "mp3/patch_alone", seeds=SEEDS),
    },
    timed=("mp3", "mp3/all_keys"),
    reach="above 'untrained linear', the same network with random weights",
)
