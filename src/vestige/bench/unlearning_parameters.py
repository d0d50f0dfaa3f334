"""Hyper-parameters of the unlearning benchmark for its small network, by eraser and kind of problem.

``python -m vestige.bench.unlearning_tuning`` chooses them: the smallest average gap to a retrained model on validation
samples with seed 109, whose training pictures, class and networks appear in no table, among
`vestige.bench.unlearning_tuning.GRIDS`. An empty entry stands for the eraser's own defaults, which are the papers' for
full-size networks trained ten times longer.
"""

from __future__ import annotations

from typing import Any

PARAMETERS: dict[str, dict[str, dict[str, Any]]] = {
    "finetune": {"class": {}, "random": {}},
    "cfk": {"class": {}, "random": {}},
    "euk": {"class": {}, "random": {}},
    "random_labels": {"class": {}, "random": {}},
    "grad_ascent": {"class": {}, "random": {}},
    "neggrad_plus": {"class": {}, "random": {}},
    "bad_teacher": {"class": {}, "random": {}},
    "unsir": {"class": {}, "random": {}},
    "influence": {"class": {}, "random": {}},
    "boundary_shrink": {"class": {}, "random": {}},
    "salun": {"class": {}, "random": {}},
    "scrub": {"class": {}, "random": {}},
    "fisher_forget": {"class": {}, "random": {}},
    "ssd": {"class": {}, "random": {}},
    "laf": {"class": {}, "random": {}},
    "l1_sparse": {"class": {}, "random": {}},
    "sparse_unlearn": {"class": {}, "random": {}},
}
