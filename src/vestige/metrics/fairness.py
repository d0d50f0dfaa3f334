"""How differently a forgery detector treats groups of people, measured so that errors cannot cancel.

A `GroupTable` holds the share of right answers P[a, r] for every approach a (real pictures first, then each kind of
forgery) and group r. With R(v) = max v - min v over groups and s(v) the standard deviation (ddof 0):

    naive               DPD = R(mean_a P_a), so that groups that err on different forgeries look alike
    approach averaged   DPD = mean_a R(P_a): the spread first, then the mean
    utility regularised DPD = mean_a R(P_a) / (1 + mean_r P_ar): spread weighs more where the detector is bad

DEO leaves the real row out, DEOdds = (R(P_real) + DEO) / 2, STD has s in the place of R. Lower is fairer, and none of
them means anything without the accuracy beside it: a detector that always says the same has no spread at all.

Source: Thinking Racial Bias in Fair Forgery Detection: Models, Datasets and Evaluations, AAAI 2025.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.metrics.arrays import finite
from vestige.metrics.detection import Interval

REAL = "real"


@dataclass(frozen=True)
class GroupTable:
    """accuracy: float64 A×G, the real row first. counts: pictures in each cell. approaches, groups: their names."""

    accuracy: np.ndarray
    counts: np.ndarray
    approaches: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def overall(self) -> float:
        """Accuracy when approaches and groups weigh the same."""
        return float(self.accuracy.mean())

    @property
    def worst(self) -> tuple[str, float]:
        """The group with the lowest mean accuracy over approaches, and that accuracy."""
        means = self.accuracy.mean(0)
        return self.groups[int(means.argmin())], float(means.min())


def fairness_table(scores: Any, approach: Any, group: Any, *, threshold: float = 0.5) -> GroupTable:
    """Share of right answers by approach and group; a score at or above the threshold calls a picture fake.

    scores: (N,), higher is more suspicious. approach: "real" or the name of a forgery, group: its group, N each.
    Raises UsageError when lengths differ, no picture is real or none is fake, or a cell has no picture.

    >>> table = fairness_table([0.1, 0.9, 0.8, 0.2], ["real", "real", "swap", "swap"], ["a", "b", "a", "b"])
    >>> table.accuracy.tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    values = finite(scores, "Scores", 1)
    kinds, people = np.asarray(approach, str), np.asarray(group, str)
    if not len(values) == len(kinds) == len(people):
        raise UsageError(
            f"Scores, approaches and groups must be as many; got {len(values)}, {len(kinds)}, {len(people)}."
        )
    forgeries = sorted(set(kinds) - {REAL})
    if REAL not in kinds or not forgeries:
        raise UsageError("A fairness table needs real pictures (approach 'real') and forged ones.")
    approaches, groups = (REAL, *forgeries), tuple(sorted(set(people)))
    right = np.where(kinds == REAL, values < threshold, values >= threshold)
    cells = [[right[(kinds == a) & (people == g)] for g in groups] for a in approaches]
    counts = np.array([[len(cell) for cell in row] for row in cells])
    if (counts == 0).any():
        a, g = np.argwhere(counts == 0)[0]
        raise UsageError(f"There is no picture of approach {approaches[a]!r} in group {groups[g]!r}.")
    return GroupTable(np.array([[cell.mean() for cell in row] for row in cells]), counts, approaches, groups)


def _spreads(table: np.ndarray | GroupTable) -> tuple[np.ndarray, Callable[[np.ndarray], dict[str, float]]]:
    accuracy = table.accuracy if isinstance(table, GroupTable) else np.asarray(table, np.float64)
    if accuracy.ndim != 2 or accuracy.shape[0] < 2 or accuracy.shape[1] < 2:
        raise UsageError(f"A table has a real row, a forgery and two groups at least; got shape {accuracy.shape}.")

    def averaged(divisor: np.ndarray) -> dict[str, float]:
        ranges, deviations = np.ptp(accuracy, 1) / divisor, accuracy.std(1) / divisor
        deo = float(ranges[1:].mean())
        return {
            "dpd": float(ranges.mean()), "deo": deo, "deodds": (float(ranges[0]) + deo) / 2,
            "std": float(deviations.mean()),
        }  # fmt: skip

    return accuracy, averaged


def naive(table: np.ndarray | GroupTable) -> dict[str, float]:
    """Spread over groups of accuracies that were averaged over approaches first: {"dpd", "deo", "deodds", "std"}.

    >>> naive(np.array([[1.0, 0.0], [0.0, 1.0]]))["dpd"]
    0.0
    """
    accuracy, _ = _spreads(table)
    means, forged = accuracy.mean(0), accuracy[1:].mean(0)
    deo = float(np.ptp(forged))
    return {
        "dpd": float(np.ptp(means)), "deo": deo, "deodds": (float(np.ptp(accuracy[0])) + deo) / 2,
        "std": float(means.std()),
    }  # fmt: skip


def approach_averaged(table: np.ndarray | GroupTable) -> dict[str, float]:
    """Mean over approaches of the spread over groups.

    >>> approach_averaged(np.array([[1.0, 0.0], [0.0, 1.0]]))["dpd"]
    1.0
    """
    accuracy, averaged = _spreads(table)
    return averaged(np.ones(len(accuracy)))


def utility_regularised(table: np.ndarray | GroupTable) -> dict[str, float]:
    """The same with each approach's spread divided by 1 + its mean accuracy; not comparable with the other two.

    >>> round(utility_regularised(np.array([[1.0, 0.0], [0.0, 1.0]]))["dpd"], 4)
    0.6667
    """
    accuracy, averaged = _spreads(table)
    return averaged(1 + accuracy.mean(1))


#: The three families by the prefix that names them in tables.
FAMILIES: dict[str, Callable[[np.ndarray | GroupTable], dict[str, float]]] = {
    "naive": naive, "aa": approach_averaged, "ur": utility_regularised,
}  # fmt: skip


def fairness_summary(table: GroupTable) -> dict[str, float]:
    """Every metric by "family-name", with "accuracy" and "worst_group_accuracy"."""
    found = {f"{family}-{name}": v for family, of in FAMILIES.items() for name, v in of(table).items()}
    return {"accuracy": table.overall, "worst_group_accuracy": table.worst[1], **found}


def fairness_interval(
    metric: Callable[[GroupTable], float], scores: Any, approach: Any, group: Any,
    subjects: Any, *, threshold: float = 0.5, resamples: int = 200, level: float = 0.95, seed: int = 0,
) -> Interval:  # fmt: skip
    """Percentile bootstrap interval of a metric of the table, resampling subjects inside their groups.

    Pictures of one subject are not independent, so that subjects are drawn and bring all their pictures. A draw that
    leaves a cell empty is drawn again. Raises UsageError as `fairness_table` does, for a level outside (0, 1), for a
    group of one subject and when hardly a draw fills the table.
    """
    if not 0 < level < 1 or resamples < 2:
        raise UsageError(f"An interval needs a level in (0, 1) and 2 resamples; got {level} and {resamples}.")
    values, kinds, people = finite(scores, "Scores", 1), np.asarray(approach, str), np.asarray(group, str)
    value = metric(fairness_table(values, kinds, people, threshold=threshold))
    owners = np.asarray([f"{g} {s}" for g, s in zip(people, subjects, strict=True)])
    rows = {owner: np.flatnonzero(owners == owner) for owner in np.unique(owners)}
    by_group = {g: [o for o in rows if people[rows[o][0]] == g] for g in np.unique(people)}
    if min(len(names) for names in by_group.values()) < 2:
        raise UsageError("An interval needs two subjects in every group.")
    draw, found = rng(seed, "fairness"), []
    for _ in range(20 * resamples):
        chosen = [o for names in by_group.values() for o in draw.choice(names, len(names))]
        index = np.concatenate([rows[o] for o in chosen])
        try:
            table = fairness_table(values[index], kinds[index], people[index], threshold=threshold)
        except UsageError:
            continue
        found.append(metric(table))
        if len(found) == resamples:
            low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
            return Interval(float(value), float(low), float(high))
    raise UsageError("There are too few subjects for an interval; every group needs several of each approach.")
