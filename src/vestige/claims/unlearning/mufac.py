"""Claims of the identity-unlearning benchmark on photographs of people; the runs are those of the recipe ``mufac``.

750 people asked to be forgotten, 2,250 did not; 1,000 people test, 750 are unseen; the task is the age group. Three
partings of the people. Erasers' parameters were chosen on 1,200 other people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.controls import over_seeds, too_weak
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.engines.runs import Need

SEEDS = (0, 1, 2)
NEEDS = (Need("mufac", ("default",), SEEDS),)
Rows = Sequence[Mapping[str, Any]]


def means(runs: Sequence[Rows]) -> list[dict[str, Any]]:
    """One row a model: means over the partings, and the deviation of M."""
    table = []
    for name in dict.fromkeys(r["model"] for rows in runs for r in rows):
        each = [r for rows in runs for r in rows if r["model"] == name]
        keys = [k for k in each[0] if k not in ("model", "candidate")]
        table.append({"model": name, **{k: float(np.mean([r[k] for r in each])) for k in keys},
                      "sd of M": float(np.std([r["M"] for r in each])), "seeds": len(each)})  # fmt: skip
    return table


def figure(runs: Sequence[Rows], model: str, name: str) -> list[float]:
    """A model's figure in every parting."""
    return [float(next(r for r in rows if r["model"] == model)[name]) for rows in runs]


def forgetting_pays(runs: Sequence[Rows], ours: str = "Advanced NegGrad", plain: str = "FT") -> Evidence:
    """NoMUS of ours over the plain eraser's, and M below what the same eraser leaves when it forgets other people."""
    gain = over_seeds(figure(runs, ours, "NoMUS"), figure(runs, plain, "NoMUS"))
    asked = over_seeds(figure(runs, ours, "M"), figure(runs, f"{ours}, other people", "M"))
    # What broken or barely trained weights reach is no merit of an eraser.
    floor = {n: float(np.mean(figure(runs, n, "NoMUS"))) for n in ("untrained", "stopped early")}
    reached = float(np.mean(figure(runs, ours, "NoMUS")))
    note = f"NoMUS over {plain} {gain}; M against forgetting other people {asked}; NoMUS {reached:.3f}, " + ", ".join(
        f"{n} {v:.3f}" for n, v in floor.items()
    )
    return Evidence(gain.low > 0 and asked.high < 0 and reached > floor["untrained"], means(runs), note)


def has_signal(runs: Sequence[Rows], nothing: Sequence[float]) -> Evidence:
    """M of the original over that of the retrained model, of the untrained one, and of nothing."""
    over = {n: over_seeds(figure(runs, "original", "M"), figure(runs, n, "M")) for n in ("retrain", "untrained")}
    kept = float(np.mean(figure(runs, "retrain", "M")))
    weak = too_weak(over["retrain"].value, max(nothing), "the attack finds between unseen people")
    note = f"original over retrain {over['retrain']}, over untrained {over['untrained']}; retrain {kept:.3f}; between "
    note += f"halves of the unseen up to {max(nothing):.3f}"
    return Evidence(over["retrain"].low > 0 and over["untrained"].low > 0, means(runs), note, too_weak=weak)


def stopping_is_no_forgetting(runs: Sequence[Rows]) -> Evidence:
    """A model that was trained for less on everybody, and forgot nobody, against the original on NoMUS."""
    gain = over_seeds(figure(runs, "stopped early", "NoMUS"), figure(runs, "original", "NoMUS"))
    gap = over_seeds(figure(runs, "stopped early", "loss gap"))
    note = f"NoMUS of the stopped over the original {gain}; its loss gap {gap}"
    return Evidence(gain.low > 0, means(runs), note)


def _runs(context: ClaimContext) -> tuple[list[list[dict[str, Any]]], list[float]]:
    runs = [context.run("mufac", "default", seed).figures for seed in SEEDS]
    return [run["rows"] for run in runs], [float(run["M of nothing"]) for run in runs]


@headline(
    "forgetting the people who asked pays: Advanced NegGrad is ahead of fine-tuning on NoMUS over seeds, and leaves "
    "less memory of those who asked than the same eraser does when it forgets as many others"
)
def pays(context: ClaimContext) -> Evidence:
    return forgetting_pays(_runs(context)[0])


@claim("the benchmark has signal: M of the original is above that of the retrained model and of untrained weights, "
       "over seeds, by more than the attack finds between unseen people")  # fmt: skip
def signal(context: ClaimContext) -> Evidence:
    return has_signal(*_runs(context))


@claim("NoMUS can be had without forgetting anybody: the original stopped after a fifth of its training is ahead of "
       "the original, over seeds, so the score must be read beside A and M")  # fmt: skip
def score_is_not_enough(context: ClaimContext) -> Evidence:
    return stopping_is_no_forgetting(_runs(context)[0])
