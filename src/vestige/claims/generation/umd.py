"""Claims of UMD against its own special cases, all settings of one class: MAE, DiT, a masked DiT, random weights.

CIFAR-10 at 16 pixels; every setting starts from the same weights, sees the same pictures in the same order and encodes
as many, and is fine-tuned with labels in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vestige.bench.controls import Interval, over_seeds
from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.engines.recipe import load_recipe
from vestige.engines.runs import Need, Run

NEEDS = (Need("umd"),)


def arms(context: ClaimContext) -> dict[str, list[Run]]:
    """The finished runs of every setting."""
    variants = load_recipe("umd").variants
    return {name: [context.run("umd", name, seed) for seed in arm.seeds] for name, arm in variants.items()}


def figure(found: Sequence[Run], key: str) -> list[float]:
    """A figure of every run."""
    return [float(run.figures[key]) for run in found]


@dataclass(frozen=True)
class Probed:
    """Differences of probe accuracy over seeds."""

    to_dit: Interval
    to_mae: Interval
    to_pixels: Interval
    to_random: Interval

    @property
    def holds(self) -> bool:
        return min(self.to_dit.low, self.to_random.low) > 0


def judged(accuracy: dict[str, list[float]]) -> Probed:
    """accuracy: of "umd", "dit", "mae", "pixels" and "random" by seed."""
    ours = accuracy["umd"]
    return Probed(*(over_seeds(ours, accuracy[name]) for name in ("dit", "mae", "pixels", "random")))


def _row(name: str, values: Sequence[float], key: str, **more: Any) -> dict[str, Any]:
    mean = sum(values) / len(values)
    return {"setting": name, key: mean, "lowest": min(values), "highest": max(values), "seeds": len(values), **more}


@headline(
    "a linear probe with 100 labels a class on UMD's features is above the DiT setting's at its best noise level, at "
    "equal encoder passes (3 seeds)"
)
def features_beat_those_of_dit(context: ClaimContext) -> Evidence:
    found = arms(context)
    accuracy = {name: figure(part, "linear") for name, part in found.items()}
    accuracy["pixels"] = figure(found["umd"], "linear pixels")
    rows = []
    for name, values in accuracy.items():
        part = found.get(name, [])
        levels = ", ".join(str(run.figures.get("read at")) for run in part)
        rows.append(_row(name, values, "accuracy", **{"read at": levels}))
    seen = judged(accuracy)
    note = (
        f"to DiT {seen.to_dit} (the card hopes for 3 points), to MAE {seen.to_mae} (within 5 points), to pixels "
        f"{seen.to_pixels}, to random weights {seen.to_random}; chance 0.1"
    )
    return Evidence(seen.holds, rows, note)


def nearer(distance: dict[str, list[float]]) -> tuple[bool, Interval]:
    """Whether UMD's samples are nearer to test pictures than those that start from MAE, seed by seed."""
    gain = over_seeds(distance["mae"], distance["umd"])
    return gain.low > 0, gain


@claim(
    "after the same fine-tuning with labels UMD's samples are nearer to test pictures than those that start from the "
    "MAE setting (Fréchet distance, 3 seeds)"
)
def samples_beat_those_of_mae(context: ClaimContext) -> Evidence:
    found = arms(context)
    distance = {name: figure(part, "distance") for name, part in found.items()}
    rows = [_row(name, values, "distance") for name, values in distance.items()]
    rows.append({"setting": "training pictures (the floor)", "distance": figure(found["umd"], "distance real")[0]})
    holds, gain = nearer(distance)
    ratio = sum(distance["umd"]) / sum(distance["dit"])
    note = f"nearer by {gain}; {ratio:.2f} times as far as DiT's (the card hopes for 1.15 at most)"
    return Evidence(holds, rows, f"{note}. Features: {runs.judge().provenance}, on pictures enlarged to 32.")
