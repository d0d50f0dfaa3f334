"""Claims of FairFD: what the averaged metrics see, and what pruning with fair activations removes.

Groups are those of the people pack, in the collection's own words and by its own labels. The detector is a small
convolutional network whose training faces are mostly of the first group, so that it is biased on purpose; shares that
are pruned are chosen on validation people.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.forensics.verdicts import Margin, over_runs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.runtime import rng
from vestige.forensics.fairfd import FairFD, biased_answers
from vestige.metrics.fairness import REAL

LADDER, SEEDS = (0.0, 0.1, 0.2, 0.3), range(3)
Figures = Mapping[str, Any]


@claim(
    "errors that cancel over approaches read 0 in naive DPD, 1 in AA-DPD and 1/1.5 in UR-DPD; a constant detector "
    "reads 0 everywhere and is exposed by its accuracy alone"
)
def unit_cases(context: ClaimContext) -> Evidence:
    measure = FairFD().measure
    answers = {
        "cancelling": ([0.1, 0.9, 0.1, 0.9], [REAL, REAL, "swap", "swap"], ["a", "b", "a", "b"]),
        "constant": ([0.9] * 4, [REAL, REAL, "swap", "swap"], ["a", "b", "a", "b"]),
    }
    rows: list[dict[str, Any]] = [{"detector": name, **measure(*given)} for name, given in answers.items()]
    wanted = {"naive-dpd": 0.0, "aa-dpd": 1.0, "ur-dpd": 1 / 1.5}
    exact = all(abs(rows[0][name] - value) < 1e-12 for name, value in wanted.items())
    silent = all(rows[1][name] == 0 for name in rows[1] if "dpd" in name or "deo" in name or "std" in name)
    return Evidence(exact and silent and rows[1]["accuracy"] == 0.5, rows)


@headline("AA-DPD ranks injected biases of 0, 0.1, 0.2 and 0.3 in order for every seed, naive DPD does not")
def ranks_a_ladder(context: ClaimContext) -> Evidence:
    rows, ordered = [], {"aa-dpd": [], "naive-dpd": [], "ur-dpd": []}  # type: list[dict[str, Any]], dict[str, list[bool]]
    for seed in range(context.seed, context.seed + 10):
        found = []
        for bias in LADDER:
            draw = rng(seed, "ladder", bias)
            found.append(FairFD().measure(*biased_answers(bias, 3, 4, 1000, draw)))
            rows.append({"seed": seed, "bias": bias, **{k: found[-1][k] for k in (*ordered, "accuracy")}})
        for name, outcomes in ordered.items():
            outcomes.append(all(a[name] < b[name] for a, b in itertools.pairwise(found)))
    shares = {name: float(np.mean(outcomes)) for name, outcomes in ordered.items()}
    rows.append({"seed": "ladders in order", **shares})
    return Evidence(shares["aa-dpd"] == 1 and shares["naive-dpd"] < 0.5, rows, "1,000 pictures in each cell")


def fairer(audits: Sequence[Figures], way: str = "fair") -> Margin:
    """By how much AA-DEOdds is lower after pruning than before, over runs."""
    return over_runs([a["none"]["aa-deodds"] for a in audits], [a[way]["aa-deodds"] for a in audits])


def _table(context: ClaimContext, audits: Sequence[Figures]) -> list[dict[str, Any]]:
    rows = []
    for seed, audit in enumerate(audits):
        rows += [{"detector": "plain", "seed": seed, "way": w, **f} for w, f in audit.items() if isinstance(f, Mapping)]
    for name in ("dag", "daw"):
        for seed in SEEDS:
            rows.append(
                {"detector": name, "seed": seed, "way": "none", **context.run("fairfd", name, seed).figures["none"]}
            )
    for name in ("even", "shuffled"):
        rows.append({"detector": name, "seed": 0, "way": "none", **context.run("fairfd", name).figures["none"]})
    return rows


@claim("pruning with fair activations lowers AA-DEOdds at no more than 1 point of accuracy")
def pruning_is_fairer(context: ClaimContext) -> Evidence:
    audits = [context.run("fairfd", "plain", s).figures for s in SEEDS]
    margin = fairer(audits)
    loss = float(np.mean([a["none"]["accuracy"] - a["fair"]["accuracy"] for a in audits]))
    relative = margin.ahead.value / max(1e-9, float(np.mean([a["none"]["aa-deodds"] for a in audits])))
    note = f"{margin.said('lower')}, {relative:.0%}, at {100 * loss:+.1f} points of accuracy; the card hopes for 10 %"
    return Evidence(margin.holds and loss <= 0.01, _table(context, audits), note)


@claim("pruning with fair activations is fairer in AA-DEOdds than pruning the smallest weights, as many of them")
def fairer_than_magnitudes(context: ClaimContext) -> Evidence:
    audits = [context.run("fairfd", "plain", s).figures for s in SEEDS]
    plain, fair = ([a[way]["aa-deodds"] for a in audits] for way in ("weight, the share of fair", "fair"))
    margin = over_runs(plain, fair)
    return Evidence(margin.holds, _table(context, audits), margin.said("lower"))
