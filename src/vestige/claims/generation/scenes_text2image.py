"""Claims of the diffusion engine and of the text-to-image model shipped with it."""

from __future__ import annotations

import json
import math
import tempfile
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.data.scenes import CLASSES, STYLES
from vestige.engines.diffusion.inversion import invert
from vestige.engines.diffusion.pipeline import TextToImage, diffusers_scheduler, load_pipeline, save_pipeline
from vestige.engines.diffusion.samplers import Denoiser, Sampler, sample
from vestige.engines.diffusion.schedules import continuous_vp, cosine, grid, linear, scaled_linear
from vestige.metrics.quality import psnr
from vestige.nn.features import extract_features

SAMPLES, STEPS, GUIDANCE = 1000, 12, 3.0
#: Series of held-out scenes: captions that are drawn, and two more real sets.
CAPTIONS, REFERENCE, FLOOR = 101, 102, 103
PROMPTS = ("a photo of a red ball on grass", "a striped blue cup in neon style on sand")


def _models(context: ClaimContext) -> dict[str, TextToImage]:
    return {
        "shipped": runs.pipeline(),
        "random, eps, scaled linear": runs.random_pipeline(scaled_linear(), "eps", seed=context.seed),
        "random, v, cosine": runs.random_pipeline(cosine(), "v", seed=context.seed),
        "random, x0, linear": runs.random_pipeline(linear(), "x0", seed=context.seed),
    }


def _noise(model: TextToImage, count: int, seed: int) -> torch.Tensor:
    return torch.randn((count, *model.latent_shape()), generator=torch.Generator().manual_seed(seed))


@claim(
    "DDIM and DPM-Solver++(2M) end where diffusers' schedulers do within 1e-4 of the largest sample, with the shipped "
    "network and random ones, guided"
)
@torch.no_grad()
def samplers_equal_diffusers(context: ClaimContext) -> Evidence:
    rows, worst, apart = [], 0.0, math.inf
    steps = 20 if context.limit else 25  # with less than 15, diffusers lowers the order of the last steps
    methods: tuple[Sampler, ...] = ("ddim", "dpm++")
    for name, model in _models(context).items():
        start = _noise(model, len(PROMPTS), context.seed)
        ends = {}
        for method in methods:
            denoiser = model.denoiser(PROMPTS, guidance=GUIDANCE)
            ends[method] = sample(denoiser, start, grid(model.table, steps), method)
            scheduler = diffusers_scheduler(model.table, model.prediction, method)
            scheduler.set_timesteps(steps)
            x = start
            for t in scheduler.timesteps:
                x = scheduler.step(denoiser.output(x, int(t)), t, x).prev_sample
            difference = float((ends[method] - x).abs().max() / x.abs().max().clamp(min=1))
            worst = max(worst, difference)
            rows.append({"network": name, "sampler": method, "steps": steps, "difference": difference, "allowed": 1e-4})
        other = float((ends["ddim"] - ends["dpm++"]).abs().max() / ends["ddim"].abs().max().clamp(min=1))
        apart = min(apart, other)
        rows.append({"network": name, "sampler": "ddim against dpm++", "steps": steps, "difference": other})
    note = "diffusers' DDIM goes from t to t - T // n, which is the next level of its grid only where n divides T."
    return Evidence(worst <= 1e-4 < apart, rows, note)


@claim(
    "on Gaussian data the error of DDIM falls as 1/n and that of DPM-Solver++(2M) as 1/n², which at 20 steps has at "
    "most 1/5 of the error of DDIM (grid uniform in log SNR)"
)
def solvers_have_their_order(context: ClaimContext) -> Evidence:
    counts = (20, 80) if context.limit else (10, 20, 40, 80)
    methods: tuple[Sampler, ...] = ("ddim", "dpm++")
    errors = {method: [gaussian_error(n, method) for n in counts] for method in methods}
    rows: list[dict[str, Any]] = [
        {"steps": n, **{str(method): errors[method][i] for method in methods}} for i, n in enumerate(counts)
    ]
    at = counts.index(20)
    order: dict[str, float] = {m: math.log(errors[m][at] / errors[m][-1]) / math.log(counts[-1] / 20) for m in methods}
    rows.append({"steps": "order from 20 to 80", **order})
    low = errors["dpm++"][at] <= errors["ddim"][at] / 5
    return Evidence(abs(order["ddim"] - 1) <= 0.2 and order["dpm++"] >= 1.6 and low, rows)


def gaussian_error(steps: int, method: Sampler, mean: float = 0.4, spread: float = 0.3, start: float = 1.3) -> float:
    """Distance of a sampler from the exact flow of N(mean, spread²) with its exact denoiser."""
    table = continuous_vp(20_000)

    def clean(x: torch.Tensor, time: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        index = int((table.times - float(time[0])).abs().argmin())
        a, s = table.alpha[index], table.sigma[index]
        return mean + (a * spread**2 / (a**2 * spread**2 + s**2)) * (x - a * mean)

    x = torch.tensor([[start]], dtype=torch.float64)
    found = sample(Denoiser(clean, table, "x0"), x, grid(table, steps, "lambda"), method)
    a, s = float(table.alpha[-1]), float(table.sigma[-1])
    deviation = (start - a * mean) / math.hypot(a * spread, s)
    # The last step reads x0 at the first level, where the posterior mean still differs a little from the sample.
    a, s = float(table.alpha[0]), float(table.sigma[0])
    end = a * mean + deviation * math.hypot(a * spread, s)
    return abs(float(found) - float(clean(torch.tensor(end), table.times[:1], None)))


@claim(
    "DDIM inversion and sampling without guidance return held-out renders at >= 30 dB with 50 steps, better with more "
    "steps, and 3 fixed-point iterations add >= 5 dB"
)
@torch.no_grad()
def inversion_returns_the_picture(context: ClaimContext) -> Evidence:
    model = runs.pipeline()
    count, plan = (context.limit, (4, 8)) if context.limit else (16, (10, 25, 50))
    scenes = runs.held_out(count, CAPTIONS, _size(model))
    latents = model.encode(scenes.images)
    denoiser = model.denoiser(scenes.captions)
    rows, means = [], {}
    for steps, fixed in [*((n, 0) for n in plan), (plan[-1], 3)]:
        levels, before = grid(model.table, steps), denoiser.calls
        noise = invert(denoiser, latents, levels, fixed_point=fixed)
        back = model.decode(sample(denoiser, noise, levels))
        each = psnr(scenes.images.numpy(), back.numpy())
        means[steps, fixed] = float(np.minimum(each, 100).mean())
        rows.append(
            {
                "steps": steps, "fixed-point iterations": fixed, "PSNR": means[steps, fixed],
                "lowest": float(each.min()), "calls": denoiser.calls - before,
                "spread of the noise": float(noise.std()), "pictures": count,
            }
        )  # fmt: skip
    plain = [means[n, 0] for n in plan]
    rises = all(a < b for a, b in pairwise(plain))
    return Evidence(plain[-1] >= 30 and rises and means[plan[-1], 3] >= plain[-1] + 5, rows)


def _size(model: TextToImage) -> int:
    """Side of the pictures of a model."""
    return int(model.unet.config.sample_size) * 2 ** (len(model.vae.config.block_out_channels) - 1)


@lru_cache(maxsize=2)
def drawn(count: int, seed: int) -> tuple[runs.Scenes, torch.Tensor]:
    """Held-out scenes and what the shipped model draws for their captions."""
    model = runs.pipeline()
    scenes = runs.held_out(count, CAPTIONS, _size(model))
    return scenes, model.sample(scenes.captions, seed=seed, steps=STEPS, guidance=GUIDANCE)


@headline(
    "for >= 80 % of 1000 captions that training has not seen, an independent judge reads object and style of the "
    "caption from the picture"
)
def pictures_show_their_captions(context: ClaimContext) -> Evidence:
    net, count = runs.judge(), context.limit or SAMPLES
    scenes, images = drawn(count, context.seed)
    right, real = runs.agreement(net, images, scenes), runs.agreement(net, scenes.images, scenes)
    turned = runs.Scenes(scenes.scenes, scenes.images, scenes.object.roll(1), scenes.style.roll(1))
    chance = runs.agreement(net, images, turned)
    rows: list[dict[str, Any]] = [
        {"pictures": name, "count": count, **{head: float(v.float().mean()) for head, v in found.items()}}
        for name, found in (
            (f"model, {STEPS} steps, guidance {GUIDANCE:g}", right),
            ("real renders (the judge's own accuracy)", real),
            ("model, against other captions (chance)", chance),
        )
    ]
    for head, names, wanted in (("object", CLASSES, scenes.object), ("style", STYLES, scenes.style)):
        for number, name in enumerate(names):
            chosen = wanted == number
            if chosen.any():
                rows.append(
                    {
                        "pictures": name, "count": int(chosen.sum()), head: float(right[head][chosen].float().mean()),
                        "both": float(right["both"][chosen].float().mean()),
                        "real": float(real[head][chosen].float().mean()),
                    }
                )  # fmt: skip
    shares = [float(right[head].float().mean()) for head in ("object", "style", "both")]
    note = f"Judge: {net.provenance}. Uniform guessing: object {1 / len(CLASSES):.3f}, style {1 / len(STYLES):.3f}."
    return Evidence(min(shares) >= 0.8, rows, note)


@claim("the Fréchet distance of its samples to real renders is at most 1/4 of that of a Gaussian fitted to every pixel")
def samples_are_near_the_real(context: ClaimContext) -> Evidence:
    net, count = runs.judge(), context.limit or SAMPLES
    scenes, images = drawn(count, context.seed)
    size = scenes.images.shape[-1]
    sets = {
        "model": images,
        "real renders (the floor)": runs.held_out(count, FLOOR, size).images,
        "real renders of the same captions": scenes.images,
        "Gaussian of every pixel": runs.pixel_gaussian(scenes.images, count, context.seed),
    }
    real = extract_features(net, runs.held_out(count, REFERENCE, size).images)
    found = {name: runs.set_distance(real, extract_features(net, pictures)) for name, pictures in sets.items()}
    rows = [{"pictures": name, "count": count, "distance": value} for name, value in found.items()]
    return Evidence(found["model"] <= found["Gaussian of every pixel"] / 4, rows, f"Features: {net.provenance}.")


@claim(
    "diffusers loads the shipped folder and draws the same picture from the same noise (1e-3), its UNet gives equal "
    "bits, and a folder that diffusers made alone gives the same picture here"
)
@torch.no_grad()
def folders_are_those_of_diffusers(context: ClaimContext) -> Evidence:
    steps = 2 if context.limit else 25
    with tempfile.TemporaryDirectory() as temporary:
        folders = {
            "shipped": runs.PIPELINE,
            "random, saved by vestige": save_pipeline(
                Path(temporary) / "ours", runs.random_pipeline(scaled_linear(), "eps", seed=context.seed)
            ),
            "random, made by diffusers": diffusers_folder(Path(temporary) / "theirs", context.seed),
        }
        rows = [{"folder": name, **_compared(folder, steps, context.seed)} for name, folder in folders.items()]
    holds = all(row["difference"] <= 1e-3 and row["equal bits"] and row["spread"] > 1e-3 for row in rows)
    return Evidence(holds, rows)


def _compared(folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """The largest difference of a sample in [0, 1] between diffusers' run of a folder and ours."""
    from diffusers import DiffusionPipeline

    model: Any = load_pipeline(folder)
    theirs: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True).to(torch.float32)
    theirs.set_progress_bar_config(disable=True)
    latents = _noise(model, len(PROMPTS), seed)
    made = theirs(
        list(PROMPTS), num_inference_steps=steps, guidance_scale=GUIDANCE, latents=latents.clone(), output_type="np"
    ).images
    spacing = theirs.scheduler.config.timestep_spacing
    ours = model.sample(PROMPTS, steps=steps, method="ddim", guidance=GUIDANCE, latents=latents, spacing=spacing)
    time, context = torch.tensor([7, 500]), model.embed(PROMPTS)
    pair = model.network(latents, time, context), theirs.unet(latents, time, encoder_hidden_states=context).sample
    return {
        "class": type(theirs).__name__, "steps": steps, "spread": float(ours.std()),
        "difference": float((torch.from_numpy(made).permute(0, 3, 1, 2) - ours).abs().max()),
        "equal bits": torch.equal(*pair),
    }  # fmt: skip


def diffusers_folder(path: Path, seed: int) -> Path:
    """A small Stable Diffusion folder made with diffusers and transformers alone, with the tokenizer of CLIP."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    path.mkdir(parents=True)
    (path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
            attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(16, 16), norm_num_groups=8, latent_channels=4, scaling_factor=0.5,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False,
        timestep_spacing="leading",
    )  # fmt: skip
    tokenizer = CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt"), model_max_length=64)
    whole: Any = StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    whole.save_pretrained(path / "folder", safe_serialization=True)
    return path / "folder"
