"""The records image generators leave in files, as a table: where each stands, how it is known, what it names.

A generator is added here and nowhere else; `vestige.forensics.generator_tags` reads the table. Every entry has a test
with a file of its kind. Only what a program writes by itself is listed, not what people write about programs.

Sources: the programs' own code and documentation (Stable Diffusion WebUI and its forks, ComfyUI, InvokeAI, NovelAI,
Fooocus, RuinedFooocus, SwarmUI, Easy Diffusion, Draw Things, Mochi Diffusion, Tensor.Art, Civitai, Stability Matrix,
Hugging Face Spaces); IPTC Photo Metadata Standard 2025.1; GB 45438-2025 (China's label for generated content).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class JsonRecord:
    """A JSON object that a generator writes. Paths to fields use dots; the first entry that fits names the record.

    keys: pattern of the key the text stands under, "" where it may be any. needs: fields that must be there. some: at
    least so many of these fields. says: fields whose value must match a pattern. prompt, model, seed: where they stand.
    """

    generator: str
    keys: str = ""
    needs: tuple[str, ...] = ()
    some: tuple[int, tuple[str, ...]] = (0, ())
    says: tuple[tuple[str, str], ...] = ()
    prompt: str = ""
    model: str = ""
    seed: str = ""


_DIFFUSION = ("steps", "sampler", "scale", "seed", "uc", "noise_schedule", "v4_prompt", "uncond_scale", "cfg_rescale")

JSON_RECORDS = (
    JsonRecord("SwarmUI", needs=("sui_image_params.prompt",), prompt="sui_image_params.prompt",
               model="sui_image_params.model", seed="sui_image_params.seed"),
    JsonRecord("RuinedFooocus", says=(("software", r"RuinedFooocus"),), prompt="Prompt", model="base_model_name",
               seed="seed"),
    JsonRecord("Fooocus", says=(("version", r"Fooocus"),), prompt="prompt", model="base_model", seed="seed"),
    JsonRecord("Fooocus", keys="parameters|usercomment|comment", needs=("base_model",), prompt="prompt",
               model="base_model", seed="seed"),
    JsonRecord("Tensor.Art", keys="generation_data", needs=("prompt",), prompt="prompt", model="baseModel.label",
               seed="seed"),
    JsonRecord("Tensor.Art", needs=("prompt", "baseModel", "samplerName"), prompt="prompt", model="baseModel.label",
               seed="seed"),
    JsonRecord("Draw Things", needs=("c", "uc"), some=(3, ("sampler", "scale", "seed", "steps", "model", "size", "v2")),
               prompt="c", model="model", seed="seed"),
    JsonRecord("Easy Diffusion", needs=("prompt", "use_stable_diffusion_model"), prompt="prompt",
               model="use_stable_diffusion_model", seed="seed"),
    JsonRecord("Easy Diffusion", needs=("Prompt", "Stable Diffusion model"), prompt="Prompt",
               model="Stable Diffusion model", seed="Seed"),
    JsonRecord("Civitai", says=(("extraMetadata", r".*(prompt|resources|steps)"),), prompt="extraMetadata.prompt",
               seed="extraMetadata.seed"),
    JsonRecord("InvokeAI", keys="invokeai_metadata", some=(1, ("positive_prompt", "model", "generation_mode", "seed")),
               prompt="positive_prompt", model="model.name|model.model_name", seed="seed"),
    JsonRecord("InvokeAI", keys="sd-metadata", some=(1, ("image", "model_weights", "model_hash")),
               prompt="image.prompt", model="model_weights", seed="image.seed"),
    JsonRecord("InvokeAI", keys="invokeai_(graph|workflow)", some=(1, ("nodes", "edges"))),
    JsonRecord("NovelAI", says=(("Software", r"NovelAI"),), prompt="Description", model="Source"),
    JsonRecord("NovelAI", needs=("prompt",), some=(4, _DIFFUSION), prompt="prompt", seed="seed"),
    JsonRecord("Stability Matrix", keys="parameters-json", needs=("PositivePrompt",), prompt="PositivePrompt",
               model="ModelName", seed="Seed"),
    JsonRecord("a Hugging Face Space", needs=("prompt", "Model", "resolution"),
               some=(2, ("guidance_scale", "num_inference_steps", "sampler", "negative_prompt", "seed")),
               prompt="prompt", model="Model", seed="seed"),
    JsonRecord("Samsung Galaxy AI", keys="photoeditor_re_edit_data", says=(("genAIType", r"[1-9]\d*$"),)),
)  # fmt: skip

#: Keys under which only one program writes, with what the value looks like.
KEY_RECORDS = {
    "use_stable_diffusion_model": ("Easy Diffusion", r".{3,}"),
    "fooocus_scheme": ("Fooocus", r"(fooocus|a1111)$"),
    "smproj": ("Stability Matrix", r"\s*\{"),
}


@dataclass(frozen=True)
class LineRecord:
    """Fields of a record written as lines of text: name of each, and a pattern that captures the whole value.

    start: what the record starts with. fewest: how many fields make a record where the program keeps it (``native``,
    a pattern of the key); elsewhere ``fewest_elsewhere`` are needed, since people quote records in captions.
    """

    generator: str
    start: str
    fields: tuple[tuple[str, str], ...]
    fewest: int
    native: str
    fewest_elsewhere: int
    prompt: str


_END = r"(?=\s*(?:[,;\n]|$))"

LINE_RECORDS = (
    LineRecord(
        "Stable Diffusion WebUI", r"Steps: ?\d{1,5}(?=,|\s*$)",
        (("steps", rf"\bSteps: ?(\d{{1,5}}){_END}"),
         ("sampler", rf"\b(?:Sampler|Scheduler): ?([\w+\-. /()]{{2,40}}){_END}"),
         ("cfg", rf"\b(?:CFG scale|Guidance Scale|Distilled CFG Scale): ?([\d.]{{1,6}}){_END}"),
         ("seed", rf"\bSeed: ?(-?\d{{1,20}}){_END}"),
         ("size", rf"\bSize: ?(\d{{2,5}}x\d{{2,5}}){_END}"),
         ("model", r"\bModel: ?([^,;\n]{1,80})"),
         ("hash", rf"\bModel hash: ?([0-9a-fA-F]{{6,64}}){_END}")),
        4, r"parameters|usercomment|comment", 6, r"^(.*?)(?:\n?Negative prompt:|\n?\bSteps: ?\d)",
    ),
    LineRecord(
        "Mochi Diffusion", r"Include in Image:",
        (("prompt", r"\bInclude in Image: ?([^;\n]{1,2000});"),
         ("negative", r"\bExclude from Image: ?([^;\n]{0,2000});"),
         ("model", r"\bModel: ?([^;\n]{1,80});"),
         ("steps", rf"\bSteps: ?(\d{{1,5}}){_END}"),
         ("cfg", rf"\bGuidance Scale: ?([\d.]{{1,6}}){_END}"),
         ("seed", rf"\bSeed: ?(\d{{1,20}}){_END}"),
         ("scheduler", r"\bScheduler: ?([^;\n]{2,40})"),
         ("unit", r"\bML Compute Unit: ?([^;\n]{2,40})")),
        5, r"caption|imagedescription|description|usercomment", 5, r"^Include in Image: ?([^;]*)",
    ),
)  # fmt: skip

#: Forks of the WebUI, by words that their sampler line has.
WEBUI_VARIANTS = (
    (r"\bVersion: f\d", "Stable Diffusion WebUI Forge"),
    (r"\bVersion: (classic|neo)", "Stable Diffusion WebUI Forge"),
    (r"\bApp: ?SD\.Next", "SD.Next"),
    (r"\bVersion: Fooocus", "Fooocus"),
    (r"\bVersion: ComfyUI", "ComfyUI"),
    (r"\bCivitai (resources|metadata): ?[\[{]", "Civitai"),
    (r"\bswarm_version", "SwarmUI"),
)

#: How generators sign as the program, the credit line or the maker of a picture, after "made with" or the like.
SIGNATURES = {
    "OpenAI": r"(openai|dall[·.\-• ]?e|chatgpt|gpt-image|gpt-4o|sora)\b",
    "Adobe Firefly": r"adobe firefly\b|firefly (image|web)\b",
    "Midjourney": r"midjourney\b",
    "NovelAI": r"novelai\b",
    "ComfyUI": r"comfyui\b",
    "InvokeAI": r"invoke ?ai\b",
    "Fooocus": r"fooocus\b",
    "RuinedFooocus": r"ruined ?fooocus\b",
    "Stable Diffusion": r"(stable[ _-]?diffusion|stability ?ai|dreamstudio|automatic1111|sd\.next"
    r"|easy diffusion|diffusionbee)\b",
    "Draw Things": r"draw ?things\b",
    "Mochi Diffusion": r"mochi diffusion\b",
    "SwarmUI": r"(stable)?swarmui\b",
    "Tensor.Art": r"tensor\.art\b",
    "Civitai": r"civitai\b",
    "Venice": r"venice\.ai\b",
    "imaginAIry": r"imaginairy\b",
    "Black Forest Labs FLUX": r"(flux[. ]?\d?(\.\d)? ?\[?(dev|pro|schnell)|black forest labs)\b",
    "Leonardo.Ai": r"leonardo\.ai\b",
    "Ideogram": r"ideogram( ai)?\b",
    "Microsoft image generator": r"(bing image creator|microsoft designer)\b",
    "Google generator": r"(google imagen|imagen \d|google gemini|nano banana)\b",
    "Meta AI": r"(imagined with ai|meta ai)\b",
    "Apple Image Playground": r"(apple )?image playground\b",
    "Apple Photos Clean Up": r"apple photos clean ?up\b",
    "Grok (xAI)": r"(grok|aurora by xai)\b",
    "NightCafe": r"nightcafe\b",
    "Playground": r"playground ?ai\b",
    "Recraft": r"recraft\b",
}

#: Fields of a label, and what the label is called. The value must be one that affirms.
LABEL_FIELDS = {"containsaigeneratedcontent": "AI content label", "aigenerated": "AI content label"}
#: Values of "Label" in the AIGC record of GB 45438-2025.
AIGC_LABELS = {"1": "generated", "2": "possibly generated", "3": "suspected to be generated"}

GOOGLE_CREDIT = re.compile(r"^(made|edited|created) with google ai\W*$", re.IGNORECASE)
