"""``vestige find``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import Build, Data, Device, Json, Mask, Model, Paths, Quiet, Reference, Seed, Set, common
from vestige.core.errors import UsageError

Megapixels = Annotated[float, typer.Option("--max-megapixels", min=0.001, help="Largest picture to decode.")]


def _print_schema(asked: bool) -> None:
    if asked:
        import json

        from vestige.app.report.json_report import schema

        print(json.dumps(schema(), indent=2))
        raise typer.Exit


def find(
    paths: Paths,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for report.html, report.json and a resumable manifest.")
    ] = None,
    json_: Json = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained HTML report here.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a table with a row for every file here.")] = None,
    sarif: Annotated[Path | None, typer.Option("--sarif", help="Write scans of models as SARIF 2.1.0 here.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", is_eager=True, callback=_print_schema, help="Print the JSON Schema and stop.")
    ] = False,
    key: Annotated[list[Path] | None, typer.Option("--key", "-k", help="Key file to look for marks with.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Use only this examiner; repeatable. 'panel' among them is the default panel."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Worker processes; 0 takes every core.")] = 0,
    timeout: Annotated[
        int, typer.Option("--timeout", min=0, help="Seconds per picture or frame; 0 waits for ever.")
    ] = 120,
    max_megapixels: Megapixels = 120.0,
    every: Annotated[
        float | None, typer.Option("--every", help="Seconds between the frames of a clip; at most 120 frames.")
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option("--prior", help="Share of such pictures that carry a trace, for every probability (0.1)."),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Do not try verdicts near a threshold again on the picture saved again.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Examine what is there of damaged pictures; the report says how much.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do every file again instead of resuming.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 6 when a trace is found.")] = False,
    in_: Annotated[
        Path | None, typer.Option("--in", help="Look for copies of the pictures in this index instead.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="Candidates compared, with --in.")] = 10,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Probability from which on --in claims a copy.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the evidence of every examiner.")] = False,
    model: Model = None,
    data: Data = None,
    mask: Mask = None,
    reference: Reference = None,
    build: Build = "",
    set_: Set = None,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Say what was done to pictures, clips and pictures in documents: edits, compression, marks, origin, copies.

    Models are scanned for code. Every file that was put in is accounted for. With --out, a run that was interrupted
    continues where it stopped. With --in, copies of the pictures are looked for in an index instead.
    """
    from vestige.app.verbs import finding

    common(quiet, seed, device)
    if in_ is not None:
        if only or data or mask or reference or build or set_ or model or key or html or csv or sarif or every:
            raise UsageError("With --in only --out, --json, --top, --threshold, --prior, --verbose and --quiet count.")
        from vestige.app.verbs import indexing

        wanted = indexing.Wanted(in_, out, json_, top, threshold, prior, verbose, exit_code, quiet)
        raise typer.Exit(indexing.look(paths, wanted))
    if threshold is not None or top != 10:
        raise UsageError("--top and --threshold belong to --in INDEX.")
    if only and len(only) == 1 and only[0] != "panel":
        from vestige.app.verbs import working

        if working.has_tool("find", only[0]):
            work = {
                "method": only[0], "paths": tuple(paths), "out": out, "model": model, "data": data, "mask": mask,
                "reference": reference, "build": build, "seed": seed, "device": device, "quiet": quiet,
            }  # fmt: skip
            code = working.offered("find", work, key[0] if key else None, set_ or (), json_)
            if code is not None:
                raise typer.Exit(code)
    if data or mask or reference or build or set_ or (model and (len(only or ()) != 1 or only == ["panel"])):
        raise UsageError("--model, --data, --mask, --reference, --build and --set belong to --only SYSTEM.")
    code = finding.run(
        paths,
        out=out,
        as_json=json_,
        html=html,
        keys=key or [],
        only=only or [],
        jobs=jobs,
        timeout=timeout,
        max_megapixels=max_megapixels,
        every=every,
        fresh=fresh,
        verbose=verbose,
        quiet=quiet,
        model=model,
        prior=prior,
        fast=fast,
        csv=csv,
        sarif=sarif,
        exit_code=exit_code,
        partial=partial,
    )
    raise typer.Exit(code)
