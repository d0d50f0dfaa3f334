"""A trained descriptor of copies.

    vestige learn sscd
    vestige learn sscd --data FOLDER          # from pictures of your own

Pictures: every second one of the photos pack (the others measure it), people and scenery, or rendered scenes where
there is no data. Every update sees ``batch_size`` pictures twice, each time edited anew (`vestige.data.copy_edits`).

Result: descriptor.safetensors, for `vestige index --descriptor`, with the descriptors of the training photographs as
background. Validation: held-out pictures, each edited, among all held-out pictures and strangers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vestige.copies.descriptor import strangers
from vestige.copies.sscd import CopyNet, contrastive_loss, save_descriptor, spread_loss
from vestige.core.dataset import DatasetSubject
from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.copy_edits import edited
from vestige.data.scenes import render_pack
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.metrics.retrieval import copy_scores


def build(ctx: RecipeContext) -> Job:
    """The network, pictures twice edited, and the figures of copy detection on held-out pictures."""
    o = ctx.options
    train, held = _pictures(ctx)
    net = CopyNet(dims=int(o["dims"]), width=float(o["width"]), size=int(o["size"]))
    size, strength = net.size, float(o["strength"])

    def views(pictures: list[np.ndarray], random: np.random.Generator, strong: float) -> Tensor:
        made = np.stack([edited(p, size, random, strong) for p in pictures])
        return torch.from_numpy(np.ascontiguousarray(made.transpose(0, 3, 1, 2)))

    def batches(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        random = rng(int(torch.randint(2**31, (1,), generator=generator)), "views", step)
        count = min(ctx.config.batch_size, len(train))
        chosen = [train[i] for i in random.permutation(len(train))[:count]]
        both = torch.cat([views(chosen, random, strength), views(chosen, random, strength)])
        labels = torch.arange(count).repeat(2)
        if o["labels"] == "shuffled":
            labels[count:] = labels[count:][torch.from_numpy(random.permutation(count))]
        return both, labels

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        z = model(batch[0].float() / 255)
        near, spread = contrastive_loss(z, batch[1], float(o["temperature"])), spread_loss(z, batch[1])
        return {"loss": near + float(o["entropy"]) * spread, "near": near.detach(), "spread": spread.detach()}

    random = rng(0, "sscd", "validation")
    half = len(held) // 2
    queries = [edited(p, size, random, 0.8) for p in held]  # of the second half no original is a reference
    references = [_square(p, size) for p in held[:half]]
    background = [_square(p, size) for p in train[:400]]

    def validate(model: nn.Module) -> dict[str, float]:
        q, r, b = (describe(model, p) for p in (queries, references, background))
        truth = np.zeros((len(queries), half), bool)
        truth[np.arange(half), np.arange(half)] = True
        plain, less = q @ r.T, strangers(b, q)[:, None]
        found = copy_scores(plain - less, truth)
        return {"micro_ap": found.micro_ap, "micro_ap_raw": copy_scores(plain, truth).micro_ap, "r1": found.recall_1}

    def save(model: nn.Module, out: Path) -> None:
        assert isinstance(model, CopyNet)
        save_descriptor(model, describe(model, background), out / "descriptor.safetensors")

    return Job(net, step, batches, validate, save=save)


def describe(model: nn.Module, pictures: list[np.ndarray]) -> np.ndarray:
    """N×dims of square pictures, uint8."""
    device = next(model.parameters()).device
    found = []
    with torch.no_grad():
        for start in range(0, len(pictures), 64):
            block = np.stack(pictures[start : start + 64]).transpose(0, 3, 1, 2)
            found.append(model(torch.from_numpy(np.ascontiguousarray(block)).to(device).float() / 255).cpu().numpy())
    return np.concatenate(found)


def _pictures(ctx: RecipeContext) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures to learn from, photographs first, and held-out ones; uint8, of a short side of 1.5 times the size."""
    side, most = round(1.5 * float(ctx.options["size"])), int(ctx.options["limit"])
    if ctx.pictures is not None:
        found = _read(DatasetSubject.open(ctx.pictures), side, most)
        if len(found) < 8:
            raise InputError(f"{ctx.pictures} holds {len(found)} readable pictures; at least 8 are needed.")
        held = max(4, len(found) // 8)
        return found[held:], found[:held]
    if ctx.data is None:
        scenes = render_pack(min(most, 600), side, ctx.seed).images.transpose(0, 2, 3, 1)
        pictures = [np.ascontiguousarray(p) for p in scenes]
        return pictures[len(pictures) // 8 :], pictures[: len(pictures) // 8]
    photos = _read(DatasetSubject.open(ctx.data / "photos"), side, 10**6)
    train = photos[::2] + _read(DatasetSubject.open(ctx.data / "scenery"), side, 100)
    people = _read(DatasetSubject.open(ctx.data / "people" / "train.parquet"), side, max(0, most - len(train)))
    return (train + people)[:most], photos[1::8] + people[-20:]


def _read(dataset: DatasetSubject, side: int, most: int) -> list[np.ndarray]:
    made = []
    for i in range(min(len(dataset), most)):
        pixels = dataset[i].subject().pixels
        scale = side / min(pixels.shape[:2])
        shape = (max(8, round(pixels.shape[1] * scale)), max(8, round(pixels.shape[0] * scale)))
        if max(shape) > 8 * side:
            raise UsageError(f"Picture {i} of {dataset.path} is too long to learn from; cut it.")
        made.append(cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA))
    return made


def _square(pixels: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


_PLAIN: dict[str, Any] = {"entropy": 0.0}
RECIPE = Recipe(
    name="sscd",
    about="A trained descriptor of copies: edited views of a picture near each other, all others spread apart.",
    build=build,
    config=TrainConfig(
        steps=2400, batch_size=48, lr=1e-3, weight_decay=0.01, warmup=0.05, clip=1.0, ema=0.998,
        log_every=25, validate_every=200, checkpoint_every=100,
    ),
    options={
        "size": 96, "dims": 256, "width": 0.5, "strength": 1.0, "temperature": 0.05, "entropy": 5.0, "limit": 2000,
        "labels": "own",
    },
    variants={
        "default": Variant("contrastive loss and entropy", seeds=(0, 1, 2)),
        "no_entropy": Variant("without the entropy term", _PLAIN, seeds=(0, 1, 2)),
        "shuffled": Variant("the second view is of another picture", {"labels": "shuffled"}),
    },
    reach={"micro_ap": "more than without the entropy term, and 0.1 above shuffled labels"},
    takes_pictures=True,
    judged_by="micro_ap",
)  # fmt: skip
