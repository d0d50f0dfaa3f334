"""``vestige learn``: train what a recipe describes."""

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

if TYPE_CHECKING:
    from vestige.engines.recipe import Recipe
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
) -> int:
    """Train a recipe, or go on where its run in ``out`` stopped; evaluate, and print what it reached.

    out: by default out/learn/NAME. data: folder of data packs, for this process also VESTIGE_DATA. set_: "name=value"
    for settings of `TrainConfig` and options of the recipe. budget: minutes of training; the learning rate then
    follows the time unless schedule_by is set. seed: None keeps the recipe's. fresh: start over.
    Raises UsageError for settings that do not exist or do not parse, and what `Trainer.run` raises.
    """
    from vestige.core import runtime
    from vestige.data.packs import find_data_root
    from vestige.engines.recipe import RecipeContext, load_recipe
    from vestige.engines.run_log import finite
    from vestige.engines.train import Trainer, clear_run

    if data is not None:
        if not data.is_dir():
            raise UsageError(f"--data {data} is not a folder of data packs.")
        os.environ["VESTIGE_DATA"] = str(data)  # where `named_pack` looks, here and in worker processes
    chosen = load_recipe(recipe)
    config, options = settings(chosen, set_, budget, seed)
    folder = out or Path("out/learn") / chosen.name
    where = runtime.device(device)
    if fresh:
        clear_run(folder)
    runtime.seed_everything(config.seed)  # for the weights the model starts with
    try:
        job = chosen.build(RecipeContext(find_data_root(), where, config.seed, config, folder, options, quiet))
    except KeyboardInterrupt:
        raise Interrupted("Interrupted before the training began; the same command prepares it again.") from None
    if not quiet:
        size = sum(p.numel() for p in job.model.parameters())
        print(f"{chosen.name}: {chosen.about}", file=sys.stderr)
        print(f"{size:,} parameters, {config.steps} steps on {where}, in {folder}", file=sys.stderr)
    trainer = Trainer(
        job.model, job.step, job.batches, config, out=folder, validate=job.validate, extra=job.extra,
        parameters=job.parameters, on_step=job.on_step, device=where, quiet=quiet,
        about={"recipe": chosen.name, **{f"option {name}": finite(value) for name, value in options.items()}},
    )  # fmt: skip
    result = trainer.run()
    if not trainer.leader:
        return OK
    runtime.seed_everything(config.seed)
    try:
        evaluation = finite(job.evaluate(result.model)) if job.evaluate is not None else {}
        if job.save is not None:
            job.save(result.model, folder)
    except KeyboardInterrupt:
        again = "the same command measures and saves it again."
        raise Interrupted(f"Interrupted; the training is finished and kept in {folder}, and {again}") from None
    metrics = {**result.metrics, "recipe": chosen.name, "evaluation": evaluation, "reach": dict(chosen.reach)}
    write_json(folder / "metrics.json", finite(metrics))
    if not quiet:
        _print(metrics, folder)
    return OK


def _print(metrics: Mapping[str, Any], out: Path) -> None:
    ended = " (the time was used up)" if metrics["stopped"] == "budget" else ""
    print(f"{metrics['step']} steps in {metrics['seconds']:.0f} s of training{ended}, loss {metrics['loss']:.4g}")
    measured = {**(metrics["validation"] or {}), **metrics["evaluation"]}
    for name, value in measured.items():
        if name != "step":
            print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
    for name, words in metrics["reach"].items():
        print(f"  to reach: {name} {words}")
    print(f"Written: {out}")


def settings(
    recipe: Recipe, set_: Sequence[str], budget: float | None = None, seed: int | None = None
) -> tuple[TrainConfig, dict[str, Any]]:
    """The recipe's configuration and options with the user's changes.

    Raises UsageError for an unknown name, with the nearest known ones, and for a value of the wrong kind.
    """
    hints = get_type_hints(type(recipe.config))
    changed: dict[str, Any] = {} if seed is None else {"seed": seed}
    if budget is not None:
        if not budget > 0:
            raise UsageError(f"--budget is {budget:g}; it must be above 0 minutes.")
        changed |= {"budget_seconds": budget * 60, "schedule_by": "time"}
    options = dict(recipe.options)
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
