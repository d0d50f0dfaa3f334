"""Claims of hierarchical contrast, trained on photographs covered by other photographs and judged on other covers.

Photographs, covers and the pictures that cover are split between training and test. All detectors see the same batches
in as many updates; their thresholds are one half (validation chooses nothing). All pictures that are judged are
covered, as in the paper, so the mask is not left empty where the judge finds neither cluster corrupted; a row says what
that gate, which the examiner has, would cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.runtime import rng
from vestige.data.corruptions import KINDS, corrupt
from vestige.data.packs import Pack, load_pack, split
from vestige.engines.fitting import fit, rows_of
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.hcl import HCL, GatedUNet, HCLNet, HCLRestorer, grown, hcl_loss
from vestige.forensics.tripinet import TriPINet, tripinet_loss
from vestige.metrics.quality import psnr
from vestige.metrics.segmentation import f1_at_threshold, iou_at_threshold
from vestige.nn.conv_unet import ConvUNet

SIZE, COVERED, STEPS, BATCH = 64, 2400, 1200, 8
NET: dict[str, Any] = {"dims": (16, 32, 64), "depths": (1, 1, 1)}
UNSEEN = tuple(k for k in KINDS if k != "other")
EACH = 40  # test pictures of each cover
OURS, ONE, UNET = "hierarchical contrast", "coarsest scale alone", "U-Net, cross-entropy"
JOINT, TRIPLE = "mask and filling learnt together (VCNet-like)", "TriPINet"
EVERY, GATED = "everything covered", "hierarchical contrast, gated"


class MaskAndFill(nn.Module):
    """Pictures N×3×H×W in [0, 1] -> (logits N×1×H×W of what is covered, the pictures with that filled).

    The filling sees the soft mask, so that its error tells the mask where it is wrong as well.

    Source: VCNet: A Robust Approach to Blind Image Inpainting, ECCV 2020; without its normalisation and critic.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mask, self.fill = ConvUNet(3, 16, 3, 1), GatedUNet(16)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.mask(images)
        return logits, self.fill(images, logits.sigmoid())


#: The networks by name; the others are `HCLNet`.
OTHERS: dict[str, Callable[[], nn.Module]] = {
    UNET: lambda: ConvUNet(3, 16, 3, 1),
    JOINT: MaskAndFill,
    TRIPLE: lambda: TriPINet(0.125, "small"),
    "filler": lambda: GatedUNet(16),
}


@lru_cache(maxsize=1)
def _photos(context: ClaimContext) -> dict[str, Pack]:
    pack = load_pack(context.pack("photos"), SIZE)
    return {part: pack.take(chosen) for part, chosen in split(pack.names).items()}


@lru_cache(maxsize=8)
def _covered(context: ClaimContext, part: str, kind: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """(covered pictures, masks, originals) of one kind of cover; covering pictures are of the same part."""
    images, draw = _photos(context)[part].images, rng(context.seed, "covered", part, kind)
    found = []
    for _i in range(min(count, 4 * context.limit) if context.limit else count):
        one, other = (images[j].astype(np.float32) / 255 for j in draw.choice(len(images), 2, replace=False))
        found.append((*corrupt(one, kind, other=other, seed=int(draw.integers(2**31))), one))
    covered, masks, originals = (torch.from_numpy(np.stack(x)) for x in zip(*found, strict=True))
    return covered, masks, originals


@lru_cache(maxsize=8)
def _trained(context: ClaimContext, name: str) -> nn.Module:
    images, masks, originals = _covered(context, "train", "other", COVERED)
    torch.manual_seed(context.seed)
    network = OTHERS[name]() if name in OTHERS else HCLNet(**NET)

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows = rows_of(len(images), BATCH, generator)
        return images[rows], masks[rows], originals[rows]

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        x, mask, original = batch
        if isinstance(model, HCLNet):
            return hcl_loss(model, x, mask, generator, samples=192, hard=96, scales=1 if name == ONE else 3)
        if isinstance(model, GatedUNet):
            return {"loss": F.l1_loss(model(x, grown(mask, 2)), original)}
        if isinstance(model, MaskAndFill):
            logits, filled = model(x)
            return {"loss": F.binary_cross_entropy_with_logits(logits, mask.float()) + F.l1_loss(filled, original)}
        if isinstance(model, TriPINet):
            return tripinet_loss(model(x), mask.float())
        return {"loss": F.binary_cross_entropy_with_logits(model(x), mask.float())}

    config = TrainConfig(
        steps=3 if context.limit else STEPS, lr=2e-3, warmup=20, weight_decay=1e-3,
        betas=(0.9, 0.99), seed=context.seed,
    )  # fmt: skip
    return fit(network, step, batches, config)


@torch.no_grad()
def _maps(context: ClaimContext, name: str, images: Tensor) -> Tensor:
    network = _trained(context, OURS if name == GATED else name)
    if isinstance(network, HCLNet):
        scales, gate = 1 if name == ONE else 3, name == GATED
        return torch.cat([HCL(network).detect(x, scales=scales, gate=gate)[1] for x in images.split(16)])
    found = [network(x) for x in images.split(16)]
    return torch.cat([(x if isinstance(x, Tensor) else x[0]).sigmoid() for x in found])


@torch.no_grad()
def _filled(joint: nn.Module, images: Tensor) -> np.ndarray:
    return torch.cat([joint(x)[1] for x in images.split(16)]).clamp(0, 1).numpy()


@lru_cache(maxsize=1)
def _table(context: ClaimContext) -> tuple[dict[str, Any], ...]:
    rows = []
    for name in (OURS, GATED, ONE, UNET, JOINT, TRIPLE, EVERY):
        row: dict[str, Any] = {"detector": name}
        for kind in KINDS:
            images, masks, _ = _covered(context, "test", kind, EACH)
            maps = torch.ones_like(images[:, :1]) if name == EVERY else _maps(context, name, images)
            row[f"iou, {kind}"] = float(np.mean(iou_at_threshold(masks.numpy(), maps.numpy())))
            if kind == "other":
                row["f1, other"] = float(np.mean(f1_at_threshold(masks.numpy(), maps.numpy())))
        row["iou, unseen"] = float(np.mean([row[f"iou, {kind}"] for kind in UNSEEN]))
        rows.append(row)
    return tuple(rows)


@claim(
    "trained on covers of other photographs alone, the IoU on graffiti, colour and noise is >= 0.10 above a U-Net "
    "trained with cross-entropy on the same data, and above marking every pixel"
)
def generalises_to_other_covers(context: ClaimContext) -> Evidence:
    rows = list(_table(context))
    by = {row["detector"]: row["iou, unseen"] for row in rows}
    holds = by[OURS] >= max(by[UNET] + 0.1, by[EVERY])
    return Evidence(holds, rows, f"{STEPS} updates of {BATCH} pictures of {SIZE} pixels")


@claim("the hierarchy is >= 0.03 IoU above contrast at one scale")
def hierarchy_helps(context: ClaimContext) -> Evidence:
    rows = list(_table(context))
    ious = {row["detector"]: float(np.mean([row[f"iou, {kind}"] for kind in KINDS])) for row in rows}
    rows = [{**row, "iou, all covers": ious[row["detector"]]} for row in rows]
    return Evidence(ious[OURS] >= ious[ONE] + 0.03, rows)


@claim("restored by the mask it predicts, PSNR closes >= 90 % of the gap between no restoration and the true mask")
def restores_blindly(context: ClaimContext) -> Evidence:
    filler, detector = _trained(context, "filler"), _trained(context, OURS)
    restorer, joint, rows = HCLRestorer(HCL(detector), filler), _trained(context, JOINT), []
    for kind in KINDS:
        images, masks, originals = _covered(context, "test", kind, EACH)
        versions = {
            "covered": images.numpy(),
            "predicted mask": restorer.restore(images.numpy(), (_maps(context, OURS, images) >= 0.5).numpy()),
            "true mask": restorer.restore(images.numpy(), masks.numpy()),
            "VCNet-like": _filled(joint, images),
        }
        rows.append({"cover": kind, **{n: float(np.mean(psnr(originals.numpy(), x))) for n, x in versions.items()}})
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "cover"}
    closed = (means["predicted mask"] - means["covered"]) / max(means["true mask"] - means["covered"], 1e-9)
    rows.append({"cover": "mean", **means, "gap closed": closed})
    return Evidence(closed >= 0.9, rows, "PSNR in dB; without a mask the restorer returns the covered picture")
