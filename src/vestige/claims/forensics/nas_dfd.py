"""Claims of the search on forged faces of the people pack: swaps, warps and re-rendered faces to learn from,
re-synthesised ones to judge by. Neither the search nor the training sees these; people are never shared. Sizes are far
below the paper's, and every network has the same updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.forensics.verdicts import Margin, over_runs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.forensics.nas_dfd import CDCSpace

SEEDS, RANDOM = range(3), range(8)
Figures = Mapping[str, Any]


def beats_random(searched: Sequence[Figures], drawn: Sequence[Figures], shuffled: Figures) -> Margin:
    """Searched cells ahead of the median random ones in AUC on the forgery left out."""
    median = float(np.median([f["auc, left out"] for f in drawn]))
    return over_runs([f["auc, left out"] for f in searched], median, abs(float(shuffled["auc, left out"]) - 0.5))


def _rows(named: Mapping[str, Sequence[Figures]]) -> list[dict[str, Any]]:
    keys = ("auc, left out", "auc jpeg, left out", "auc, seen", "parameters")
    return [
        {"cells": f"{name} {i}", **{k: f[k] for k in keys}}
        for name, found in named.items()
        for i, f in enumerate(found)
    ]


@headline(
    "cells found across forgeries are better on the forgery left out than the median of 8 random ones of the space"
)
def better_than_random_cells(context: ClaimContext) -> Evidence:
    named = {name: [context.run("nas_dfd", name, s).figures for s in SEEDS] for name in ("across", "same")}
    named["random"] = [context.run("nas_dfd", "random", s).figures for s in RANDOM]
    for name in ("standard", "resnet", "xception", "shuffled"):
        named[name] = [context.run("nas_dfd", name).figures]
    margin = beats_random(named["across"], named["random"], named["shuffled"][0])
    return Evidence(margin.holds, _rows(named), f"{margin.said('ahead')}; the card hopes for 0.02", margin.weak)


@claim("searching across forgeries is better on the forgery left out than searching on those of the training")
def across_is_better(context: ClaimContext) -> Evidence:
    named = {name: [context.run("nas_dfd", name, s).figures for s in SEEDS] for name in ("across", "same")}
    across, same = ([f["auc, left out"] for f in named[name]] for name in ("across", "same"))
    margin = over_runs(across, same)
    return Evidence(margin.holds, _rows(named), margin.said("ahead"))


@claim("more of what is chosen are central differences with strength above 0 than chance has")
def central_differences_are_chosen(context: ClaimContext) -> Evidence:
    rows = []
    for seed in SEEDS:
        for name in ("across", "same"):
            found = context.run("nas_dfd", name, seed).figures
            rows.append({"seed": seed, "search": name, "share": found["central differences"], "cells": found["cells"]})
    usable = [name for name in CDCSpace().names if name != "none"]
    chance = sum(name[-2:] != "_0" and name[:3] in ("sep", "dil") for name in usable) / len(usable)
    margin = over_runs([float(r["share"]) for r in rows], chance)
    return Evidence(margin.holds, rows, f"{margin.said('above chance')}; chance {chance:.2f}")
