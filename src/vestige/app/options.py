"""Options that commands of several files share, and what they do. Light: it is imported before a command is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no text; exit codes and files only.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Results = Annotated[Path | None, typer.Option("--results", help="Folder of recorded results.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Worker processes; 0 takes every core.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Use only so many pictures.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute every cell again.")]
Paths = Annotated[list[Path], typer.Argument(help="Files, folders or globs; '-' reads one picture from stdin.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps; for methods with networks.")]
OutOrFolder = Annotated[Path | None, typer.Option("--out", "-o", help="Output file, or folder for several pictures.")]
Quality = Annotated[int, typer.Option("--quality", min=1, max=100, help="JPEG, WebP or AVIF quality.")]
KeepMetadata = Annotated[bool, typer.Option("--keep-metadata", help="Copy EXIF and XMP to the output.")]


def common(quiet: bool, seed: int, device: str) -> None:
    """Options every command shares. The device is checked only when it is not one every machine has."""
    from vestige.core import progress, runtime

    progress.set_quiet(quiet)
    runtime.seed_everything(seed)
    if device not in ("auto", "cpu"):
        runtime.device(device)
