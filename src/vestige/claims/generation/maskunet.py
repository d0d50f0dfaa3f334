"""Claims of MaskUNet: masks trained on a text-to-image model that was stopped early, so that there is head-room.

The early model is the recipe's own run, saved at an early checkpoint. Every variant draws from the same starting noise
under the same captions, without guidance, so that distances differ by the weights alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim
from vestige.data.scenes import sample_scene
from vestige.engines.diffusion.losses import diffusion_loss
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.train import TrainConfig
from vestige.generation.maskunet import PROJECTIONS, MaskUNet
from vestige.nn.features import extract_features
from vestige.nn.text import token_ids

SAMPLES, STEPS = 1000, 10
TRAIN_SCENES = 1000
#: A core of 1/8 keeps the generators under 5 % of this small model; at a start of 1 masks close faster than they learn.
MASKS: dict[str, Any] = {"hidden": 64, "start": 3.0, "reduce": 8}
TRAINING: dict[str, Any] = {
    "steps": 200, "batch_size": 24, "betas": (0.9, 0.99), "weight_decay": 0.0, "warmup": 10, "checkpoint_every": 40,
}  # fmt: skip
RATES = {"masks": 1e-3, "low rank": 1e-3}
CAPTIONS, REFERENCE, FLOOR = 111, 112, 113


class RandomMasks(MaskUNet):
    """As many zeros in every mask as the trained generators ask for, at random places."""

    def set_masks(self, block: int, hidden: torch.Tensor, temb: torch.Tensor) -> None:
        super().set_masks(block, hidden, temb)
        for number, tap in enumerate(self.taps[block].values()):
            assert tap.mask is not None
            flat = tap.mask.flatten(1)
            generator = torch.Generator().manual_seed(number)
            order = torch.rand(flat.shape, generator=generator).argsort(1)
            tap.mask = flat.gather(1, order).view_as(tap.mask)


class LowRank(nn.Module):
    """x W^T + x A^T B^T with A, B of some rank, B starting at zero; W stays as it is (LoRA, ICLR 2022)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def add_low_rank(model: TextToImage, parameters: int) -> nn.ModuleDict:
    """Low-rank adapters in the layers that MaskUNet masks, with about so many parameters; {name: adapter}."""
    chosen = {
        f"{i}.{name}": (block, name, layer)
        for i, block in enumerate(model.unet.up_blocks)
        for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear) and "attn" in name and name.endswith(PROJECTIONS)
    }
    one = sum(layer.in_features + layer.out_features for _, _, layer in chosen.values())
    rank = max(1, round(parameters / one))
    adapters = nn.ModuleDict()
    for full, (block, name, layer) in chosen.items():
        parent, _, leaf = name.rpartition(".")
        adapters[full.replace(".", "_")] = adapter = LowRank(layer, rank)
        setattr(block.get_submodule(parent), leaf, adapter)
    return adapters


def remove_low_rank(model: TextToImage) -> None:
    """Put the layers back that `add_low_rank` wrapped."""
    for block in model.unet.up_blocks:
        for name, layer in list(block.named_modules()):
            if isinstance(layer, LowRank):
                parent, _, leaf = name.rpartition(".")
                setattr(block.get_submodule(parent), leaf, layer.base)


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class Variant(NamedTuple):
    """Features of the samples, the held-out denoising loss, added parameters, share of zeros by step (masks alone)."""

    features: np.ndarray
    loss: float
    parameters: int
    zeros: list[float]


@lru_cache(maxsize=8)
def variant(name: str, context: ClaimContext) -> Variant:
    """Train the variant where it is to be trained, draw its samples and take them out of the model again.

    name: "base", "masks", "random masks" or "low rank".
    """
    model = runs.pipeline(runs.EARLY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        if name == "base":
            return _measured(model, context, 0, lambda: [])
        if name == "low rank":
            adapters = add_low_rank(model, variant("masks", context).parameters)
            try:
                _train("low-rank", adapters, model.loss, model, context)
                return _measured(model, context, trainable(adapters), lambda: [])
            finally:
                remove_low_rank(model)
        masked = (MaskUNet if name == "masks" else RandomMasks)(model, **MASKS)
        try:
            masked.train()
            _train("masks", masked.generators, masked.loss, model, context)
            masked.eval()
            return _measured(model, context, trainable(masked.generators), lambda: list(masked.sparsity().values()))
        finally:
            masked.remove()


def _train(
    name: str, adapters: nn.Module, loss: Callable[..., torch.Tensor], model: TextToImage, context: ClaimContext
) -> None:
    """Denoising loss on training scenes, seen by the adapters alone; kept under results/runs/maskunet."""
    scenes = [
        sample_scene(number, n_objects=1, object_size=runs.OBJECT_SIZES[number % len(runs.OBJECT_SIZES)])
        for number in range(2000, 2000 + (context.limit or TRAIN_SCENES))
    ]
    images = _renders(tuple(scenes), int(model.unet.config.sample_size)).images
    ids = token_ids(model.tokenizer, [scene.caption for scene in scenes])
    shortened = {"steps": 2, "batch_size": 2} if context.limit else {}
    rate = RATES["masks" if name == "masks" else "low rank"]
    config = TrainConfig(**{**TRAINING, **shortened}, lr=rate, seed=context.seed)

    def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(len(images), (config.batch_size,), generator=generator)
        flip = torch.rand(len(chosen), generator=generator) < 0.5
        return torch.where(flip[:, None, None, None], images[chosen].flip(3), images[chosen]), ids[chosen]

    def step(module: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"loss": loss(model.encode(batch[0]), batch[1], generator)}

    settings = {
        **MASKS, **TRAINING, **shortened, "lr": rate, "seed": context.seed, "scenes": len(scenes),
        "base": runs.weights_digest(runs.EARLY), "parameters": trainable(adapters),
    }  # fmt: skip
    runs.trained(
        adapters, step, batches, config, runs.run_folder("maskunet", name, settings, trial=bool(context.limit))
    )


@lru_cache(maxsize=2)
def _renders(scenes: tuple[Any, ...], size: int) -> runs.Scenes:
    return runs.rendered(scenes, size)


@torch.no_grad()
def _measured(
    model: TextToImage, context: ClaimContext, parameters: int, sparsity: Callable[[], list[float]]
) -> Variant:
    scenes = _held(context, CAPTIONS)
    zeros: list[float] = []
    images = model.sample(
        scenes.captions, seed=context.seed, steps=2 if context.limit else STEPS, guidance=1.0,
        on_step=lambda state: zeros.append(float(np.mean(sparsity() or [0.0]))),
    )  # fmt: skip
    first = scenes.images[:256]
    ids = token_ids(model.tokenizer, scenes.captions[:256])
    levels = torch.linspace(0, len(model.table) - 1, len(first)).long()
    loss = diffusion_loss(
        lambda x, t: model.network(x, t, model.context(ids)), model.encode(first), model.table, model.prediction,
        torch.Generator().manual_seed(context.seed), levels=levels,
    )  # fmt: skip
    per_step = np.reshape(zeros, (-1, 2 if context.limit else STEPS)).mean(0).tolist()
    return Variant(extract_features(runs.judge(), images), float(loss), parameters, per_step)


def _held(context: ClaimContext, series: int) -> runs.Scenes:
    size = int(runs.pipeline(runs.EARLY).unet.config.sample_size)
    return runs.held_out(context.limit or SAMPLES, series, size)


def _rows(names: list[str], context: ClaimContext) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Table rows and distances to real renders of the variants, the real-against-real floor last."""
    net, model = runs.judge(), runs.pipeline(runs.EARLY)
    size = sum(p.numel() for p in model.parameters())
    real = extract_features(net, _held(context, REFERENCE).images)
    rows, distances = [], {}
    for name in names:
        found = variant(name, context)
        distances[name] = runs.set_distance(real, found.features)
        zeros = {"zeros first step": found.zeros[0], "zeros last step": found.zeros[-1]} if "masks" in name else {}
        rows.append(
            {
                "weights": name, "distance": distances[name], "held-out loss": found.loss,
                "added parameters": found.parameters / size, "samples": len(found.features), **zeros,
            }
        )  # fmt: skip
    floor = runs.set_distance(real, extract_features(net, _held(context, FLOOR).images))
    rows.append({"weights": "real renders (the floor)", "distance": floor, "samples": len(real)})
    return rows, distances


@claim("trained masks lower the Fréchet distance of an early-stopped model by >= 5 % with <= 5 % more parameters")
def trained_masks_help(context: ClaimContext) -> Evidence:
    rows, distance = _rows(["base", "masks"], context)
    size = sum(p.numel() for p in runs.pipeline(runs.EARLY).parameters())
    small = variant("masks", context).parameters <= 0.05 * size
    note = f"Features: {runs.judge().provenance}; {STEPS} steps without guidance."
    return Evidence(small and distance["masks"] <= 0.95 * distance["base"], rows, note)


@claim("trained masks end at most 2 % above low-rank adapters of equal size, steps and data")
def masks_match_low_rank_adapters(context: ClaimContext) -> Evidence:
    rows, distance = _rows(["base", "masks", "low rank"], context)
    return Evidence(distance["masks"] <= 1.02 * distance["low rank"], rows)


@claim("masks with the same share of zeros at random places are worse than the trained ones by >= 10 % of the distance")
def places_matter(context: ClaimContext) -> Evidence:
    rows, distance = _rows(["masks", "random masks"], context)
    return Evidence(distance["random masks"] >= 1.1 * distance["masks"], rows)
