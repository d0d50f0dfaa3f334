"""Hyper-parameters of the unlearning benchmark for its small network, by eraser and kind of problem.

``python -m vestige.bench.unlearning.tuning`` chooses them: the smallest average gap to a retrained model on validation
samples with seed 109, whose training pictures, class and networks appear in no table, among
`vestige.bench.unlearning.tuning.GRIDS`. An empty entry stands for the eraser's own defaults, which are the papers' for
full-size networks trained ten times longer. One problem is little to choose by: where two settings of LAF or
of l1-sparse were close, the one was taken that also did well on other classes or other tenths of that seed's pictures.
"""

from __future__ import annotations

from typing import Any

PARAMETERS: dict[str, dict[str, dict[str, Any]]] = {
    "finetune": {"class": {"lr": 0.1, "epochs": 4}, "random": {"lr": 0.1, "epochs": 4}},
    "cfk": {"class": {"lr": 0.1, "epochs": 2, "k": 3}, "random": {"lr": 0.1, "epochs": 2, "k": 3}},
    "euk": {"class": {"lr": 0.1, "epochs": 2, "k": 3}, "random": {"lr": 0.1, "epochs": 2, "k": 3}},
    "random_labels": {"class": {"lr": 0.02, "epochs": 2}, "random": {"lr": 0.1, "epochs": 2}},
    "grad_ascent": {"class": {"lr": 0.001, "epochs": 3}, "random": {"lr": 0.005, "epochs": 3}},
    "neggrad_plus": {
        "class": {"lr": 0.02, "epochs": 2, "weight": 0.97},
        "random": {"lr": 0.02, "epochs": 2, "weight": 0.9},
    },
    "bad_teacher": {"class": {"lr": 0.002, "epochs": 3}, "random": {"lr": 0.002, "epochs": 3}},
    "unsir": {"class": {"impair_lr": 0.1, "repair_lr": 0.02}, "random": {"impair_lr": 0.1, "repair_lr": 0.02}},
    "influence": {"class": {"alpha": 1, "samples": 300}, "random": {"alpha": 5, "samples": 300}},
    "boundary_shrink": {"class": {"lr": 0.001, "epochs": 3}, "random": {"lr": 0.001, "epochs": 3}},
    "salun": {"class": {"lr": 0.02, "epochs": 2, "share": 0.5}, "random": {"lr": 0.1, "epochs": 2, "share": 0.5}},
    "scrub": {
        "class": {"lr": 0.002, "epochs": 2, "msteps": 1, "alpha": 0.1},
        "random": {"lr": 0.002, "epochs": 2, "msteps": 1, "alpha": 0.1},
    },
    "fisher_forget": {"class": {"alpha": 0.001, "samples": 1000}, "random": {"alpha": 0.1, "samples": 1000}},
    "ssd": {"class": {"alpha": 5}, "random": {"alpha": 1.5}},
    "laf": {
        "class": {"lr_ue": 0.0003, "lr_ra": 0.003, "loops": 8},
        "random": {"lr_ue": 0.0003, "lr_ra": 0.003, "loops": 8},
    },
    "l1_sparse": {
        "class": {"gamma": 0.0005, "lr": 0.1, "epochs": 4, "rest": 2},
        "random": {"gamma": 0.002, "lr": 0.1, "epochs": 4, "rest": 2},
    },
    "sparse_unlearn": {
        "class": {"rate": 0.9, "recover_epochs": 2, "recover_lr": 0.1},
        "random": {"rate": 0.9, "recover_epochs": 2, "recover_lr": 0.1},
    },
}
