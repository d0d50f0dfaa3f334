"""``vestige verify``: whether a deletion certificate or an audit record is whole, whose it is, and what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestige.core import certificate
from vestige.core.errors import OK, InputError, UsageError
from vestige.core.printing import say


@dataclass(frozen=True)
class Check:
    """What to compare with. signer: public key it must be signed with; trust: file of signers; anyone: whoever signed.
    builder: source file of the code that builds the network."""

    before: Path | None = None
    after: Path | None = None
    requests: Path | None = None
    builder: Path | None = None
    signer: str | None = None
    trust: Path | None = None
    anyone: bool = False


def verify(path: Path, check: Check, quiet: bool) -> int:
    """Check a statement offline; raises NotVerifiedError (exit code 7) for anything that does not fit, UsageError when
    it is not said whose signature counts."""
    from vestige.core.dataset import DatasetSubject
    from vestige.core.models.checkpoint import ModelSubject

    document = certificate.read(path)
    names = certificate.trusted(check.trust) if check.trust else {}
    if check.signer:
        names[certificate.public_key(check.signer.strip().lower())] = "--signer"
    if not names and not check.anyone:
        raise UsageError(
            "Say whose signature counts: --signer KEY, --trust FILE, or --any-signer for anybody's. This one says it "
            f"is of {document.get('signer')}."
        )
    certificate.verify(document, expected=None if check.anyone else list(names))
    checked = ["signature"] + ([] if check.anyone else ["signer"])
    for name, model in (("before", check.before), ("after", check.after)):
        if model is not None:
            certificate.compare(document, name, ModelSubject.open(model).sha256)
            checked.append(f"model {name}")
    if check.requests is not None:
        items = DatasetSubject.open(check.requests)
        certificate.compare_requests(document, [hashlib.sha256(item.data).hexdigest() for item in items])
        checked.append("requests")
    if check.builder is not None:
        try:
            source = check.builder.read_bytes()
        except OSError as error:
            raise InputError(f"{check.builder} cannot be read ({error.strerror}).") from None
        certificate.compare_build(document, source)
        checked.append("builder")
    if not quiet:
        _tell(path, document, checked, names)
    return OK


def _tell(path: Path, document: Mapping[str, Any], checked: list[str], names: Mapping[str, str]) -> None:
    audit, signer = document["audit"], document["signer"]
    kind = "deletion certificate" if certificate.is_deletion(document) else "audit record, no deletion certificate"
    name = f" ({names[signer]})" if signer in names and names[signer] != "--signer" else ""
    say(f"{path}: {kind}; {', '.join(checked)} verified.")
    say(f"  Signed by {signer}{name}, fingerprint {certificate.fingerprint(signer)}, on {document['made']}.")
    how = f"treated with {document['method']}" if document["method"] else "audited, whoever treated the model"
    count, verdict, power = document["requests"]["count"], document["verdict"], document["power"]
    say(f"  {count} pictures, {how}. Verdict: {verdict}, power {power:.2f}.")
    say(f"  {audit['findings'][0]}")
    for sentence in audit.get("not measured", ()):
        say(f"  Not measured: {sentence}")
    wanted = ["signer", "model before", "model after", "requests"] + (["builder"] if document["build"] else [])
    if left := [one for one in wanted if one not in checked]:
        say(f"  Not checked, because it was not given: {', '.join(left)}.")
    say("  Not checked, because nobody can from here: that the audit is true, and which model is in use.")
