"""C2PA content credentials: who signed the file, what they say was done to it, and whether it changed since.

Source: C2PA Technical Specification 2.2 (2025), read with the reference implementation c2pa-python.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vestige.core.containers import layout
from vestige.core.errors import VestigeError
from vestige.core.findings import Finding
from vestige.core.records.clip import read_clip
from vestige.core.records.embedded import Embedded, clean, read_embedded
from vestige.core.subjects import ImageSubject
from vestige.core.video import VideoSubject
from vestige.forensics.source_types import GENERATED_TYPES, SOURCE_TYPES, source_type

MIME = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff", "GIF": "image/gif",
    "AVIF": "image/avif", "HEIF": "image/heif", "MP4": "video/mp4", "MOV": "video/quicktime", "AVI": "video/avi",
}  # fmt: skip

#: Nothing in a file may make the reader open a connection or inflate without bound.
OFFLINE: dict[str, Any] = {
    "version": 1,
    "core": {"allowed_network_hosts": [], "max_decompressed_manifest_size_in_mb": 32},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
}

# doubts about who signed, or when; every other failure is about the credentials themselves
_SIGNER = ("signingCredential.untrusted", "signingCredential.expired", "signingCredential.ocsp.", "timeStamp.")
_WORDS = {
    "trusted": "The content credentials are intact and signed by a trusted party.",
    "valid": "The content credentials are intact, but nobody vouches for the signer ({signer}).",
    "remote": "The file points to content credentials kept elsewhere; they were not fetched.",
    "absent": "The file carries no content credentials.",
    "misplaced": "The file holds content credentials in a place where readers do not look for them, and they do not "
    "vouch for it there.",
    "tampered": "The file was changed after its content credentials were signed.",
    "invalid": "The file's content credentials break the rules of their standard.",
    "unreadable": "The file's content credentials are damaged.",
}


class ContentCredentials:
    """Reads and checks the C2PA manifest store; flags tampering after signing and declared generation.

    trust_anchors: PEM text of the root certificates whose signers count as trusted; without it every intact manifest
    is reported as signed by an unknown party. No network access takes place.

    >>> import numpy as np
    >>> from vestige.core.image_io import encode
    >>> ContentCredentials().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).summary
    'The file carries no content credentials.'
    """

    slug = "c2pa"
    kind = "provenance"

    def __init__(self, *, trust_anchors: str = "") -> None:
        self.settings = OFFLINE | ({"trust": {"user_anchors": trust_anchors}} if trust_anchors else {})

    def find(self, subject: ImageSubject) -> Finding:
        """The state of the credentials; ``details["state"]`` is one of trusted, valid, tampered, invalid, unreadable,
        misplaced, remote and absent."""
        try:
            format = subject.format
        except VestigeError as error:
            return Finding.not_applicable(self.slug, self.kind, str(error))
        if b"c2pa" not in subject.data:
            return self._without_store(read_embedded(subject))
        if format not in MIME:
            return self._elsewhere(subject.data, format) or self._without_store(read_embedded(subject))
        answer = self._read(io.BytesIO(subject.data), MIME[format])
        if answer is None:
            answer = self._elsewhere(subject.data, format)
        return self._without_store(read_embedded(subject)) if answer is None else answer

    def find_clip(self, clip: VideoSubject) -> Finding:
        """The same for the file of a clip. Matroska and WebM have no place for credentials."""
        found = read_clip(clip.path, clip.format)
        if clip.format not in MIME:
            if any(k == "dcterms:provenance" for k, _ in found.embedded.xmp):
                return self._without_store(found.embedded)
            why = f"the format {clip.format} has no place for content credentials"
            return Finding.not_applicable(self.slug, self.kind, why)
        if not _mentions(clip.path):
            return self._without_store(found.embedded)
        with open(clip.path, "rb") as file:
            answer = self._read(file, MIME[clip.format])
        if answer is None and found.credentials:
            answer = self._finding("unreadable", ("the file has a box for credentials that cannot be read",), {}, "")
        return self._without_store(found.embedded) if answer is None else answer

    def _read(self, file: BinaryIO, mime: str, store: bytes | None = None) -> Finding | None:
        """What the reference implementation reads, None where it finds nothing. ``store``: credentials kept apart."""
        try:
            import c2pa
        except (ImportError, OSError):
            why = "the package c2pa-python, which reads content credentials, is not installed"
            return Finding.not_applicable(self.slug, self.kind, why)
        try:
            context = c2pa.Context.from_dict(self.settings)
            with context, c2pa.Reader(mime, file, store, context=context) as reader:
                read = json.loads(reader.json())
        except (c2pa.C2paError, ValueError, RecursionError) as error:
            said = str(error)
            if "ManifestNotFound" in said or "JumbfNotFound" in said or said.startswith("Remote"):
                return None
            file.seek(0)
            if store is None and not any(b"jumd" in block for block in _blocks(file)):
                return None
            return self._finding("unreadable", (f"the reader says: {clean(error)}",), {}, "")
        return self._judge(read, "misplaced" if store is not None else "")

    def _elsewhere(self, data: bytes, format: str) -> Finding | None:
        """Credentials that stand where they do not belong: behind a JPEG's scan, in another format's block."""
        for store in _stores(data, format):
            answer = self._read(io.BytesIO(data), MIME.get(format, "image/jpeg"), store)
            if answer is not None and answer.applies:
                return answer
        return None

    def _without_store(self, embedded: Embedded) -> Finding:
        """Absent, or kept at an address the XMP packet names."""
        remote = [clean(v) for k, v in embedded.xmp if k == "dcterms:provenance" and "://" in v]
        state = "remote" if remote else "absent"
        return self._finding(state, tuple(f"address of the credentials: {r}" for r in remote[:1]), {}, "")

    def _judge(self, store: dict[str, Any], state: str = "") -> Finding:
        manifests = _mapping(store.get("manifests"))
        active = _mapping(manifests.get(str(store.get("active_manifest"))))
        results = _mapping(store.get("validation_results"))
        failures = _statuses(_mapping(results.get("activeManifest")).get("failure"))
        broken = [(code, why) for code, why in failures if not code.startswith(_SIGNER)]
        if state:
            pass
        elif any(code.endswith(".mismatch") for code, _ in broken):
            state = "tampered"
        elif broken:
            state = "invalid"
        else:
            state = "trusted" if store.get("validation_state") == "Trusted" else "valid"
        signature = _mapping(active.get("signature_info"))
        signer = clean(" / ".join(str(signature[k]) for k in ("common_name", "issuer") if signature.get(k)), 100)
        steps = _actions(active)
        ingredients = [
            {"title": clean(i.get("title", ""), 60), "relationship": clean(i.get("relationship", ""), 20)}
            for i in map(_mapping, _sequence(active.get("ingredients"))[:20])
        ]
        stated = [t for t in _stated_types(active) if t not in {s["source_type"] for s in steps}]
        steps_and_more = [*steps, *({"source_type": t} for t in stated)]
        generated = [s for s in steps_and_more if s["source_type"] in GENERATED_TYPES]
        earlier = [t for m in manifests.values() if m is not active for t in _stated_types(_mapping(m))]
        inherited = [{"source_type": t} for t in earlier if t in GENERATED_TYPES]
        signed_at = clean(signature.get("time", ""), 40)
        generator = _generators(active)
        evidence = [f"signed by {signer or 'an unnamed party'}" + f" at {signed_at}" * bool(signed_at)]
        evidence += [f"claim generator: {g}" for g in generator[:3]]
        evidence += [f"{code}: {why}" for code, why in failures[:6]]
        evidence += [_sentence(s) for s in steps[:8]]
        evidence += [f"an assertion states: {SOURCE_TYPES[t]}" for t in stated[:4]]
        evidence += [f"ingredient ({i['relationship']}): {i['title']}" for i in ingredients[:4]]
        evidence += [f"an earlier version declares: {SOURCE_TYPES[s['source_type']]}" for s in inherited[:2]]
        deltas = [d for d in _sequence(results.get("ingredientDeltas")) if isinstance(d, dict)]
        ingredient_failures = [
            code
            for d in deltas
            for code, _ in _statuses(_mapping(d.get("validationDeltas")).get("failure"))
            if not code.startswith(_SIGNER)
        ]
        if ingredient_failures:
            evidence.append(f"an ingredient's own credentials do not hold: {', '.join(ingredient_failures[:3])}")
        details = {
            "claim_generators": generator,
            "signer": signer,
            "signed_at": signed_at,
            "actions": steps[:20],
            "ingredients": ingredients,
            "failures": [code for code, _ in failures[:20]],
            "declares_generated": bool(generated or inherited),
            "manifests": len(manifests),
        }
        declared = _declares(generated, inherited)
        return self._finding(state, tuple(evidence), details, declared, signer)

    def _finding(
        self, state: str, evidence: tuple[str, ...], details: dict[str, Any], declared: str, signer: str = ""
    ) -> Finding:
        words = _WORDS[state].format(signer=signer or "unnamed")
        if declared:
            words += f" They declare {declared}."
        flagged = bool(declared) or state in ("tampered", "invalid", "unreadable", "misplaced")
        details = {"state": state, "declares_generated": False} | details
        return Finding(self.slug, self.kind, float(flagged), words, words, flagged, evidence=evidence, details=details)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _statuses(value: Any) -> list[tuple[str, str]]:
    items = [_mapping(s) for s in _sequence(value)[:50]]
    return [(clean(s.get("code", ""), 60), clean(s.get("explanation", ""), 100)) for s in items]


def _generators(manifest: dict[str, Any]) -> list[str]:
    """The programs that wrote the claim, with their versions."""
    named = [_mapping(g) for g in _sequence(manifest.get("claim_generator_info"))[:5]]
    found = [clean(f"{g.get('name', '')} {g.get('version', '')}", 80) for g in named]
    return [g for g in found if g] or [clean(manifest["claim_generator"], 80)] * bool(manifest.get("claim_generator"))


def _actions(manifest: dict[str, Any]) -> list[dict[str, str]]:
    """Steps a manifest declares: action, program, IPTC source type, description."""
    found = []
    for assertion in map(_mapping, _sequence(manifest.get("assertions"))):
        if not str(assertion.get("label", "")).startswith("c2pa.actions"):
            continue
        for action in map(_mapping, _sequence(_mapping(assertion.get("data")).get("actions"))[:100]):
            agent = action.get("softwareAgent", "")
            agent = f"{agent.get('name', '')} {agent.get('version', '')}" if isinstance(agent, dict) else agent
            found.append(
                {
                    "action": clean(action.get("action", ""), 60),
                    "software": clean(agent, 80),
                    "source_type": next(iter(_types_in(action)), ""),
                    "description": clean(action.get("description", "")),
                }
            )
    return found


#: Actions that bring a picture into being; every other one changes what there was.
_BEGINNINGS = ("", "c2pa.created", "c2pa.opened")


def _declares(generated: list[dict[str, str]], inherited: list[dict[str, str]]) -> str:
    """What the credentials declare about a generative model, to complete "They declare ..."; "" where nothing."""
    first = next((s for s in generated if s.get("action", "") in _BEGINNINGS), None)
    if first is not None:
        return f"the picture as {SOURCE_TYPES[first['source_type']]}"
    if generated:
        action = clean(generated[0]["action"].removeprefix("c2pa."), 30)
        return f"a step ({action}) with material that was {SOURCE_TYPES[generated[0]['source_type']]}"
    if inherited:
        return f"that what it was made from was {SOURCE_TYPES[inherited[0]['source_type']]}"
    return ""


def _stated_types(manifest: dict[str, Any]) -> list[str]:
    """Every source type a manifest's assertions state, each once: in actions, their parameters and templates, in
    metadata assertions, under whatever prefix ("com.adobe.digitalSourceType")."""
    return list(_types_in([_mapping(a).get("data") for a in _sequence(manifest.get("assertions"))[:200]]))


def _types_in(value: Any) -> dict[str, None]:
    """The source types stated anywhere inside a JSON value, those that declare generation first."""
    found: dict[str, None] = {}
    stack, nodes = [value], 0
    while stack and nodes < 20_000:
        node = stack.pop()
        nodes += 1
        if isinstance(node, dict):
            for key, inner in node.items():
                last = str(key).replace(":", ".").rsplit(".", 1)[-1].lower()
                for stated in inner if isinstance(inner, list) else [inner]:
                    if last == "digitalsourcetype" and isinstance(stated, str) and (term := source_type(stated)):
                        found[term] = None
                stack.append(inner)
        elif isinstance(node, list):
            stack += node[:5000]
    return dict.fromkeys(sorted(found, key=lambda t: t not in GENERATED_TYPES))


_STORE = b"jumdc2pa"
_BLOCK = 1 << 20


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """A file in pieces that overlap a little, so that a short word is never cut."""
    kept = b""
    while block := file.read(_BLOCK):
        yield kept + block
        kept = block[-16:]


def _mentions(path: Path) -> bool:
    with open(path, "rb") as file:
        return any(_STORE in block for block in _blocks(file))


def _stores(data: bytes, format: str) -> Iterator[bytes]:
    """Manifest stores in a file, wherever they stand: JUMBF boxes of the type c2pa, at most four.

    In a JPEG one is spread over APP11 segments, each of which repeats eight bytes of its header.
    """
    if format == "JPEG":
        boxes: dict[bytes, bytearray] = {}
        for part in layout(data, format).named("APP11"):
            if data.startswith(b"JP", part.body):
                number = data[part.body + 2 : part.body + 4]
                skip = 8 if number not in boxes else 16
                boxes.setdefault(number, bytearray()).extend(data[part.body + skip : part.end])
        yield from (bytes(b) for b in list(boxes.values())[:4] if _STORE in b[:64])
    at = -1
    for _ in range(4):
        at = data.find(_STORE, at + 1)
        if at < 0:
            return
        start = at - 12
        size = int.from_bytes(data[start : start + 4], "big") if start >= 0 else 0
        if data[start + 4 : start + 8] == b"jumb" and 16 < size <= len(data) - start:
            yield data[start : start + size]


def _sentence(step: dict[str, str]) -> str:
    said = f" by {step['software']}" * bool(step["software"])
    kind = f": {SOURCE_TYPES[step['source_type']]}" if step["source_type"] else ""
    return f"declared step {step['action'].removeprefix('c2pa.')}{said}{kind}"
