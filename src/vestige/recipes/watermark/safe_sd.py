"""Safe-SD: injector and extractor around an autoencoder, then the diffusion model that signs on a word.

    vestige learn safe_sd
    vestige learn safe_sd --variant image_in_image

``preset=gpu`` with 20,000 steps of 32 and ``second=30000`` of 128 is the size the targets were set for. Pictures:
rendered scenes of 64 pixels with one object.

Injector: ``vae`` names a diffusers folder of an AutoencoderKL for 64 pixels to start from (or a pipeline folder with
one); without it the autoencoder starts at random. In the share ``warm`` of the run the two autoencoders, for pictures
and for marks, learn alone (0.4 of that with ``vae``); then the encoder is kept and marks are injected, first with a
weight of 10 on the reveal loss, which falls to 1, and with distortions of growing strength. Diffusion model: ``second``
updates of ``second_batch``; ``text`` a pipeline folder whose text encoder to begin with ("shipped": that of
scenes_text2image, "": from random weights). held: scenes that are judged by. The variant image_in_image is the rival
that hides the mark in a finished picture.

Results: the folder safe_sd, for the package's weights; of the rival, its weights.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.keys import derive
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.data.scenes import render_pack
from vestige.engines import parts
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.diffusion.latent import encode_images
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.engines.diffusion.schedules import cosine
from vestige.engines.marking.critic import Critic
from vestige.engines.marking.distort import DistortionLayer, Draw
from vestige.engines.marking.model import straight_clamp
from vestige.engines.marking.stages import ramp
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.metrics.detection import null_threshold
from vestige.metrics.quality import psnr
from vestige.nn.features import load_feature_net
from vestige.nn.text import build_tokenizer, text_encoder, token_ids
from vestige.nn.unet import text_unet
from vestige.nn.vae import fit_scaling, small_vae
from vestige.watermark.attacks.registry import eight_bit
from vestige.watermark.learned import WEIGHTS
from vestige.watermark.safe_sd import SafeSD, save_safe_sd
from vestige.watermark.safe_sd_marks import ImageInImage, modules, modules_right, random_marks
from vestige.watermark.safe_sd_model import TRIGGERS, MarkedTextToImage, with_trigger
from vestige.watermark.safe_sd_net import (
    SafeSDNet,
    load_net,
    mixed,
    put_back,
    random_mixings,
    stage_one_loss,
)

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"widths": (16, 32, 32), "reader": 48, "unet": (32, 64), "perceptual": False},
    "gpu": {"widths": (64, 96, 128), "reader": 128, "unet": (128, 256), "perceptual": True},
}
#: What marks are trained to survive, besides crops.
BANK = (
    Draw("identity"), Draw("jpeg", 95, 60), Draw("jpeg", 95, 60, real=True), Draw("blur", 0.3, 1.0),
    Draw("noise", 0, 0.03), Draw("resize_back", 0.95, 0.7),
)  # fmt: skip
KEY = derive(b"safe_sd", "recipe")


def perform(ctx: RecipeContext) -> dict[str, Any]:
    """Both stages one after the other, or the rival."""
    o = ctx.options
    if o["preset"] not in PRESETS or o["form"] not in ("safe_sd", "image_in_image"):
        raise UsageError(
            f"preset is one of {', '.join(PRESETS)}, form safe_sd or image_in_image; got {o['preset']}, {o['form']}."
        )
    if o["form"] == "image_in_image":
        job = hiding(ctx)
        rival = parts.trained(ctx, "rival", job)
        assert job.validate is not None
        return {"updates": ctx.config.steps, **parts.figures(ctx, "rival figures", partial(job.validate, rival))}
    sizes, folder = PRESETS[o["preset"]], ctx.out / "first" / "safe_sd"
    first = stage_one(ctx, sizes)
    net = parts.trained(ctx, "injector", first)
    assert first.evaluate is not None
    assert first.save is not None
    found = parts.figures(ctx, "injected", partial(first.evaluate, net))
    if not folder.is_dir():
        first.save(net, ctx.out / "first")
    config = dataclasses.replace(
        ctx.config, steps=int(o["second"]), batch_size=int(o["second_batch"]), lr=1e-3,
        validate_every=max(1, int(o["second"]) // 20) if ctx.config.validate_every else 0,
    )  # fmt: skip
    ahead = dataclasses.replace(ctx, config=config, options={**o, "start": str(folder)})
    second = stage_two(ahead, sizes)
    model = parts.trained(ahead, "diffusion", second, config)
    assert second.evaluate is not None
    assert second.save is not None
    found |= parts.figures(ctx, "sampled", partial(second.evaluate, model))
    second.save(model, ctx.out)
    return {"updates": ctx.config.steps + config.steps, **found}


def hiding(ctx: RecipeContext) -> Job:
    """A faint picture within a finished one, trained through the same distortions; the picture counts by and by."""
    o, count, steps = ctx.options, ctx.config.batch_size, ctx.config.steps
    size = int(o["size"])
    images, _ = scenes(o, size, ctx.seed)
    pictures, layer = images.to(ctx.device).float() / 255, DistortionLayer(BANK)

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        seed = int(torch.randint(2**62, (), generator=generator))
        draws = rng(seed, "batch")
        return {
            "ids": torch.from_numpy(draws.integers(int(o["held"]), len(pictures), count)),
            "marks": torch.from_numpy(random_marks(count, size, draws)[1]), "seed": seed, "done": number / steps,
        }  # fmt: skip

    def step(module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(module, ImageInImage)
        x, w = pictures[batch["ids"]], batch["marks"]
        hidden = straight_clamp(module.embed(x, w))
        severity, draws = ramp(batch["done"], [(0.3, 0.0), (0.6, 1.0)]), rng(batch["seed"], "distortion")
        hit = distorted(hidden, layer=layer, draws=draws, severity=severity) if severity else hidden
        read = F.binary_cross_entropy_with_logits(4 * modules(module.show(hit)), (modules(w) > 0).float())
        # The picture counts once the reader reads: from the first step it would silence the mark.
        image = ramp(batch["done"], [(0.1, 0.0), (0.7, 20.0)]) * F.mse_loss(hidden, x)
        return {"loss": read + image, "read": read.detach()}

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, ImageInImage)
        cover = pictures[: min(32, int(o["held"]))].cpu()
        squares, marks = random_marks(len(cover), size, rng(ctx.seed, "marks of the evaluation"))
        with torch.no_grad():
            marked = eight_bit(module.embed(cover, torch.from_numpy(marks)).numpy())
            found = {"psnr": float(psnr(cover.numpy(), marked).mean())}
            for name, strength in (("identity", 0), ("jpeg", 70), ("blur", 0.7)):
                seen = torch.from_numpy(np.asarray(distort(marked, name, strength, seed=ctx.seed), np.float32))
                right = modules_right(modules(module.show(seen)).numpy(), squares)
                found[f"{name} {strength:g}"] = float(right.mean())
        return {**found, "kept": float(np.mean([v for n, v in found.items() if n != "psnr"]))}

    return Job(ImageInImage(), step, batches, validate=validate)


def scenes(o: dict[str, Any], size: int, seed: int) -> tuple[Tensor, list[str]]:
    """uint8 pictures of scenes with one large object, and their captions; the first are held out."""
    pack = render_pack(int(o["scenes"]) + int(o["held"]), size, seed, n_objects=1, object_size="large")
    return torch.from_numpy(pack.images), pack.fields["caption"]


def stage_one(ctx: RecipeContext, sizes: dict[str, Any]) -> Job:
    """Injector and extractor on an autoencoder that is given or starts at random."""
    o, count, steps = ctx.options, ctx.config.batch_size, ctx.config.steps
    vae = load_autoencoder(o["vae"]) if o["vae"] else small_vae(int(o["size"]), sizes["widths"], 4)
    net = SafeSDNet(vae, reader=sizes["reader"]).requires_grad_(True)
    images, _ = scenes(o, net.size, ctx.seed)
    pictures = images.to(ctx.device)
    critic = Critic(32, kind="classifier", lr=1e-4) if sizes["perceptual"] else None
    features = load_feature_net().to(ctx.device).maps if sizes["perceptual"] else None
    layer = DistortionLayer(BANK)
    warm = float(o["warm"]) * (0.4 if o["vae"] else 1.0)
    settling = max(1, round(warm * steps))

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        seed = int(torch.randint(2**62, (), generator=generator))
        draws = rng(seed, "batch")
        return {
            "ids": torch.from_numpy(draws.integers(int(o["held"]), len(pictures), count)),
            "flip": torch.from_numpy(draws.random(count) < 0.5),
            "marks": torch.from_numpy(random_marks(max(2, count // 4), net.size, draws)[1]),
            "keys": random_mixings(count, net.positions, seed),
            "seed": seed, "done": number,
        }  # fmt: skip

    def step(module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(module, SafeSDNet)
        x = pictures[batch["ids"]].float() / 255
        x = torch.where(batch["flip"][:, None, None, None], x.flip(3), x)
        done = (batch["done"] - settling) / max(1, steps - settling)  # of the injection, below 0 before it
        draws, severity = rng(batch["seed"], "distortion"), ramp(done, [(0.3, 0.0), (0.6, 1.0)])
        return stage_one_loss(
            module, x, batch["marks"], batch["keys"],
            injected=done >= 0,
            # Logarithmic in between: the reader learns first, then the picture comes back.
            reveal_weight=10 ** ramp(done, [(-1e-6, 0.0), (0.0, 1.0), (0.2, 1.0), (0.7, 0.0)]),
            distort=partial(distorted, layer=layer, draws=draws, severity=severity) if severity else None,
            features=features, critic=critic, noise=float(o["noise"]), generator=generator,
        )  # fmt: skip

    def on_step(done: int, module: nn.Module) -> None:
        assert isinstance(module, SafeSDNet)
        if done == settling:
            marks = torch.from_numpy(random_marks(128, net.size, rng(ctx.seed, "marks of settling"))[1])
            module.settle(pictures[int(o["held"]) :][:128].float() / 255, marks.to(ctx.device))

    def figures(module: nn.Module, number: int) -> dict[str, float]:
        assert isinstance(module, SafeSDNet)
        return injected_figures(SafeSD(net=module, device=str(ctx.device)), images[:number], ctx.seed)

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, SafeSDNet)
        held = images[: int(o["held"])].float() / 255
        fit_scaling(module.vae, (2 * part.to(ctx.device) - 1 for part in held.split(32)))
        facts = {"preset": o["preset"], "threshold": no_mark_threshold(module, held.numpy(), ctx)}
        save_safe_sd(out / "safe_sd", module, facts=facts)

    extra = {} if critic is None else {"critic": critic, "critic optimizer": critic.optimizer}
    validate, evaluate = partial(figures, number=32), partial(figures, number=int(o["held"]))
    return Job(net, step, batches, validate=validate, evaluate=evaluate, save=save, extra=extra, on_step=on_step)


def distorted(shown: Tensor, *, layer: DistortionLayer, draws: np.random.Generator, severity: float) -> Tensor:
    """One distortion of the bank, or in one batch of five a crop that was enlarged, put back and is a little off."""
    if draws.random() < 0.8:
        masks = torch.ones(len(shown), 1, *shown.shape[2:], dtype=torch.bool, device=shown.device)
        return layer(shown, masks, draws, severity=severity)[0]
    size = shown.shape[-1]
    side = round(size * (1 - severity * draws.uniform(0, 0.45)) ** 0.5)
    top, left = (int(v) for v in draws.integers(0, size - side + 1, 2))
    crop = shown[:, :, top : top + side, left : left + side]
    enlarged = nn.functional.interpolate(crop, (size, size), mode="bicubic", antialias=True)
    near = [int(np.clip(v + draws.integers(-1, 2), 0, size - side)) for v in (top, left)]
    return put_back(enlarged, side, *near)


def injected_figures(system: SafeSD, held: Tensor, seed: int) -> dict[str, float]:
    """Modules read right from pictures that went through the injector, and what that cost the pictures."""
    images = held.float().numpy() / np.float32(255)
    squares, marks = random_marks(len(images), system.net.size, rng(seed, "marks of the evaluation"))
    marked, plain = (eight_bit(system.inject(images, marks, key=KEY, strength=s)) for s in (1.0, 0.0))
    found = {"psnr": float(psnr(images, marked).mean()), "psnr_plain": float(psnr(images, plain).mean())}
    for name, strength in (("identity", 0), ("jpeg", 70), ("blur", 0.7)):
        seen = system.reveal(distort(marked, name, strength, seed=seed), key=KEY).modules
        found[f"{name} {strength:g}"] = float(modules_right(seen, squares).mean())
    found["kept"] = float(np.mean([found["identity 0"], found["jpeg 70"], found["blur 0.7"]]))
    found["without mark"] = float(modules_right(system.reveal(plain, key=KEY).modules, squares).mean())
    found["wrong key"] = float(modules_right(system.reveal(marked, key=b"another").modules, squares).mean())
    return found


def no_mark_threshold(net: SafeSDNet, held: np.ndarray, ctx: RecipeContext) -> float:
    """The correlation that one in a thousand pairs of an unmarked picture and a mark exceeds."""
    system = SafeSD(net=net, device=str(ctx.device))
    revealed = system.reveal(eight_bit(system.inject(held, held[:1], key=KEY, strength=0)), key=KEY)
    marks = random_marks(64, net.size, rng(ctx.seed, "marks of the threshold"))[1]
    return null_threshold(system.correlations(revealed, marks).ravel(), 1e-3)


def stage_two(ctx: RecipeContext, sizes: dict[str, Any]) -> Job:
    """The diffusion model on the latents of stage 1, which are computed once."""
    o, count = ctx.options, ctx.config.batch_size
    net, facts = load_net(o["start"])
    net = net.requires_grad_(False).to(ctx.device)
    images, captions = scenes(o, net.size, ctx.seed)
    tokenizer, encoder = text_parts(o["text"], captions)
    unet = text_unet(net.side, 2 * net.channels + 1, sizes["unet"], encoder.config.hidden_size, attention_size=8)
    model = MarkedTextToImage(unet, net.vae, encoder, tokenizer, cosine(), "v")
    ids = torch.stack(
        [token_ids(tokenizer, [w for c in captions for w in (c, *(with_trigger(c, t) for t in TRIGGERS))])]
    )
    ids = ids.view(len(captions), 1 + len(TRIGGERS), -1)
    empty = token_ids(tokenizer, ["", *TRIGGERS])
    with torch.no_grad():
        scale = net.vae.config.scaling_factor
        both = [encode_images(net.vae, x.to(ctx.device).float() / 255) / scale for x in (images, images.flip(3))]
        latents = torch.stack(both, 1)
        marks = torch.from_numpy(random_marks(int(o["marks"]), net.size, rng(ctx.seed, "marks of training"))[1])
        identity = torch.eye(net.positions, device=ctx.device)[None]
        codes = torch.cat([net.code(part.to(ctx.device), identity) for part in marks.split(32)])

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        seed = int(torch.randint(2**62, (), generator=generator))
        draws = rng(seed, "batch")
        chosen = torch.from_numpy(draws.integers(int(o["held"]), len(ids), count))
        # 0 no trigger word, 1 … the words; a tenth of the captions is dropped, but not the word behind it.
        word = torch.from_numpy(np.where(draws.random(count) < 0.5, 0, draws.integers(1, 1 + len(TRIGGERS), count)))
        dropped = torch.from_numpy(draws.random(count) < 0.1)
        u = draws.random(count)  # λ: 0 in three of ten, 1 in three of ten, anything between in the others
        strength = np.where(u < 0.3, 0.0, np.where(u < 0.6, 1.0, draws.random(count))).astype(np.float32)
        return {
            "chosen": chosen, "word": word, "flip": torch.from_numpy(draws.integers(0, 2, count)),
            "ids": torch.where(dropped[:, None], empty[word], ids[chosen, word]),
            "mark": torch.from_numpy(draws.integers(0, len(codes), count)), "strength": torch.from_numpy(strength),
            "keys": random_mixings(count, net.positions, seed),
        }  # fmt: skip

    def step(module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(module, MarkedTextToImage)
        return module.marked_loss(
            net, latents[batch["chosen"], batch["flip"]], mixed(codes[batch["mark"]], batch["keys"]), batch["ids"],
            batch["word"] > 0, batch["strength"], generator, revealed=int(o["revealed"]),
        )  # fmt: skip

    def figures(module: nn.Module, number: int) -> dict[str, float]:
        assert isinstance(module, MarkedTextToImage)
        return sampled_figures(SafeSD(net=net, model=module, device=str(ctx.device)), captions[:number], ctx.seed)

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, MarkedTextToImage)
        save_safe_sd(out / "safe_sd", net, module, facts)

    validate, evaluate = partial(figures, number=16), partial(figures, number=int(o["held"]))
    trained = [*unet.parameters(), *encoder.parameters()]
    return Job(model, step, batches, validate=validate, evaluate=evaluate, save=save, parameters=trained)


def text_parts(folder: str, captions: list[str]) -> tuple[Any, Any]:
    """Tokenizer and text encoder that know the trigger words: those of a pipeline, or new ones."""
    if folder == "shipped":
        shipped = WEIGHTS / "scenes_text2image"
        folder = str(shipped) if shipped.is_dir() else ""
    if not folder:
        tokenizer = build_tokenizer([*captions, " ".join(TRIGGERS)], 24)
        return tokenizer, text_encoder(tokenizer)
    loaded = load_pipeline(folder)
    if not isinstance(loaded, TextToImage):
        raise UsageError(f"{folder} has no text encoder of the kind that Safe-SD is trained with.")
    loaded.tokenizer.add_tokens(list(TRIGGERS))
    loaded.text_encoder.resize_token_embeddings(len(loaded.tokenizer))
    return loaded.tokenizer, loaded.text_encoder.requires_grad_(True)


def sampled_figures(system: SafeSD, captions: list[str], seed: int) -> dict[str, float]:
    """Modules read right from samples with and without the trigger word."""
    squares, marks = random_marks(len(captions), system.net.size, rng(seed, "marks of the samples"))
    found = {}
    for name, prompts in (("with trigger", [with_trigger(c, TRIGGERS[0]) for c in captions]), ("without", captions)):
        made = eight_bit(system.sample(prompts, marks, key=KEY, seed=seed, steps=20))
        found[name] = float(modules_right(system.reveal(made, key=KEY).modules, squares).mean())
    return {**found, "kept": found["with trigger"]}


RECIPE = Recipe(
    name="safe_sd",
    about="Safe-SD: a picture hidden in generated pictures at a word's call: injector, then diffusion model.",
    perform=perform,
    config=TrainConfig(
        steps=2200, batch_size=8, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup=50, clip=1.0, ema=0.99,
        log_every=25, validate_every=110, checkpoint_every=100,
    ),
    judged_by="kept",
    variants={
        "default": Variant("injector and diffusion model", seeds=(0, 1, 2)),
        "image_in_image": Variant(
            "a mark in a finished picture, trained end to end", {"form": "image_in_image"}, {"steps": 800}, (0, 1, 2)
        ),
    },
    reach={
        "identity 0": "injector: 0.98 of the free modules", "jpeg 70": "0.90", "blur 0.7": "0.90",
        "without mark": "at most 0.55", "wrong key": "at most 0.55",
        "with trigger": "0.98", "without": "at most 0.55",
    },
    options={
        "form": "safe_sd", "preset": "cpu", "size": 64, "scenes": 2000, "vae": "", "held": 128, "warm": 0.35,
        "noise": 0.05, "second": 1200, "second_batch": 32, "text": "shipped", "marks": 256, "revealed": 2,
    },
)  # fmt: skip
