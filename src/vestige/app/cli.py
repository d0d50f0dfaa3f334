"""The command line. Commands import what they need when they run, so that ``--help`` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from vestige.app.cli_bench import bench_app
from vestige.app.cli_erase import erase, verify
from vestige.app.options import Device, Json, KeepMetadata, OutOrFolder, Paths, Quality, Quiet, Results, Seed, common
from vestige.core import errors
from vestige.core.errors import VestigeError


class _Commands(typer.core.TyperGroup):
    """Ctrl-C in a command that says nothing about it itself still ends in a sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise errors.Interrupted("Interrupted; files that were finished are kept.") from None


app = typer.Typer(
    name="vestige",
    cls=_Commands,
    help="Find, mark, erase and restore the traces hidden in images and in the models that read and make them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

One = Annotated[Path, typer.Argument(help="A picture; '-' reads it from stdin.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Output file; '-' writes to stdout.")]
KeyFile = Annotated[Path | None, typer.Option("--key", "-k", help="Key file; without one the public key is used.")]
Megapixels = Annotated[float, typer.Option("--max-megapixels", min=0.001, help="Largest picture to decode.")]
UserFile = Annotated[Path, typer.Option("--registry", "-r", help="File of users and their fingerprints.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Weights of the fingerprinter; else the shipped ones.")]


def _print_version(asked: bool) -> None:
    if asked:
        from vestige import __version__

        print(f"vestige {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def find(
    paths: Paths,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for report.html, report.json and a resumable manifest.")
    ] = None,
    json_: Json = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained HTML report here.")] = None,
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Do every file again instead of resuming.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 6 when a trace is found.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the evidence of every examiner.")] = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Say what was done to pictures and clips: edits, earlier compression, marks, hidden data, origin, copies.

    A model file is scanned for code instead. With --out, a run that was interrupted continues where it stopped.
    """
    from vestige.app import finding

    common(quiet, seed, device)
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
    )
    if code == errors.TRACE_FOUND and not exit_code:
        code = errors.OK
    raise typer.Exit(code)


@app.command()
def mark(
    paths: Paths,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Short text to hide (up to 8 bytes).")] = None,
    bits: Annotated[str | None, typer.Option("--bits", help="Payload as hexadecimal digits (up to 16).")] = None,
    key: KeyFile = None,
    out: OutOrFolder = None,
    method: Annotated[
        str, typer.Option("--method", help="A marker from 'vestige systems --role mark'.")
    ] = "spread_spectrum",
    strength: Annotated[float | None, typer.Option("--strength", help="Embedding strength of the method.")] = None,
    quality: Quality = 95,
    keep_metadata: KeepMetadata = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Hide a keyed, invisible payload in pictures, or a keyed mark in text files (.txt, .md).

    Read it back with 'vestige read' and the same key.
    """
    from vestige.app import marking, texts

    common(quiet, seed, device)
    if texts.are_texts(paths):
        raise typer.Exit(texts.mark_texts(paths, out, message or bits, key, quiet))
    options = {} if strength is None else {"strength": strength}
    raise typer.Exit(marking.mark_files(paths, out, message, bits, key, method, options, quality, keep_metadata, quiet))


@app.command()
def read(
    paths: Paths,
    key: KeyFile = None,
    method: Annotated[str, typer.Option("--method", help="The marker that made the mark.")] = "spread_spectrum",
    json_: Json = False,
    quiet: Quiet = False,
    device: Device = "auto",
) -> None:
    """Read marks. Exit code 0: read; 3: marked but unreadable; 4: not marked (the highest of all files)."""
    from vestige.app import marking, texts

    common(quiet, 0, device)
    if texts.are_texts(paths):
        raise typer.Exit(texts.read_texts(paths, key, json_, quiet))
    raise typer.Exit(marking.read_files(paths, key, method, json_, quiet))


@app.command()
def stamp(
    folder: Annotated[Path, typer.Argument(help="A diffusers folder: a pipeline, or its autoencoder alone.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The user's copy; it must not exist.")],
    user: Annotated[str, typer.Option("--user", "-u", help="Name of the user who gets the copy.")],
    registry: UserFile,
    key: KeyFile = None,
    weights: Weights = None,
) -> None:
    """Make a user's own copy of an image generator, whose every picture names the user."""
    from vestige.app import users

    raise typer.Exit(users.stamp(folder, out, user, registry, key, weights))


@app.command()
def whose(
    paths: Paths,
    registry: UserFile,
    rate: Annotated[float, typer.Option("--rate", min=1e-12, max=0.5, help="Accepted rate of false names.")] = 1e-3,
    weights: Weights = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Name the user whose stamped generator made a picture. Exit code 4: nobody in the registry."""
    from vestige.app import users

    raise typer.Exit(users.whose(paths, registry, weights, rate, json_, quiet))


@app.command()
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
    quality: Quality = 95,
    keep_metadata: KeepMetadata = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Bring pictures back: remove noise, fill holes, enlarge."""
    from vestige.app import editing

    common(quiet, seed, device)
    raise typer.Exit(editing.restore_files(paths, out, what, mask, scale, method, quality, keep_metadata, quiet))


@app.command()
def key(path: Annotated[Path, typer.Argument(help="New key file; it must not exist.")]) -> None:
    """Make a secret key for marks, readable by you alone."""
    from vestige.core.keys import fingerprint, generate_key

    made = generate_key(path)
    print(f"{path}: new key {fingerprint(made)}. Keep it: without it its marks cannot be read.")


@app.command()
def systems(
    slug: Annotated[str | None, typer.Argument(help="Show one system.")] = None,
    wing: Annotated[str | None, typer.Option("--wing", help="Only this wing.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="Only systems with this role.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="planned, implemented or working.")] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="List reference methods and examiners too.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/SYSTEMS.md.")] = False,
    json_: Json = False,
    results: Results = None,
) -> None:
    """List the systems with wing, role and status."""
    from vestige.app import listing

    raise typer.Exit(listing.run(slug, wing, role, status, baselines, markdown, json_, results))


@app.command()
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
    from vestige.app import claiming

    common(quiet, seed, device)
    raise typer.Exit(claiming.run(slugs or [], data, results, json_, limit, jobs, seed, quiet))


@app.command()
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
    from vestige.app import claiming

    common(quiet, seed, "auto")
    raise typer.Exit(claiming.calibrate(data, out, limit, jobs, seed, only or []))


@app.command()
def learn(
    recipe: Annotated[str, typer.Argument(help="A recipe file (it is executed), as recipes/pretraining/mae_cifar.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; out/learn/NAME by default.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of data packs.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of a setting; repeatable.")] = None,
    budget: Annotated[float | None, typer.Option("--budget", help="Minutes of training.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    quiet: Quiet = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; the recipe's own by default.")] = None,
    device: Device = "auto",
) -> None:
    """Train a recipe, or continue its interrupted run, and report what it reached."""
    from vestige.app import learning

    common(quiet, seed or 0, device)
    raise typer.Exit(learning.run(recipe, out, data, set_ or [], budget, device, seed, quiet, fresh))


@app.command()
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
    from vestige.app import making

    common(quiet, seed, "auto")
    raise typer.Exit(making.run(what, source, out, n, size, operation, strength, seed, quiet))


app.add_typer(bench_app)
app.command()(erase)
app.command()(verify)


@app.command()
def version(json_: Json = False) -> None:
    """Print the version of vestige and of what it stands on."""
    import json

    from vestige import __version__
    from vestige.core.runtime import versions

    if json_:
        print(json.dumps(versions()))
    else:
        print(f"vestige {__version__}")
        for name, number in versions().items():
            if name != "vestige":
                print(f"  {name} {number}")


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: errors the user can act on become one sentence and an exit code."""
    try:
        app(arguments, standalone_mode=True)
    except VestigeError as error:
        _say(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _say(text: object) -> None:
    print(f"vestige: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
