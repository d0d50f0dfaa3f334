"""TriPINet in narrow form, and the localisers it is compared with, on photographs that are edited here.

    vestige learn tripinet                    # for `vestige find --only tripinet`
    vestige learn tripinet --variant rgb      # colours alone; --variant list names all
    vestige learn tripinet --for-claims

Edits: splice, copy-move and removal; a quarter of the pictures is not edited, and three of five are saved as JPEG with
halved colours. All arms see the same pictures in as many updates, and their maps are cut where validation pictures
serve best. Without data the photographs are rendered scenes, which serves to try the recipe.

Options: net, the network; branches, fusion, width and backbone, see `TriPINet`; size, side of the squares; count, how
many of them; limit, of photographs, 0 all; shuffled, whether masks are dealt out anew.

Result of the first variant: tripinet.safetensors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.bench.controls import untrained
from vestige.bench.forensics.edits import OPERATIONS, bed, floors, judged, maps_of, turned, with_masks_of_others
from vestige.bench.forensics.localisers import ManTraLite, MVSSLite, PlainUNet
from vestige.core.errors import UsageError
from vestige.engines.fitting import rows_of
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.learned import save_network
from vestige.forensics.tripinet import TriPINet, tripinet_loss

OTHERS: dict[str, Callable[[], nn.Module]] = {"unet": PlainUNet, "mvss": MVSSLite, "mantra": ManTraLite}


def build(ctx: RecipeContext) -> Job:
    """Edited squares and the network of the variant."""
    o, limit = ctx.options, int(ctx.options["limit"])
    if o["net"] != "tripinet" and o["net"] not in OTHERS:
        raise UsageError(f"net is tripinet or one of {', '.join(OTHERS)}; got {o['net']}.")
    size, count = int(o["size"]), int(o["count"])

    def squares(part: str, number: int, lossless: bool = False) -> Any:
        few = min(number, 16) if limit else number
        return bed(part, OPERATIONS, few, size, unedited=0.25, lossless=lossless, limit=limit)

    known = bed("train", OPERATIONS, count, size, unedited=0.25, limit=limit)
    val = squares("val", 160)
    if o["shuffled"]:
        known = with_masks_of_others(known, ctx.seed)
    images, masks = torch.from_numpy(known.images), torch.from_numpy(known.masks)

    def fresh() -> nn.Module:
        if o["net"] in OTHERS:
            return OTHERS[o["net"]]()
        branches = tuple(name.strip() for name in str(o["branches"]).split(","))
        return TriPINet(float(o["width"]), str(o["backbone"]), branches, str(o["fusion"]))

    model = fresh()

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = rows_of(len(images), ctx.config.batch_size, generator)
        return turned(images[rows], masks[rows], generator)

    def step(module: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        if isinstance(module, MVSSLite | ManTraLite):
            return module.loss(*batch)
        return tripinet_loss(module(batch[0]), batch[1])

    def run(module: nn.Module) -> Any:
        return maps_of(lambda x: module(x)[0].sigmoid(), module)

    def validate(module: nn.Module) -> dict[str, float]:
        found = judged(run(module), val, {"val": val})
        return {"f1": found["f1, val"], "pixel_auc": found["pixel auc, val"]}

    def evaluate(module: nn.Module) -> dict[str, Any]:
        tests = {"stored": squares("test", 300, lossless=True)}
        tests["jpeg"] = saved_as_jpeg(tests["stored"])
        found = judged(run(module), val, tests)
        if ctx.variant == RECIPE.default and ctx.seed == 0:
            found |= {f"floor: {name}": figures for name, figures in floors(val, tests).items()}
            found["untrained"] = judged(run(untrained(fresh, ctx.seed)), val, tests)
        return found

    def save(module: nn.Module, out: Path) -> None:
        if ctx.variant == RECIPE.default and isinstance(module, TriPINet):
            facts = {"size": size, "operations": list(OPERATIONS), "count": count}
            save_network(out / "tripinet.safetensors", module, "tripinet", {**facts, **validate(module)})

    return Job(model, step, batches, validate=validate, evaluate=evaluate, save=save)


def saved_as_jpeg(made: Any) -> Any:
    """The same pictures after JPEG 70 with halved colours."""
    from vestige.data.edited_photographs import jpeg_70
    from vestige.data.manipulated import Manipulated

    return Manipulated(jpeg_70(made.images), made.masks, made.operations)


_THREE = (0, 1, 2)
RECIPE = Recipe(
    name="tripinet",
    about="Where was it edited? Colour, frequency and noise fused at every scale.",
    build=build,
    config=TrainConfig(
        steps=2000, batch_size=12, lr=2e-3, betas=(0.9, 0.99), weight_decay=5e-4, warmup=50, clip=5.0, ema=0.99,
        log_every=25, validate_every=100, checkpoint_every=150,
    ),
    reach={"f1": "above that of colours alone and of two branches, at thresholds of validation"},
    options={
        "net": "tripinet", "branches": "rgb,freq,noise", "fusion": "attention", "width": 0.125, "backbone": "small",
        "size": 64, "count": 3000, "limit": 0, "shuffled": False,
    },
    variants={
        "tripinet": Variant("three branches, guided attention", seeds=_THREE),
        "rgb": Variant("colours alone", {"branches": "rgb"}, seeds=_THREE),
        "concat": Variant("three branches side by side", {"fusion": "concat"}),
        "rgb_freq": Variant("colours and frequencies", {"branches": "rgb,freq"}),
        "rgb_noise": Variant("colours and noise", {"branches": "rgb,noise"}),
        "freq_noise": Variant("frequencies and noise", {"branches": "freq,noise"}),
        "unet": Variant("a U-Net on colours", {"net": "unet"}),
        "mvss": Variant("MVSS-Net, small", {"net": "mvss"}),
        "mantra": Variant("ManTra-Net, small", {"net": "mantra"}),
        "shuffled": Variant("three branches, masks of other pictures", {"shuffled": True}),
    },
    judged_by="f1",
)  # fmt: skip
