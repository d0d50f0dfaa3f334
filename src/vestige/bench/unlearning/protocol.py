"""The unlearning benchmark: erasers × what is forgotten × seeds, against a retrained model, cached cell by cell.

For every seed a network is trained and retrained without what is to be forgotten (a class, or a random tenth); every
eraser starts from the same original. Hyper-parameters come from `PARAMETERS`, which `vestige.bench.unlearning.tuning`
chooses on another seed with other training pictures, on validation samples, never on the networks of the table.

One cell is one eraser on one problem with one seed. Its record is a JSON file named by a hash of what the result
depends on, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vestige.bench.digests import digest, file_digest
from vestige.bench.methods import Method, select
from vestige.bench.unlearning.parameters import PARAMETERS
from vestige.bench.unlearning.world import KINDS, Settings
from vestige.bench.workers import spread, stored
from vestige.core.catalogue import System, system, systems
from vestige.core.errors import UsageError, VestigeError
from vestige.core.files import write_json
from vestige.core.progress import track
from vestige.core.runtime import hardware, versions

#: Raised when a change of the engine or of the protocol makes recorded cells wrong.
SCHEMA = 1
#: Rows every table has: nothing done, and the reference itself.
FLOORS = ("original", "retrain")
METRICS = ("UA", "RA", "TA", "MIA")


@dataclass(frozen=True)
class Grid:
    """Where a benchmark works: its settings, the folder of data packs, of trained originals, and of records."""

    settings: Settings
    data: str
    folder: Path
    records: Path


@dataclass(frozen=True)
class Cell:
    """One eraser ("original" for none, "retrain" for the reference) on one problem with one seed."""

    method: Method
    kind: str
    seed: int

    def key(self, grid: Grid) -> str:
        parameters = _plain(parameters_of(self.method, self.kind))
        what = [SCHEMA, asdict(grid.settings), self.method.slug, parameters, self.kind, self.seed, _code(self.method)]
        return digest(what)


def methods(selection: str) -> list[Method]:
    """Erasers of models separated by commas, options by colons, as ``ssd:alpha=5``; "all" is every one with parameters.

    Raises UsageError for unknown slugs, systems that erase something else, and options that are no numbers.

    >>> [m.label for m in methods("finetune,ssd:alpha=5")]
    ['finetune', 'ssd:alpha=5']
    """
    refusal = "does not make classifiers forget; 'vestige systems --role erase' lists what does."
    return [m for m in select(selection, _erases, refusal, {"all": _every}) if m.slug not in FLOORS]


def _erases(entry: System) -> bool:
    return entry.wing == "unlearning" and entry.subject == "model" and "erase" in entry.roles


def _every() -> list[Method]:
    slugs = {s.slug for s in systems() if _erases(s) and s.target is not None}
    return [Method(slug) for slug in PARAMETERS if slug in slugs]


def parameters_of(method: Method, kind: str) -> dict[str, Any]:
    """The benchmark's own parameters for that eraser and problem, overridden by the method's options.

    Pruning is followed by the table's own fine-tuning, whose parameters stand under "unlearner".
    """
    own = PARAMETERS.get(method.slug, {}).get(kind, {})
    after = {"unlearner": PARAMETERS["finetune"][kind]} if method.slug == "sparse_unlearn" else {}
    return {**after, **own, **dict(method.options)}


def parameters_in_words(chosen: Sequence[Method]) -> str:
    """How the hyper-parameters of these erasers were come by, for the reader of the table."""
    plain = [m.slug for m in chosen if not any(PARAMETERS.get(m.slug, {}).values()) and not m.options]
    if not plain:
        return "Hyper-parameters were chosen on another seed by the gap to retraining on validation samples."
    if len(plain) == len(chosen):
        return "Hyper-parameters are the erasers' defaults, not chosen for this network."
    return (
        "Hyper-parameters were chosen on another seed by the gap to retraining on validation samples, except those of "
        f"{', '.join(plain)}, which run with their defaults."
    )


def eraser(method: Method, kind: str) -> Any:
    """The eraser with its parameters. Raises UsageError for options it does not take."""
    chosen = parameters_of(method, kind)
    if "unlearner" in chosen:
        chosen["unlearner"] = system("finetune").load()(**chosen["unlearner"])
    try:
        return system(method.slug).load()(**chosen)
    except TypeError as error:
        raise UsageError(f"{method.slug} cannot be made with these options ({error}).") from None


def run(
    grid: Grid, chosen: Sequence[Method], kinds: Sequence[str], seeds: Sequence[int], *, jobs: int = 1,
    fresh: bool = False,
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """Compute the cells that have no record yet and return all records, and a sentence for each eraser that failed.

    The original and the reference are among the records. fresh: compute the erasers again (networks are kept). jobs:
    worker processes; networks are trained first, one a process. Raises UsageError for unknown kinds.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"There is no problem {kind!r}; choose {' or '.join(KINDS)}.")
    for method in chosen:
        for kind in kinds:
            eraser(method, kind)  # refuse wrong options before anything is trained
    every = [Cell(m, k, s) for m in (*map(Method, FLOORS), *chosen) for k in kinds for s in seeds]
    pending = [cell for cell in every if fresh or stored(grid.records, cell.key(grid)) is None]
    # The original of a seed serves every problem, so it is made before the references, and both before the erasers.
    stages = (
        list({(cell.seed,): (grid, cell.kind, cell.seed, "original") for cell in pending}.values()),
        list({(cell.kind, cell.seed): (grid, cell.kind, cell.seed, "retrain") for cell in pending}.values()),
    )
    for stage in stages:
        for _ in track(spread(_train_unit, stage, jobs), "training", len(stage)):
            pass
    for _ in track(spread(_cell_unit, [(grid, cell) for cell in pending], jobs), "forgetting", len(pending)):
        pass
    records = [found for cell in every if (found := stored(grid.records, cell.key(grid))) is not None]
    problems = [f"{r['method']} failed on {r['kind']}, seed {r['seed']}: {r['error']}" for r in records if "error" in r]
    return records, problems


def _train_unit(unit: tuple[Grid, str, int, str]) -> None:
    from vestige.bench.unlearning.world import original, world

    grid, kind, seed, what = unit
    data = Path(grid.data) if grid.data else None
    if what == "original":
        original(grid.settings, seed, data=data, folder=grid.folder)
    else:
        world(kind, seed, grid.settings, data=data, folder=grid.folder)


def _cell_unit(unit: tuple[Grid, Cell]) -> None:
    """Compute one cell and store its record; an eraser that fails leaves its reason."""
    grid, cell = unit
    described = {
        "key": cell.key(grid), "method": cell.method.label, "kind": cell.kind, "seed": cell.seed,
        "parameters": _plain(parameters_of(cell.method, cell.kind)), "settings": asdict(grid.settings),
        "versions": versions(), "hardware": hardware(),
    }  # fmt: skip
    try:
        described |= measure(grid, cell)
    except VestigeError as error:
        described["error"] = str(error)
    write_json(grid.records / f"{cell.key(grid)}.json", described)


def measure(grid: Grid, cell: Cell) -> dict[str, Any]:
    """The row of a cell: metrics, needs, and the cost of forgetting (stored statistics are made before the clock)."""
    from vestige.bench.unlearning.world import world
    from vestige.engines.forgetting.cost import Cost, measured
    from vestige.engines.forgetting.evaluate import evaluate, say
    from vestige.metrics.unlearning import activation_distance

    found = world(cell.kind, cell.seed, grid.settings, data=Path(grid.data) if grid.data else None, folder=grid.folder)
    problem, needs, cost = found.problem, frozenset[str](), Cost()
    if cell.method.slug == "original":
        model, cost.seconds = problem.model, found.seconds["original"]
    elif cell.method.slug == "retrain":
        model, cost.seconds = found.reference, found.seconds["retrain"]
    else:
        method = eraser(cell.method, cell.kind)
        needs = method.needs
        if "statistics" in needs:
            method.importances(problem)
        with measured() as cost:
            model = method.erase(problem if needs & {"labels", "training"} else problem.without_labels())
    row = evaluate(model, problem)
    forgotten = problem.train.take(problem.forget_idx)
    row["activation_distance"] = activation_distance(say(model, forgotten).probs, say(found.reference, forgotten).probs)
    return {"row": row, "needs": sorted(needs), "cost": cost.to_dict()}


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: parameters[name] for name in sorted(parameters)}


def _code(method: Method) -> str:
    """Of the file the eraser is in; nothing for the rows without one."""
    if method.slug in FLOORS:
        return ""
    import vestige

    module = (system(method.slug).target or "").partition(":")[0]
    return file_digest(str(Path(vestige.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")))
