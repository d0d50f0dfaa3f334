"""Claims: a sentence and a check for each, in one module per system, found by the system's slug.

A claim function takes a `ClaimContext` and returns `Evidence`; `vestige claims SLUG` runs it and records the outcome.
Claims never train: they load finished runs of recipes (`ClaimContext.run`), which ``vestige learn SLUG --for-claims``
makes. The first claim marked ``headline`` is the paper's main effect against the baseline it was made to beat.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vestige.bench.store import ClaimResult
from vestige.core.catalogue import System, system
from vestige.core.errors import InputError, UsageError

if TYPE_CHECKING:
    from vestige.engines.runs import Need, Run


class MissingRunsError(UsageError):
    """A claim rests on runs that are not there; the message names the command that makes them."""


@dataclass(frozen=True)
class ClaimContext:
    """What a claim may use: data packs, seed, workers, a limit on pictures for trial runs (0: none), finished runs.

    runs: folder of runs, by default `vestige.engines.runs.runs_root`. used: the runs that were asked for.
    """

    data: Path | None
    seed: int = 0
    jobs: int = 1
    limit: int = 0
    runs: Path | None = None
    used: dict[tuple[str, str, int], Run] = field(default_factory=dict, compare=False, repr=False)

    def pack(self, name: str) -> Path:
        """The folder of a data pack; raises InputError when it is not there."""
        if self.data is None:
            raise InputError(f"This claim needs the data pack {name!r}; give --data FOLDER or set VESTIGE_DATA.")
        folder = self.data / name
        if not folder.is_dir():
            raise InputError(f"{self.data} has no folder {name!r}, which this claim needs.")
        return folder

    def run(self, recipe: str, variant: str | None = None, seed: int = 0) -> Run:
        """A finished run, remembered for the record. variant: the recipe's default one when None.

        Raises MissingRunsError when it is not there or not finished.
        """
        from vestige.engines.recipe import load_recipe
        from vestige.engines.runs import finished

        name = load_recipe(recipe).default if variant is None else variant
        run = finished(recipe, name, seed, self.runs)
        if run is None:
            raise MissingRunsError(f"The run {recipe}/{name}/{seed} is missing; 'vestige learn {recipe} --for-claims'.")
        self.used[recipe, name, seed] = run
        return run


@dataclass(frozen=True)
class Evidence:
    """What a claim's check saw.

    holds: whether the effect is there. table: the rows it rests on, baselines and controls included. note: what was
    measured, on how many, with which interval. too_weak: why the test bed cannot tell (a margin below what shuffled
    labels reach, say); the claim is then never held. too_small: why it cannot be shown at this size.
    """

    holds: bool
    table: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    too_weak: str = ""
    too_small: str = ""

    @property
    def outcome(self) -> str:
        """ "shown", "not shown", "test bed too weak" or "cannot be shown at this size"."""
        if self.too_weak:
            return "test bed too weak"
        if self.holds:
            return "shown"
        return "cannot be shown at this size" if self.too_small else "not shown"


@dataclass(frozen=True)
class Claim:
    """A sentence with its check. headline: the paper's main effect."""

    text: str
    check: Callable[[ClaimContext], Evidence]
    headline: bool = False

    def run(self, context: ClaimContext) -> ClaimResult:
        """Run the check; errors of the data or code propagate, a claim that does not hold is a result."""
        start = time.perf_counter()
        evidence = self.check(context)
        note = "; ".join(filter(None, (evidence.note, evidence.too_weak or evidence.too_small)))
        return ClaimResult(
            self.text, evidence.outcome == "shown", evidence.table, note, round(time.perf_counter() - start, 1),
            headline=self.headline, outcome=evidence.outcome,
        )  # fmt: skip


def claim(text: str) -> Callable[[Callable[[ClaimContext], Evidence]], Claim]:
    """Decorator that turns a check into a `Claim`."""
    return lambda check: Claim(text, check)


def headline(text: str) -> Callable[[Callable[[ClaimContext], Evidence]], Claim]:
    """Decorator for the one claim of a system that states the paper's main effect."""
    return lambda check: Claim(text, check, headline=True)


def _module(entry: System) -> ModuleType | None:
    name = f"vestige.claims.{entry.wing}.{entry.slug}"
    try:
        if importlib.util.find_spec(name) is None:
            return None
    except ModuleNotFoundError:
        return None
    return importlib.import_module(name)


def claims_of(entry: System) -> list[Claim]:
    """The claims of a system, in the order they are written; empty when it has none yet."""
    module = _module(entry)
    return [] if module is None else [value for value in vars(module).values() if isinstance(value, Claim)]


def needs_of(entry: System) -> list[Need]:
    """The runs that a system's claims rest on: ``NEEDS`` of its module of claims, else every variant of its recipe."""
    from vestige.engines.recipe import recipe_modules
    from vestige.engines.runs import Need

    module = _module(entry)
    if module is None:
        return []
    if hasattr(module, "NEEDS"):
        return list(module.NEEDS)
    return [Need(entry.slug)] if entry.slug in recipe_modules() else []


def runs_needed(needs: Sequence[Need]) -> list[tuple[str, str, int]]:
    """(recipe, variant, seed) of every run of ``needs``, each once, in order."""
    from vestige.engines.recipe import load_recipe

    found: dict[tuple[str, str, int], None] = {}
    for need in needs:
        recipe = load_recipe(need.recipe)
        for name in need.variants or tuple(recipe.variants) or (recipe.default,):
            seeds = need.seeds or tuple(recipe.variant(name).seeds)
            found |= dict.fromkeys((need.recipe, name, seed) for seed in seeds)
    return list(found)


def missing_runs(slug: str, root: Path | None = None) -> list[tuple[str, str, int]]:
    """The runs that the claims of a system still lack."""
    from vestige.engines.runs import finished

    return [run for run in runs_needed(needs_of(system(slug))) if finished(*run, root) is None]
