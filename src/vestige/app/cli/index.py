"""``vestige index``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import Jobs, Json, Quiet, common


def index(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Folders, pictures, parquet files or tar shards to add.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The index: a folder, new or to be added to.")] = None,
    remove: Annotated[
        list[Path] | None, typer.Option("--remove", help="Take this file, or all below this folder, out; repeatable.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Take out pictures whose files are gone.")] = False,
    descriptor: Annotated[
        str, typer.Option("--descriptor", help="Of a new index: local, or a file that 'learn sscd' wrote.")
    ] = "",
    exact: Annotated[
        int, typer.Option("--exact-up-to", min=1000, help="Of a new index: code vectors once there are more.")
    ] = 100_000,
    jobs: Jobs = 1,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Index pictures so that their copies are found: vestige index FOLDER -o my.index, then find --in my.index.

    The same command adds what is new or changed, and goes on where it was interrupted.
    """
    from vestige.app.verbs import indexing

    common(quiet, 0, "cpu")
    raise typer.Exit(
        indexing.build(
            paths or [], out, remove or [], prune, descriptor, exact, jobs, as_json=json_, quiet=quiet,
        )
    )  # fmt: skip
