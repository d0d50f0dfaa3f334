"""MAE on CIFAR-10 or on a folder of the user's pictures: the reference that the other masked models are held against.

    vestige learn mae
    vestige learn mae --data FOLDER
    vestige learn mae --data FOLDER --set size=64 --set patch=8 --budget 60

See `vestige.recipes.pretraining._masked` for the options and what is measured.
"""

from __future__ import annotations

from vestige.recipes.pretraining._masked import SEEDS, arm, masked_recipe

RECIPE = masked_recipe(
    "mae",
    "Masked autoencoder: an encoder that learns from pictures without labels.",
    {"mae": arm("three quarters of the patches hidden", "mae", seeds=SEEDS, tune=20, timing=10)},
    timed=("mae", "mae/replacement", "mae/simmim"),
    reach="above 'untrained linear', the same network with random weights",
)
