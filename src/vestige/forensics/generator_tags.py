"""Texts and tags that image generators write into their files, and the labels that declare generated content.

Only structured records count: a sampler line with its numbers where a program writes it, a node graph, a signed
Software field, an IPTC source type. A sentence that mentions a generator or quotes its record does not. The records
are a table, `vestige.forensics.generator_records`.

Source: IPTC Photo Metadata Standard 2025.1 and the IPTC Digital Source Type NewsCodes; GB 45438-2025; the records of
the generators as these programs write them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vestige.core.errors import VestigeError
from vestige.core.findings import Finding
from vestige.core.records.clip import read_clip
from vestige.core.records.embedded import Embedded, Text, clean, read_embedded
from vestige.core.subjects import ImageSubject
from vestige.core.video import VideoSubject
from vestige.forensics.generator_records import (
    AIGC_LABELS,
    GOOGLE_CREDIT,
    JSON_RECORDS,
    KEY_RECORDS,
    LABEL_FIELDS,
    LINE_RECORDS,
    SIGNATURES,
    WEBUI_VARIANTS,
    JsonRecord,
    LineRecord,
)
from vestige.forensics.source_types import (
    GENERATED_TYPES,
    NOT_GENERATED_TYPES,
    SOURCE_TYPES,
    SYNTHETIC_TYPES,
    source_type,
)
from vestige.forensics.stealth_records import read_stealth

__all__ = ["GENERATED_TYPES", "SOURCE_TYPES", "GeneratorTags", "Tag", "source_type"]

_PREFIX = r"^\W*(made|created|generated|imagined)?( with| by| in| using)?\s*"
_SIGNED = {name: re.compile(f"{_PREFIX}({pattern})", re.IGNORECASE) for name, pattern in SIGNATURES.items()}
# a person's name may begin like a program's: there, nothing but a version may follow
_PERSON_KEYS = re.compile(r"^(Artist|Make|tiff:Make|tiff:Artist|dc:creator|By-line)$", re.IGNORECASE)
_VERSION_ONLY = re.compile(r"^[\s\d.,v()\-]*(ai)?$", re.IGNORECASE)
_SIGNED_KEYS = re.compile(
    r"^(Software|Make|Artist|Source|Generator|AI[ _-]?generator|xmp:CreatorTool|tiff:Software|tiff:Make|tiff:Artist|"
    r"photoshop:Credit|photoshop:Source|Credit|OriginatingProgram|ProcessingSoftware|dc:creator|By-line)$",
    re.IGNORECASE,
)
_MIDJOURNEY_JOB = re.compile(
    r"\bJob ID: ?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE
)
_MIDJOURNEY_OPTION = re.compile(
    r"(?:^|\s)--(?:(?:v|version|niji|ar|aspect|stylize|s|chaos|c|seed|q|quality|iw|weird|sref|cref) [\w.:/]+"
    r"|(?:raw|tile|style raw|hd)\b)"
)
_DREAM = re.compile(r"(?=.*\s-s ?\d+)(?=.*\s-S ?\d+)(?=.*\s-W ?\d+)(?=.*\s-H ?\d+)", re.DOTALL)
_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", re.IGNORECASE)
_GROK = re.compile(r"^\s*Signature: ?[A-Za-z0-9+/=]{40,}\s*$")
_AI_FIELDS = ("AISystemUsed", "AISystemVersionUsed", "AIPromptInformation", "AIPromptWriterName")
_OPENING_QUOTES = "'\"“‘«`„‚"
#: Texts that records inside records may unfold to.
_MAX_TEXTS, _MAX_DEPTH = 2000, 3

#: What a record says about the picture, and the sentence for it; {names} are those who say it.
_SENTENCES = {
    "generated": "The file says that it was made or altered by a generative model ({names}).",
    "synthetic": "The file says that it was composed of elements of which at least one is synthetic ({names}).",
    "possible": "A label in the file says that it may have been made by a generative model ({names}).",
}


@dataclass(frozen=True)
class Tag:
    """One generator record: the program, where it stood, what it says, and what that makes of the picture.

    says: "generated", "synthetic", "possible", or "" for a record that declares neither.
    """

    generator: str
    where: str
    quote: str
    says: str = "generated"
    prompt: str = ""
    model: str = ""
    seed: str = ""


class GeneratorTags:
    """Flags files in which an image generator, or whoever published the picture, says that it was generated.

    Records hidden in the lowest bits of a losslessly stored picture are read too.

    >>> import numpy as np
    >>> from vestige.core.image_io import encode
    >>> GeneratorTags().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).flagged
    False
    """

    slug = "generator_tags"
    kind = "generated"

    def find(self, subject: ImageSubject) -> Finding:
        """Every record of a generator; the score counts those that declare generated content."""
        try:
            embedded = read_embedded(subject)
        except VestigeError as error:
            return Finding.not_applicable(self.slug, self.kind, str(error))
        try:
            return self._finding(embedded, read_stealth(subject))
        except VestigeError:
            return self._finding(embedded, [], "the lowest bits were not read: the picture cannot be decoded whole")

    def find_clip(self, clip: VideoSubject) -> Finding:
        """The same for the file of a clip."""
        return self._finding(read_clip(clip.path, clip.format).embedded, [])

    def _finding(self, embedded: Embedded, hidden: list[Text], problem: str = "") -> Finding:
        tags: list[Tag] = []
        known = {t.where for t in hidden}
        for text, record in _unfold([*embedded.every_text(), *hidden]):
            for rule in _RULES:
                tags += rule(text, record)
        for text in hidden:
            if not any(t.where.startswith(text.where) for t in tags):
                tags.append(Tag("a generator's hidden record", text.where, text.value))
        artist, description = (str(embedded.exif.get(k, "")) for k in ("Artist", "ImageDescription"))
        if _UUID.match(artist.strip()) and _GROK.match(description):
            tags.append(Tag("Grok (xAI)", "EXIF Artist and ImageDescription", description))
        tags = list({(t.generator, t.where): t for t in tags}.values())
        declared = [t for t in tags if t.says]
        said = [
            sentence.format(names=", ".join(list(dict.fromkeys(t.generator for t in tags if t.says == says))[:4]))
            for says, sentence in _SENTENCES.items()
            if any(t.says == says for t in tags)
        ]
        terms = [t.quote for t in tags if t.generator == "IPTC digital source type"]
        other = [SOURCE_TYPES[term] for term in terms if term in NOT_GENERATED_TYPES]
        clear = "No image generator has signed this file."
        return Finding(
            self.slug,
            self.kind,
            float(len(declared)),
            when_flagged=" ".join(said) or "The file says that it was made or altered by a generative model.",
            when_clear=f"The file says that it was {other[0]}; no image generator has signed it." if other else clear,
            flagged=bool(declared),
            evidence=tuple(_evidence(t) for t in tags[:12])
            + tuple([*embedded.problems[:4], *[problem] * bool(problem)]),
            details={
                "generators": list(dict.fromkeys(t.generator for t in declared)),
                "prompt": next((clean(t.prompt, 400) for t in declared if t.prompt), ""),
                "model": next((clean(t.model) for t in declared if t.model), ""),
                "seed": next((clean(t.seed, 24) for t in declared if t.seed), ""),
                "source_types": terms,
                "hidden": sorted(known),
            },
        )


def _evidence(tag: Tag) -> str:
    if tag.generator == "IPTC digital source type":
        return f"{tag.where}: {tag.quote}: {SOURCE_TYPES[tag.quote]}"
    return f"{tag.where}: {tag.generator}: “{clean(tag.quote)}”"


def _unfold(texts: list[Text]) -> Iterator[tuple[Text, dict[str, Any]]]:
    """Every text with the JSON object it is, and the texts and objects inside such objects."""
    queue: list[tuple[Text, dict[str, Any] | None, int]] = [(text, None, 0) for text in reversed(texts)]
    given = 0
    while queue and given < _MAX_TEXTS:
        text, record, depth = queue.pop()
        given += 1
        record = _json(text.value) if record is None else record
        yield text, record
        if depth < _MAX_DEPTH:
            for key, value in list(record.items())[:60]:
                if isinstance(value, dict) and (key in _HOLDERS or value.keys() & _TELLING):
                    queue.append((Text(text.where, key, ""), value, depth + 1))
                elif isinstance(value, str) and value:
                    queue.append((Text(text.where, key, value), None, depth + 1))


#: Names of fields that hold a record of their own, and fields by which one is known.
_HOLDERS = frozenset({"prompt", "workflow", "parameters", "metadata", "generation_data", "AIGC"})
_TELLING = frozenset({"Label", "ContentProducer", "sui_image_params"})


def _json(value: str) -> dict[str, Any]:
    """The JSON object a text holds, possibly after a "name:" as ComfyUI writes it into EXIF; {} when it is none."""
    start = value.find("{", 0, 40)
    if start < 0:
        return {}
    try:
        if value.lstrip()[:1] == '"':  # an object written as a string
            parsed = json.loads(value.rstrip("\x00 \n"))
            parsed = json.loads(parsed) if isinstance(parsed, str) else parsed
        else:
            parsed = json.loads(value[start:].rstrip("\x00 \n"))
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _field(record: Any, paths: str) -> Any:
    """The value at a dotted path, or at the first of several divided by "|"; None where there is none."""
    for path in paths.split("|"):
        value = record
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0].get("prompt", "")
    if isinstance(value, dict):
        value = value.get("label", value.get("name", value.get("model_name", "")))
    return str(value)[:2000] if isinstance(value, str | int | float) else ""


def _place(text: Text) -> str:
    return f"{text.where} {clean(text.key, 60)}"


def _last(text: Text) -> str:
    return re.split(r"[/:]", text.key)[-1]


def _declared(text: Text, record: dict[str, Any]) -> Iterator[Tag]:
    """Labels: IPTC source type and AI fields, the AIGC label of GB 45438-2025, publishers' own."""
    name = _last(text)
    if name.lower() in ("digitalsourcetype", "digitalsourcefiletype") and (term := source_type(text.value)):
        says = "synthetic" if term in SYNTHETIC_TYPES else "generated" if term in GENERATED_TYPES else ""
        yield Tag("IPTC digital source type", _place(text), term, says)
    if name in _AI_FIELDS and text.key.rsplit("/", 1)[-1].startswith("Iptc4xmp") and text.value.strip():
        prompt = text.value if name == "AIPromptInformation" else ""
        model = text.value if name == "AISystemUsed" else ""
        yield Tag("IPTC AI field", _place(text), text.value, prompt=prompt, model=model)
    if name.lower() in LABEL_FIELDS and text.value.strip().lower() in ("yes", "true", "1"):
        yield Tag(LABEL_FIELDS[name.lower()], _place(text), text.value)
    label = record.get("AIGC", record)
    if isinstance(label, str):
        label = _json(label)
    if isinstance(label, dict) and "Label" in label and label.keys() & {"ContentProducer", "ProduceID"}:
        code, producer = clean(label["Label"], 8), clean(label.get("ContentProducer", ""), 60)
        says = "generated" if code == "1" else "possible" if code in AIGC_LABELS else ""
        quote = f"Label {code} ({AIGC_LABELS.get(code, 'unknown')}), producer {producer}"
        yield Tag("AIGC label", _place(text), quote, says)


def _signed(text: Text, record: dict[str, Any]) -> Iterator[Tag]:
    """Generators that sign like a program or an agency."""
    key = text.key.rsplit("/", 1)[-1]
    if key.endswith(("Credit", "Source")) and GOOGLE_CREDIT.match(text.value):
        yield Tag("Google AI", _place(text), text.value)
    if _SIGNED_KEYS.match(key) and len(text.value) <= 120:
        for name, pattern in _SIGNED.items():
            match = pattern.match(text.value)
            if match and (not _PERSON_KEYS.match(key) or _VERSION_ONLY.match(text.value[match.end() :])):
                yield Tag(name, _place(text), text.value)


def _lines(text: Text, record: dict[str, Any]) -> Iterator[Tag]:
    """Records written as lines: the sampler line of the WebUI and of the programs that copied it, Mochi Diffusion's."""
    if record:
        return
    for kind in LINE_RECORDS:
        tail = text.value[-20_000:]
        if (line := _record_line(tail, text, kind)) is None:
            continue
        fields = {k: m.group(1).strip() for k, p in kind.fields if (m := re.search(p, line))}
        native = re.fullmatch(kind.native, _last(text), re.IGNORECASE) is not None
        if len(fields) < (kind.fewest if native else kind.fewest_elsewhere):
            continue
        prompt = re.search(kind.prompt, text.value[:20_000], re.DOTALL)
        name = kind.generator
        if kind is LINE_RECORDS[0]:
            name = next((n for p, n in WEBUI_VARIANTS if re.search(p, line)), name)
        quote = ", ".join(f"{k} {v}" for k, v in fields.items() if k != "prompt")
        model = fields.get("model", "") or fields.get("hash", "")
        said = prompt.group(1).strip() if prompt else ""
        yield Tag(name, _place(text), quote, "generated", said, model, fields.get("seed", ""))


def _record_line(tail: str, text: Text, kind: LineRecord) -> str | None:
    """The part of a text that is a record; None where it has none, or only quotes one.

    A program puts its record on a line of its own and nothing but further named fields after it. Under the key
    "parameters", where only programs write, it may stand anywhere.
    """
    starts = [match.start() for match in re.finditer(kind.start, tail)]
    if not starts:
        return None
    before, line = tail[: starts[-1]], tail[starts[-1] :]
    if text.key.lower() == "parameters":
        return line
    if before.rstrip(" ")[-1:] in tuple(_OPENING_QUOTES) and before.strip():
        return None
    own_line = not before.strip() or before.rstrip(" ").endswith("\n")
    if not own_line and not re.search(r"(^|\n)Negative prompt:", before):
        return None
    following = [part.strip() for part in line.split("\n")[1:] if part.strip()]
    named = re.compile(r"[A-Z][\w \-./]{0,60}:|[\[{]")
    return line if all(named.match(part) for part in following[:40]) else None


def _midjourney(text: Text, record: dict[str, Any]) -> Iterator[Tag]:
    """A Midjourney job: its identifier, or a version option among others."""
    value = text.value[:8000]
    options = {m.group(0).split()[0] for m in _MIDJOURNEY_OPTION.finditer(value)}
    versioned = options & {"--v", "--version", "--niji"}
    if _MIDJOURNEY_JOB.search(value) or (versioned and len(options) >= 2):
        yield Tag("Midjourney", _place(text), value, prompt=re.split(r" --|Job ID", value)[0])


def _dream(text: Text, record: dict[str, Any]) -> Iterator[Tag]:
    """The command line early InvokeAI versions stored."""
    if text.key.lower() == "dream" and _DREAM.search(text.value[:8000]):
        prompt = text.value[:8000].rsplit('"', 1)[0].strip(' "')
        seed = re.search(r"\s-S ?(\d+)", text.value[:8000])
        yield Tag("InvokeAI", _place(text), text.value, prompt=prompt, seed=seed.group(1) if seed else "")


def _keys(text: Text, record: dict[str, Any]) -> Iterator[Tag]:
    """Keys under which only one program writes."""
    name, pattern = KEY_RECORDS.get(text.key.lower(), ("", ""))
    if name and re.match(pattern, text.value):
        yield Tag(name, _place(text), text.value)


def _records(text: Text, record: dict[str, Any]) -> Iterator[Tag]:
    """Generators that write JSON: the first entry of the table that fits, or the node graph of ComfyUI."""
    if not record:
        return
    where, keys = _place(text), record.keys()
    for kind in JSON_RECORDS:
        if _fits(kind, text, record):
            said = [_text(_field(record, path)) if path else "" for path in (kind.prompt, kind.model, kind.seed)]
            quote = ", ".join(clean(k, 24) for k in list(keys)[:8])
            yield Tag(kind.generator, where, quote, "generated", *said)
            return
    nodes = [
        n for n in record.values() if isinstance(n, dict) and "class_type" in n and isinstance(n.get("inputs"), dict)
    ]
    if nodes:
        yield Tag("ComfyUI", where, f"graph of {len(nodes)} nodes", "generated", *_graph(nodes))
    elif isinstance(record.get("nodes"), list) and isinstance(record.get("links"), list) and "version" in keys:
        yield Tag("ComfyUI", where, f"workflow of {len(record['nodes'])} nodes")


def _fits(kind: JsonRecord, text: Text, record: dict[str, Any]) -> bool:
    if kind.keys and not re.fullmatch(kind.keys, _last(text), re.IGNORECASE):
        return False
    if any(_field(record, path) is None for path in kind.needs):
        return False
    if sum(name in record for name in kind.some[1]) < kind.some[0]:
        return False
    for path, pattern in kind.says:
        value = _field(record, path)
        value = json.dumps(value)[:4000] if isinstance(value, dict | list) else str(value)[:4000]
        if not re.match(pattern, value, re.DOTALL):
            return False
    return True


def _graph(nodes: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Longest prompt, checkpoint and seed in a node graph."""
    prompt = model = seed = ""
    for node in nodes[:2000]:
        inputs = node["inputs"]
        text = inputs.get("text", inputs.get("prompt", ""))
        if isinstance(text, str) and len(text) > len(prompt):
            prompt = text[:2000]
        for name in ("ckpt_name", "unet_name", "model_name"):
            if isinstance(inputs.get(name), str):
                model = model or inputs[name]
        for name in ("seed", "noise_seed"):
            if isinstance(inputs.get(name), int):
                seed = seed or str(inputs[name])
    return prompt, model, seed


_RULES: tuple[Callable[[Text, dict[str, Any]], Iterator[Tag]], ...] = (
    _declared, _signed, _lines, _midjourney, _dream, _keys, _records,
)  # fmt: skip
