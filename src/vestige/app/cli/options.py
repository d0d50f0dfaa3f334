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
Inputs = Annotated[
    list[Path] | None, typer.Argument(help="What the method works on; 'vestige systems METHOD' shows the exact words.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps; for methods with networks.")]
OutOrFolder = Annotated[Path | None, typer.Option("--out", "-o", help="Output file, or folder for several pictures.")]
Quality = Annotated[int, typer.Option("--quality", min=1, max=100, help="JPEG, WebP or AVIF quality.")]
KeepMetadata = Annotated[bool, typer.Option("--keep-metadata", help="Copy EXIF and XMP to the output.")]
KeyFile = Annotated[Path | None, typer.Option("--key", "-k", help="Key file; without one the public key is used.")]
Method = Annotated[str | None, typer.Option("--method", help="A system; 'vestige systems --role ROLE' lists them.")]
Mask = Annotated[Path | None, typer.Option("--mask", help="Picture of the same size, white where it counts.")]
Prompt = Annotated[str, typer.Option("--prompt", help="A caption or a beginning of text, for methods that take one.")]
Model = Annotated[Path | None, typer.Option("--model", help="A model file or folder that the method works with.")]
Data = Annotated[Path | None, typer.Option("--data", help="A folder of pictures or data packs.")]
Reference = Annotated[
    Path | None, typer.Option("--reference", help="What to compare with: an original, a retrained model.")
]
Message = Annotated[str | None, typer.Option("--message", "-m", help="Short text to hide (up to 8 bytes).")]
Build = Annotated[str, typer.Option("--build", help="MODULE:FUNCTION that builds the network (it is run).")]
Set = Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of the method; repeatable.")]


def common(quiet: bool, seed: int, device: str) -> None:
    """Options every command shares. The device is checked only when it is not one every machine has."""
    from vestige.core import progress, runtime

    progress.set_quiet(quiet)
    runtime.seed_everything(seed)
    if device not in ("auto", "cpu"):
        runtime.device(device)
