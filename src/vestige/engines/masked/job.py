"""From a masked model to a training job: the data on the device, one augmentation, one evaluation for all methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core.runtime import rng
from vestige.data.packs import Pack
from vestige.engines.masked.augment import random_resized_crop
from vestige.engines.masked.evaluate import extract, knn_accuracy
from vestige.engines.masked.model import MaskedModel
from vestige.engines.recipe import Job, RecipeContext
from vestige.nn.backbone import save_backbone
from vestige.nn.vit import ViT


class EpochOrder:
    """Batches of indices: a new permutation of all items every epoch, a pure function of (seed, batch number)."""

    def __init__(self, items: int, batch_size: int, seed: int) -> None:
        self.items, self.batch_size, self.seed = items, min(batch_size, items), seed
        self.per_epoch = items // self.batch_size
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, number: int, generator: torch.Generator) -> Tensor:
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.from_numpy(rng(self.seed, "order", epoch).permutation(self.items))
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]


def masked_job(
    ctx: RecipeContext,
    model: MaskedModel,
    train: Pack,
    *,
    validation: Pack | None = None,
    evaluate: Callable[[MaskedModel], Mapping[str, Any]] | None = None,
    scale: tuple[float, float] = (0.2, 1.0),
) -> Job:
    """A job that trains ``model`` on the images of ``train``.

    The images stay on the device as uint8; a batch is a vector of indices, and the step cuts a random rectangle
    (``scale``: share of the area) and flips, unless the model makes views of its own (``model.own_views``).
    validation: pictures held out, by which "error" is followed (`MaskedModel.error`) and, where they have labels,
    "knn": accuracy of the second half with the first as bank. save writes encoder.safetensors, for `load_backbone`.
    """
    images = torch.from_numpy(train.images).to(ctx.device)
    config = ctx.config

    def step(module: nn.Module, ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(module, MaskedModel)
        chosen = images[ids].float() / 255
        if not module.own_views:
            chosen = random_resized_crop(chosen, generator, scale=scale)
        return module(chosen, generator)

    clock: list[float] = []

    def on_step(done: int, module: nn.Module) -> None:
        assert isinstance(module, MaskedModel)
        now = time.perf_counter()
        # time spent counts from what the checkpoint remembers, so that a run that resumes does not start over
        spent = float(module.progress) * (config.budget_seconds or 0.0) + (now - clock.pop() if clock else 0.0)
        clock.append(now)
        module.advance(done - 1, config.fraction(done, spent))

    def validate(module: nn.Module) -> dict[str, float]:
        assert validation is not None
        assert isinstance(module, MaskedModel)
        pictures = torch.from_numpy(validation.images).to(ctx.device).float() / 255
        parts = pictures.split(250)
        generator = torch.Generator(ctx.device).manual_seed(0)
        found = {"error": sum(len(p) * module.error(p, generator) for p in parts) / len(pictures)}
        half = len(validation) // 2
        if half > 1 and validation.labels.min() >= 0:
            x, y = extract(module, validation.images), torch.from_numpy(validation.labels)
            found["knn"] = knn_accuracy(x[:half], y[:half], x[half:], y[half:], k=min(20, half))
        return found

    def evaluated(module: nn.Module) -> Mapping[str, Any]:
        assert isinstance(module, MaskedModel)
        assert evaluate is not None
        return evaluate(module)

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, MaskedModel)
        save_backbone(module.encoder, out / "encoder.safetensors")

    order = EpochOrder(len(train), config.batch_size, ctx.seed)
    return Job(
        model, step, order, validate=validate if validation is not None else None,
        evaluate=evaluated if evaluate is not None else None, save=save, on_step=on_step,
    )  # fmt: skip


def untrained(encoder: ViT, seed: int) -> ViT:
    """The same network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng(seed, "untrained").integers(2**62)))
        return ViT(encoder.config)
