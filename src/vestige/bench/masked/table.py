"""The comparison of the masked models: which runs it takes, means and spreads over seeds, and the table of it.

House rule: a difference smaller than twice the pooled standard deviation is no difference at this scale.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from vestige.bench.masked.runs import Run, Study, calibration, calibration_file, ensure, study_of
from vestige.bench.masked.systems import METHODS
from vestige.claims import ClaimContext
from vestige.core.errors import InputError, UsageError
from vestige.core.files import read_json

#: "time": as many updates as fit the processor time. "epochs": as many passes over the data as MAE makes in it.
#: "tokens": as many tokens through the encoder as the system the baseline belongs to has at equal time. "random": none.
#: "tuned": fine-tuning of the equal-time run. "scratch": the same from random weights.
Schedule = Literal["time", "epochs", "tokens", "random", "tuned", "scratch"]
Wanted = tuple[str, Schedule]
Records = list[dict[str, Any]]

#: Step times that differ by less are one: no shorter time can be told from the noise of measuring them.
SAME_TIME = 0.03


@dataclass(frozen=True)
class Figure:
    """Mean and standard deviation (n - 1; NaN for one value) of a measurement over seeds."""

    mean: float
    sd: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.sd:.2f}" if self.count > 1 else f"{self.mean:.2f}"


def figure(records: Records, key: str, scale: float = 1.0) -> Figure:
    """``scale`` 100 for percent.

    >>> str(figure([{"linear": 0.40}, {"linear": 0.42}], "linear", 100))
    '41.00 ± 1.41'
    """
    return figure_of([scale * r[key] for r in records])


def figure_of(values: Sequence[float]) -> Figure:
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Figure(statistics.fmean(values), sd, len(values))


@dataclass(frozen=True)
class Difference:
    """a - b and the pooled standard deviation √((s_a² + s_b²)/2); with one seed nothing is beyond noise."""

    value: float
    pooled: float

    @property
    def higher(self) -> bool:
        return self.value > 2 * self.pooled

    @property
    def lower(self) -> bool:
        return self.value < -2 * self.pooled

    @property
    def judged(self) -> bool:
        return not math.isnan(self.pooled)

    @property
    def words(self) -> str:
        if not self.judged:
            return "one seed, not judged"
        return "higher" if self.higher else "lower" if self.lower else "no difference at this scale"

    def __str__(self) -> str:
        return f"{self.value:+.2f} ({self.words}; pooled s.d. {self.pooled:.2f})"


def difference(a: Figure, b: Figure) -> Difference:
    """
    >>> difference(Figure(10, 1, 3), Figure(7, 1, 3)).words
    'higher'
    """
    return Difference(a.mean - b.mean, math.sqrt((a.sd**2 + b.sd**2) / 2))


def points(a: Records, b: Records, key: str) -> Difference:
    """How many percentage points a share is higher in ``a`` than in ``b``."""
    return difference(figure(a, key, 100), figure(b, key, 100))


class Comparison:
    """The runs of a study by method and schedule."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @classmethod
    def of(cls, context: ClaimContext) -> Comparison:
        return cls(study_of(context))

    @cached_property
    def cost(self) -> dict[str, dict[str, float]]:
        return calibration(self.study)

    def steps(self, name: str, schedule: Schedule) -> int:
        """Updates of a run; a baseline makes as many as the system it belongs to.

        Raises UsageError for a schedule that the method does not have.
        """
        system = name.partition("/")[0]
        budget = self.study.protocol.seconds
        epochs = max(1, int(budget / self.cost["mae"]["seconds"]))
        if schedule in ("random", "scratch"):
            return 0
        if schedule == "epochs":
            return epochs
        if schedule == "tokens" and name in self.cost:
            share = self.cost[system]["tokens"] / self.cost[name]["tokens"]
            return max(1, round(share * self.steps(system, "time")))
        if schedule in ("time", "tuned"):
            steps = max(1, int(budget / self.cost[system]["seconds"]))
            return epochs if abs(steps - epochs) <= SAME_TIME * epochs else steps
        raise UsageError(f"{name} has no runs at equal {schedule}.")

    @property
    def epochs(self) -> int:
        """Passes over the labelled pictures that fine-tuning makes in the processor time of a run."""
        p = self.study.protocol
        updates = math.ceil(p.labels / p.optimisation["batch_size"])
        return max(1, int(p.seconds / (updates * self.cost["fine_tune"]["seconds"])))

    def runs(self, name: str, schedule: Schedule) -> list[Run]:
        epochs = self.epochs if schedule in ("tuned", "scratch") else 0
        return [Run(name, seed, self.steps(name, schedule), epochs) for seed in self.study.seeds]

    def records(self, *wanted: Wanted) -> dict[Wanted, Records]:
        """The records of every seed; runs that are missing are made, all at once."""
        runs = {want: self.runs(*want) for want in wanted}
        flat = [run for part in runs.values() for run in part]
        found = iter(ensure(self.study, flat))
        return {want: [next(found) for _ in part] for want, part in runs.items()}

    def tokens(self, name: str, steps: int) -> float:
        """Millions of tokens that go through the encoder, with gradient, in so many updates of pretraining."""
        return steps * self.cost.get(name, self.cost[name.partition("/")[0]])["tokens"] / 1e6

    def row(self, name: str, schedule: Schedule, records: Records, *keys: str) -> dict[str, Any]:
        """A row of evidence: means and spreads; accuracies, losses and the like as they are measured."""
        steps = records[0]["steps"]
        row: dict[str, Any] = {"method": name, "runs": schedule, "seeds": len(records), "updates": steps}
        row["million tokens"] = round(self.tokens(name, steps), 2)
        for key in keys:
            found = figure(records, key)
            row[key] = round(found.mean, 4)
            row[f"{key} s.d."] = round(found.sd, 4) if found.count > 1 else None
        return row


COLUMNS: tuple[tuple[str, Schedule], ...] = (("equal time", "time"), ("equal epochs", "epochs"))


def markdown_table(study: Study) -> str:
    """MAE, the five systems and random weights, at equal time and at equal epochs, from the records there are.

    Accuracies in percent, mean ± standard deviation over seeds; "–" where a run is missing. Nothing is trained.
    Raises InputError when the step times were never measured.
    """
    if not calibration_file(study).is_file():
        raise InputError(f"{study.records} has no step times of this protocol; run 'vestige claims mae' first.")
    comparison = Comparison(study)
    head = ["system", "ms per update", "encoder tokens per image"]
    head += [f"{label}: {what}" for label, _ in COLUMNS for what in ("updates", "million tokens", "linear", "k-NN")]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    batch = study.protocol.optimisation["batch_size"]
    for name in METHODS:
        cost = comparison.cost[name]
        tokens = f"{cost['tokens'] / batch:.0f}"
        if cost["tokens_without_gradient"]:
            tokens += f" + {cost['tokens_without_gradient'] / batch:.0f} without gradient"
        cells = [name, f"{1000 * cost['seconds']:.0f}", tokens]
        for _, schedule in COLUMNS:
            steps = comparison.steps(name, schedule)
            cells += [str(steps), f"{comparison.tokens(name, steps):.2f}", *_accuracies(comparison, name, schedule)]
        lines.append("| " + " | ".join(cells) + " |")
    for name, label in (("mae", "random weights"), ("mp3", "random weights, no positions")):
        found = ["0", "0", *_accuracies(comparison, name, "random")]
        lines.append("| " + " | ".join([label, "", "", *found, *found]) + " |")
    return "\n".join([*lines, "", note(comparison)])


def _accuracies(comparison: Comparison, name: str, schedule: Schedule) -> list[str]:
    paths = [comparison.study.record(run) for run in comparison.runs(name, schedule)]
    records = [read_json(path) for path in paths if path.is_file()]
    if not records:
        return ["–", "–"]
    missing = f" ({len(records)} of {len(paths)} seeds)" if len(records) < len(paths) else ""
    return [f"{figure(records, key, 100)}{missing}" for key in ("linear", "knn")]


def note(comparison: Comparison) -> str:
    """What was compared, in words."""
    p = comparison.study.protocol
    batch = p.optimisation["batch_size"]
    passes = comparison.steps("mae", "epochs") * batch
    return (
        f"CIFAR-10, {p.seeds} seeds, mean ± s.d. in percent; a difference below twice the pooled s.d. is none. Equal "
        f"time: {p.seconds:g} s on {p.threads} processor thread(s), from step times measured in turns in one call "
        f"(times within {100 * SAME_TIME:.0f} % of MAE's count as equal). Equal epochs: {passes} images, which is what "
        "MAE sees in that time; LUT and DMJD make two views of each, and tokens count both. Batches of "
        f"{batch}. Linear probe and k-NN (k = 20): {p.probe_train} labelled training images, {p.probe_test} test "
        "images, no augmentation."
    )
