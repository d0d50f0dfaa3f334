"""``vestige learn``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import Device, Quiet, common
from vestige.core.errors import UsageError


def learn(
    recipe: Annotated[str, typer.Argument(help="A system or recipe by its slug, or a recipe file (it is executed).")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; the folder of runs by default.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of data packs, or of your own pictures where it takes them.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Another arm of the recipe; 'list' names them.")
    ] = None,
    for_claims: Annotated[
        bool, typer.Option("--for-claims", help="Train every run that the claims rest on, resumable at any point.")
    ] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of a setting; repeatable.")] = None,
    budget: Annotated[float | None, typer.Option("--budget", help="Minutes of training.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    quiet: Quiet = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; the recipe's own by default.")] = None,
    device: Device = "auto",
) -> None:
    """Train a recipe, or continue its interrupted run, and report what it reached.

    vestige learn hcl trains the network of hcl; with --for-claims every arm that its claims compare.
    """
    from vestige.app.verbs import learning

    common(quiet, seed or 0, device)
    if variant == "list":
        raise typer.Exit(learning.list_variants(recipe))
    if for_claims:
        if out or data or variant or set_ or budget or fresh or seed is not None:
            raise UsageError("--for-claims trains runs as they are declared; leave the other options out.")
        raise typer.Exit(learning.for_claims(recipe, device, quiet))
    code = learning.run(recipe, out, data, set_ or [], budget, device, seed, quiet, fresh, variant)
    raise typer.Exit(code)
