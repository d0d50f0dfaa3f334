"""The table of generators' records: one file for each entry, and lookalikes for each kind."""

import gzip
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.generator_records import JSON_RECORDS, KEY_RECORDS, LABEL_FIELDS, LINE_RECORDS, SIGNATURES
from vestige.forensics.generator_tags import GeneratorTags
from vestige.forensics.source_types import GENERATED_TYPES, NOT_GENERATED_TYPES, SOURCE_TYPES, SYNTHETIC_TYPES

PIXELS = np.random.default_rng(4).integers(0, 255, (40, 60, 3), dtype=np.uint8)
LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 512x512, Model hash: abcdef1234, Model: example"
INFO = f"a castle\nNegative prompt: blurry\n{LINE}"


def png(**texts):
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_itxt(key.replace("_dash_", "-"), value if isinstance(value, str) else json.dumps(value))
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def jpeg(comment):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + comment.encode("utf-16-be")
    return encode(PIXELS, "JPEG", exif=exif.tobytes())


def iptc(*fields):
    body = b"".join(b"\x1c\x02" + bytes([n]) + struct.pack(">H", len(v)) + v for n, v in fields)
    irb = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(body)) + body + b"\0" * (len(body) % 2)
    data = encode(PIXELS, "JPEG")
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(irb) + 2) + irb + data[2:]


def xmp(attributes):
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" '
        f"{attributes}/></rdf:RDF></x:xmpmeta>"
    )
    return encode(PIXELS, "JPEG", xmp=packet.encode())


def samsung(record):
    name, content = b"PhotoEditor_Re_Edit_Data", json.dumps(record).encode()
    body = struct.pack("<HHI", 0, 2977, len(name)) + name + content
    directory = b"SEFH" + struct.pack("<IIHHII", 107, 1, 0, 2977, len(body), len(body))
    return encode(PIXELS, "JPEG") + body + directory + struct.pack("<I", len(directory)) + b"SEFT"


def stealth(text, channel="alpha", packed=True, format="PNG", size=(128, 96)):
    kind = f"stealth_{'png' if channel == 'alpha' else 'rgb'}{'comp' if packed else 'info'}".encode()
    body = gzip.compress(text.encode()) if packed else text.encode()
    bits = np.unpackbits(np.frombuffer(kind + struct.pack(">I", 8 * len(body)) + body, np.uint8))
    rgba = np.full((*size, 4), 255, np.uint8)
    rgba[..., :3] = np.random.default_rng(1).integers(0, 255, (*size, 3))
    columns = rgba[..., 3:] if channel == "alpha" else rgba[..., :3]
    flat = np.ascontiguousarray(columns.swapaxes(0, 1)).reshape(-1)
    flat[: len(bits)] = flat[: len(bits)] & 254 | bits
    columns[...] = flat.reshape(*size[::-1], -1).swapaxes(0, 1)
    out = io.BytesIO()
    picture = Image.fromarray(rgba if channel == "alpha" else np.ascontiguousarray(rgba[..., :3]))
    picture.save(out, format, **({"lossless": True, "exact": True} if format == "WEBP" else {}))
    return out.getvalue()


def find(data):
    return GeneratorTags().find(ImageSubject(data))


NOVELAI = {"prompt": "a hill", "steps": 28, "scale": 5, "uc": "bad", "sampler": "k", "seed": 1}
FILES = [
    ("SwarmUI", png(parameters={"sui_image_params": {"prompt": "a hill", "model": "m", "seed": 3}})),
    ("SwarmUI", jpeg(json.dumps({"sui_image_params": {"prompt": "a hill"}}))),
    ("RuinedFooocus", png(parameters={"Prompt": "a hill", "steps": 3, "software": "RuinedFooocus"})),
    ("RuinedFooocus", png(parameters=json.dumps(json.dumps({"Prompt": "a hill", "software": "RuinedFooocus"})))),
    ("Fooocus", png(parameters={"prompt": "a hill", "base_model": "m", "version": "Fooocus v2.5"})),
    ("Fooocus", png(parameters={"prompt": "a hill", "base_model": "m"})),
    ("Fooocus", png(fooocus_scheme="fooocus")),
    ("Tensor.Art", png(generation_data=json.dumps({"prompt": "a hill", "baseModel": {"label": "m"}}) + "\0")),
    ("Tensor.Art", jpeg(json.dumps({"prompt": "a hill", "baseModel": {"label": "m"}, "samplerName": "Euler"}))),
    ("Draw Things", xmp(f"exif:UserComment='{json.dumps({'c': 'a hill', 'uc': '', 'scale': 7, 'seed': 1, 'v2': 0})}'")),
    ("Easy Diffusion", png(prompt="a hill", use_stable_diffusion_model="m.ckpt", seed="3")),
    ("Easy Diffusion", png(Data={"prompt": "a hill", "use_stable_diffusion_model": "m"})),
    ("Easy Diffusion", png(Data={"Prompt": "a hill", "Stable Diffusion model": "m"})),
    ("Civitai", png(prompt={"extraMetadata": '{"prompt": "a hill", "steps": 20}', "resource-stack": {}})),
    ("Civitai", jpeg(INFO + ", Civitai resources: [{}]")),
    ("InvokeAI", png(invokeai_metadata={"positive_prompt": "a hill", "seed": 5, "model": {"name": "m"}})),
    ("InvokeAI", png(**{"sd_dash_metadata": {"model_weights": "m", "image": {"prompt": "a hill", "seed": 5}}})),
    ("InvokeAI", png(invokeai_graph={"nodes": {}, "edges": []})),
    ("NovelAI", png(Comment=NOVELAI)),
    ("NovelAI", jpeg(json.dumps({"Software": "NovelAI", "Comment": json.dumps(NOVELAI)}))),
    ("Stability Matrix", png(**{"parameters_dash_json": {"PositivePrompt": "a hill", "Seed": 3}})),
    ("Stability Matrix", png(smproj='{"Version": 3}')),
    ("a Hugging Face Space", png(meta={"prompt": "a", "Model": "m", "resolution": "8x8", "sampler": "", "seed": 2})),
    ("Samsung Galaxy AI", samsung({"genAIType": 3})),
    ("Mochi Diffusion", iptc((120, b"Include in Image: a fox; Exclude from Image: blur; Model: m; Steps: 20; Guidance "
                                   b"Scale: 11.0; Seed: 3871; Size: 512x512; Scheduler: DPM; ML Compute Unit: All"))),
    ("Mochi Diffusion", iptc((65, b"Mochi Diffusion"))),
    ("Stable Diffusion WebUI", png(parameters=INFO)),
    ("Stable Diffusion WebUI", png(parameters=INFO.replace("\n", " "))),
    ("Stable Diffusion WebUI", jpeg(LINE)),
    ("Stable Diffusion WebUI", png(UserComment=INFO + ", Version: v1.9.4")),
    ("Stable Diffusion WebUI", png(UserComment=INFO + "\nTemplate: a castle\nNegative Template: blurry")),
    ("Stable Diffusion WebUI Forge", jpeg(INFO + ", Version: f2.0.1v1.10")),
    ("SD.Next", jpeg(INFO + ", App: SD.Next")),
    ("AIGC label", png(AIGC={"Label": "1", "ContentProducer": "0011", "ProduceID": "x"})),
    ("AIGC label", jpeg(json.dumps({"AIGC": {"Label": "1", "ContentProducer": "0011", "ProduceID": "x"}}))),
    ("AIGC label", xmp("TC260:AIGC='" + json.dumps({"Label": "1", "ContentProducer": "0011"}) + "'")),
    ("AI content label", xmp('Iptc4xmpExt:ContainsAiGeneratedContent="Yes"')),
    ("Google AI", iptc((110, b"Made with Google AI"))),
    ("Venice", png(Software="Venice.ai")),
    ("imaginAIry", png(Software="Imaginairy 14.1.1 / https://example.org")),
    ("Apple Photos Clean Up", iptc((110, b"Apple Photos Clean Up"))),
    ("NovelAI", stealth(json.dumps({"Description": "a hill", "Software": "NovelAI", "Comment": json.dumps(NOVELAI)}))),
    ("NovelAI", stealth(json.dumps({"Software": "NovelAI", "Comment": json.dumps(NOVELAI)}), format="WEBP")),
    ("Stable Diffusion WebUI", stealth(INFO, packed=False)),
    ("Stable Diffusion WebUI", stealth(INFO, "rgb")),
    ("Stable Diffusion WebUI", stealth(INFO, "rgb", packed=False)),
    ("a generator's hidden record", stealth("anything")),
]  # fmt: skip


@pytest.mark.parametrize(("generator", "data"), FILES, ids=[f"{n}-{g}" for n, (g, _) in enumerate(FILES)])
def test_records_are_known(generator, data):
    finding = find(data)
    assert finding.flagged
    assert generator in finding.details["generators"]
    assert "generative model" in finding.summary


def test_every_entry_of_the_table_has_a_file():
    tested = {generator for generator, _ in FILES}
    assert {r.generator for r in (*JSON_RECORDS, *LINE_RECORDS)} <= tested
    assert {name for name, _ in KEY_RECORDS.values()} <= tested
    assert set(LABEL_FIELDS.values()) <= tested


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_signature_fits_its_own_name(name):
    names = {"Black Forest Labs FLUX": "FLUX.1 [dev]", "Google generator": "Google Imagen", "Venice": "Venice.ai",
             "Microsoft image generator": "Bing Image Creator", "Playground": "Playground AI",
             "Grok (xAI)": "Grok"}  # fmt: skip
    assert name in find(png(Software=f"Made with {names.get(name, name)}")).details["generators"]


@pytest.mark.parametrize("where", ["Comment", "Description", "UserComment", "Title"])
@pytest.mark.parametrize(
    "text",
    [
        f"This lecture explains that the WebUI writes '{LINE}' into PNG files.",
        "This lecture explains that a program writes 'Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1' into files.",
        f"The WebUI ends its records with “{LINE}”",
        f"It looks like this:\n{LINE}\nand goes into a chunk called parameters.",
        "Steps: 20 to the door, Sampler: a band, Seed: none, Size: large",
        'The file says {"prompt": "a hill", "software": "RuinedFooocus"}, which names the program.',
        "Include in Image: the caption; Exclude from Image: nothing",
    ],
)
def test_quoted_records_are_clear(where, text):
    assert not find(png(**{where: text})).flagged


@pytest.mark.parametrize(
    "record",
    [{"software": "Example", "Prompt": "x"}, {"prompt": "x", "steps": 3}, {"c": 1, "uc": 2}, {"Label": "1"},
     {"extraMetadata": "none"}, {"Label": "Rum", "ContentProducer": "0"}, {"genAIType": 3}, {"genAIType": 0}],
)  # fmt: skip
def test_other_json_is_clear(record):
    assert not find(png(parameters=record)).flagged
    assert not find(jpeg(json.dumps(record))).flagged


def test_a_samsung_edit_without_a_generative_tool_is_clear():
    assert not find(samsung({"genAIType": 0, "isAppliedShadowRemover": True})).flagged
    assert not find(samsung({"genAIType": -1})).flagged


def test_prompt_model_and_seed_come_from_hidden_records_too():
    details = find(stealth(INFO)).details
    assert (details["prompt"], details["model"], details["seed"]) == ("a castle", "example", "1234")
    assert details["hidden"] == ["lowest bits of the alpha channel"]
    assert (
        find(stealth(json.dumps({"Software": "NovelAI", "Comment": json.dumps(NOVELAI)}))).details["prompt"] == "a hill"
    )


def test_hidden_records_are_unpacked_in_bounds():
    finding = find(stealth("x" * 6_000_000, size=(256, 256)))
    assert finding.flagged
    assert finding.details["hidden"]
    plain = np.random.default_rng(2).integers(0, 255, (64, 64, 4), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(plain).save(out, "PNG")
    assert not find(out.getvalue()).flagged


def declared(term, space="http://cv.iptc.org/newscodes/digitalsourcetype/"):
    return find(xmp(f'Iptc4xmpExt:DigitalSourceType="{space}{term}"'))


@pytest.mark.parametrize("term", sorted(SOURCE_TYPES))
def test_each_source_type_says_what_it_says(term):
    finding = declared(term)
    assert any(SOURCE_TYPES[term] in e for e in finding.evidence)
    assert finding.flagged == (term in GENERATED_TYPES)
    assert ("generative model" in finding.summary) == (term in GENERATED_TYPES - SYNTHETIC_TYPES)
    if term in SYNTHETIC_TYPES | NOT_GENERATED_TYPES:
        assert SOURCE_TYPES[term] in finding.summary


def test_the_terms_of_c2pa_are_known():
    assert declared("trainedAlgorithmicData", "http://c2pa.org/digitalsourcetype/").flagged
    assert not declared("empty", "http://c2pa.org/digitalsourcetype/").flagged


def test_a_label_that_only_suspects_says_so():
    finding = find(png(AIGC={"Label": "3", "ContentProducer": "0011"}))
    assert finding.flagged
    assert "may have been made" in finding.summary
    assert "suspected" in finding.evidence[0]
