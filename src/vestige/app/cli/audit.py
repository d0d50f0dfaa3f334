"""``vestige audit`` for models that were made to forget, and ``vestige verify`` for what was signed about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.app.cli.options import Device, Json, Quiet, Seed, common
from vestige.core.errors import UsageError


def audit(
    before: Annotated[Path, typer.Argument(help="The model before: a file or a folder.")],
    after: Annotated[Path, typer.Argument(help="The model after, whoever made it forget.")],
    forget: Annotated[Path, typer.Option("--forget", help="Folder (class/*.png) that was to be forgotten.")],
    retain: Annotated[Path, typer.Option("--retain", help="The other training pictures, in the same form.")],
    test: Annotated[Path, typer.Option("--test", help="Pictures never trained on.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", help="A model retrained without them, to compare with.")
    ] = None,
    train: Annotated[
        str, typer.Option("--train", help="MODULE:FUNCTION (net, pictures, labels, seed) that trains one (runs).")
    ] = "",
    build: Annotated[str, typer.Option("--build", help="MODULE:FUNCTION that builds the network (runs).")] = "",
    build_after: Annotated[
        str, typer.Option("--build-after", help="The same for AFTER, where it is another module.")
    ] = "",
    classes: Annotated[Path | None, typer.Option("--classes", help="Names of the outputs, one a line.")] = None,
    size: Annotated[int, typer.Option("--size", min=0, help="Side of the pictures; 0 for the model's.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Beginning of the files' names; by default AFTER's.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", help="Key file; signs a deletion certificate or an audit record.")
    ] = None,
    effort: Annotated[
        str, typer.Option("--audit", help="brief, quick, or full: trains models to compare with.")
    ] = "quick",
    shadows: Annotated[int, typer.Option("--shadows", min=4, help="Models that a full audit trains.")] = 4,
    budget: Annotated[float, typer.Option("--budget", min=0, help="Minutes that a full audit may spend.")] = 10.0,
    json_: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Say whether a model still knows what it was to forget, and what these tests would have seen.

    Writes AFTER.audit.json and AFTER.audit.html. Exit code 0: deleted; 10 unchanged, 11 suppressed, 12 incomplete,
    13 over-erased, 14 not measurable with this little.
    """
    common(quiet, seed, device)
    from vestige.app.forgetting import auditing

    if effort not in ("brief", "quick", "full"):
        raise UsageError(f"--audit is {effort!r}; choose brief, quick or full.")
    request = auditing.AuditRequest(
        before, after, forget, retain, test, out, reference, train, build, build_after, size, classes, sign, budget,
        seed, device, effort, shadows,
    )  # fmt: skip
    raise typer.Exit(auditing.run(request, as_json=json_, quiet=quiet))


def verify(
    certificate: Annotated[Path, typer.Argument(help="A deletion certificate or audit record that --sign wrote.")],
    before: Annotated[Path | None, typer.Option("--before", help="The model before forgetting.")] = None,
    after: Annotated[Path | None, typer.Option("--after", help="The model after forgetting.")] = None,
    requests: Annotated[Path | None, typer.Option("--requests", help="The pictures that were to be forgotten.")] = None,
    builder: Annotated[
        Path | None, typer.Option("--builder", help="Source file of the code that builds the network.")
    ] = None,
    signer: Annotated[str | None, typer.Option("--signer", help="Public key it must be signed with.")] = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", help="File of public keys and names; 'vestige key' writes it.")
    ] = None,
    any_signer: Annotated[bool, typer.Option("--any-signer", help="Accept whoever signed it.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check a deletion certificate or audit record offline. Exit code 7: it was changed, or does not fit.

    Whose signature counts has to be said: --signer, --trust or --any-signer.
    """
    from vestige.app.forgetting.verifying import Check, verify

    common(quiet, 0, "cpu")
    raise typer.Exit(verify(certificate, Check(before, after, requests, builder, signer, trust, any_signer), quiet))
