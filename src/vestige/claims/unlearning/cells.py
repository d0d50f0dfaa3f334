"""Rows of the unlearning bed for claims: one run a seed, tables of means, and comparisons over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vestige.bench.controls import Interval, over_seeds
from vestige.bench.unlearning.bed import RECIPE as BED
from vestige.claims import ClaimContext
from vestige.engines.runs import Need

SEEDS = (0, 1, 2)
#: Parameters first, then what is made with them.
BED_NEEDS = (Need(BED, ("tuning",)), Need(BED, ("default",), SEEDS))
SHOWN = ("UA", "RA", "TA", "MIA", "gap", "mia_entropy", "passes of retraining", "of retraining")
Rows = Sequence[Mapping[str, Any]]


def bed_rows(context: ClaimContext, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """Every row of the bed's runs; "seed" tells whose."""
    return [row for seed in seeds for row in context.run(BED, "default", seed).figures["rows"]]


def figures(context: ClaimContext, recipe: str, variant: str, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """The rows of another recipe's runs."""
    return [row for seed in seeds for row in context.run(recipe, variant, seed).figures["rows"]]


def values(rows: Rows, column: str, **where: Any) -> list[float]:
    """The figures of a column in the order of the seeds, one for each; NaN where a row failed."""
    found = [r for r in rows if all(r.get(name) == value for name, value in where.items())]
    return [float("nan") if r.get(column) is None else float(r[column]) for r in sorted(found, key=lambda r: r["seed"])]


def apart(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Ours less theirs over seeds; no interval holds anything where a run failed."""
    if len(ours) != len(theirs) or len(ours) < 3 or any(v != v for v in (*ours, *theirs)):
        return Interval(float("nan"), float("-inf"), float("inf"), how="seeds")
    return over_seeds(ours, theirs)


def means(rows: Rows, by: Sequence[str] = ("problem", "method"), shown: Sequence[str] = SHOWN) -> list[dict[str, Any]]:
    """One row for each combination of ``by``: means over the seeds; "failed" counts those that have no figure."""
    table: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        table.setdefault(tuple(row.get(name) for name in by), []).append(row)
    found = []
    for key, members in table.items():
        good = [m for m in members if "error" not in m]
        one: dict[str, Any] = {**dict(zip(by, key, strict=True)), "seeds": len(good)}
        for name in shown:
            numbers = [float(m[name]) for m in good if m.get(name) is not None]
            if numbers:
                one[name] = round(sum(numbers) / len(numbers), 4)
        if len(good) < len(members):
            one["failed"] = len(members) - len(good)
        found.append(one)
    return found
