"""``vestige erase`` on pictures and on models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import (
    Device,
    Json,
    KeepMetadata,
    Model,
    OutOrFolder,
    Paths,
    Prompt,
    Quality,
    Quiet,
    Seed,
    common,
)
from vestige.core.errors import UsageError

_PANEL = "Pictures to forget from a model"


def erase(
    paths: Paths,
    what: Annotated[str, typer.Option("--what", help="faces, or region (with --mask).")] = "faces",
    mode: Annotated[str, typer.Option("--mode", help="For faces: blur, pixelate or fill.")] = "blur",
    mask: Annotated[Path | None, typer.Option("--mask", help="Picture of the same size, white where to erase.")] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="From 'vestige systems --role erase'; for models auto tries and recommends."),
    ] = None,
    out: OutOrFolder = None,
    quality: Quality = 95,
    keep_metadata: KeepMetadata = False,
    forget: Annotated[
        Path | None,
        typer.Option("--forget", help="Folder (class/*.png) to forget; PATHS is then a model.", rich_help_panel=_PANEL),
    ] = None,
    retain: Annotated[
        Path | None,
        typer.Option("--retain", help="Training pictures to keep, in the same form.", rich_help_panel=_PANEL),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Pictures never trained on, for the audit.", rich_help_panel=_PANEL),
    ] = None,
    build: Annotated[
        str, typer.Option("--build", help="MODULE:FUNCTION that builds the network (runs).", rich_help_panel=_PANEL)
    ] = "",
    classes: Annotated[
        Path | None,
        typer.Option("--classes", help="Names of the outputs, one a line.", rich_help_panel=_PANEL),
    ] = None,
    size: Annotated[
        int, typer.Option("--size", min=0, help="Side of the pictures; 0 for the model's.", rich_help_panel=_PANEL)
    ] = 0,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="The model retrained without them, to compare.", rich_help_panel=_PANEL),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", help="Key file; signs the certificate or audit record.", rich_help_panel=_PANEL),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the method; repeatable.", rich_help_panel=_PANEL)
    ] = None,
    budget: Annotated[
        float,
        typer.Option("--budget", min=0, help="Minutes that auto, and a full audit, may spend.", rich_help_panel=_PANEL),
    ] = 10.0,
    audit: Annotated[
        str,
        typer.Option(
            "--audit",
            help="brief, quick, or full: trains models to compare with, for LiRA and RMIA.",
            rich_help_panel=_PANEL,
        ),
    ] = "quick",
    shadows: Annotated[
        int, typer.Option("--shadows", min=4, help="Models that a full audit trains.", rich_help_panel=_PANEL)
    ] = 4,
    prompt: Prompt = "",
    model: Model = None,
    json_: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Remove faces or a masked region from pictures, or make a model forget pictures (with --forget).

    vestige erase model.safetensors --forget requests/ --retain retain/ --test test/ --out forgotten.safetensors
    writes the new model and its audit; the exit code is the audit's verdict's (0: deleted). --sign signs it.
    """
    common(quiet, seed, device)
    from vestige.app.verbs import working

    if working.has_tool("erase", method):
        work = {
            "method": method, "paths": tuple(paths), "out": out, "mask": mask, "prompt": prompt, "model": model,
            "data": forget, "retain": retain, "test": test, "reference": reference, "build": build, "seed": seed,
            "device": device, "quiet": quiet,
        }  # fmt: skip
        code = working.offered("erase", work, None, set_ or (), json_)
        if code is not None:
            raise typer.Exit(code)
    if prompt or model:
        raise UsageError("--prompt and --model belong to --method SYSTEM.")
    if forget is None:
        if retain or test or build or classes or reference or sign or set_ or size:
            raise UsageError("--retain, --test and their like belong to a model; name what to forget with --forget.")
        from vestige.app.verbs import editing

        raise typer.Exit(editing.erase_files(paths, out, what, mode, mask, method, quality, keep_metadata, quiet))
    from vestige.app.forgetting import run as forgetting

    if audit not in ("brief", "quick", "full"):
        raise UsageError(f"--audit is {audit!r}; choose brief, quick or full.")
    if len(paths) != 1 or retain is None or out is None:
        raise UsageError("Give one model, --forget FOLDER, --retain FOLDER and --out FILE.")
    request = forgetting.Request(
        paths[0], forget, retain, out, test, method or "auto", build, size, classes, reference, sign, tuple(set_ or ()),
        budget, seed, device, audit, shadows,
    )  # fmt: skip
    raise typer.Exit(forgetting.run(request, as_json=json_, quiet=quiet))
