"""``vestige learn``: train what a recipe describes, one variant or all that claims rest on."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from vestige.core.errors import OK, Interrupted, UsageError
from vestige.core.files import write_json
from vestige.core.printing import say

if TYPE_CHECKING:
    from vestige.engines.recipe import Recipe, RecipeContext
    from vestige.engines.train import TrainConfig


def run(
    recipe: str,
    out: Path | None = None,
    data: Path | None = None,
    set_: Sequence[str] = (),
    budget: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    quiet: bool = False,
    fresh: bool = False,
    variant: str | None = None,
) -> int:
    """Train a recipe, or go on where its run stopped; evaluate, and print what it reached.

    recipe: a slug or the path of a recipe file. out: by default the run's place in the folder of runs. data: folder of
    data packs, for this process also VESTIGE_DATA; or, where the recipe takes them, a folder of the user's pictures.
    set_: "name=value" for settings of `TrainConfig` and options of the recipe. budget: minutes of training; the
    learning rate then follows the time unless schedule_by is set. seed: None keeps the recipe's. fresh: start over.
    variant: an arm of the recipe, its default one for None.
    Raises UsageError for settings that do not exist or do not parse, and what `Trainer.run` raises.
    """
    from vestige.core import runtime
    from vestige.data.packs import find_data_root
    from vestige.engines.recipe import RecipeContext, load_recipe
    from vestige.engines.run_log import finite
    from vestige.engines.runs import run_folder
    from vestige.engines.train import clear_run

    chosen = load_recipe(recipe)
    pictures = _data_folder(chosen, data)
    name = chosen.default if variant is None else variant
    config, options = settings(chosen, set_, budget, seed, name)
    changed = bool(set_ or budget or pictures)
    folder = out or (
        run_folder(chosen.name, name, config.seed) if not changed else Path("out/learn") / chosen.name / name
    )
    where = runtime.device(device)
    if fresh:
        clear_run(folder)
    runtime.seed_everything(config.seed)  # for the weights the model starts with
    context = RecipeContext(
        find_data_root(), where, config.seed, config, folder, options, quiet, name, pictures
    )  # fmt: skip
    facts = {"recipe": chosen.name, "variant": name, "seed": config.seed, "judged_by": chosen.judged_by}
    if not quiet:
        print(f"{chosen.name}, {name}: {chosen.variant(name).about}", file=sys.stderr)
    metrics = _performed(chosen, context) if chosen.perform is not None else _trained(chosen, context)
    if metrics is None:  # not the process that writes
        return OK
    metrics = {**metrics, **facts, "options": options, "reach": dict(chosen.reach)}
    write_json(folder / "metrics.json", finite(metrics))
    if not quiet:
        _print(metrics, folder)
    return OK


def for_claims(slug: str, device: str = "auto", quiet: bool = False) -> int:
    """Train every run that the claims of a system rest on, one after the other; finished ones are left as they are.

    Stopped or killed at any point, the same command goes on. Raises UsageError when the claims need no run.
    """
    from vestige.claims import missing_runs, needs_of, runs_needed
    from vestige.core.catalogue import system

    needed = runs_needed(needs_of(system(slug)))
    if not needed:
        raise UsageError(f"The claims of {slug} rest on no training; 'vestige claims {slug}' runs them.")
    left = missing_runs(slug)
    for number, (recipe, variant, seed) in enumerate(left, len(needed) - len(left) + 1):
        if not quiet:
            print(f"run {number} of {len(needed)}: {recipe}/{variant}/{seed}", file=sys.stderr)
        run(recipe, seed=seed, variant=variant, device=device, quiet=quiet)
    if not quiet:
        print(f"All {len(needed)} runs of {slug} are there; 'vestige claims {slug}' judges them.")
    return OK


def list_variants(name: str) -> int:
    """Print the arms of a recipe, with the seeds that claims rest on."""
    from vestige.engines.recipe import load_recipe

    recipe = load_recipe(name)
    for arm, variant in (recipe.variants or {recipe.default: recipe.variant(None)}).items():
        seeds = ", ".join(map(str, variant.seeds)) or "none"
        print(f"{arm}: {variant.about} (seeds for claims: {seeds})")
    return OK


def _data_folder(chosen: Recipe, data: Path | None) -> Path | None:
    """Point the packs at ``data``, or return it where it holds pictures that the recipe learns from."""
    if data is None:
        return None
    if not data.exists():
        raise UsageError(f"--data {data} does not exist; check the path.")
    packs = data.is_dir() and any(p.is_dir() and any(p.glob("*.parquet")) for p in data.iterdir())
    if packs or (data.is_dir() and not chosen.takes_pictures):
        os.environ["VESTIGE_DATA"] = str(data)  # where `named_pack` looks, here and in worker processes
        return None
    if not chosen.takes_pictures:
        raise UsageError(f"--data {data} is not a folder of data packs.")
    from vestige.core.dataset import DatasetSubject

    DatasetSubject.open(data)  # refused here, before anything is prepared, when it holds no pictures
    return data


def _performed(chosen: Recipe, context: RecipeContext) -> dict[str, Any]:
    """The result of a recipe of several trainings."""
    import time

    from vestige.core import runtime

    assert chosen.perform is not None
    began, cores = time.perf_counter(), time.process_time()
    try:
        evaluation = dict(chosen.perform(context))
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; finished parts are kept in {context.out}: the same command goes on.") from None
    return {
        "step": evaluation.pop("updates", None), "seconds": round(time.perf_counter() - began, 3),
        "core_seconds": round(time.process_time() - cores, 3), "stopped": "steps",
        "loss": None, "validation": None, "evaluation": evaluation, "versions": runtime.versions(),
        "hardware": runtime.hardware(),
    }  # fmt: skip


def _trained(chosen: Recipe, context: RecipeContext) -> dict[str, Any] | None:
    """The result of one training; None in processes of a parallel run that write nothing."""
    from vestige.core import runtime
    from vestige.engines.run_log import finite
    from vestige.engines.train import Trainer

    assert chosen.build is not None
    config, folder, options = context.config, context.out, context.options
    try:
        job = chosen.build(context)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted before the training began; the same command prepares it again.") from None
    if not context.quiet:
        size = sum(p.numel() for p in job.model.parameters())
        print(f"{size:,} parameters, {config.steps} steps on {context.device}, in {folder}", file=sys.stderr)
    trainer = Trainer(
        job.model, job.step, job.batches, config, out=folder, validate=job.validate, extra=job.extra,
        parameters=job.parameters, on_step=job.on_step, device=context.device, quiet=context.quiet,
        about={"recipe": chosen.name, **{f"option {name}": finite(value) for name, value in options.items()}},
    )  # fmt: skip
    result = trainer.run()
    if not trainer.leader:
        return None
    runtime.seed_everything(config.seed)
    try:
        evaluation = finite(job.evaluate(result.model)) if job.evaluate is not None else {}
        if job.save is not None:
            job.save(result.model, folder)
    except KeyboardInterrupt:
        again = "the same command measures and saves it again."
        raise Interrupted(f"Interrupted; the training is finished and kept in {folder}, and {again}") from None
    return {**result.metrics, "evaluation": evaluation}


def _print(metrics: Mapping[str, Any], out: Path) -> None:
    ended = " (the time was used up)" if metrics["stopped"] == "budget" else ""
    if metrics["loss"] is not None:
        print(f"{metrics['step']} steps in {metrics['seconds']:.0f} s of training{ended}, loss {metrics['loss']:.4g}")
    measured = {**(metrics["validation"] or {}), **metrics["evaluation"]}
    for name, value in measured.items():
        if name != "step" and not isinstance(value, list | dict):
            print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
    for name, words in metrics["reach"].items():
        print(f"  to reach: {name} {words}")
    say(f"Written: {out}")


def settings(
    recipe: Recipe, set_: Sequence[str], budget: float | None = None, seed: int | None = None,
    variant: str | None = None,
) -> tuple[TrainConfig, dict[str, Any]]:  # fmt: skip
    """The recipe's configuration and options with the variant's and the user's changes.

    Raises UsageError for an unknown name, with the nearest known ones, and for a value of the wrong kind.
    """
    hints = get_type_hints(type(recipe.config))
    arm = recipe.variant(variant)
    changed: dict[str, Any] = {**arm.config, **({} if seed is None else {"seed": seed})}
    if budget is not None:
        if not budget > 0:
            raise UsageError(f"--budget is {budget:g}; it must be above 0 minutes.")
        changed |= {"budget_seconds": budget * 60, "schedule_by": "time"}
    options = {**recipe.options, **arm.options}
    for item in set_:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals:
            raise UsageError(f"--set {item!r} has no value; write {item}=VALUE.")
        if name in hints:
            changed[name] = parse(text, hints[name], name)
        elif name in options:
            options[name] = parse(text, _kind(options[name]), name)
        else:
            known = [*hints, *options]
            near = difflib.get_close_matches(name, known, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}."
            raise UsageError(f"{recipe.name} has no setting {name!r}; {hint}")
    return dataclasses.replace(recipe.config, **changed), options


def _kind(default: Any) -> Any:
    """The type of an option, from its default: a list's is that of its first element; None takes what fits."""
    if default is None:
        return int | float | bool | str | None
    if isinstance(default, list | tuple):
        return types.GenericAlias(tuple, (_kind(default[0]) if default else str, ...))
    return type(default)


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse(text: str, kind: Any, name: str = "value") -> Any:
    """``text`` as a value of the type ``kind``: int, float, bool, str, Literal, None, unions and tuples of these.

    Raises UsageError naming what was expected.

    >>> parse("1e-3", float), parse("none", float | None), parse("0.9, 0.95", tuple[float, float]), parse("on", bool)
    (0.001, None, (0.9, 0.95), True)
    """
    try:
        return _parse(text.strip(), kind)
    except ValueError:
        raise UsageError(f"{name}={text} is not {_words(kind)}.") from None


def _parse(text: str, kind: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        for one in sorted(inner, key=lambda t: (t is not type(None), t is str)):  # text takes anything: last
            try:
                return _parse(text, one)
            except ValueError:
                continue
        raise ValueError
    if origin is Literal:
        return next((word for word in inner if str(word) == text), None) or _fail()
    if origin is tuple:
        parts = [p for p in text.strip("()[]").split(",") if p.strip()]
        kinds = [inner[0]] * len(parts) if inner[-1] is ... else list(inner)
        if len(kinds) != len(parts):
            raise ValueError
        return tuple(_parse(p.strip(), k) for p, k in zip(parts, kinds, strict=True))
    if kind is type(None):
        return None if text.lower() in ("none", "null", "") else _fail()
    if kind is bool:
        return _WORDS[text.lower()] if text.lower() in _WORDS else _fail()
    if kind is int and ("e" in text.lower() or "_" in text) and float(text).is_integer():
        return int(float(text))
    return kind(text)


def _fail() -> Any:
    raise ValueError


def _words(kind: Any) -> str:
    """A type in words, for messages."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(k) for k in inner)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        return f"{'some' if inner[-1] is ... else len(inner)} values with commas between, each {_words(inner[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))
