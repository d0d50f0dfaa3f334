"""The default examiner of edits: a small U-Net on trace maps of edited photographs.

    vestige learn recipes/forensics/tamper_map
    vestige learn recipes/forensics/tamper_map --set exclude=splice --out out/learn/forensics/tamper_map_no_splice

The second is for the test on an operation that a network never saw; the claims want one for each of six operations.
Photographs of the training part are given a past, edited by one of the operations of `vestige.data.tampering` and
handled as files are; three in ten are not edited. ``pictures``: how many are made. ``exclude``: operations left out,
separated by commas. ``size``: their side. ``limit``: photographs, 0 all. ``cache``: a folder that keeps the trace maps,
which are computed once, before the first update, for the next run of the same code on the same pictures. Without data
the pictures are rendered scenes, which serves to try the recipe and nothing else.

Result: tamper_map.safetensors, with the threshold and scale that validation photographs give.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import InputError, UsageError
from vestige.data.manipulated import manipulated
from vestige.data.packs import find_data_root, named_pack
from vestige.data.scenes import render_pack
from vestige.data.tampering import OPERATIONS
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.forensics import traces
from vestige.forensics.learned import save_network
from vestige.forensics.tamper_map import TraceNet, calibration, localisation_loss, masks_at, pixel_scores, trace_stack
from vestige.metrics.detection import auroc
from vestige.metrics.segmentation import pixel_auroc


def build(ctx: RecipeContext) -> Job:
    """Edited pictures, their trace maps, and the network."""
    o = ctx.options
    left_out = [name.strip() for name in str(o["exclude"]).split(",") if name.strip()]
    unknown = sorted(set(left_out) - set(OPERATIONS))
    if unknown:
        raise UsageError(f"exclude names operations of {', '.join(OPERATIONS)}; got {', '.join(unknown)}.")
    operations = [name for name in OPERATIONS if name not in left_out]
    stack, masks, _ = prepared(ctx, "train", o["pictures"], 0.3, left_out)
    held_stack, held_masks, held_operations = prepared(ctx, "val", max(32, o["pictures"] // 10), 0.5, left_out)
    edited = np.asarray(held_masks.any((1, 2, 3)))
    targets = masks_at(masks)
    model = TraceNet(width=o["width"], base=o["base"], levels=o["levels"])
    model.calibrate(stack[:: max(1, len(stack) // 500)].float())

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(stack), (ctx.config.batch_size,), generator=generator)
        return stack[rows], targets[rows]

    def step(network: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        pixel, whole = network(batch[0])
        return localisation_loss(pixel, whole, batch[1])

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
        _, odds = pixel_scores(network, held_stack)
        facts = {
            "operations": operations, "pictures": len(stack), **calibration(odds, edited), **validate(network),
        }  # fmt: skip
        save_network(out / "tamper_map.safetensors", network, "tamper_map", facts)

    return Job(model, step, batches, validate=validate, save=save)


def prepared(
    ctx: RecipeContext, part: str, count: int, unedited: float, left_out: list[str]
) -> tuple[Tensor, np.ndarray, list[str]]:
    """(trace maps, bool masks N×1×S×S, operations) of a part's pictures without those of some operations."""
    o = ctx.options
    seed = ctx.seed + (part != "train")
    made = manipulated(photographs(part, o["limit"], ctx.seed), count, o["size"], unedited=unedited, seed=seed)
    file = None
    if o["cache"]:
        told = hashlib.sha256(made.images.tobytes() + Path(traces.__file__).read_bytes()).hexdigest()[:16]
        file = Path(o["cache"]) / f"traces-{told}.npy"
    if file is not None and file.is_file():
        stack = torch.from_numpy(np.load(file))
    else:
        stack = trace_stack(made.images)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, stack.numpy())
    kept = np.array([name not in left_out for name in made.operations])
    return stack[torch.from_numpy(kept)], made.masks[kept], [name for name in made.operations if name not in left_out]


def photographs(part: str, limit: int, seed: int) -> list[np.ndarray]:
    """uint8 256×256×3 of a part of the photos pack; rendered scenes where there is no data."""
    try:
        found = named_pack("photos", part, size=256, limit=limit or None).images if find_data_root() else None
    except InputError:
        found = None
    if found is None:
        found = render_pack(max(4, (limit or 200) // (1 if part == "train" else 8)), 256, seed + len(part)).images
    return [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in found]


def enlarged(logits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map at the size of its mask."""
    import cv2

    return cv2.resize(logits, shape[::-1], interpolation=cv2.INTER_LINEAR)


RECIPE = Recipe(
    name="forensics/tamper_map",
    about="The default examiner of edits: a small U-Net on local traces of noise, compression and colour.",
    build=build,
    config=TrainConfig(
        steps=1500, batch_size=16, lr=1.5e-3, betas=(0.9, 0.99), weight_decay=1e-2, warmup=0.05, clip=1.0, ema=0.995,
        log_every=25, validate_every=500, checkpoint_every=250,
    ),
    reach={"pixel auroc": "0.90 over the operations", "image auroc": "0.85"},
    options={
        "pictures": 4000, "size": 192, "exclude": "", "cache": "", "width": 48, "base": 24, "levels": 3, "limit": 0,
    },
)  # fmt: skip
