"""From an embedder and a reader to a training job: crops, messages, masks, distortions and stages for all marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.packs import has_pack, named_pack
from vestige.data.scenes import render_pack
from vestige.engines.marking.critic import Critic
from vestige.engines.marking.distort import EVERYDAY, DistortionLayer
from vestige.engines.marking.evaluate import false_alarm_area, summary, watched
from vestige.engines.marking.masks import MaskSampler
from vestige.engines.marking.model import EmbedderReader, Trial, save_marker, straight_clamp
from vestige.engines.marking.stages import Stage, Stages
from vestige.engines.recipe import Job, RecipeContext

#: Bits first; then masks, distortions and fidelity, each when nine bits in ten are read.
STAGES = (
    Stage("masks", accuracy=0.9),
    Stage("distortions", wait=100, accuracy=0.9, ramp=200),
    Stage("fidelity", wait=200, accuracy=0.85, ramp=400),
)


@dataclass(frozen=True)
class Editing:
    """An editor that some batches go through instead of the distortions (VINE-R).

    edit: (images N×3×S×S, generator) -> images; run without gradients. share: of the batches. straight: pass the
    gradient through as if the edit had added a constant; otherwise those batches teach the reader and the fidelity.
    """

    edit: Callable[[Tensor, torch.Generator], Tensor]
    share: float = 0.8
    straight: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            edited = self.edit(images.detach(), generator).clamp(0, 1).to(images)
        return images + (edited - images).detach() if self.straight else edited


@dataclass(frozen=True)
class MarkingPlan:
    """How a mark is trained.

    layer: the distortions. stages: what begins when; the names "masks", "distortions" and "fidelity" are used here,
    others by the models. masks: where the mark goes, None everywhere. critic: see `Critic`; its term is in force with
    the stage "fidelity". fixed_start: the same pictures in every batch until the first stage begins. zoom: smallest
    side of a training crop over that of the source, at least the mark's own. editing: see `Editing`.
    """

    layer: DistortionLayer = field(default_factory=lambda: DistortionLayer(EVERYDAY))
    stages: Sequence[Stage] = STAGES
    masks: MaskSampler | None = None
    critic: Critic | None = None
    fixed_start: bool = False
    zoom: float = 0.5
    editing: Editing | None = None


def marking_job(
    ctx: RecipeContext,
    model: EmbedderReader,
    train: np.ndarray,
    test: np.ndarray,
    plan: MarkingPlan,
    *,
    slug: str,
    facts: Mapping[str, Any] | None = None,
) -> Job:
    """A job that trains ``model`` on random crops of ``train`` and evaluates it on ``test``.

    train: uint8 N×3×H×W, at least as large as the mark. test: uint8 M×3×S×S at the mark's size. A batch is drawn on
    the CPU (places of the crops, messages, masks, seed) and cut out on the device. evaluate -> `summary`; save writes
    ``<slug>.safetensors`` with the area that the map calls marked on unmarked pictures. Trains on one device.
    Raises UsageError when the pictures are smaller than the mark.
    """
    size = model.size
    if min(train.shape[2:]) < size or test.shape[2:] != (size, size):
        raise UsageError(f"Training pictures must have sides of at least {size}, test pictures of {size} pixels.")
    source = torch.from_numpy(train).to(ctx.device)
    stages, critic = Stages(plan.stages), plan.critic
    count, config = min(ctx.config.batch_size, len(train)), ctx.config

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        seed = int(torch.randint(2**62, (), generator=generator))
        fixed = plan.fixed_start and not stages.begun
        places = rng(config.seed, "fixed crops") if fixed else rng(seed, "crops")
        largest = min(train.shape[2:])
        side = max(size, round(largest * places.uniform(plan.zoom, 1.0)))
        where = rng(seed, "masks")
        masks = np.ones((count, 1, size, size), bool)
        if plan.masks is not None and stages.level("masks") > 0:
            masks = plan.masks(count, size, where)
        return {
            "ids": places.choice(len(train), count, replace=False).tolist(),
            "tops": places.integers(0, train.shape[2] - side + 1, count).tolist(),
            "lefts": places.integers(0, train.shape[3] - side + 1, count).tolist(),
            "flips": places.random(count).tolist(), "side": side, "seed": seed,
            "bits": torch.from_numpy(rng(seed, "bits").integers(0, 2, (count, model.bits)).astype(np.float32)),
            "masks": torch.from_numpy(masks),
        }  # fmt: skip

    def step(module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(module, EmbedderReader)
        module.prepare(stages.level)
        images = crops(source, batch, size)
        trial = attempt(module, images, batch, plan, stages, generator)
        if critic is not None and stages.level("fidelity") > 0:
            trial.adversarial = critic.embedder_term(trial.embedded)
        found = module.objective(trial, stages.level)
        accuracy = trial.accuracy()
        stages.update(float(accuracy))
        if critic is not None and stages.level("fidelity") > 0:
            found["critic"] = critic.learn(images, trial.embedded)
        error = (trial.embedded.detach().float() - images).square().mean()
        found |= {"bits_right": accuracy, "psnr": -10 * error.clamp_min(1e-10).log10(),
                  "stage": torch.tensor(float(len(stages.begun)))}  # fmt: skip
        return found

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, EmbedderReader)
        return watched(module, test[:24], seed=ctx.seed)

    def evaluate(module: nn.Module) -> dict[str, Any]:
        assert isinstance(module, EmbedderReader)
        return {**summary(module, test, seed=ctx.seed), **(facts or {})}

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, EmbedderReader)
        alarms: dict[str, Any] = {}
        if module.localises:
            areas = np.sort(false_alarm_area(module, test))[::-1]
            alarms = {"unmarked": len(areas), "alarm_areas": [round(float(a), 5) for a in areas[:50]]}
        save_marker(out / f"{slug}.safetensors", module, slug, {**alarms, "trained on": len(train), **(facts or {})})

    extra: dict[str, Any] = {"stages": stages}
    if critic is not None:
        extra |= {"critic": critic, "critic optimizer": critic.optimizer}
    return Job(model, step, batches, validate=validate, evaluate=evaluate, save=save, extra=extra)


def crops(source: Tensor, batch: Mapping[str, Any], size: int) -> Tensor:
    """The batch's squares of ``side`` pixels, half of them mirrored, resized: float N×3×size×size in [0, 1]."""
    side = batch["side"]
    places = zip(batch["ids"], batch["tops"], batch["lefts"], batch["flips"], strict=True)
    cut = []
    for index, top, left, flip in places:
        picture = source[index, :, top : top + side, left : left + side]
        cut.append(picture.flip(2) if flip < 0.5 else picture)
    images = torch.stack(cut).float() / 255
    return images if side == size else F.interpolate(images, (size, size), mode="area")


def attempt(
    model: EmbedderReader,
    images: Tensor,
    batch: Mapping[str, Any],
    plan: MarkingPlan,
    stages: Stages,
    generator: torch.Generator,
) -> Trial:
    """Embed, keep the mark inside the mask, distort or edit, and read."""
    bits, masks = batch["bits"], batch["masks"]
    embedded = straight_clamp(model.embed(images, bits, masks).float())
    fused = torch.where(masks, embedded, images)
    attacked, moved = fused, masks
    draws = rng(batch["seed"], "distortion")
    severity = stages.level("distortions")
    if severity > 0:
        if plan.editing is not None and draws.random() < plan.editing.share:
            attacked = plan.editing(fused, generator)
        else:
            attacked, moved = plan.layer(fused, masks, draws, cover=images, severity=severity)
    reading = model.read(attacked, moved)
    return Trial(images, bits, masks, embedded, attacked, moved, reading, images.new_zeros(()))


def training_pictures(
    size: int, *, source: int = 256, limit: int = 0, seed: int = 0, held: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs to train and test marks on: uint8 N×3×source×source and M×3×size×size, from different pictures.

    The data pack "photos" where it is, otherwise rendered scenes of twice the mark's size. limit: pictures in all.
    held: most pictures to test on, 0 for all.
    """
    if has_pack("photos"):
        train = named_pack("photos", "train", size=max(source, size), limit=limit or None).images
        return train, named_pack("photos", "val", size=size, limit=limit or None).images[: held or None]
    count = limit or 600
    drawn = render_pack(count, 2 * size, seed).images
    return drawn, render_pack(held or max(16, count // 8), size, seed + 1).images
