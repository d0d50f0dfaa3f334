"""Texts and tags that image generators write into their files, and the labels that declare generated content.

Only structured records count: a sampler line with its numbers, a node graph, a signed Software field, an IPTC source
type. A sentence that merely mentions a generator does not.

Source: IPTC Photo Metadata Standard 2025.1 and the IPTC Digital Source Type NewsCodes; the records of Stable Diffusion
WebUI, ComfyUI, InvokeAI, NovelAI, Fooocus, SwarmUI, Midjourney and others as these programs write them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vestige.core.embedded import Text, clean, read_embedded
from vestige.core.errors import VestigeError
from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject

#: The IPTC Digital Source Type vocabulary (with its retired terms) and what each says about generation.
SOURCE_TYPES = {
    "digitalCapture": "captured by a digital camera",
    "computationalCapture": "captured by a camera that merged several frames",
    "negativeFilm": "digitised from a negative",
    "positiveFilm": "digitised from a transparency",
    "print": "digitised from a print",
    "minorHumanEdits": "captured, with minor edits by a person",
    "humanEdits": "edited by a person with non-generative tools",
    "algorithmicallyEnhanced": "altered by an algorithm without generative tools",
    "softwareImage": "created by software",
    "digitalArt": "drawn by a person with digital tools",
    "digitalCreation": "created by a person with non-generative tools",
    "dataDrivenMedia": "drawn from data",
    "trainedAlgorithmicMedia": "created by a generative model",
    "algorithmicMedia": "created by an algorithm that was not trained on media",
    "screenCapture": "captured from a screen",
    "virtualRecording": "recorded in a virtual scene",
    "composite": "composed of several elements",
    "compositeCapture": "composed of captured elements",
    "compositeSynthetic": "composed of elements of which at least one is synthetic",
    "compositeWithTrainedAlgorithmicMedia": "edited with a generative model",
}

#: The source types that declare generated content.
GENERATED_TYPES = frozenset(
    {"trainedAlgorithmicMedia", "algorithmicMedia", "compositeSynthetic", "compositeWithTrainedAlgorithmicMedia"}
)

_SIGNATURES = {
    "OpenAI": r"(openai|dall[·.\-• ]?e|chatgpt|gpt-image|gpt-4o)\b",
    "Adobe Firefly": r"adobe firefly\b|firefly (image|web)\b",
    "Midjourney": r"midjourney\b",
    "NovelAI": r"novelai\b",
    "ComfyUI": r"comfyui\b",
    "InvokeAI": r"invoke ?ai\b",
    "Fooocus": r"fooocus\b",
    "Stable Diffusion": r"(stable[ _-]?diffusion|stability ?ai|dreamstudio|automatic1111|sd\.next"
    r"|easy diffusion|diffusionbee)\b",
    "Draw Things": r"draw ?things\b",
    "Black Forest Labs FLUX": r"(flux[. ]?\d?(\.\d)? ?\[?(dev|pro|schnell)|black forest labs)\b",
    "Leonardo.Ai": r"leonardo\.ai\b",
    "Ideogram": r"ideogram( ai)?\b",
    "Microsoft image generator": r"(bing image creator|microsoft designer)\b",
    "Google generator": r"(google imagen|imagen \d|google gemini|nano banana)\b",
    "Meta AI": r"(imagined with ai|meta ai)\b",
    "Apple Image Playground": r"(apple )?image playground\b",
    "Grok (xAI)": r"(grok|aurora by xai)\b",
    "NightCafe": r"nightcafe\b",
    "Playground": r"playground ?ai\b",
    "Recraft": r"recraft\b",
}
_PREFIX = r"^\W*(made|created|generated|imagined)?( with| by| in| using)?\s*"
_SIGNED = {name: re.compile(f"{_PREFIX}({pattern})", re.IGNORECASE) for name, pattern in _SIGNATURES.items()}
# a person's name may begin like a program's: there, nothing but a version may follow
_PERSON_KEYS = re.compile(r"^(Artist|Make|tiff:Make|tiff:Artist|dc:creator|By-line)$", re.IGNORECASE)
_VERSION_ONLY = re.compile(r"^[\s\d.,v()\-]*(ai)?$", re.IGNORECASE)
_SIGNED_KEYS = re.compile(
    r"^(Software|Make|Artist|Source|Generator|AI[ _-]?generator|xmp:CreatorTool|tiff:Software|tiff:Make|tiff:Artist|"
    r"photoshop:Credit|photoshop:Source|Credit|OriginatingProgram|ProcessingSoftware|dc:creator|By-line)$",
    re.IGNORECASE,
)
_GOOGLE_CREDIT = re.compile(r"^(made|edited|created) with google ai\W*$", re.IGNORECASE)

_WEBUI = {
    "steps": re.compile(r"\bSteps: ?(\d{1,4})\b"),
    "sampler": re.compile(r"\bSampler: ?([^,\n]{2,40})"),
    "cfg": re.compile(r"\bCFG scale: ?([\d.]{1,6})\b"),
    "seed": re.compile(r"\bSeed: ?(-?\d{1,20})\b"),
    "size": re.compile(r"\bSize: ?(\d{2,5}x\d{2,5})\b"),
    "model": re.compile(r"\bModel: ?([^,\n]{1,80})"),
    "hash": re.compile(r"\bModel hash: ?([0-9a-f]{6,64})\b"),
}
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


@dataclass(frozen=True)
class Tag:
    """One generator record: the program, where it stood, what it says, whether it declares generated content."""

    generator: str
    where: str
    quote: str
    generated: bool = True
    prompt: str = ""
    model: str = ""
    seed: str = ""


class GeneratorTags:
    """Flags files in which an image generator, or whoever published the picture, says that it was generated.

    >>> import numpy as np
    >>> from vestige.core.image_io import encode
    >>> GeneratorTags().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).flagged
    False
    """

    slug = "generator_tags"

    def find(self, subject: ImageSubject) -> Finding:
        """Every record of a generator; the score counts those that declare generated content."""
        try:
            embedded = read_embedded(subject)
        except VestigeError as error:
            return Finding.not_applicable(self.slug, "generated", str(error))
        texts = embedded.every_text()
        tags: list[Tag] = []
        for text in texts:
            for rule in _RULES:
                tags += rule(text)
        artist, description = (str(embedded.exif.get(k, "")) for k in ("Artist", "ImageDescription"))
        if _UUID.match(artist.strip()) and _GROK.match(description):
            tags.append(Tag("Grok (xAI)", "EXIF Artist and ImageDescription", description))
        tags = list({(t.generator, t.where): t for t in tags}.values())
        declared = [t for t in tags if t.generated]
        names = list(dict.fromkeys(t.generator for t in declared))
        return Finding(
            self.slug,
            "generated",
            float(len(declared)),
            when_flagged=f"The file says that it was made or altered by a generative model ({', '.join(names[:4])}).",
            when_clear="No image generator has signed this file.",
            flagged=bool(declared),
            evidence=tuple(f"{t.where}: {t.generator}: “{clean(t.quote)}”" for t in tags[:12])
            + tuple(embedded.problems[:4]),
            details={
                "generators": names,
                "prompt": next((clean(t.prompt, 400) for t in declared if t.prompt), ""),
                "model": next((clean(t.model) for t in declared if t.model), ""),
                "seed": next((clean(t.seed, 24) for t in declared if t.seed), ""),
                "source_types": [t.quote for t in tags if t.generator == "IPTC digital source type"],
            },
        )


def source_type(value: str) -> str:
    """The term of the IPTC Digital Source Type vocabulary an address or code stands for, "" when it is none.

    >>> source_type("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
    'trainedAlgorithmicMedia'
    """
    term = re.split(r"[/:]", value.strip().rstrip("/"))[-1]
    return next((t for t in SOURCE_TYPES if t.lower() == term.lower()), "")


def _place(text: Text) -> str:
    return f"{text.where} {clean(text.key, 60)}"


def _declared(text: Text) -> Iterator[Tag]:
    """Labels: IPTC source type and AI fields, and the AIGC label of GB 45438-2025."""
    last = text.key.rsplit("/", 1)[-1]
    name = last.rsplit(":", 1)[-1]
    if name.lower() in ("digitalsourcetype", "digitalsourcefiletype") and (term := source_type(text.value)):
        yield Tag("IPTC digital source type", _place(text), term, term in GENERATED_TYPES)
    if name in _AI_FIELDS and last.startswith("Iptc4xmp") and text.value.strip():
        prompt = text.value if name == "AIPromptInformation" else ""
        model = text.value if name == "AISystemUsed" else ""
        yield Tag("IPTC AI field", _place(text), text.value, prompt=prompt, model=model)
    if name.upper() == "AIGC" and (record := _json(text.value)):
        record = record.get("AIGC", record)
        if isinstance(record, dict) and "Label" in record and "ContentProducer" in record:
            producer = clean(record["ContentProducer"], 60)
            yield Tag("AIGC label", _place(text), f"Label {clean(record['Label'], 8)}, producer {producer}")


def _signed(text: Text) -> Iterator[Tag]:
    """Generators that sign like a program or an agency."""
    key = text.key.rsplit("/", 1)[-1]
    if key.endswith(("Credit", "Source")) and _GOOGLE_CREDIT.match(text.value):
        yield Tag("Google AI", _place(text), text.value)
    if _SIGNED_KEYS.match(key) and len(text.value) <= 120:
        for name, pattern in _SIGNED.items():
            match = pattern.match(text.value)
            if match and (not _PERSON_KEYS.match(key) or _VERSION_ONLY.match(text.value[match.end() :])):
                yield Tag(name, _place(text), text.value)


def _webui(text: Text) -> Iterator[Tag]:
    """The sampler line of Stable Diffusion WebUI and the programs that copied it."""
    tail = text.value[-20_000:]
    fields = {k: m.group(1) for k, pattern in _WEBUI.items() if (m := pattern.search(tail))}
    if len(fields.keys() & {"steps", "sampler", "cfg", "seed", "size", "hash"}) < 4:
        return
    prompt = re.split(r"\n?Negative prompt:|\n?\bSteps: ?\d", text.value[:20_000])[0]
    model = fields.get("model", "") or fields.get("hash", "")
    quote = ", ".join(f"{k} {v}" for k, v in fields.items())
    yield Tag("Stable Diffusion WebUI", _place(text), quote, prompt=prompt, model=model, seed=fields.get("seed", ""))


def _midjourney(text: Text) -> Iterator[Tag]:
    """A Midjourney job: its identifier, or a version option among others."""
    value = text.value[:8000]
    options = {m.group(0).split()[0] for m in _MIDJOURNEY_OPTION.finditer(value)}
    versioned = options & {"--v", "--version", "--niji"}
    if _MIDJOURNEY_JOB.search(value) or (versioned and len(options) >= 2):
        yield Tag("Midjourney", _place(text), value, prompt=re.split(r" --|Job ID", value)[0])


def _dream(text: Text) -> Iterator[Tag]:
    """The command line early InvokeAI versions stored."""
    if text.key.lower() == "dream" and _DREAM.search(text.value[:8000]):
        prompt = text.value[:8000].rsplit('"', 1)[0].strip(' "')
        seed = re.search(r"\s-S ?(\d+)", text.value[:8000])
        yield Tag("InvokeAI", _place(text), text.value, prompt=prompt, seed=seed.group(1) if seed else "")


def _json(value: str) -> dict[str, Any]:
    """The JSON object a text holds, possibly after a "name:" as ComfyUI writes it into EXIF; {} when it is none."""
    start = value.find("{", 0, 40)
    if start < 0:
        return {}
    try:
        parsed = json.loads(value[start:].rstrip("\x00 \n"))
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _records(text: Text) -> Iterator[Tag]:
    """Generators that write JSON."""
    record = _json(text.value)
    if not record:
        return
    key, where, keys = text.key.lower(), _place(text), record.keys()
    nodes = [
        n for n in record.values() if isinstance(n, dict) and "class_type" in n and isinstance(n.get("inputs"), dict)
    ]
    seed = str(record.get("seed", ""))
    if nodes:
        yield Tag("ComfyUI", where, f"graph of {len(nodes)} nodes", True, *_graph(nodes))
    elif isinstance(record.get("nodes"), list) and isinstance(record.get("links"), list) and "version" in keys:
        yield Tag("ComfyUI", where, f"workflow of {len(record['nodes'])} nodes")
    elif key in ("invokeai_metadata", "invokeai_graph", "invokeai_workflow", "sd-metadata"):
        image = record["image"] if isinstance(record.get("image"), dict) else record
        model = record.get("model") or record.get("model_weights") or ""
        model = model.get("name", model.get("model_name", "")) if isinstance(model, dict) else model
        prompt = _prompt(record.get("positive_prompt") or image.get("prompt"))
        yield Tag("InvokeAI", where, key, True, prompt, str(model), seed or str(image.get("seed", "")))
    elif isinstance(record.get("sui_image_params"), dict):
        values = record["sui_image_params"]
        prompt, model = _prompt(values.get("prompt")), str(values.get("model", ""))
        yield Tag("SwarmUI", where, "sui_image_params", True, prompt, model, str(values.get("seed", "")))
    elif str(record.get("version", "")).startswith("Fooocus") or (key == "parameters" and "base_model" in keys):
        quote = str(record.get("version", "parameters"))
        yield Tag("Fooocus", where, quote, True, _prompt(record.get("prompt")), str(record.get("base_model", "")), seed)
    elif "prompt" in keys and len(keys & {"uc", "sampler", "steps", "scale", "seed", "noise_schedule"}) >= 4:
        yield Tag("NovelAI", where, ", ".join(sorted(keys)[:8]), True, _prompt(record["prompt"]), "", seed)
    elif "prompt" in keys and "use_stable_diffusion_model" in keys:
        model = str(record["use_stable_diffusion_model"])
        yield Tag("Easy Diffusion", where, "parameters", True, _prompt(record["prompt"]), model, seed)


def _prompt(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0].get("prompt", "")
    return value[:2000] if isinstance(value, str) else ""


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


_RULES: tuple[Callable[[Text], Iterator[Tag]], ...] = (_declared, _signed, _webui, _midjourney, _dream, _records)
