"""``vestige erase MODEL --forget FOLDER``: make a classifier forget pictures, audit it, and certify what was done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vestige.core import certificate
from vestige.core.catalogue import System, systems
from vestige.core.errors import InputError, Interrupted, UsageError, VestigeError
from vestige.core.files import write_atomic, write_json
from vestige.core.keys import load_key
from vestige.core.runtime import device as device_of
from vestige.core.runtime import versions

if TYPE_CHECKING:
    from torch import nn

    from vestige.data.labelled import Pictures
    from vestige.engines.forgetting.problem import ForgetProblem
    from vestige.nn.classifier import Classifier
    from vestige.unlearning.audit import Audit

#: Tried by "auto", cheapest first; those that lack something are left out.
AUTO = ("ssd", "finetune", "salun", "scrub", "neggrad_plus", "bad_teacher", "l1_sparse")


@dataclass(frozen=True)
class Request:
    """What the command line asks for. test, reference, classes, sign: may be missing. build: see `load_classifier`.
    size: side of the pictures, 0 for the model's own or the first picture's. settings: NAME=VALUE of the method.
    budget: minutes after which "auto" tries nothing more, and that a full audit may train for. audit: "quick" or
    "full", see `vestige.unlearning.audit.audit`. shadows: models that a full audit trains for its attacks."""

    model: Path
    forget: Path
    retain: Path
    out: Path
    test: Path | None = None
    method: str = "auto"
    build: str = ""
    size: int = 0
    classes: Path | None = None
    reference: Path | None = None
    sign: Path | None = None
    settings: tuple[str, ...] = ()
    budget: float = 10.0
    seed: int = 0
    device: str = "auto"
    audit: str = "quick"
    shadows: int = 4


def erasers() -> dict[str, System]:
    """The built erasers of knowledge, by slug."""
    return {
        s.slug: s
        for s in systems()
        if s.wing == "unlearning" and s.subject == "model" and "erase" in s.roles and s.target is not None
    }


def run(request: Request, *, as_json: bool = False, quiet: bool = False) -> int:
    """Erase, audit, write the model, its audit (JSON and HTML) and its certificate.

    Nothing is written before the erasure and its audit are done; the exit code is that of the audit's verdict. Raises
    InputError and UsageError for what cannot be used, Interrupted on Ctrl-C.
    """
    from vestige.app.forgetting.page import audit_page
    from vestige.app.forgetting.told import tell
    from vestige.core.models.checkpoint import ModelSubject
    from vestige.nn.classifier import build_digest

    key = load_key(request.sign) if request.sign else None
    if request.out.exists():
        raise InputError(f"{request.out} exists already; choose another name.")
    try:
        classifier, problem, forget = _problem(request)
        tried = _attempts(request, problem, forget.names)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; nothing was written.") from None
    best = tried[0]
    classifier.save(best["model"], request.out)
    after = ModelSubject.open(request.out).sha256
    result: Audit = best["audit"]
    report = {
        "model": request.model.name,
        "method": best["method"],
        "parameters": best["parameters"],
        "forgotten": len(forget),
        "kind": problem.kind,
        "cost": best["cost"],
        "audit": result.to_dict(names=True),
        "tried": [{k: v for k, v in t.items() if k in ("method", "distance", "cost", "why")} for t in tried],
        "sha256": {"before": classifier.digest, "after": after},
        "versions": versions(),
        "seed": request.seed,
    }
    evidence = getattr(best["eraser"], "evidence", None)  # of an eraser that can prove what it did
    shown: dict[str, bytes] = evidence(problem) if evidence is not None else {}
    written = {name: beside(request.out, name) for name in ("audit.json", "audit.html", *shown)}
    for name, content in shown.items():
        write_atomic(written[name], content)
    write_json(written["audit.json"], report)
    write_atomic(written["audit.html"], audit_page(report, result))
    if key is not None:
        document = certificate.issue(
            classifier.digest, after, forget.digests, best["method"], best["parameters"], result.to_dict(), key,
            build=build_digest(request.build),
        )  # fmt: skip
        name = "certificate.json" if certificate.is_deletion(document) else "audit-record.json"
        written[name] = beside(request.out, name)
        certificate.write(written[name], document)
    if as_json:
        print(json.dumps(report, indent=2))
    elif not quiet:
        tell(request.out, report, tried, result, written)
    return result.verdict.exit_code


def beside(out: Path, name: str) -> Path:
    """The file of that name beside a model."""
    return out.with_name(f"{out.name.removesuffix('.safetensors')}.{name}")


def _problem(request: Request) -> tuple[Classifier, ForgetProblem, Pictures]:
    """Read the model and the pictures; everything wrong with them is said here, before anything is computed."""
    from vestige.unlearning.intake import read_request

    paths = {"forget": request.forget, "retain": request.retain} | ({"test": request.test} if request.test else {})
    asked = read_request(
        request.model, paths, build=request.build, size=request.size, classes=names_of(request.classes),
        device=request.device, seed=request.seed,
    )  # fmt: skip
    return asked.classifier, asked.problem, asked.pictures


def names_of(path: Path | None) -> tuple[str, ...]:
    """Names of classes from a file with one a line; none without a file."""
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as text; it should hold the name of a class in each line.") from None
    return tuple(line.strip() for line in lines if line.strip())


def _attempts(request: Request, problem: ForgetProblem, pictures: Sequence[str]) -> list[dict[str, Any]]:
    """What was tried, the recommended one first. One half of the test pictures chooses, the other is reported.
    pictures: names of the forgotten ones."""
    from vestige.core.progress import track
    from vestige.engines.forgetting.cost import Cost, measured
    from vestige.unlearning.audit import audit, distance_to_aim, halves

    known = erasers()
    auto = request.method == "auto"
    if not auto and request.method not in known:
        raise UsageError(f"There is no eraser {request.method!r}; choose auto or one of {', '.join(known)}.")
    if auto and request.settings:
        raise UsageError("--set is for one method; name it with --method.")
    reference = _reference(request)
    names = [name for name in AUTO if name in known] if auto else [request.method]
    choosing, reporting = halves(problem, request.seed) if auto else (problem, problem)
    tried: list[dict[str, Any]] = []
    failed: list[str] = []
    spent = 0.0

    def audited(model: nn.Module, part: ForgetProblem, cost: Cost, effort: str) -> Audit:
        return audit(
            model, part, reference=reference, effort=effort, shadows=request.shadows, budget=60 * request.budget,
            names=pictures, costs={"erasure": cost}, seed=request.seed,
        )  # fmt: skip

    for name in track(names, "forgetting", len(names)):
        if tried and spent > 60 * request.budget:
            failed.append(f"{name}: the budget of {request.budget:g} minutes was used up")
            continue
        eraser, parameters = _eraser(known[name], request.settings)
        try:
            with measured() as took:
                model = eraser.erase(problem)
        except VestigeError as error:
            if not auto:
                raise
            failed.append(f"{name}: {error}")
            continue
        spent += took.seconds
        judged = audited(model, choosing, took, "brief" if auto else request.audit)
        tried.append(
            {
                "method": name,
                "eraser": eraser,
                "parameters": parameters,
                "model": model,
                "audit": judged,
                "distance": distance_to_aim(judged, choosing),
                "cost": took.to_dict(),
                "took": took,
                "why": _why(judged),
            }
        )
    if not tried:
        raise UsageError(f"No method could be used. {failed[0]}")
    tried.sort(key=lambda t: t["distance"])
    if auto:
        tried[0]["audit"] = audited(tried[0]["model"], reporting, tried[0]["took"], request.audit)
    return tried


def _why(judged: Audit) -> str:
    row = judged.rows["unlearned"]
    return (
        f"forgotten {row['forget accuracy']:.1%} right, retained {row['retain accuracy']:.1%}, test "
        f"{row['test accuracy']:.1%}, membership {row['membership by loss (AUC)']:.2f}"
        + (", suppressed only" if judged.suppressed else "")
    )


def _reference(request: Request) -> nn.Module | None:
    from vestige.nn.classifier import load_classifier

    if request.reference is None:
        return None
    return load_classifier(request.reference, build=request.build).model.to(device_of(request.device))


def _eraser(entry: System, settings: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The eraser with NAME=VALUE settings, and all of its parameters as JSON holds them."""
    kind = entry.load()
    known = {f.name: f for f in dataclasses.fields(kind)}
    chosen: dict[str, Any] = {}
    for text in settings:
        name, _, value = text.partition("=")
        if name not in known or not value:
            raise UsageError(f"--set {text}: {entry.slug} takes {', '.join(known)}, each as NAME=VALUE.")
        chosen[name] = _value(value)
    try:
        eraser = kind(**chosen)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{entry.slug} cannot be made with these settings ({error}).") from None
    plain = {name: getattr(eraser, name) for name in known}
    return eraser, {n: v if isinstance(v, bool | int | float | str | None) else str(v) for n, v in plain.items()}


def _value(text: str) -> Any:
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise UsageError(f"--set …={text}: a setting is a finite number.")
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text
