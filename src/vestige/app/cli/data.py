"""``vestige data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import Quiet, Seed, common


def data(
    what: Annotated[str, typer.Argument(help="scenes, fractals, tamper, distort or info.")],
    source: Annotated[Path | None, typer.Argument(help="Input picture or data set, where one is needed.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder or file.")] = Path("out/data"),
    n: Annotated[int, typer.Option("--n", min=1, help="How many pictures.")] = 16,
    size: Annotated[int, typer.Option("--size", min=32, max=512, help="Side in pixels.")] = 256,
    operation: Annotated[str, typer.Option("--operation", help="Tampering or distortion; 'list' names them.")] = "list",
    strength: Annotated[float | None, typer.Option("--strength", help="Strength of the distortion.")] = None,
    quiet: Quiet = False,
    seed: Seed = 0,
) -> None:
    """Make pictures (scenes, fractals), tamper with or distort them, or describe a data set."""
    from vestige.app.verbs import making

    common(quiet, seed, "auto")
    raise typer.Exit(making.run(what, source, out, n, size, operation, strength, seed, quiet))
