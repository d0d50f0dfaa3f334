"""What covers a picture found and filled by one network, and a rival that learns both without contrast.

    vestige learn hcl_restore                    # all covers, for `vestige restore --method hcl`
    vestige learn hcl_restore --variant other    # covers of other photographs alone, judged on all kinds

Pictures are those of the recipe hcl, all of them covered. In the first half of the updates the decoder gets the true
mask, then the one that is found. Without data the pictures are rendered scenes.

Options: net, "hcl" or "vcnet" (mask and filling learnt together, in the way of VCNet); covers, "" any; limit; dims,
depths and width of the network.

Result of the first variant: hcl_restore.safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.corruptions import KINDS
from vestige.data.stand_in import photographs_or_scenes
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.hcl_restore import GatedUNet, HCLRestoreNet, restore_loss
from vestige.forensics.learned import save_network
from vestige.metrics.quality import psnr
from vestige.nn.conv_unet import ConvUNet
from vestige.recipes.forensics.hcl import JUDGED, WHOLE, covered_and_originals, numbers

EACH = 24  # validation pictures of each kind


class MaskAndFill(nn.Module):
    """Pictures N×3×H×W in [0, 1] -> the pictures with what seems covered filled; `logits` of that are kept.

    The filling sees the soft mask, so that its error tells the mask where it is wrong as well.

    Source: VCNet: A Robust Approach to Blind Image Inpainting, ECCV 2020; without its normalisation and critic.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.mask, self.fill = ConvUNet(3, 16, 3, 1), GatedUNet(width, doubt=True)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fill(images, self.mask(images).sigmoid() if mask is None else mask)


def build(ctx: RecipeContext) -> Job:
    """Covered photographs and the network of the variant."""
    o, limit, covers = ctx.options, int(ctx.options["limit"]), str(ctx.options["covers"])
    if o["net"] not in ("hcl", "vcnet") or covers not in ("", *KINDS):
        raise UsageError(f"net is hcl or vcnet, covers {', '.join(KINDS)} or nothing; got {o['net']}, {covers}.")
    train, val = (photographs_or_scenes(part, WHOLE, limit=limit) for part in ("train", "val"))
    each = 4 if limit else EACH
    held = {
        kind: covered_and_originals(val, rng(0, "restore validation", kind), each, kind)
        for kind in ([covers] if covers else KINDS)
    }

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "restore batch")
        images, masks, originals = covered_and_originals(train, draw, ctx.config.batch_size, covers)
        blind = 2 * number >= ctx.config.steps
        return {"images": images, "masks": masks, "originals": originals, "blind": blind}

    def step(module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        x, mask, wanted = batch["images"], batch["masks"], batch["originals"]
        if isinstance(module, MaskAndFill):
            logits = module.mask(x)
            told = F.binary_cross_entropy_with_logits(logits, mask.float())
            given = logits.sigmoid() if batch["blind"] else mask.float()
            return {"loss": told + F.l1_loss(module.fill(x, given), wanted)}
        assert isinstance(module, HCLRestoreNet)
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        return restore_loss(module, x, mask, wanted, own, blind=batch["blind"])

    def validate(module: nn.Module) -> dict[str, float]:
        found = [figures(module, *held[kind]) for kind in held]
        return {"psnr": float(np.mean([f["found"] for f in found]))}

    def evaluate(module: nn.Module) -> dict[str, Any]:
        test, found = photographs_or_scenes("test", WHOLE, limit=limit), dict[str, Any]()
        for kind in KINDS:
            given = covered_and_originals(test, rng(0, "restore test", kind), 4 if limit else JUDGED, kind)
            for name, values in figures(module, *given, whole=True).items():
                found[f"psnr {name}, {kind}"] = float(np.mean(values))
                found[f"each psnr {name}, {kind}"] = np.round(values, 3).tolist()
        return found

    def save(module: nn.Module, out: Path) -> None:
        if ctx.variant == RECIPE.default and isinstance(module, HCLRestoreNet):
            save_network(out / "hcl_restore.safetensors", module, "hcl_restore", {"covers": covers, **validate(module)})

    if o["net"] == "vcnet":
        model: nn.Module = MaskAndFill(int(o["width"]))
    else:
        model = HCLRestoreNet(numbers(o["dims"]), numbers(o["depths"]), width=int(o["width"]))
    return Job(model, step, batches, validate=validate, evaluate=evaluate, save=save)


@torch.no_grad()
def figures(
    module: nn.Module, images: Tensor, masks: Tensor, originals: Tensor, *, whole: bool = False
) -> dict[str, Any]:
    """PSNR in dB with the mask that is found; whole: of every picture, with the true mask and untouched as well."""
    device = next(module.parameters()).device
    found = {"found": torch.cat([module(x.to(device)).cpu() for x in images.split(16)])}
    if whole:
        pairs = zip(images.split(16), masks.float().split(16), strict=True)
        found["true mask"] = torch.cat([module(x.to(device), m.to(device)).cpu() for x, m in pairs])
        found["untouched"] = images
    each = {name: psnr(originals.numpy(), x.clamp(0, 1).numpy()) for name, x in found.items()}
    return each if whole else {name: float(np.mean(values)) for name, values in each.items()}


RECIPE = Recipe(
    name="hcl_restore",
    about="What covers a picture found and filled by one network.",
    build=build,
    config=TrainConfig(
        steps=1200, batch_size=6, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, warmup=50, clip=5.0, ema=0.99,
        log_every=20, validate_every=60, checkpoint_every=120,
    ),
    reach={"psnr": "above that of the untouched pictures"},
    options={"net": "hcl", "covers": "", "limit": 0, "dims": "16,32,64", "depths": "1,1,1", "width": 16},
    variants={
        "all": Variant("all covers, for use"),
        "other": Variant("covers of other photographs alone", {"covers": "other"}),
        "vcnet": Variant("mask and filling learnt together", {"covers": "other", "net": "vcnet"}),
    },
    judged_by="psnr",
)  # fmt: skip
