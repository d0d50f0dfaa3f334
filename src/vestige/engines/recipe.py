"""Recipes: one small Python file per trainable thing, which says what is trained, on what, how, and what it must reach.

A recipe file defines ``RECIPE = Recipe(...)``. It is a program: loading it runs it, with the rights of the user, so a
recipe is loaded only from a file that the user names.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vestige.core.errors import InputError, VestigeError
from vestige.engines.train import Batch, Step, TrainConfig

_FOLDER = Path("recipes")


@dataclass
class RecipeContext:
    """What a recipe is built with.

    data: folder of data packs, None where there is none; `named_pack` reads from the same folder. device: of the model.
    seed, config: of this run; the global generators are seeded with the seed. out: folder of its results. options: the
    recipe's own, with what the user set. quiet: say nothing, for trainings inside ``build``.
    """

    data: Path | None
    device: torch.device
    seed: int
    config: TrainConfig
    out: Path
    options: dict[str, Any]
    quiet: bool = False


@dataclass
class Job:
    """What a recipe trains: the arguments of `Trainer`, and what is done with the result.

    evaluate: called once at the end with the final model (the moving average where one is kept, in evaluation mode)
    for metrics that are too slow to validate by. save: called with the final model and ``out``, for other forms of the
    weights (a diffusers folder, the encoder alone).
    """

    model: nn.Module
    step: Step
    batches: Callable[[int, torch.Generator], Batch]
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    save: Callable[[nn.Module, Path], None] | None = None
    parameters: Iterable[nn.Parameter | Mapping[str, Any]] | None = None
    on_step: Callable[[int, nn.Module], None] | None = None


@dataclass(frozen=True)
class Recipe:
    """A trainable thing. about: one sentence. config: the settings it is meant to be trained with. reach: what it must
    reach, in words, by metric. options: its own settings, with their defaults, which ``--set`` can change."""

    name: str
    about: str
    build: Callable[[RecipeContext], Job]
    config: TrainConfig
    reach: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        both = sorted(set(self.options) & {f.name for f in dataclasses.fields(TrainConfig)})
        if both:
            raise InputError(f"Recipe {self.name}: option {both[0]!r} has the name of a training setting; rename it.")


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path with or without ".py", or a dotted name, here or below ``recipes``.

    Raises InputError, with the nearest names, when there is none.
    """
    text = str(name)
    forms = [Path(text), Path(text + ".py")]
    if not text.endswith(".py") and "/" not in text:
        forms.append(Path(text.replace(".", "/") + ".py"))
    for form in forms:
        for path in (form, _FOLDER / form):
            if path.suffix == ".py" and path.is_file():
                return path
    known = {str(p.with_suffix("")): p for p in sorted(_FOLDER.rglob("*.py"))}
    ends = {p.stem: full for full, p in known.items()}
    near = difflib.get_close_matches(text.removesuffix(".py"), known, 1, 0.5)
    near = near or [ends[m] for m in difflib.get_close_matches(Path(text).stem.split(".")[-1], ends, 1, 0.5)]
    hint = f"did you mean {near[0]}?" if near else "give the path of a recipe file."
    raise InputError(f"There is no recipe {text!r}; {hint}")


def load_recipe(name: str | Path) -> Recipe:
    """Run a recipe file and return its ``RECIPE``.

    name: as in `find_recipe`. Only load files you trust: they are run. Raises InputError when the file is missing,
    fails, or defines no recipe.
    """
    path = find_recipe(name)
    module_name = f"vestige_recipe_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look classes up by their module
    try:
        spec.loader.exec_module(module)
    except VestigeError:
        raise
    except Exception as error:
        raise InputError(f"Recipe {path} cannot be loaded ({type(error).__name__}: {error}).") from error
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{path} defines no RECIPE = Recipe(...); see recipes/README.md.")
    return recipe
