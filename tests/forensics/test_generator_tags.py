"""Generator tags: structured records count, mentions do not."""

import io
import json

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.generator_tags import GENERATED_TYPES, SOURCE_TYPES, GeneratorTags, source_type

IMAGE = Image.fromarray(np.random.default_rng(3).integers(0, 255, (32, 32, 3), dtype=np.uint8))
WEBUI = (
    "a castle, detailed\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, "
    "Size: 512x512, Model hash: abcdef1234, Model: example_v1"
)
GRAPH = json.dumps(
    {
        "3": {"class_type": "KSampler", "inputs": {"seed": 77, "model": ["4", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "example.safetensors"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse"}},
    }
)
JOB = "a fox --ar 3:2 --v 6.0 Job ID: 12345678-1234-1234-1234-123456789abc"


def png(**texts):
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        if not value.isascii():
            info.add_itxt(key, value)
        else:
            info.add_text(key, value, zip=len(value) > 100)
    out = io.BytesIO()
    IMAGE.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def exif(format="JPEG", **fields):
    tags = {"Make": 0x010F, "Software": 0x0131, "Artist": 0x013B, "ImageDescription": 0x010E}
    block = Image.Exif()
    for key, value in fields.items():
        if key == "UserComment":
            block.get_ifd(0x8769)[0x9286] = value
        else:
            block[tags[key]] = value
    return encode(np.asarray(IMAGE), format, exif=block.tobytes())


def xmp(attributes):
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        f"{attributes}/></rdf:RDF></x:xmpmeta>"
    )
    return encode(np.asarray(IMAGE), "JPEG", xmp=packet.encode())


def find(data):
    return GeneratorTags().find(ImageSubject(data))


GENERATED = [
    ("Stable Diffusion WebUI", png(parameters=WEBUI)),
    ("Stable Diffusion WebUI", png(parameters=WEBUI.replace("castle", "château"))),
    ("Stable Diffusion WebUI", exif(UserComment=b"UNICODE\x00" + WEBUI.encode("utf-16-be"))),
    ("Stable Diffusion WebUI", exif("WEBP", UserComment=b"UNICODE\x00" + WEBUI.encode("utf-16-le"))),
    ("ComfyUI", png(prompt=GRAPH)),
    ("ComfyUI", png(workflow=json.dumps({"nodes": [{}], "links": [], "version": 0.4}))),
    ("ComfyUI", exif("WEBP", Make="prompt:" + GRAPH)),
    ("InvokeAI", png(invokeai_metadata=json.dumps({"positive_prompt": "a hill", "seed": 5, "model": {"name": "m"}}))),
    ("InvokeAI", png(**{"sd-metadata": json.dumps({"model_weights": "m", "image": {"prompt": "a hill", "seed": 5}})})),
    ("InvokeAI", png(Dream='"a hill" -s 50 -S 42 -W 512 -H 512 -C 7.5 -A k_lms')),
    ("NovelAI", png(Software="NovelAI", Comment=json.dumps(
        {"prompt": "a hill", "steps": 28, "scale": 5, "uc": "bad", "sampler": "k", "seed": 1}))),
    ("Fooocus", png(parameters=json.dumps({"prompt": "a hill", "base_model": "m", "version": "Fooocus v2.5"}))),
    ("SwarmUI", png(parameters=json.dumps({"sui_image_params": {"prompt": "a hill", "model": "m", "seed": 3}}))),
    ("Midjourney", png(Description=JOB)),
    ("OpenAI", exif(Software="OpenAI DALL-E 3")),
    ("Adobe Firefly", xmp('xmp:CreatorTool="Adobe Firefly"')),
    ("Google AI", xmp('photoshop:Credit="Made with Google AI"')),
    ("Google AI", xmp('photoshop:Credit="Edited with Google AI"')),
    ("Grok (xAI)", exif(Artist="12345678-1234-1234-1234-123456789abc", ImageDescription="Signature: " + "Ab3+" * 20)),
    ("IPTC AI field", xmp('e:AISystemUsed="Example Generator 3"')),
    ("IPTC AI field", xmp('e:AIPromptInformation="a hill at dawn"')),
    ("AIGC label", png(AIGC=json.dumps({"Label": "1", "ContentProducer": "0011", "ProduceID": "x"}))),
]  # fmt: skip


@pytest.mark.parametrize(("generator", "data"), GENERATED)
def test_records_of_generators_are_found(generator, data):
    finding = find(data)
    assert finding.flagged
    assert generator in finding.details["generators"]
    assert finding.kind == "generated"
    assert finding.probability is None


@pytest.mark.parametrize(
    "data",
    [
        png(Comment="I compared Midjourney, DALL-E 3 and Stable Diffusion; Steps: 3 to the door, Seed: none"),
        png(Software="Adobe Photoshop 25.0"),
        png(Description="use --v for verbose output"),
        png(Title="Prompt: a workflow", prompt="hurry up"),
        png(parameters=json.dumps({"gain": 3})),
        png(prompt="{" * 60_000),
        exif(Artist="Fluxus Collective", Software="Ver.1.02", ImageDescription="Made with Google AI search help"),
        exif(Artist="Midjourney Smith"),
        xmp('photoshop:Credit="Google"'),
        xmp('e:AISystemUsed=""'),
    ],
)
def test_mentions_and_lookalikes_are_clear(data):
    finding = find(data)
    assert finding.applies
    assert not finding.flagged
    assert finding.score == 0


def test_prompt_model_and_seed_are_reported():
    details = find(png(parameters=WEBUI)).details
    assert (details["prompt"], details["model"], details["seed"]) == ("a castle, detailed", "example_v1", "1234")
    details = find(png(prompt=GRAPH)).details
    assert (details["prompt"], details["model"], details["seed"]) == ("a lighthouse", "example.safetensors", "77")


@pytest.mark.parametrize("term", sorted(SOURCE_TYPES))
def test_every_source_type_is_stated_and_only_generated_ones_flagged(term):
    finding = find(xmp(f'e:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/{term}"'))
    assert finding.details["source_types"] == [term]
    assert finding.flagged == (term in GENERATED_TYPES)


def test_unknown_source_types_are_ignored():
    assert source_type("http://cv.iptc.org/newscodes/digitalsourcetype/somethingElse") == ""
    assert not find(xmp('e:DigitalSourceType="anything"')).details["source_types"]


def test_long_prompts_are_cut_and_cleaned():
    finding = find(png(parameters="x\x07y" * 3000 + WEBUI))
    assert len(finding.details["prompt"]) <= 400
    assert "\x07" not in finding.details["prompt"]
