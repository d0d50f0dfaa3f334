"""The default examiner of edits: a small U-Net on trace maps of edited photographs.

    vestige learn tamper_map
    vestige learn tamper_map --variant no_splice

The first is what ships, an hour of one core. The second, some ten minutes, is for the test on an operation that a
network never saw; the claims want one for each of six operations, and one of all operations with its masks shuffled.
Photographs of the training part are given a past, edited by one of the operations of `vestige.data.tampering` and
handled as files are; a good third is not edited. ``pictures``: how many are made. ``exclude``: operations left out,
separated by commas. ``size``: their side. ``limit``: photographs, 0 all. ``cache``: a folder that keeps the trace maps,
which are computed before the first update, in portions, for the next run of the same code on the same pictures.
Without data the pictures are rendered scenes, which serves to try the recipe and nothing else.

Result: tamper_map.safetensors. ``vestige calibrate --only tamper_map`` sets its threshold and its probabilities.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.controls import shuffled
from vestige.core.errors import UsageError
from vestige.core.files import write_atomic
from vestige.data.manipulated import manipulated, travelled
from vestige.data.stand_in import photographs_or_scenes
from vestige.data.tampering import OPERATIONS
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics import traces
from vestige.forensics.learned import save_network
from vestige.forensics.tamper_net import (
    TraceNet,
    halved,
    localisation_loss,
    masks_at,
    mirrored,
    pixel_scores,
    trace_stack,
)
from vestige.metrics.detection import auroc
from vestige.metrics.segmentation import pixel_auroc


def build(ctx: RecipeContext) -> Job:
    """Edited pictures, their trace maps, and the network."""
    o = ctx.options
    if o["labels"] not in ("true", "shuffled"):
        raise UsageError(f"labels is true or shuffled; got {o['labels']!r}.")
    left_out = [name.strip() for name in str(o["exclude"]).split(",") if name.strip()]
    unknown = sorted(set(left_out) - set(OPERATIONS))
    if unknown:
        raise UsageError(f"exclude names operations of {', '.join(OPERATIONS)}; got {', '.join(unknown)}.")
    operations = [name for name in OPERATIONS if name not in left_out]
    stack, masks, _ = prepared(ctx, "train", o["pictures"], 0.35, left_out)
    held_stack, held_masks, held_operations = prepared(ctx, "val", max(32, o["pictures"] // 10), 0.5, left_out)
    edited = np.asarray(held_masks.any((1, 2, 3)))
    targets = masks_at(masks)
    if o["labels"] == "shuffled":
        targets = targets[torch.from_numpy(shuffled(np.arange(len(targets)), ctx.seed))]
    model = TraceNet(width=o["width"], base=o["base"], levels=o["levels"])
    model.calibrate(stack[:: max(1, len(stack) // 500)].float())

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(stack), (ctx.config.batch_size,), generator=generator)
        return mirrored(stack[rows], targets[rows], generator)

    def step(network: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        pixel, whole = network(batch[0])
        losses = localisation_loss(pixel, whole, batch[1])
        pixel, whole = network(halved(batch[0]))
        coarse = localisation_loss(pixel, whole, halved(batch[1]))
        return losses | {"loss": losses["loss"] + 0.5 * coarse["loss"], "coarse map": coarse["map"]}

    def validate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, TraceNet)
        maps, odds = pixel_scores(network, held_stack)
        areas: dict[str, list[float]] = {}
        for one, mask, name in zip(maps, held_masks[:, 0], held_operations, strict=True):
            if name:
                areas.setdefault(name, []).append(float(pixel_auroc([mask], [enlarged(one, mask.shape)])))
        found = {f"{name} pixel auroc": float(np.mean(values)) for name, values in sorted(areas.items())}
        mean = float(np.mean(list(found.values())))
        return {"pixel auroc": mean, "image auroc": auroc(edited, odds), **found}

    def save(network: nn.Module, out: Path) -> None:
        assert isinstance(network, TraceNet)
        facts = {"operations": operations, "pictures": len(stack), **validate(network)}
        save_network(out / "tamper_map.safetensors", network, "tamper_map", facts)

    return Job(model, step, batches, validate=validate, save=save)


def prepared(
    ctx: RecipeContext, part: str, count: int, unedited: float, left_out: list[str]
) -> tuple[Tensor, np.ndarray, list[str]]:
    """(trace maps, bool masks N×1×S×S, operations) of a part's pictures without those of some operations."""
    o = ctx.options
    seed = ctx.seed + (part != "train")
    made = manipulated(
        photographs(part, o["limit"], ctx.seed), count, o["size"], unedited=unedited, seed=seed, handling=travelled
    )
    folder = Path(o["cache"]) if o["cache"] else None
    stack = torch.cat([traced(made.images[first : first + 250], folder) for first in range(0, count, 250)])
    kept = np.array([name not in left_out for name in made.operations])
    return stack[torch.from_numpy(kept)], made.masks[kept], [name for name in made.operations if name not in left_out]


def traced(images: np.ndarray, folder: Path | None) -> Tensor:
    """Trace maps of pictures; those that a run with the same code left in the folder are taken from there."""
    if folder is None:
        return trace_stack(images)
    told = hashlib.sha256(images.tobytes() + Path(traces.__file__).read_bytes()).hexdigest()[:16]
    file = folder / f"traces-{told}.npy"
    if file.is_file():
        return torch.from_numpy(np.load(file))
    stack = trace_stack(images)
    content = io.BytesIO()
    np.save(content, stack.numpy())
    write_atomic(file, content.getvalue())
    return stack


def photographs(part: str, limit: int, seed: int) -> list[np.ndarray]:
    """uint8 256×256×3 of a part of the photos pack; rendered scenes where there is no data."""
    found = photographs_or_scenes(part, 256, limit=limit, seed=seed)
    return [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in found]


def enlarged(logits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map at the size of its mask."""
    import cv2

    return cv2.resize(logits, shape[::-1], interpolation=cv2.INTER_LINEAR)


#: Operations of which a network of their own never sees an example.
LEFT_OUT = ("splice", "copy_move", "removal", "local_blur", "local_noise", "recolor")
_SMALL = {"pictures": 6000, "base": 16, "cache": "out/traces"}
_SHORT = {"steps": 4000, "validate_every": 200}

RECIPE = Recipe(
    name="tamper_map",
    about="The default examiner of edits: a small U-Net on local traces of noise, compression and colour.",
    build=build,
    config=TrainConfig(
        steps=16000, batch_size=16, lr=1.5e-3, betas=(0.9, 0.99), weight_decay=1e-2, warmup=0.05, clip=1.0, ema=0.995,
        log_every=25, validate_every=800, checkpoint_every=500,
    ),
    reach={"pixel auroc": "0.90 over the operations", "image auroc": "0.85"},
    options={
        "pictures": 12000, "size": 192, "exclude": "", "cache": "", "width": 32, "base": 24, "levels": 3, "limit": 0,
        "labels": "true",
    },
    variants={
        "default": Variant("the examiner that ships"),
        **{
            f"no_{name}": Variant(f"a smaller one that never saw {name.replace('_', ' ')}", {**_SMALL, "exclude": name},
                                  _SHORT)
            for name in LEFT_OUT
        },
        "shuffled_labels": Variant("a smaller one, masks of other pictures", {**_SMALL, "labels": "shuffled"}, _SHORT),
    },
    judged_by="pixel auroc",
)  # fmt: skip
