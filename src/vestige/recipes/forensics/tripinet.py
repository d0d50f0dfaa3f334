"""TriPINet in narrow form on photographs that are edited here.

    vestige learn tripinet
    vestige learn tripinet --set branches=rgb         # also rgb,freq and rgb,noise: the comparisons
    vestige learn tripinet --set fusion=concat
    vestige learn tripinet --set preset=gpu --set steps=3000

Edits: splice, copy-move and removal, made by `vestige.data.manipulated` in photographs with pasts of their own; a
quarter of the pictures is not edited. Presets: "cpu" (64 pixels, an eighth of the paper's widths, fewer convolutions)
and "gpu" (128 pixels, a quarter of the widths). Without data the photographs are rendered scenes, which serves to try
the recipe. count: pictures to train on.

Results: tripinet.safetensors; for the claims, copies go to the package's weights folder as tripinet.safetensors,
tripinet_rgb.safetensors, tripinet_rgb_freq.safetensors, tripinet_rgb_noise.safetensors and tripinet_concat.safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.data.manipulated import Manipulated, manipulated
from vestige.data.packs import has_pack, named_pack
from vestige.data.scenes import render_pack
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.forensics.learned import save_network
from vestige.forensics.tripinet import TriPINet, tripinet_loss
from vestige.metrics.segmentation import f1_at_threshold, pixel_auroc

OPERATIONS = ("splice", "copy_move", "removal")
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"size": 64, "width": 0.125, "backbone": "small"},
    "gpu": {"size": 128, "width": 0.25, "backbone": "vgg16_bn"},
}


def build(ctx: RecipeContext) -> Job:
    """Edited photographs and the network of the preset."""
    o = ctx.options
    if o["preset"] not in PRESETS:
        raise UsageError(f"preset is one of {', '.join(PRESETS)}; got {o['preset']}.")
    preset = dict(PRESETS[o["preset"]])
    size = preset.pop("size")
    counts = {"train": o["count"], "val": max(16, o["count"] // 10)}
    sets = {
        part: manipulated(photographs(part, ctx.seed), n, size, operations=OPERATIONS, unedited=0.25, seed=ctx.seed + i)
        for i, (part, n) in enumerate(counts.items())
    }
    images, masks = (torch.from_numpy(x) for x in (sets["train"].images, sets["train"].masks))
    branches = tuple(name.strip() for name in str(o["branches"]).split(","))
    model = TriPINet(**preset, branches=branches, fusion=o["fusion"])

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(images), (ctx.config.batch_size,), generator=generator)
        x, y = images[rows], masks[rows]
        turn, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))
        x, y = (torch.rot90(part, turn, (2, 3)) for part in (x, y))
        return {"images": x.flip(3), "masks": y.flip(3)} if mirror else {"images": x, "masks": y}

    def step(module: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return tripinet_loss(module(batch["images"].float() / 255), batch["masks"].float())

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, TriPINet)
        return figures(module, sets["val"])

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, TriPINet)
        facts = {"preset": o["preset"], "size": size, "operations": OPERATIONS, "count": o["count"]}
        save_network(out / "tripinet.safetensors", module, "tripinet", {**facts, **validate(module)})

    return Job(model, step, batches, validate=validate, save=save)


def photographs(part: str, seed: int) -> list[np.ndarray]:
    """uint8 H×W×3 of a part of the photos pack; rendered scenes where there is no data."""
    if has_pack("photos"):
        found = named_pack("photos", part, size=256).images
    else:
        found = render_pack(24, 128, seed + len(part)).images
    return [np.ascontiguousarray(x.transpose(1, 2, 0)) for x in found]


def figures(model: TriPINet, held: Manipulated) -> dict[str, float]:
    """F1 at one half, mean over edited pictures, and pixel AUC over all."""
    device = next(model.parameters()).device
    parts = torch.from_numpy(held.images).split(64)
    maps = torch.cat([model.localize(x.to(device).float() / 255).cpu() for x in parts]).numpy()
    return {"f1": float(np.nanmean(f1_at_threshold(held.masks, maps))), "pixel_auroc": pixel_auroc(held.masks, maps)}


RECIPE = Recipe(
    name="tripinet",
    about="Where was it edited? Colour, frequency and noise fused at every scale.",
    build=build,
    config=TrainConfig(
        steps=500, batch_size=16, lr=1e-3, weight_decay=5e-4, warmup=0.05, clip=5.0, log_every=25, validate_every=250,
        checkpoint_every=250,
    ),
    reach={
        "f1": "0.10 above branches=rgb and 0.05 above two branches, 0.02 above fusion=concat",
        "f1 after JPEG 70": "60 % of what it was",
    },
    options={"preset": "cpu", "branches": "rgb,freq,noise", "fusion": "attention", "count": 2400},
)  # fmt: skip
