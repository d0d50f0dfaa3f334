"""The recoloured-picture examiner, and the networks it is compared with, on the same batches.

    vestige learn recolor
    vestige learn recolor --variant shuffled_labels

Every photograph of the training part gives genuine versions (every third after a method's own arithmetic, with itself
as reference) and as many recoloured by the four training methods, all treated alike; see `vestige.data.recolouring`.
Without data the pictures are rendered scenes, which serves to try the recipe and nothing else. ``networks``: "all" is
the examiner, "channels" and "spatial" see half of its maps, "pixels" is a plain network on RGB, "inputs" one that also
sees differences of channels and the illumination. ``labels``: "true", or "shuffled" for the
control. ``each``: recoloured versions of a photograph. ``limit``: photographs, 0 all.

Results: recolor.safetensors, and recolor_NETWORK.safetensors of the others, for the package's weights folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.controls import shuffled
from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.recolouring import TRAINING, Versions, versions
from vestige.data.stand_in import photographs_or_scenes
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.learned import save_network
from vestige.forensics.recolor_net import ON_PIXELS, Contest, log_odds_of
from vestige.metrics.detection import auroc
from vestige.nn.cooccurrence import SETS, cooccurrence

SIDE, CROP = 256, 112


def build(ctx: RecipeContext) -> Job:
    """Versions of the photographs, their maps, and the networks."""
    o = ctx.options
    parts = {
        part: photographs_or_scenes(part, SIDE, limit=o["limit"], seed=ctx.seed, scene_size=128)
        for part in ("train", "val")
    }
    made = {
        name: versions(found, TRAINING, each=o["each"], seed=ctx.seed + number)
        for number, (name, found) in enumerate(parts.items())
    }
    maps = {name: counted(one) for name, one in made.items()}
    images = torch.from_numpy(made["train"].images)
    if o["labels"] not in ("true", "shuffled"):
        raise UsageError(f"labels is true or shuffled; got {o['labels']!r}.")
    truth = made["train"].recoloured
    truth = shuffled(truth, ctx.seed) if o["labels"] == "shuffled" else truth
    labels = torch.from_numpy(truth).float()
    flags = [np.flatnonzero(truth == wanted) for wanted in (False, True)]
    half = ctx.config.batch_size // 2

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "recolor batch")
        rows = np.concatenate([draw.choice(group, half, replace=len(group) < half) for group in flags])
        cuts = []
        for row in rows:
            top, left = (int(u * (n - CROP + 1)) for u, n in zip(draw.random(2), images.shape[2:], strict=True))
            cut = images[row, :, top : top + CROP, left : left + CROP]
            cuts.append(cut.flip(2) if draw.random() < 0.5 else cut)
        return {"maps": maps["train"][rows], "images": torch.stack(cuts), "labels": labels[rows]}

    def step(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        found = model(batch["maps"], batch["images"].float() / 255)
        each = {name: F.binary_cross_entropy_with_logits(odds.float(), batch["labels"]) for name, odds in found.items()}
        right = {
            f"{name}_right": ((odds > 0) == (batch["labels"] > 0.5)).float().mean() for name, odds in found.items()
        }
        return {"loss": torch.stack(list(each.values())).sum(), **right}

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, Contest)
        figures = {}
        for name, odds in scores(model, maps["val"], made["val"]).items():
            figures[f"{name}_auroc"] = auroc(made["val"].recoloured, odds)
            figures[f"{name}_accuracy"] = float(((odds > 0) == made["val"].recoloured).mean())
        return figures

    def save(model: nn.Module, out: Path) -> None:
        assert isinstance(model, Contest)
        facts: Mapping[str, Any] = {"photographs": len(parts["train"]), "methods": list(TRAINING), **validate(model)}
        for name, net in model.nets.items():
            slug = f"recolor_{name}" if name in ON_PIXELS else "recolor"
            file = "recolor" if name == "all" else f"recolor_{name}"
            save_network(out / f"{file}.safetensors", net, slug, facts)

    model = Contest([name.strip() for name in str(o["networks"]).split(",")])
    return Job(model, step, batches, validate=validate, save=save)


def counted(made: Versions) -> Tensor:
    """Both sets of co-occurrence maps of all versions, float32 M×24×31×31."""
    return torch.cat(
        [cooccurrence(torch.from_numpy(part), sets=SETS) for part in np.array_split(made.images, 64) if len(part)]
    )


def scores(model: Contest, maps: Tensor, made: Versions) -> dict[str, np.ndarray]:
    """Log-odds by network."""
    half, device = maps.shape[1] // 2, next(model.parameters()).device
    parts = {"all": maps, "spatial": maps[:, :half], "channels": maps[:, half:]}
    return {
        name: log_odds_of(net, parts.get(name, torch.from_numpy(made.images)).to(device)).cpu().numpy()
        for name, net in model.nets.items()
    }


RECIPE = Recipe(
    name="recolor",
    about="Were the colours re-mapped? A small network on co-occurrences of residuals.",
    build=build,
    config=TrainConfig(
        steps=1200, batch_size=64, lr=1e-3, weight_decay=1e-2, warmup=0.05, clip=5.0, log_every=25, validate_every=60,
        checkpoint_every=350,
    ),
    reach={
        "accuracy, training methods": "0.85 on photographs that took no part",
        "accuracy, other methods": "0.70, and 0.05 above the plain network and the inter-channel maps",
        "AUC after JPEG 90": "0.75",
    },
    options={"networks": "all,channels,pixels,inputs", "each": 4, "limit": 0, "labels": "true"},
    variants={
        "default": Variant("the examiner and its rivals on the same batches", seeds=(0, 1, 2)),
        "shuffled_labels": Variant("the examiner with shuffled labels", {"networks": "all", "labels": "shuffled"}),
    },
    judged_by="all_auroc",
)  # fmt: skip
