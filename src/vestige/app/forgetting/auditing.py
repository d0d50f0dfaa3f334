"""``vestige audit BEFORE AFTER``: what a model that somebody made forget still knows, whoever made it forget."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vestige.core import certificate
from vestige.core.errors import InputError, Interrupted, UsageError
from vestige.core.files import write_atomic, write_json
from vestige.core.keys import load_key
from vestige.core.runtime import device as device_of
from vestige.core.runtime import versions

if TYPE_CHECKING:
    from torch import nn

    from vestige.engines.forgetting.problem import ForgetProblem


@dataclass(frozen=True)
class AuditRequest:
    """What the command line asks for. reference: the model retrained without the pictures; train: "module:function"
    that trains one, see `recipe`. out: beginning of the names of the files, by default beside the model after. build,
    build_after: see `load_classifier`; the second where the model after is another module. The rest is as in
    `vestige.app.forgetting.run.Request`."""

    before: Path
    after: Path
    forget: Path
    retain: Path
    test: Path | None
    out: Path | None = None
    reference: Path | None = None
    train: str = ""
    build: str = ""
    build_after: str = ""
    size: int = 0
    classes: Path | None = None
    sign: Path | None = None
    budget: float = 10.0
    seed: int = 0
    device: str = "auto"
    effort: str = "quick"
    shadows: int = 4


def run(request: AuditRequest, *, as_json: bool = False, quiet: bool = False) -> int:
    """Audit, write the audit (JSON and HTML) and, with a key, a signed record; the exit code is the verdict's.

    Raises InputError and UsageError for what cannot be used, Interrupted on Ctrl-C.
    """
    from vestige.app.forgetting.page import audit_page
    from vestige.app.forgetting.run import beside, names_of
    from vestige.app.forgetting.told import tell_audit
    from vestige.nn.classifier import build_digest, load_classifier
    from vestige.unlearning.audit import audit
    from vestige.unlearning.intake import read_request

    key = load_key(request.sign) if request.sign else None
    if request.reference and request.train:
        raise UsageError("Give --reference MODEL or --train MODULE:FUNCTION, not both.")
    base = request.out or request.after
    for name in ("audit.json", "audit.html", "certificate.json", "audit-record.json"):
        if beside(base, name).exists():
            raise InputError(f"{beside(base, name)} exists already; choose another name with --out.")
    written = {name: beside(base, name) for name in ("audit.json", "audit.html")}
    paths = {"forget": request.forget, "retain": request.retain} | ({"test": request.test} if request.test else {})
    try:
        asked = read_request(
            request.before, paths, build=request.build, size=request.size, classes=names_of(request.classes),
            device=request.device, seed=request.seed,
        )  # fmt: skip
        after = load_classifier(request.after, build=request.build_after or request.build)
        device = device_of(request.device)
        _fits(after.model.to(device), asked.problem, request.after)
        reference: nn.Module | None = None
        if request.reference:
            reference = load_classifier(request.reference, build=request.build).model.to(device)
            _fits(reference, asked.problem, request.reference)
        elif request.train:
            reference = trained(request.train, asked.problem)
        result = audit(
            after.model, asked.problem, reference=reference, effort=request.effort, shadows=request.shadows,
            budget=60 * request.budget, names=asked.pictures.names, seed=request.seed,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; nothing was written.") from None
    report = {
        "model": request.before.name, "after": request.after.name, "forgotten": len(asked.pictures),
        "kind": asked.problem.kind, "audit": result.to_dict(names=True),
        "sha256": {"before": asked.classifier.digest, "after": after.digest},
        "reference": request.reference.name if request.reference else request.train or None,
        "versions": versions(), "seed": request.seed,
    }  # fmt: skip
    if key is not None:
        build = "+".join(build_digest(b) for b in dict.fromkeys((request.build, request.build_after)) if b)
        document = certificate.issue(
            asked.classifier.digest, after.digest, asked.pictures.digests, "", {}, result.to_dict(), key, build=build
        )
        name = "certificate.json" if certificate.is_deletion(document) else "audit-record.json"
        written[name] = beside(base, name)
        certificate.write(written[name], document)
    write_json(written["audit.json"], report)
    write_atomic(written["audit.html"], audit_page(report, result))
    if as_json:
        print(json.dumps(report, indent=2))
    elif not quiet:
        tell_audit(result, written)
    return result.verdict.exit_code


def _fits(model: nn.Module, problem: ForgetProblem, path: Path) -> None:
    """Raises InputError when the model answers with another number of classes than the one before."""
    from vestige.unlearning.intake import outputs_of

    count = outputs_of(model, int(problem.train.inputs.shape[-1]), path)
    if count != problem.n_outputs:
        raise InputError(
            f"{path} has {count} outputs and the model before {problem.n_outputs}; they cannot be compared."
        )


def trained(recipe: str, problem: ForgetProblem) -> nn.Module:
    """The model that the user's own training makes of the retained pictures; its code runs.

    recipe: "module:function", called with a network of the architecture and fresh weights, pictures uint8 N×3×H×W,
    labels int64 N and a seed; it returns the trained network. Raises UsageError when it cannot be called.
    """
    from vestige.nn.classifier import user_network

    kept = replace(problem.retain)
    seed = problem.seed + 1000
    made = user_network(
        "--train", recipe, "my_training:train", problem.fresh(seed), kept.inputs.clone(), kept.labels.clone(), seed
    )
    return made.to(next(problem.model.parameters()).device).eval()
