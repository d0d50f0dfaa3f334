"""``vestige mark`` and ``vestige read``, on pictures, texts and generators; ``vestige key``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import (
    Device,
    Json,
    KeepMetadata,
    KeyFile,
    Mask,
    Model,
    OutOrFolder,
    Paths,
    Prompt,
    Quality,
    Quiet,
    Reference,
    Seed,
    Set,
    common,
)
from vestige.core.errors import UsageError

Registry = Annotated[Path | None, typer.Option("--registry", "-r", help="File of users and their fingerprints.")]
UserFile = Annotated[Path, typer.Option("--registry", "-r", help="File of users and their fingerprints.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Weights of the fingerprinter; else the shipped ones.")]


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
    mask: Mask = None,
    prompt: Prompt = "",
    model: Model = None,
    reference: Reference = None,
    registry: Registry = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Whose copy of a generator it is.")] = None,
    set_: Set = None,
    json_: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Hide a keyed, invisible payload in pictures, or a keyed mark in text files (.txt, .md).

    Read it back with 'vestige read' and the same key.
    """
    from vestige.app.verbs import marking, texts, working

    common(quiet, seed, device)
    method = texts.method_for(paths, method)
    if working.has_tool("mark", method):
        for name, value in (("bits", bits), ("strength", strength)):
            if value is not None:
                set_ = [*(set_ or ()), f"{name}={value}"]
        work = {
            "method": method, "paths": tuple(paths), "out": out, "mask": mask, "prompt": prompt, "model": model,
            "reference": registry or reference, "message": user or message, "seed": seed, "device": device,
            "quiet": quiet,
        }  # fmt: skip
        raise typer.Exit(working.run("mark", work, key, set_ or (), json_))
    if prompt or registry or user or reference:
        raise UsageError(
            "--prompt, --registry, --user and --reference belong to methods that mark generators or scenes (--method)."
        )
    options = marking.options_of(method, set_ or (), strength, model, device)
    raise typer.Exit(
        marking.mark_files(paths, out, message, bits, key, method, options, quality, keep_metadata, quiet, mask)
    )


def read(
    paths: Paths,
    key: KeyFile = None,
    method: Annotated[str, typer.Option("--method", help="The marker that made the mark.")] = "spread_spectrum",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where a method writes what it reveals.")] = None,
    registry: Registry = None,
    rate: Annotated[float, typer.Option("--rate", min=1e-12, max=0.5, help="Accepted rate of false names.")] = 1e-3,
    model: Model = None,
    reference: Reference = None,
    set_: Set = None,
    json_: Json = False,
    quiet: Quiet = False,
    device: Device = "auto",
) -> None:
    """Read marks. Exit code 0: read; 3: marked but unreadable; 4: not marked (the highest of all files)."""
    from vestige.app.verbs import marking, texts, users, working

    common(quiet, 0, device)
    method = texts.method_for(paths, method)
    if registry is not None:
        raise typer.Exit(users.whose(paths, registry, model, rate, json_, quiet))
    if working.has_tool("read", method):
        work = {
            "method": method, "paths": tuple(paths), "out": out, "model": model, "reference": reference,
            "device": device, "quiet": quiet,
        }  # fmt: skip
        raise typer.Exit(working.run("read", work, key, set_ or (), json_))
    if out or reference:
        raise UsageError("--out and --reference belong to methods that reveal pictures or scenes.")
    options = marking.options_of(method, set_ or (), None, model, device)
    raise typer.Exit(marking.read_files(paths, key, method, json_, quiet, options))


def stamp(
    folder: Annotated[Path, typer.Argument(help="A diffusers folder: a pipeline, or its autoencoder alone.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The user's copy; it must not exist.")],
    user: Annotated[str, typer.Option("--user", "-u", help="Name of the user who gets the copy.")],
    registry: UserFile,
    key: KeyFile = None,
    weights: Weights = None,
) -> None:
    """Make a user's own copy of an image generator, whose every picture names the user."""
    from vestige.app.verbs import users

    raise typer.Exit(users.stamp(folder, out, user, registry, key, weights))


def whose(
    paths: Paths,
    registry: UserFile,
    rate: Annotated[float, typer.Option("--rate", min=1e-12, max=0.5, help="Accepted rate of false names.")] = 1e-3,
    weights: Weights = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Name the user whose stamped generator made a picture. Exit code 4: nobody in the registry."""
    from vestige.app.verbs import users

    raise typer.Exit(users.whose(paths, registry, weights, rate, json_, quiet))


def key(
    path: Annotated[Path, typer.Argument(help="New key file; it must not exist, except with --show.")],
    show: Annotated[bool, typer.Option("--show", help="Of a key there is: its fingerprint and public key.")] = False,
    trust: Annotated[
        Path | None, typer.Option("--trust", help="Trust file to add the public key to, for 'vestige verify --trust'.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Whose key it is, in the trust file.")] = "",
) -> None:
    """Make a secret key for marks and certificates, readable by you alone, and print its public key."""
    from vestige.core import certificate
    from vestige.core.keys import fingerprint, generate_key, load_key
    from vestige.core.printing import say

    if show:
        made = load_key(path)
        say(f"{path}: key {fingerprint(made)}.")
    else:
        made = generate_key(path)
        say(f"{path}: new key {fingerprint(made)}. Keep it: without it its marks cannot be read.")
    public = certificate.signer(made)
    say(f"Signs as {public}, fingerprint {certificate.fingerprint(public)} (public: give it to those who verify).")
    if trust is not None:
        certificate.trust(trust, public, name or path.stem)
