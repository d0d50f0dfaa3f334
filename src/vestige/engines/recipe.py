"""Recipes: one small Python file per trainable thing, which says what is trained, on what, how, and what it must reach.

A recipe file defines ``RECIPE = Recipe(...)``. The package's own are found by their slug, in
``vestige.recipes.<wing>.<slug>``. A recipe of the user's is named by the path of its file; it is a program: loading it
runs it, with the rights of the user.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vestige.core.errors import InputError, UsageError, VestigeError
from vestige.engines.train import Batch, Step, TrainConfig

#: The variant that is trained when none is named: the method itself.
DEFAULT = "default"
_PACKAGE = "vestige.recipes"


@dataclass
class RecipeContext:
    """What a recipe is built with.

    data: folder of data packs, None where there is none; `named_pack` reads from the same folder. pictures: a folder of
    the user's own (pictures, parquet or tar shards), None for the packs; a recipe whose ``takes_pictures`` is set
    learns from it. device: of the model. seed, config: of this run; the global generators are seeded with the seed.
    out: folder of its results. options: the recipe's own, with what the variant and the user set. variant: its name.
    quiet: say nothing, for trainings inside ``build``.
    """

    data: Path | None
    device: torch.device
    seed: int
    config: TrainConfig
    out: Path
    options: dict[str, Any]
    quiet: bool = False
    variant: str = DEFAULT
    pictures: Path | None = None


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
class Variant:
    """One arm of a comparison: the method, a baseline, an ablation, a fold, a control such as shuffled labels.

    about: one sentence. options, config: what differs from the recipe's own. seeds: the runs that claims rest on; more
    than one for the headline and its direct baseline, none for a variant no claim needs.
    """

    about: str
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)


@dataclass(frozen=True)
class Recipe:
    """A trainable thing, trained by ``build`` (one `Job` for the training loop) or by ``perform``.

    name: the slug. about: one sentence. config: the settings it is meant to be trained with. reach: what it must
    reach, in words, by metric. options: its own settings, with their defaults, which ``--set`` can change. variants:
    named arms, the first of them the one that is trained when none is named; without any there is only the recipe
    itself. perform: for what is more than one training (a model, then what is done to it): called with the context,
    writes its files to ``out`` and returns what it measured; `vestige.engines.parts` keeps what is finished, so that
    the same command goes on after a kill. takes_pictures: learns from a folder of the user's pictures too. judged_by:
    the validation figure that tells when a curve is flat, with "-" before it where less is better.
    """

    name: str
    about: str
    build: Callable[[RecipeContext], Job] | None = None
    config: TrainConfig = field(default_factory=TrainConfig)
    reach: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    perform: Callable[[RecipeContext], Mapping[str, Any]] | None = None
    takes_pictures: bool = False
    judged_by: str = ""

    def __post_init__(self) -> None:
        both = sorted(set(self.options) & {f.name for f in dataclasses.fields(TrainConfig)})
        if both:
            raise InputError(f"Recipe {self.name}: option {both[0]!r} has the name of a training setting; rename it.")
        if (self.build is None) == (self.perform is None):
            raise InputError(f"Recipe {self.name} needs either build or perform.")
        for name, variant in self.variants.items():
            odd = [o for o in variant.options if o not in self.options]
            odd += [c for c in variant.config if c not in {f.name for f in dataclasses.fields(TrainConfig)}]
            if odd:
                raise InputError(f"Recipe {self.name}: variant {name!r} sets {odd[0]!r}, which it does not have.")

    @property
    def default(self) -> str:
        """The name of the variant that is trained when none is named."""
        return next(iter(self.variants), DEFAULT)

    def variant(self, name: str | None) -> Variant:
        """The variant of that name, the default one for None. Raises UsageError with the known names."""
        if name is None or name == DEFAULT:
            return self.variants.get(self.default, Variant(self.about))
        if name not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise UsageError(f"{self.name} has no variant {name!r}; it has {known}.")
        return self.variants[name]


@cache
def recipe_modules() -> dict[str, str]:
    """Module names of the package's recipes, by slug; nothing is imported but the wings' folders.

    >>> recipe_modules()["hcl"]
    'vestige.recipes.forensics.hcl'
    """
    found: dict[str, str] = {}
    for wing in pkgutil.iter_modules(_folder(_PACKAGE), f"{_PACKAGE}."):
        if not wing.ispkg:
            continue
        for part in pkgutil.iter_modules(_folder(wing.name), f"{wing.name}."):
            slug = part.name.rpartition(".")[2]
            if part.ispkg or slug.startswith("_"):
                continue
            if slug in found:
                raise InputError(f"Two recipes are called {slug!r}: {found[slug]} and {part.name}.")
            found[slug] = part.name
    return found


def _folder(package: str) -> list[str]:
    """Where the modules of a package lie; recipes are a layer above this one, so they are looked up by name."""
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of a slug, or of a file that the user names.

    Files are run: only load those you trust. Raises InputError when there is none, with the nearest names, and when
    it fails or defines no recipe.
    """
    text = str(name)
    known = recipe_modules()
    if text in known:
        recipe = getattr(importlib.import_module(known[text]), "RECIPE", None)
        return recipe if isinstance(recipe, Recipe) else _no_recipe(text)
    path = Path(text)
    if path.suffix == ".py" and path.is_file():
        return _from_file(path)
    near = difflib.get_close_matches(path.stem, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "'vestige systems --role learn' lists them."
    raise InputError(f"There is no recipe {text!r}; {hint}")


def _from_file(path: Path) -> Recipe:
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
    return recipe if isinstance(recipe, Recipe) else _no_recipe(path)


def _no_recipe(name: object) -> Recipe:
    raise InputError(f"{name} defines no RECIPE = Recipe(...); docs/training.md says how one is written.")
