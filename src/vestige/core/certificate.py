"""Signed statements about an erasure: a deletion certificate where the audit says "deleted", else an audit record.

The statement binds the SHA-256 of both models, a Merkle root over the requests, the method with its parameters, the
code that builds the network, and the audit with its verdict. It proves that whoever holds the key said so, and that
nothing in it was changed since. It does not prove that the figures are true, that the model is the one in use, or that
nothing else was kept.

    leaf = SHA-256(0x00 ‖ SHA-256(request)),  node = SHA-256(0x01 ‖ left ‖ right),  leaves sorted, an odd last one kept
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vestige.core.errors import InputError, NotVerifiedError
from vestige.core.files import write_atomic
from vestige.core.keys import derive
from vestige.core.merkle import MerkleTree

#: Kinds of statement: only the verdict DELETED makes the first.
DELETION, RECORD = "vestige deletion certificate", "vestige audit record"
DELETED = "deleted"
SCHEMA = 2
_FIELDS = (
    "kind", "schema", "made", "verdict", "power", "before", "after", "requests", "method", "parameters", "build",
    "audit", "signer",
)  # fmt: skip
#: Largest certificate that is read, bytes.
LARGEST = 4_000_000
_PRIME = 2**255 - 19
#: The y of Ed25519 points whose order divides eight: signatures under such keys fit statements nobody signed.
_SMALL_ORDER = {
    0, 1, _PRIME - 1,
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
}  # fmt: skip


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
    *,
    build: str = "",
) -> dict[str, Any]:
    """A signed statement as a JSON object: a deletion certificate if the audit's verdict is "deleted", else a record.

    before, after: SHA-256 of the models (`ModelSubject.sha256`). requests: SHA-256 of every file to be forgotten.
    method: "" where it is not known. audit: figures that JSON can hold, with "verdict" and "power". key: a secret of
    `load_key`; its Ed25519 key is derived from it. build: SHA-256 of the code that builds the network, "" without such.
    Raises InputError for values JSON cannot hold, an audit without a verdict, and an empty list of requests.
    """
    digests = list(requests)
    verdict, power = audit.get("verdict"), audit.get("power")
    if not isinstance(verdict, str) or not isinstance(power, int | float):
        raise InputError("Only an audit with a verdict and its power can be signed.")
    statement: dict[str, Any] = {
        "kind": _kind(verdict),
        "schema": SCHEMA,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": verdict,
        "power": power,
        "before": before,
        "after": after,
        "requests": {"count": len(digests), "root": merkle_root(digests)},
        "method": method,
        "parameters": dict(parameters),
        "build": build,
        "audit": dict(audit),
        "signer": signer(key),
    }
    return {**statement, "signature": _private(key).sign(_canonical(statement)).hex()}


def _kind(verdict: Any) -> str:
    return DELETION if verdict == DELETED else RECORD


def is_deletion(document: Mapping[str, Any]) -> bool:
    """Whether the statement is a deletion certificate and no mere record of an audit."""
    return bool(document["kind"] == DELETION)


def signer(key: bytes) -> str:
    """The public key of a secret, 64 hexadecimal digits, to be published so that others can check who signed."""
    return str(_private(key).public_key().public_bytes_raw().hex())


def fingerprint(public: str) -> str:
    """Sixteen hexadecimal digits in four groups, to compare a public key by eye or voice.

    >>> fingerprint("00" * 32)
    '66687aad-f862bd77'
    """
    digest = hashlib.sha256(bytes.fromhex(public)).hexdigest()
    return f"{digest[:8]}-{digest[8:16]}"


def text(document: Mapping[str, Any]) -> str:
    """The one form in which a certificate is written and read."""
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write a certificate, whole or not at all."""
    write_atomic(path, text(document))


def read(path: str | Path) -> dict[str, Any]:
    """Parse a certificate strictly: no key twice, and nothing but the form that `write` gives.

    Raises InputError when it cannot be read or is no certificate, NotVerifiedError for another form of one.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InputError(f"{path} is larger than a certificate can be.")
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON ({error}).") from None
    if not isinstance(document, dict) or document.get("kind") not in (DELETION, RECORD):
        raise InputError("This is no deletion certificate or audit record of vestige.")
    if data != text(document).encode():
        raise NotVerifiedError("The certificate is not in canonical form: it was written again by another program.")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise NotVerifiedError(f"The certificate holds the key {name[:40]!r} twice, so it says two things at once.")
        found[name] = value
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def public_key(value: Any) -> str:
    """A public key as it has to be: 64 lower-case hexadecimal digits of a point that only its holder can sign for.

    Raises NotVerifiedError for any other.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise NotVerifiedError("The signer is no public key: 64 hexadecimal digits in lower case are.")
    y = int.from_bytes(bytes.fromhex(value), "little") & (2**255 - 1)
    if y % _PRIME in _SMALL_ORDER:
        raise NotVerifiedError("The signer's key is a point of small order, for which anybody can sign.")
    if y >= _PRIME:
        raise NotVerifiedError("The signer's key is not in canonical form.")
    return value


def verify(document: Any, *, expected: str | Iterable[str] | None = None) -> None:
    """Check form and signature; expected: the public keys it may be signed with, None for anybody's.

    Raises InputError when it is no certificate, NotVerifiedError when it was changed or is somebody else's.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(document, dict) or document.get("kind") not in (DELETION, RECORD):
        raise InputError("This is no deletion certificate or audit record of vestige.")
    if document.get("schema") != SCHEMA or set(document) != {*_FIELDS, "signature"}:
        raise InputError(f"The certificate has another form than version {SCHEMA}; use the vestige that made it.")
    stated = public_key(document["signer"])
    if expected is not None:
        allowed = [expected] if isinstance(expected, str) else list(expected)
        if stated not in [one.strip().lower() for one in allowed]:
            raise NotVerifiedError(f"The certificate is signed with another key ({stated}, {fingerprint(stated)}).")
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(stated))
        public.verify(bytes.fromhex(document["signature"]), _canonical({name: document[name] for name in _FIELDS}))
    except (InvalidSignature, ValueError, TypeError):
        raise NotVerifiedError("The signature does not fit: the certificate was changed after it was made.") from None
    audit = document["audit"]
    agreed = isinstance(audit, dict) and all(audit.get(name) == document[name] for name in ("verdict", "power"))
    if not agreed or document["kind"] != _kind(document["verdict"]):
        raise NotVerifiedError(
            "The certificate contradicts itself: a deletion certificate needs an audit whose verdict is 'deleted'."
        )


def compare_build(document: Mapping[str, Any], source: bytes) -> None:
    """Raises NotVerifiedError unless the code that builds the network is the one of the certificate."""
    if hashlib.sha256(source).hexdigest() not in str(document["build"]).split("+"):
        raise NotVerifiedError("The code that builds the network is not the one of the certificate.")


def trusted(path: str | Path) -> dict[str, str]:
    """Names by public key from a trust file: a line for each signer, the key and a name; # begins a remark.

    Raises InputError for a file that cannot be read or that holds something else.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no readable trust file ({error}).") from None
    found = {}
    for number, line in enumerate(lines, 1):
        key, _, name = line.partition("#")[0].strip().partition(" ")
        if key:
            try:
                found[public_key(key)] = name.strip() or fingerprint(key)
            except NotVerifiedError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
    return found


def trust(path: str | Path, public: str, name: str) -> None:
    """Add a signer to a trust file, which is made if there is none."""
    known = trusted(path) if Path(path).exists() else {}
    if public_key(public) not in known:
        before = Path(path).read_text(encoding="utf-8") if known else "# public key, name\n"
        write_atomic(path, before + f"{public} {' '.join(name.replace('#', ' ').split())}\n")


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
