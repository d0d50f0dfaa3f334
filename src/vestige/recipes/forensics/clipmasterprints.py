"""A small CLIP on rendered scenes, and the detector of master pictures mined against it.

    vestige learn clipmasterprints

The CLIP learns the 64 captions of `vestige.bench.forensics.masterprints`; then pictures of the training part are moved
by signed gradient steps until they match 25 captions each, and the detector learns them from untouched ones. A kill
loses at most the part under way. config is the CLIP's; detector: updates of the detector; mined: master pictures to
learn from; mining: steps of each; each: scenes of a caption, 0 for the usual number; words "true", or "shuffled" for
the control whose captions belong to other pictures.

Results: clip/model.safetensors, and clipmasterprints.safetensors for `vestige find --only clipmasterprints --model`.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.controls import shuffled
from vestige.bench.forensics.masterprints import CAPTIONS, SIZE, TARGETS, Captioned, captioned, clip, right
from vestige.core.errors import UsageError
from vestige.core.files import write_atomic
from vestige.core.runtime import rng
from vestige.engines.fitting import rows_of
from vestige.engines.parts import trained
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.clipmasterprints import ClipMasterPrints, MasterPrintNet, mine
from vestige.forensics.learned import calibration, save_network
from vestige.metrics.detection import auroc
from vestige.nn.image_text import ImageText
from vestige.nn.text import token_ids


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """The CLIP, the masters, the detector."""
    o = ctx.options
    if o["words"] not in ("true", "shuffled"):
        raise UsageError(f"words is true or shuffled; got {o['words']!r}.")
    sets = {part: captioned(part, ctx.seed, int(o["each"])) for part in ("train", "val")}
    model = trained(ctx, "clip", clip_job(ctx, sets["train"], sets["val"]))
    assert isinstance(model, ImageText)
    model = model.cpu().requires_grad_(False)
    found: dict[str, Any] = {"updates": ctx.config.steps, "zero-shot accuracy": right(model, sets["val"])}
    if not int(o["detector"]):
        return found
    pictures = masters(ctx, model, sets["train"])
    config = dataclasses.replace(
        ctx.config, steps=int(o["detector"]), batch_size=min(48, ctx.config.batch_size), weight_decay=1e-3,
        validate_every=max(1, int(o["detector"]) // 20),
    )  # fmt: skip
    detector = trained(ctx, "detector", detector_job(pictures, config.batch_size), config)
    clean, mined = (_odds(detector, pictures[name][1]) for name in ("clean", "mined"))
    facts = {**calibration(clean, mined, 0.02), "side": SIZE, "captions": TARGETS, "mining": int(o["mining"])}
    save_network(ctx.out / "clipmasterprints.safetensors", detector, ClipMasterPrints.slug, facts)
    labels = np.repeat([False, True], [len(clean), len(mined)])
    return {**found, "detector auroc": float(auroc(labels, np.append(clean, mined)))}


def clip_job(ctx: RecipeContext, train: Captioned, val: Captioned) -> Job:
    """Contrast of pictures and captions."""
    captions = train.captions
    if ctx.options["words"] == "shuffled":
        captions = [str(c) for c in shuffled(captions, ctx.seed)]
    model = clip().train()
    ids = token_ids(model.tokenizer, captions)

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows = rows_of(len(ids), ctx.config.batch_size, generator)
        moved = torch.randint(-2, 3, (2,), generator=generator).tolist()  # a shift of two pixels at most
        return train.images[rows].roll(moved, (2, 3)), ids[rows]

    def step(network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(network, ImageText)
        return {"loss": network.loss(batch[0], batch[1])}

    def validate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, ImageText)
        return {"right": right(network, val)}

    return Job(model, step, batches, validate=validate)


def masters(ctx: RecipeContext, model: ImageText, train: Captioned) -> dict[str, tuple[Tensor, Tensor]]:
    """{"clean", "mined"}: pictures to learn from and to judge by, uint8 in a file of the run once they are mined."""
    path = ctx.out / "masters.npz"
    if not path.is_file():
        count, draw = int(ctx.options["mined"]), rng(ctx.seed, "detector")
        rows = draw.permutation(len(train.images))[: 2 * count]
        clean, begun = train.images[rows[: len(rows) // 2]], train.images[rows[len(rows) // 2 :]]
        lists = [[CAPTIONS[i] for i in draw.permutation(len(CAPTIONS))[:TARGETS]] for _ in begun]
        mined = [
            mine(model, lists[first : first + 32], start=begun[first : first + 32], steps=int(ctx.options["mining"]),
                 seed=ctx.seed + first)
            for first in range(0, len(begun), 32)
        ]  # fmt: skip
        buffer = io.BytesIO()
        stored_as = [(x * 255).round().byte().numpy() for x in (clean, torch.cat(mined))]
        np.savez(buffer, clean=stored_as[0], mined=stored_as[1])
        write_atomic(path, buffer.getvalue())
    with np.load(path) as stored:
        found = {name: torch.from_numpy(stored[name]).float() / 255 for name in ("clean", "mined")}
    return {name: (x[: max(1, len(x) * 3 // 4)], x[len(x) * 3 // 4 :]) for name, x in found.items()}


def detector_job(pictures: Mapping[str, tuple[Tensor, Tensor]], batch_size: int) -> Job:
    """Cross-entropy of mined against clean pictures."""
    known = torch.cat([pictures["clean"][0], pictures["mined"][0]])
    labels = (torch.arange(len(known)) >= len(pictures["clean"][0])).float()

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows = rows_of(len(known), batch_size, generator)
        return known[rows], labels[rows]

    def step(network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": nn.functional.binary_cross_entropy_with_logits(network(batch[0]), batch[1])}

    def validate(network: nn.Module) -> dict[str, float]:
        clean, mined = (_odds(network, pictures[name][1]) for name in ("clean", "mined"))
        truth = np.repeat([False, True], [len(clean), len(mined)])
        return {"right": float(((np.append(clean, mined) > 0) == truth).mean())}

    return Job(MasterPrintNet(), step, batches, validate=validate)


@torch.no_grad()
def _odds(network: nn.Module, images: Tensor) -> np.ndarray:
    was, device = network.training, next(network.parameters()).device
    network.eval()
    found = network(images.to(device)).double().cpu().numpy()
    network.train(was)
    return np.asarray(found)


RECIPE = Recipe(
    name="clipmasterprints",
    about="A small model of pictures and captions, and the detector of pictures mined to fool it.",
    perform=perform,
    config=TrainConfig(
        steps=2500, batch_size=96, lr=1e-3, warmup=30, weight_decay=0.05, log_every=25, validate_every=125,
        checkpoint_every=250,
    ),
    reach={"zero-shot accuracy": "0.8 of 64 captions", "detector auroc": "0.95"},
    options={"detector": 600, "mined": 320, "mining": 40, "each": 0, "words": "true"},
    variants={
        "default": Variant("the model and its detector", seeds=(0, 1, 2)),
        "shuffled_labels": Variant(
            "a model whose captions belong to other pictures", {"words": "shuffled", "detector": 0}
        ),
    },
    judged_by="right",
)  # fmt: skip
