"""``vestige systems``, ``claims`` and ``calibrate``: the catalogue and what stands behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import Device, Json, Quiet, Results, Seed, common


def systems(
    slug: Annotated[str | None, typer.Argument(help="Show one system.")] = None,
    wing: Annotated[str | None, typer.Option("--wing", help="Only this wing.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="Only systems with this role.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="works, built or planned.")] = None,
    papers: Annotated[
        bool, typer.Option("--papers", help="Published systems alone, without reference methods and default tools.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/SYSTEMS.md.")] = False,
    pages: Annotated[Path | None, typer.Option("--pages", help="Write a page for each built system here.")] = None,
    json_: Json = False,
    results: Results = None,
) -> None:
    """What works today, by verb; with a name, everything about one system: commands, weights, claims and figures."""
    from vestige.app.verbs import listing

    raise typer.Exit(listing.run(slug, wing, role, status, papers, markdown, pages, json_, results))


def claims(
    slugs: Annotated[list[str] | None, typer.Argument(help="Systems whose claims to run; all by default.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of data packs (photos/, scenery/, ...).")] = None,
    results: Results = None,
    json_: Json = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Use only so many pictures; not recorded.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Worker processes; 0 takes every core.")] = 0,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Check what systems claim, on data they never saw, and record the outcome in results/."""
    from vestige.app.verbs import claiming

    common(quiet, seed, device)
    raise typer.Exit(claiming.run(slugs or [], data, results, json_, limit, jobs, seed, quiet))


def calibrate(
    data: Annotated[Path | None, typer.Option("--data", help="Folder of data packs (photos/, scenery/).")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Calibration file; the shipped one by default.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Calibrate this examiner and keep the others (repeatable).")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Use only so many pictures.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Worker processes; 0 takes every core.")] = 0,
    quiet: Quiet = False,
    seed: Seed = 0,
) -> None:
    """Set the examiners' thresholds and probabilities on validation photographs."""
    from vestige.app.verbs import claiming

    common(quiet, seed, "auto")
    raise typer.Exit(claiming.calibrate(data, out, limit, jobs, seed, only or []))
