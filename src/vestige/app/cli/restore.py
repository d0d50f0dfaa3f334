"""``vestige restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import (
    Device,
    Json,
    KeepMetadata,
    KeyFile,
    Model,
    OutOrFolder,
    Paths,
    Quality,
    Quiet,
    Seed,
    Set,
    common,
)
from vestige.core.errors import UsageError


def restore(
    paths: Paths,
    what: Annotated[str, typer.Option("--what", help="noise, holes (with --mask) or size.")] = "noise",
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Picture of the same size, white where it is missing.")
    ] = None,
    scale: Annotated[float, typer.Option("--scale", help="Enlargement for --what size.")] = 2.0,
    method: Annotated[
        str | None, typer.Option("--method", help="A restorer from 'vestige systems --role restore'.")
    ] = None,
    out: OutOrFolder = None,
    model: Model = None,
    key: KeyFile = None,
    set_: Set = None,
    json_: Json = False,
    quality: Quality = 95,
    keep_metadata: KeepMetadata = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Bring pictures back: remove noise, fill holes, enlarge."""
    from vestige.app.verbs import editing, working

    common(quiet, seed, device)
    if working.has_tool("restore", method):
        work = {
            "method": method, "paths": tuple(paths), "out": out, "mask": mask, "model": model, "seed": seed,
            "device": device, "quiet": quiet,
        }  # fmt: skip
        raise typer.Exit(working.run("restore", work, key, set_ or (), json_))
    if model or key or set_ or json_:
        raise UsageError("--model, --key, --set and --json belong to --method SYSTEM.")
    raise typer.Exit(editing.restore_files(paths, out, what, mask, scale, method, quality, keep_metadata, quiet))
