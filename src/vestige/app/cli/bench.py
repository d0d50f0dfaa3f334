"""``vestige bench``: its commands. What they need is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import Fresh, Jobs, Limit, Quiet, Results, Seed, common

bench_app = typer.Typer(name="bench", help="Compare methods under one protocol.", no_args_is_help=True)


@bench_app.command("watermark")
def bench_watermark(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures or folders; the test photographs of the data packs by default."),
    ] = None,
    methods: Annotated[
        str,
        typer.Option("--methods", help="Markers with options, as spread_spectrum:strength=0.2,...; or all."),
    ] = "all",
    attacks: Annotated[
        str, typer.Option("--attacks", help="Suites and attacks, as signal,jpeg:50,resize:0.5+jpeg:70.")
    ] = "classic,collusion,forgery,regeneration,editing",
    strengths: Annotated[str, typer.Option("--strengths", help="quick or full ladder of every attack.")] = "quick",
    limit: Limit = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of table, figures and page.")] = Path(
        "out/bench/watermark"
    ),
    results: Results = None,
    bits: Annotated[int, typer.Option("--bits", min=1, help="Payload bits.")] = 32,
    nulls: Annotated[int, typer.Option("--nulls", min=1, help="Keys that each unmarked picture is read with.")] = 4,
    side: Annotated[
        int, typer.Option("--side", min=0, help="Longest side of the pictures; 0 keeps their size.")
    ] = 1024,
    model: Annotated[
        str,
        typer.Option("--model", help="Diffusers folder for regeneration and editing, or shipped: our model of scenes."),
    ] = "",
    autoencoder: Annotated[Path | None, typer.Option("--autoencoder", help="AutoencoderKL or -Tiny folder.")] = None,
    captioner: Annotated[Path | None, typer.Option("--captioner", help="Image-to-text folder of transformers.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a whole chain of diffusion.")] = 50,
    jobs: Jobs = 0,
    fresh: Fresh = False,
    quiet: Quiet = False,
    seed: Seed = 0,
) -> None:
    """Marks against attacks: detection at fixed false-positive rates, bits, quality and time. Runs can be resumed."""
    from vestige.app.verbs import benching
    from vestige.bench.watermark.cells import SHIPPED_MODEL, Settings

    common(quiet, seed, "auto")
    settings = Settings(
        bits=bits, nulls=nulls, side=side, seed=seed, model=str(SHIPPED_MODEL) if model == "shipped" else model,
        autoencoder=str(autoencoder or ""), captioner=str(captioner or ""), steps=steps,
    )  # fmt: skip
    raise typer.Exit(
        benching.watermark(
            paths or [], methods=methods, attacks=attacks, strengths=strengths, limit=limit, out=out, results=results,
            settings=settings, jobs=jobs, fresh=fresh, quiet=quiet,
        )
    )  # fmt: skip


@bench_app.command("forensics")
def bench_forensics(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of CASIA, Columbia, Coverage, NIST16, IMD2020, GenImage, FaceForensics++ or DFDC as "
            "published, or with a labels.csv; by default edits (fakes, for generated) made of photographs."
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            "--methods", help="Examiners, as ela,noise_level,...; edit, generated, all or panel; auto fits the set."
        ),
    ] = "auto",
    ladder: Annotated[
        str | None,
        typer.Option(
            "--ladder",
            help="Post-processing, as none,jpeg:80,resize:0.75+jpeg:80,platform; sear and laundering are attacks.",
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option("--groups", help="groups.csv: column file and columns of groups, for the table of fairness."),
    ] = None,
    limit: Limit = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of tables, figures and page.")] = Path(
        "out/bench/forensics"
    ),
    results: Results = None,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames taken from each clip.")] = 4,
    jobs: Jobs = 0,
    fresh: Fresh = False,
    quiet: Quiet = False,
    seed: Seed = 0,
) -> None:
    """Examiners under post-processing: where, whether, how often wrong, and how fairly. Runs can be resumed."""
    from vestige.app.verbs import benching_forensics

    common(quiet, seed, "auto")
    raise typer.Exit(
        benching_forensics.forensics(
            folders or [], methods=methods, steps=ladder, groups=groups, limit=limit, out=out, results=results,
            frames=frames, jobs=jobs, fresh=fresh, quiet=quiet, seed=seed,
        )
    )  # fmt: skip


@bench_app.command("unlearning")
def bench_unlearning(
    methods: Annotated[
        str, typer.Option("--methods", help="Erasers with options, as finetune,ssd:alpha=5; or all.")
    ] = "all",
    problems: Annotated[str, typer.Option("--problems", help="What is forgotten: class, random, or all.")] = "all",
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=99, help="How many seeds, from 0 on.")] = 3,
    data: Annotated[
        str, typer.Option("--data", help="A folder of data packs (CIFAR-10), or scenes: rendered, no data needed.")
    ] = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of table, figures and page.")] = Path(
        "out/bench/unlearning"
    ),
    results: Results = None,
    folder: Annotated[Path, typer.Option("--work", help="Folder of trained networks, shared by all runs.")] = Path(
        "out/unlearning"
    ),
    images: Annotated[
        int, typer.Option("--images", min=100, help="Training pictures; two fifths as many to test.")
    ] = 5000,
    width: Annotated[
        float, typer.Option("--width", min=0.03, max=4, help="Width of the ResNet-18; 1 is full.")
    ] = 0.125,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of training and retraining.")] = 12,
    jobs: Jobs = 0,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> None:
    """Erasers of knowledge against retraining: accuracy, membership, gap and time. Runs can be resumed."""
    from vestige.app.verbs import benching_unlearning
    from vestige.bench.unlearning.world import Settings

    common(quiet, 0, "auto")
    drawn = data == "scenes"
    settings = Settings(
        "scenes" if drawn else "cifar10", images, val=images // 5, test=2 * images // 5, width=width, epochs=epochs
    )
    raise typer.Exit(
        benching_unlearning.unlearning(
            methods=methods, kinds=problems, seeds=seeds, out=out, results=results,
            data=None if drawn or not data else Path(data), folder=folder, settings=settings, jobs=jobs, fresh=fresh,
            quiet=quiet,
        )
    )  # fmt: skip
