"""MaskUNet: masks over the attention weights of a frozen text-to-image model, trained with its own denoising loss.

    vestige learn maskunet                                    # for the shipped model
    vestige learn maskunet --set base=FOLDER --data PICTURES  # for a Stable Diffusion folder, on captioned pictures

Options: base, a diffusers folder, "" for the shipped model, or "early", the finished run of the arm early (a model
whose training was stopped early, so that there is head-room); kind, "masks" or "low_rank", adapters of as many
parameters; hidden, start, noise, reduce: as in `MaskUNet`; scenes to render where no pictures are given; samples to
measure by, in sample_steps without guidance.

Captions of the user's pictures are the column "caption" of the data set, else the names of their classes.

Results: masks.safetensors. Distances to pictures held out are those of the model without masks ("base"), with them,
and with as many zeros at random places, all from the same starting noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.generation import runs
from vestige.bench.generation.adapters import RandomMasks, add_low_rank, remove_low_rank, trainable
from vestige.core.errors import InputError, UsageError
from vestige.data.packs import load_pack
from vestige.data.scenes import sample_scene
from vestige.engines.diffusion.losses import diffusion_loss
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.runs import run_folder
from vestige.engines.train import TrainConfig
from vestige.generation.maskunet import MaskUNet, digest_of, save_masks
from vestige.nn import features
from vestige.nn.features import extract_features
from vestige.nn.text import token_ids
from vestige.recipes.generation import scenes_text2image

#: Series of scenes that the base has not seen: to train on they may be seen ones, to judge by not.
CAPTIONS, REFERENCE, FLOOR = 111, 112, 113
FIRST_SCENE = 2000
EARLY = {"steps": 700, "batch_size": 64, "lr": 4e-4, "warmup": 100, "ema": 0.98, "validate_every": 35}


class Captioned(NamedTuple):
    """images: float32 N×3×S×S in [0, 1]."""

    images: Tensor
    captions: list[str]


def build(ctx: RecipeContext) -> Job:
    """Masks or adapters over the base, its loss, and what is measured with and without them."""
    o = ctx.options
    if o["kind"] == "early":
        return early(ctx)
    if o["kind"] not in ("masks", "low_rank"):
        raise UsageError(f"kind is {o['kind']!r}; choose masks or low_rank.")
    model = base_of(ctx)
    digest = digest_of(model)
    train, held = pictures_of(ctx, model)
    ids = token_ids(model.tokenizer, train.captions)
    masked = MaskUNet(
        model, hidden=int(o["hidden"]), start=float(o["start"]), noise=bool(o["noise"]), reduce=int(o["reduce"])
    )
    adapters: nn.Module = masked.generators
    loss: Callable[..., Tensor] = masked.loss
    masked.train()
    if o["kind"] == "low_rank":
        count = trainable(masked.generators)
        masked.remove()
        adapters, loss = add_low_rank(model, count), model.loss
        model.to(ctx.device)

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(ids), (ctx.config.batch_size,), generator=generator)
        flip = torch.rand(len(chosen), generator=generator) < 0.5
        images = train.images[chosen]
        return torch.where(flip[:, None, None, None], images.flip(3), images), ids[chosen]

    def step(module: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": loss(model.encode(batch[0]), batch[1], generator)}

    def sparsity() -> float:
        return float(np.mean(list(masked.sparsity().values()) or [0.0])) if o["kind"] == "masks" else 0.0

    def validate(module: nn.Module) -> dict[str, float]:
        masked.eval()
        found = {"loss": held_loss(model, held), "zeros": sparsity()}
        masked.train()
        return found

    def evaluate(module: nn.Module) -> dict[str, Any]:
        masked.eval()
        measuring = Measuring(ctx, held)
        named = "masks" if o["kind"] == "masks" else "low rank"
        figures = measuring(model, named, sparsity)
        if o["kind"] == "masks":
            masked.remove()
            random = RandomMasks(model, **masked.settings).to(ctx.device).eval()
            random.generators.load_state_dict(masked.generators.state_dict())
            figures |= measuring(model, "random masks", lambda: 0.0)
            random.remove()
        else:
            remove_low_rank(model)
        figures |= measuring(model, "base", lambda: 0.0)
        whole = sum(p.numel() for p in model.parameters())
        return {**figures, **measuring.floor(), "added parameters": trainable(module) / whole}

    def save(module: nn.Module, out: Path) -> None:
        if o["kind"] == "masks":
            base = {"": "", "early": str(early_folder())}.get(str(o["base"]), str(o["base"]))
            save_masks(masked, out / "masks.safetensors", base, digest)

    return Job(adapters, step, batches, validate=validate, evaluate=evaluate, save=save)


def early_folder() -> Path:
    """The pipeline of the finished arm early."""
    return run_folder("maskunet", "early", 0) / "pipeline"


def base_of(ctx: RecipeContext) -> TextToImage:
    """The frozen model. Raises InputError for folders that are missing or of another shape."""
    named = str(ctx.options["base"])
    folder = {"": runs.PIPELINE, "early": early_folder()}.get(named, Path(named))
    if named == "early" and not folder.is_dir():
        raise InputError("The arm early is not finished; 'vestige learn maskunet --variant early' trains it.")
    model = load_pipeline(folder)
    if not isinstance(model, TextToImage):
        raise InputError(f"{folder} is no Stable Diffusion folder (one text encoder, one autoencoder, a UNet).")
    return model.to(ctx.device).eval().requires_grad_(False)


def pictures_of(ctx: RecipeContext, model: TextToImage) -> tuple[Captioned, Captioned]:
    """Pictures with captions to train on and held-out ones, at the model's size."""
    o = ctx.options
    _, rows, _ = model.latent_shape()
    size = rows * 2 ** (len(model.vae.config.block_out_channels) - 1)
    count = min(int(o["samples"]), 256)
    if ctx.pictures is None:
        scenes = [
            sample_scene(number, n_objects=1, object_size=runs.OBJECT_SIZES[number % len(runs.OBJECT_SIZES)])
            for number in range(FIRST_SCENE, FIRST_SCENE + int(o["scenes"]))
        ]
        drawn = runs.rendered(scenes, size)
        held = judged_scenes(o, count, CAPTIONS, size)
        return Captioned(drawn.images, drawn.captions), Captioned(held.images, held.captions)
    pack = load_pack(ctx.pictures, size, int(o["scenes"]) or None)
    words = [pack.class_names[i] if i >= 0 else "" for i in pack.labels]
    captions = [str(c or w) for c, w in zip(pack.fields.get("caption", [""] * len(pack)), words)]
    if len(pack) < 8:
        raise InputError(f"{ctx.pictures} has {len(pack)} pictures; learning needs at least 8.")
    images, few = torch.from_numpy(pack.images).float() / 255, max(2, min(count, len(pack) // 10))
    return Captioned(images[few:], captions[few:]), Captioned(images[:few], captions[:few])


def judged_scenes(o: Mapping[str, Any], count: int, series: int, size: int) -> runs.Scenes:
    """Scenes whose captions the shipped model's training has not seen; for other models, any of that series."""
    if str(o["base"]) in ("", "early"):
        return runs.held_out(count, series, size)
    first = series * 1_000_003
    return runs.rendered([sample_scene(first + i, n_objects=1, object_size="large") for i in range(count)], size)


@torch.no_grad()
def held_loss(model: TextToImage, held: Captioned) -> float:
    """The denoising loss at evenly spaced levels, from the same noise every time."""
    context = model.context(token_ids(model.tokenizer, held.captions).to(model.device))
    levels = torch.linspace(0, len(model.table) - 1, len(held.captions)).long()
    return float(
        diffusion_loss(
            lambda x, t: model.network(x, t, context), model.encode(held.images), model.table, model.prediction,
            torch.Generator(model.device).manual_seed(0), levels=levels,
        )
    )  # fmt: skip


class Measuring:
    """Samples under unseen captions against renders of other unseen scenes; the loss on what is held out."""

    def __init__(self, ctx: RecipeContext, held: Captioned) -> None:
        self.o, self.seed, self.held, self.scenes = ctx.options, ctx.seed, held, ctx.pictures is None
        self.size = int(held.images.shape[-1])

    def features_of(self, series: int) -> np.ndarray:
        scenes = judged_scenes(self.o, int(self.o["samples"]), series, self.size)
        return extract_features(runs.judge(), scenes.images)

    @torch.no_grad()
    def __call__(self, model: TextToImage, name: str, sparsity: Callable[[], float]) -> dict[str, float]:
        """{"loss NAME", and on scenes "distance NAME", "zeros NAME first" and "... last" over the steps}."""
        found = {f"loss {name}": held_loss(model, self.held)}
        if not self.scenes:
            return found
        steps, zeros = int(self.o["sample_steps"]), []
        captions = judged_scenes(self.o, int(self.o["samples"]), CAPTIONS, self.size).captions
        images = model.sample(
            captions, seed=self.seed, steps=steps, guidance=1.0, on_step=lambda state: zeros.append(sparsity())
        )
        found[f"distance {name}"] = runs.set_distance(
            self.features_of(REFERENCE), extract_features(runs.judge(), images.cpu())
        )
        per_step = np.reshape(zeros, (-1, steps)).mean(0)
        return {**found, f"zeros {name} first": float(per_step[0]), f"zeros {name} last": float(per_step[-1])}

    def floor(self) -> dict[str, float]:
        """The distance between two sets of real renders."""
        if not self.scenes:
            return {}
        return {"distance real": runs.set_distance(self.features_of(REFERENCE), self.features_of(FLOOR))}


def early(ctx: RecipeContext) -> Job:
    """The recipe of the shipped model, stopped early."""
    options = {
        **scenes_text2image.OPTIONS, "scenes": 8 * int(ctx.options["scenes"]), "samples": 300,
        "judge": str(features.DEFAULT_WEIGHTS),
    }  # fmt: skip
    return scenes_text2image.build(dataclasses.replace(ctx, options=options))


RECIPE = Recipe(
    name="maskunet",
    about="Masks over the attention weights of a frozen text-to-image model.",
    build=build,
    config=TrainConfig(
        steps=600, batch_size=24, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0, warmup=20, validate_every=30,
        checkpoint_every=30,
    ),
    reach={"loss masks": "below 'loss base'"},
    options={
        "base": "", "kind": "masks", "hidden": 64, "start": 1.0, "noise": False, "reduce": 8, "scenes": 1000,
        "samples": 600, "sample_steps": 10,
    },
    variants={
        "masks": Variant("masks for the shipped model"),
        "early": Variant("the shipped model's recipe, stopped early: a base with head-room", {"kind": "early"}, EARLY),
        "early_masks": Variant("masks for the early model", {"base": "early"}, seeds=(0, 1, 2)),
        "early_low_rank": Variant(
            "low-rank adapters of as many parameters, at the rate that suits them",
            {"base": "early", "kind": "low_rank"}, {"lr": 1e-3}, (0, 1, 2),
        ),
        "early_slow": Variant(
            "masks for the early model as they were trained before: open at first, and too slow to close",
            {"base": "early", "start": 3.0, "noise": True},
            {"lr": 1e-3, "steps": 200, "validate_every": 10},
        ),
    },
    takes_pictures=True,
    judged_by="-loss",
)  # fmt: skip
