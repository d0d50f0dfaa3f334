"""How arms of the masked models are held against each other: rows of figures, and differences over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vestige.bench.controls import Interval, over_seeds
from vestige.core.errors import InputError
from vestige.engines.runs import Run


def values(runs: Sequence[Run], key: str) -> list[float]:
    """A figure of each run; raises InputError, naming the run, where it was not measured."""
    for run in runs:
        if run.figures.get(key) is None:
            raise InputError(f"The run {run.recipe}/{run.variant}/{run.seed} has no figure {key!r}; train it anew.")
    return [float(run.figures[key]) for run in runs]


def row(name: str, runs: Sequence[Run], *keys: str, prefix: str = "") -> dict[str, Any]:
    """A row of evidence: means and standard deviations over seeds. prefix "untrained ": of the networks before their
    first update."""
    found: dict[str, Any] = {"arm": name, "seeds": len(runs)}
    found["updates"] = 0 if prefix else runs[0].metrics.get("step")
    found["million tokens"] = 0 if prefix else round(values(runs[:1], "million tokens")[0], 2)
    for key in keys:
        each = values(runs, prefix + key)
        found[key] = round(statistics.fmean(each), 4)
        if len(each) > 1:
            found[f"{key} s.d."] = round(statistics.stdev(each), 4)
    return found


@dataclass(frozen=True)
class Verdict:
    """Ours minus theirs over seeds. learned: ours minus untrained. weak: why the test bed cannot tell."""

    gain: Interval
    learned: Interval
    weak: str = ""

    @property
    def holds(self) -> bool:
        return self.gain.low > 0 and self.learned.low > 0 and not self.weak


def ahead(ours: Sequence[float], theirs: Sequence[float], untrained: Sequence[float]) -> Verdict:
    """Whether ``ours`` is above ``theirs`` and above random weights, seed by seed (more is better).

    The test bed cannot tell where neither is above random weights: what is measured then is the network's shape.

    >>> ahead([0.5, 0.51, 0.52], [0.4, 0.42, 0.41], [0.3, 0.31, 0.3]).holds
    True
    >>> ahead([0.4, 0.42, 0.41], [0.5, 0.51, 0.52], [0.3, 0.31, 0.3]).holds
    False
    """
    gain, learned, rival = over_seeds(ours, theirs), over_seeds(ours, untrained), over_seeds(theirs, untrained)
    weak = "" if learned.low > 0 or rival.low > 0 else "neither arm is above random weights here"
    return Verdict(gain, learned, weak)
