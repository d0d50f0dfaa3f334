"""ForgetMe's LoRA: a text-to-image model learns from emptied pictures that the word for a thing means its absence.

    vestige learn forgetme --seed 0

Adapters in every attention projection of the shipped small model; half of each batch are pictures of cats that
`ForgetMe` emptied, under captions of cats, half whole pictures of other things under theirs. The arm "whole" is the
control: the same updates on the same pictures, nothing emptied. Along the way the model edits held-out pictures of cats
and draws captions; the judge of scenes says what is seen.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.generation import runs
from vestige.bench.unlearning.emptied import pairs
from vestige.data.scenes import CLASSES
from vestige.engines import parts
from vestige.engines.diffusion.editing import sdedit
from vestige.engines.diffusion.losses import diffusion_loss
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.schedules import grid
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.run_state import load_trained, write_model
from vestige.engines.train import TrainConfig
from vestige.metrics.entangled import entangled
from vestige.nn.low_rank import LowRank
from vestige.unlearning.forgetme import ForgetMe, refine

TARGET, SIZE = "cat", 32
#: Series of scenes: those learnt from, those that validate, those that are edited.
TAUGHT, HELD, EDITED = 92, 94, 93
LARGE: dict[str, Any] = {"n_objects": 1, "object_size": "large"}
REST = [c for c in CLASSES if c != TARGET]
#: Shares of the training after which the model is looked at.
LOOKED = (0.03, 0.06, 0.12, 0.25, 1.0)


def adapters(model: TextToImage, rank: int, seed: int) -> dict[str, LowRank]:
    """Adapters in every attention projection of the UNet, in place."""
    names = [
        n for n, m in model.unet.named_modules()
        if isinstance(m, nn.Linear) and n.rpartition(".")[2] in ("to_q", "to_k", "to_v", "0") and ".attn" in n
    ]  # fmt: skip
    made = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in names:
            parent, _, leaf = name.rpartition(".")
            made[name.replace(".", "_")] = LowRank(model.unet.get_submodule(name), rank)
            setattr(model.unet.get_submodule(parent), leaf, made[name.replace(".", "_")])
    return made


class Lessons:
    """Latents and contexts of one series of pictures, the target's first. emptied: by `ForgetMe`, not the renderer."""

    def __init__(self, model: TextToImage, count: int, series: int, emptied: bool) -> None:
        scenes, images, masks, _ = pairs(count, SIZE, series, object=TARGET, **LARGE)
        others, whole, _, _ = pairs(2 * count, SIZE, series + 5, classes=REST, **LARGE)
        shown = ForgetMe().erase(images, masks)[0] if emptied else images
        self.count = count
        with torch.no_grad():
            self.latents = model.encode(torch.from_numpy(np.concatenate([shown, whole])))
            self.contexts = model.embed([s.caption for s in (*scenes, *others)])

    def drawn(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Half of the batch the target, half other things."""
        half, rest = size // 2, len(self.latents) - self.count
        target = torch.randint(self.count, (half,), generator=generator)
        others = self.count + torch.randint(rest, (size - half,), generator=generator)
        chosen = torch.cat([target, others])
        return self.latents[chosen], self.contexts[chosen]


def _network(model: TextToImage, context: Tensor, x: Tensor, time: Tensor) -> Tensor:
    return model.network(x, time, context)


def job(ctx: RecipeContext, model: TextToImage, found: nn.ModuleDict, steps: tuple[int, ...]) -> Job:
    """The training of the adapters, whose weights are kept after so many ``steps``."""
    o, seed = ctx.options, ctx.seed
    taught = Lessons(model, int(o["lessons"]), TAUGHT + 10 * seed, bool(o["emptied"]))
    held = Lessons(model, max(4, int(o["lessons"]) // 4), HELD + 10 * seed, bool(o["emptied"]))

    def loss(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        latents, context = batch
        return diffusion_loss(partial(_network, model, context), latents, model.table, model.prediction, generator)

    def step(adapted: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": loss(batch, generator)}

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return taught.drawn(ctx.config.batch_size, generator)

    def validate(adapted: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(7)
        return {"loss": float(np.mean([float(loss(held.drawn(64, generator), generator)) for _ in range(4)]))}

    def keep(done: int, adapted: nn.Module) -> None:
        if done in steps:
            write_model(ctx.out / f"after {done}.safetensors", adapted, {"updates": done})

    weights = [p for a in found.values() for p in (a.down, a.up)]
    return Job(found, step, batches, validate=validate, parameters=weights, on_step=keep)  # type: ignore[arg-type]


def row(model: TextToImage, updates: int, count: int, seed: int) -> dict[str, Any]:
    """How often the judge sees the target and other things in samples of their captions, and the scores of pictures of
    the target edited by the model (SDEdit, strength 0.7, its caption)."""
    judge, at = runs.judge(), CLASSES.index(TARGET)
    target, images, masks, _ = pairs(count, SIZE, EDITED + 10 * seed, object=TARGET, **LARGE)
    others, _, _, _ = pairs(2 * count, SIZE, EDITED + 10 * seed + 5, classes=REST, **LARGE)
    wanted = torch.tensor([CLASSES.index(s.objects[0].kind) for s in others])
    refined = np.stack([refine(m[0])[None] for m in masks])
    samples = model.sample([s.caption for s in target], seed=seed, steps=12)
    kept = model.sample([s.caption for s in others], seed=seed, steps=12)
    denoiser = model.denoiser([s.caption for s in target], guidance=3.0)
    with torch.no_grad():
        known, levels = model.encode(torch.from_numpy(images)), grid(model.table, 16)
        noise = torch.Generator().manual_seed(seed)
        edited = model.decode(sdedit(denoiser, known, levels, 0.7, noise, mask=torch.from_numpy(refined)))
        seen = {n: runs.read(judge, x)["object"] for n, x in (("t", samples), ("o", kept), ("e", edited))}
    scores = entangled(images, edited.numpy(), refined)
    return {
        "updates": updates, "target in samples": float((seen["t"] == at).float().mean()),
        "others in samples": float((seen["o"] == wanted).float().mean()),
        "target in edits": float((seen["e"] == at).float().mean()), "corrected D": float(scores["D"].mean()),
        "S": float(scores["consistency"].mean()),
        "released D": float(entangled(images, edited.numpy(), refined, variant="released")["D"].mean()),
    }  # fmt: skip


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Train the adapters and look at the model along the way."""
    whole = ctx.config.steps
    steps = tuple(sorted({0, *(max(1, round(whole * s)) for s in LOOKED)}))
    model = copy.deepcopy(runs.pipeline())
    found = nn.ModuleDict(adapters(model, int(ctx.options["rank"]), ctx.seed))
    if not (ctx.out / "after 0.safetensors").is_file():
        write_model(ctx.out / "after 0.safetensors", found, {"updates": 0})
    parts.trained(ctx, "lora", job(ctx, model, found, steps))
    rows = []
    for done in steps:
        load_trained(ctx.out / f"after {done}.safetensors", found)
        rows.append(parts.figures(ctx, f"row {done}", partial(row, model, done, int(ctx.options["each"]), ctx.seed)))
    return {"rows": rows, "updates": whole}


RECIPE = Recipe(
    name="forgetme",
    about="LoRA on emptied pictures: a small text-to-image model unlearns the word for a thing.",
    perform=perform,
    config=TrainConfig(
        steps=160, batch_size=16, lr=5e-3, weight_decay=0.0, warmup=4, schedule="cosine", log_every=8, validate_every=8,
        checkpoint_every=40,
    ),
    options={"rank": 4, "lessons": 120, "each": 24, "emptied": True},
    reach={"target in samples": "falls by 60 points or more at the end, that of others by 10 at most"},
    variants={
        "default": Variant("emptied pictures under captions of the target", seeds=(0, 1, 2)),
        "whole": Variant("the same pictures, nothing emptied", {"emptied": False}, seeds=(0, 1, 2)),
    },
    judged_by="-loss",
)  # fmt: skip
