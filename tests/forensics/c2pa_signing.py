"""Signs pictures with a throw-away certificate, for tests and examples. Nobody trusts it, and nobody should."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vestige.core.sniff import sniff
from vestige.forensics.provenance import MIME, OFFLINE

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclass(frozen=True)
class TestIdentity:
    """A certificate chain (leaf, then root) and the leaf's private key, as PEM text."""

    __test__ = False

    chain: str
    root: str
    key: str


def _name(common: str) -> x509.Name:
    fields = (
        (NameOID.COUNTRY_NAME, "ZZ"),
        (NameOID.ORGANIZATION_NAME, "Example Signer"),
        (NameOID.COMMON_NAME, common),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in fields])


def make_identity() -> TestIdentity:
    """A self-made root and a leaf that may sign content credentials (ES256, e-mail protection usage)."""
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    start, stop = datetime.datetime(2020, 1, 1), datetime.datetime(2049, 1, 1)

    def certificate(
        subject: str, key: ec.EllipticCurvePrivateKey, usage: x509.KeyUsage, root: bool
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("Example Root"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(stop)
            .add_extension(x509.BasicConstraints(root, None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
        )
        if not root:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), True)
        return builder.sign(root_key, hashes.SHA256())

    def usage(signs_files: bool) -> x509.KeyUsage:
        signs_keys = not signs_files
        return x509.KeyUsage(signs_files, False, False, False, False, signs_keys, signs_keys, False, False)

    def pem(certificate: x509.Certificate) -> str:
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    root = pem(certificate("Example Root", root_key, usage(False), True))
    leaf = pem(certificate("Example Leaf", leaf_key, usage(True), False))
    key = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return TestIdentity(leaf + root, root, key.decode())


def sign(
    data: bytes,
    identity: TestIdentity,
    *,
    source_type: str = "digitalCapture",
    action: str = "c2pa.created",
    generator: str = "Example Camera",
    ingredient: bytes | None = None,
    remote_url: str = "",
    parameters: dict[str, Any] | None = None,
    source_address: str = DIGITAL_SOURCE_TYPE,
) -> bytes:
    """The picture with a signed manifest that declares one action (and one parent ingredient, where given).

    remote_url: leave the manifest out and only point to it. Raises c2pa's errors.
    """
    import c2pa

    step: dict[str, Any] = {"action": action, "softwareAgent": {"name": generator, "version": "1.0"}}
    if source_type:
        step["digitalSourceType"] = source_address + source_type
    if parameters:
        step["parameters"] = parameters
    manifest = {
        "claim_generator_info": [{"name": generator, "version": "1.0"}],
        "title": "example",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [step]}}],
    }
    if ingredient is not None:  # the library writes the opening action of the parent itself
        manifest["assertions"] = []
    settings = OFFLINE | {"builder": {"thumbnail": {"enabled": False}}}
    info = c2pa.C2paSignerInfo("es256", identity.chain.encode(), identity.key.encode(), None)
    builder = c2pa.Builder(json.dumps(manifest), c2pa.Context.from_dict(settings))
    if ingredient is not None:
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        parent = {"title": "parent", "relationship": "parentOf"}
        builder.add_ingredient(json.dumps(parent), MIME[sniff(ingredient[:300])], io.BytesIO(ingredient))
    if remote_url:
        builder.set_no_embed()
        builder.set_remote_url(remote_url)
    out = io.BytesIO()
    builder.sign(c2pa.Signer.from_info(info), MIME[sniff(data[:300])], io.BytesIO(data), out)
    return out.getvalue()
