"""Deletion certificates: a signed statement that one model became another by a named method, for named requests.

The statement binds the SHA-256 of both models, a Merkle root over the requests, the method with its parameters and the
figures of the audit. It proves that whoever holds the key said so, and that nothing in it was changed since. It does
not prove that the figures are true, that the model is the one in use, or that nothing else was kept.

    leaf = SHA-256(0x00 ‖ SHA-256(request)),  node = SHA-256(0x01 ‖ left ‖ right),  leaves sorted, an odd last one kept
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from vestige.core.errors import InputError, NotVerifiedError
from vestige.core.keys import derive
from vestige.core.merkle import MerkleTree

KIND = "vestige deletion certificate"
SCHEMA = 1
_FIELDS = ("kind", "schema", "made", "before", "after", "requests", "method", "parameters", "audit", "signer")


def merkle_root(digests: Iterable[str]) -> str:
    """The root over hexadecimal SHA-256 digests, whatever their order. Raises InputError when there are none.

    >>> a, b = "00" * 32, "11" * 32
    >>> merkle_root([a, b]) == merkle_root([b, a]) != merkle_root([a])
    True
    """
    try:
        row = [hashlib.sha256(b"\x00" + bytes.fromhex(digest)).digest() for digest in sorted(digests)]
    except ValueError:
        raise InputError("A commitment is made of hexadecimal SHA-256 digests.") from None
    if not row:
        raise InputError("There is no request to commit to.")
    return MerkleTree(row).root.hex()


def issue(
    before: str,
    after: str,
    requests: Iterable[str],
    method: str,
    parameters: Mapping[str, Any],
    audit: Mapping[str, Any],
    key: bytes,
) -> dict[str, Any]:
    """A signed certificate as a JSON object.

    before, after: SHA-256 of the models (`ModelSubject.sha256`). requests: SHA-256 of every file to be forgotten.
    audit: figures that JSON can hold. key: a secret of `load_key`; its Ed25519 key is derived from it. Raises
    InputError for values JSON cannot hold and for an empty list of requests.
    """
    digests = list(requests)
    statement: dict[str, Any] = {
        "kind": KIND,
        "schema": SCHEMA,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "before": before,
        "after": after,
        "requests": {"count": len(digests), "root": merkle_root(digests)},
        "method": method,
        "parameters": dict(parameters),
        "audit": dict(audit),
        "signer": signer(key),
    }
    return {**statement, "signature": _private(key).sign(_canonical(statement)).hex()}


def signer(key: bytes) -> str:
    """The public key of a secret, 64 hexadecimal digits, to be published so that others can check who signed."""
    return str(_private(key).public_key().public_bytes_raw().hex())


def verify(document: Any, *, expected: str | None = None) -> None:
    """Check form and signature; expected: the public key the certificate must be signed with.

    Raises InputError when it is no certificate, NotVerifiedError when it was changed or is somebody else's.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise InputError("This is no deletion certificate of vestige.")
    if document.get("schema") != SCHEMA or set(document) != {*_FIELDS, "signature"}:
        raise InputError(f"The certificate has another form than version {SCHEMA}; use the vestige that made it.")
    if expected is not None and document["signer"] != expected.strip().lower():
        raise NotVerifiedError(f"The certificate is signed with another key ({str(document['signer'])[:16]}...).")
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(document["signer"]))
        public.verify(bytes.fromhex(document["signature"]), _canonical({name: document[name] for name in _FIELDS}))
    except (InvalidSignature, ValueError, TypeError):
        raise NotVerifiedError("The signature does not fit: the certificate was changed after it was made.") from None


def compare(document: Mapping[str, Any], name: str, digest: str) -> None:
    """Raises NotVerifiedError unless a model's digest is the one in the certificate; name: "before" or "after"."""
    if document[name] != digest:
        words = {"before": "The model before forgetting", "after": "The model after forgetting"}[name]
        raise NotVerifiedError(f"{words} is not the one of the certificate ({digest[:16]}..., not "
                               f"{str(document[name])[:16]}...).")  # fmt: skip


def compare_requests(document: Mapping[str, Any], digests: Iterable[str]) -> None:
    """Raises NotVerifiedError unless the requests are those of the certificate, no more and no fewer."""
    found, stated = list(digests), document["requests"]
    if len(found) != stated["count"] or merkle_root(found) != stated["root"]:
        raise NotVerifiedError(
            f"The requests are not those of the certificate ({len(found)} files given, {stated['count']} in it)."
        )


def _private(key: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(derive(key, "deletion certificate"))


def _canonical(statement: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError("A certificate holds numbers, texts and lists only, no NaN.") from None
    return text.encode()
