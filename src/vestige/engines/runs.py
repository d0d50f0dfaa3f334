"""Finished runs of recipes: where they lie, what they say of themselves, and whether their curves are flat.

A run is one recipe, variant and seed. It lies in the folder of runs (``VESTIGE_RUNS``, else out/runs) under
RECIPE/VARIANT/SEED and is finished when its metrics.json holds its evaluation. Claims rest on finished runs alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vestige.core.errors import InputError
from vestige.core.files import read_json
from vestige.engines.run_log import read_log

#: Seconds of a core's work after which a run may be judged though its curve still rises.
ENOUGH_SECONDS = 30 * 60
#: A gain in the last fifth below this share of the whole gain counts as none.
_NO_GAIN = 0.02


def runs_root() -> Path:
    """The folder of runs."""
    return Path(os.environ.get("VESTIGE_RUNS") or "out/runs")


def run_folder(recipe: str, variant: str, seed: int, root: Path | None = None) -> Path:
    """Where the run of this recipe, variant and seed lies, whether it is there or not."""
    return (root or runs_root()) / recipe / variant / str(seed)


@dataclass(frozen=True)
class Need:
    """Runs that a claim rests on: variants of a recipe (all that name seeds when empty) and their seeds (the variant's
    own when empty)."""

    recipe: str
    variants: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Run:
    """A finished run. metrics: as in metrics.json."""

    recipe: str
    variant: str
    seed: int
    folder: Path
    metrics: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def weights(self) -> Path:
        """Its final weights."""
        return self.folder / "model.safetensors"

    @property
    def figures(self) -> dict[str, Any]:
        """What it measured at its end: validation and evaluation."""
        return {**(self.metrics.get("validation") or {}), **(self.metrics.get("evaluation") or {})}

    @cached_property
    def digest(self) -> str:
        """Twenty hexadecimal digits of its weights, or of its figures where it has no weights of its own.

        Of the tensors alone: the format's library writes the metadata before them in any order.
        """
        path = self.weights if self.weights.is_file() else self.folder / "metrics.json"
        total = hashlib.sha256()
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                header.pop("__metadata__", None)
                total.update(json.dumps(header, sort_keys=True).encode())
            for block in iter(lambda: file.read(2**20), b""):
                total.update(block)
        return total.hexdigest()[:20]

    def logs(self) -> dict[str, list[dict[str, Any]]]:
        """The log of the run and those of its parts, by the part's name ("" for the run itself)."""
        found = {}
        for path in sorted(self.folder.rglob("log.jsonl")):
            part = path.parent.relative_to(self.folder).as_posix()
            found["" if part == "." else part] = read_log(path.parent)
        return found

    def fair(self) -> tuple[bool, str]:
        """Whether the run, and every training that is a part of it, was long enough to be judged, and why.

        Long enough is a flat curve (`flat`) or `ENOUGH_SECONDS` of a core's work.
        """
        judged_by = str(self.metrics.get("judged_by") or "")
        logs = self.logs()
        for name, log in logs.items():
            path = self.folder / name / "metrics.json"
            worked = float((read_json(path) if path.is_file() else {}).get("core_seconds") or 0)
            if worked < ENOUGH_SECONDS and not flat(log, judged_by):
                return False, f"the curve of {name or 'the run'} still rises after {worked / 60:.0f} core-minutes"
        return True, "every curve is flat or had half an hour" if logs else "nothing was trained by gradient"

    def row(self) -> dict[str, Any]:
        """What a record says of it."""
        good, why = self.fair()
        return {
            "recipe": self.recipe, "variant": self.variant, "seed": self.seed, "updates": self.metrics.get("step"),
            "core_seconds": self.metrics.get("core_seconds"), "digest": self.digest, "fair": good, "why": why,
        }  # fmt: skip


def finished(recipe: str, variant: str, seed: int, root: Path | None = None) -> Run | None:
    """The finished run, None where there is none yet. Raises InputError for a damaged metrics.json."""
    folder = run_folder(recipe, variant, seed, root)
    path = folder / "metrics.json"
    if not path.is_file():
        return None
    metrics = read_json(path)
    if not isinstance(metrics, dict):
        raise InputError(f"{path} is not the metrics of a run; delete it and train again.")
    return Run(recipe, variant, seed, folder, metrics) if "evaluation" in metrics else None


def flat(log: Sequence[Mapping[str, Any]], judged_by: str = "") -> bool:
    """Whether the last fifth of a run gained nothing: at most 2 % of what the whole run gained.

    judged_by: the validation figure to look at, with "-" before it where less is better; without one the first figure
    of the validation, and without validation the loss. Noise is smoothed by comparing means of fifths.

    >>> flat([{"step": i, "loss": max(0.1, 1 - i / 20)} for i in range(1, 101)])
    True
    >>> flat([{"step": i, "loss": 1 - i / 200} for i in range(1, 101)])
    False
    """
    better = -1.0 if not judged_by or judged_by.startswith("-") else 1.0
    name = judged_by.removeprefix("-")
    points: list[tuple[int, float]] = []
    for line in log:
        validation = line.get("validation") or {}
        value = validation.get(name) if name else None
        if value is not None:
            points.append((int(line["step"]), better * float(value)))
    if not points:
        points = [(int(line["step"]), -float(line["loss"])) for line in log if line.get("loss") is not None]
    if len(points) < 5:
        return False
    last = points[-1][0]
    fifths: list[list[float]] = [[] for _ in range(5)]
    for step, value in points:
        fifths[min(4, (step - 1) * 5 // max(1, last))].append(value)
    if not all((fifths[0], fifths[3], fifths[4])):
        return False
    first, before, end = (sum(part) / len(part) for part in (fifths[0], fifths[3], fifths[4]))
    gained = max(before, end) - min(first, points[0][1])
    return end - before <= _NO_GAIN * max(gained, 1e-12)
