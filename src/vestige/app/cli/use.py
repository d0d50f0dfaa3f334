"""``vestige attack``, ``measure`` and ``make``: what a system does with files; ``vestige starter``: files to try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from vestige.app.cli.options import (
    Build,
    Data,
    Device,
    Inputs,
    Json,
    KeyFile,
    Mask,
    Message,
    Method,
    Model,
    OutOrFolder,
    Prompt,
    Quiet,
    Reference,
    Seed,
    Set,
    common,
)


def attack(
    paths: Inputs = None,
    method: Method = None,
    out: OutOrFolder = None,
    mask: Mask = None,
    prompt: Prompt = "",
    model: Model = None,
    data: Data = None,
    reference: Reference = None,
    key: KeyFile = None,
    message: Message = None,
    build: Build = "",
    set_: Set = None,
    json_: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Attack what protects or examines a picture, a text, a data set or a model, to see whether it holds.

    vestige attack marked.png --method ctrlregen -o attacked.png
    """
    _use("attack", locals())


def measure(
    paths: Inputs = None,
    method: Method = None,
    out: OutOrFolder = None,
    mask: Mask = None,
    prompt: Prompt = "",
    model: Model = None,
    data: Data = None,
    reference: Reference = None,
    key: KeyFile = None,
    message: Message = None,
    build: Build = "",
    set_: Set = None,
    json_: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Measure a property of pictures, data sets or models and print its figures.

    vestige measure before.png after.png --method pixar
    """
    _use("measure", locals())


def make(
    paths: Inputs = None,
    method: Method = None,
    out: OutOrFolder = None,
    mask: Mask = None,
    prompt: Prompt = "",
    model: Model = None,
    data: Data = None,
    reference: Reference = None,
    key: KeyFile = None,
    message: Message = None,
    build: Build = "",
    set_: Set = None,
    json_: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Make or edit pictures and texts with a generative model.

    vestige make photo.png --method infedit --prompt "a red boat on sand" -o edited.png
    """
    _use("make", locals())


def _use(verb: str, given: dict[str, object]) -> None:
    """Carry out a verb with the options of its command."""
    from vestige.app.verbs import working

    quiet, seed, device = given["quiet"], given["seed"], given["device"]
    assert isinstance(quiet, bool)
    assert isinstance(seed, int)
    assert isinstance(device, str)
    common(quiet, seed, device)
    key, set_, as_json = given.pop("key"), given.pop("set_"), given.pop("json_")
    work: dict[str, Any] = {**given, "paths": tuple(cast(list[Path], given["paths"] or []))}
    names = cast(list[str], set_ or [])
    raise typer.Exit(working.run(verb, work, cast(Path | None, key), names, bool(as_json)))


def starter(
    out: Annotated[Path, typer.Argument(help="New folder for the kit.")],
    quiet: Quiet = False,
) -> None:
    """Write a kit of small files to try every command on: pictures, data sets, models, texts, a clip, and a README."""
    from vestige.app.verbs import kit

    common(quiet, 0, "cpu")
    raise typer.Exit(kit.write(out, quiet))
