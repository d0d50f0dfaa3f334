"""The examiner of covered regions, and the detectors that hierarchical contrast is compared with.

    vestige learn hcl                      # the examiner that ships: all covers, a quarter of the pictures sound
    vestige learn hcl --variant other      # covers of other photographs alone, judged on all kinds
    vestige learn hcl --for-claims

Three of four pictures are covered in part by another photograph, a colour, noise or graffiti
(`vestige.data.corruptions`), the others are sound; a picture is a whole photograph of 64 pixels or a square of one of
128. Covers are drawn at once, twice or four times the size and reduced with the picture, as those of large files are:
noise then turns into a dull grain. Half of all pictures are saved as JPEG 50 to 97 afterwards. Photographs, and the
ones that cover them, are others in training than in validation. Without data the pictures are rendered scenes, which
serves to try the recipe and nothing else.

The variants that are compared learn from covers of other photographs alone, on the same batches in as many updates, and
are cut where covers of that kind in validation serve best. The threshold of `vestige find` is set on photographs of
another collection, by `vestige.bench.forensics.examiner_threshold`.

Options: limit, the number of photographs, 0 all; sound, the share of sound pictures; covers, the kind of cover, "" any;
net, "hcl", "one_scale", "unet" or "tripinet"; shuffled, whether masks are those of other pictures; dims and depths of
the network; start, weights of an earlier run to go on from; rate, the share of photographs that may be flagged.

Result of the first variant: hcl.safetensors; a copy of it goes into the package's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.forensics.examiner_threshold import threshold_on_photographs
from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.corruptions import KINDS, corrupt
from vestige.data.distortions import distort
from vestige.data.fakes import FakeSource, Maker
from vestige.data.stand_in import photographs_or_scenes
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.hcl import HCL, HCLNet, hcl_loss
from vestige.forensics.learned import load_network, save_network
from vestige.forensics.tripinet import TriPINet, tripinet_loss
from vestige.metrics.detection import auroc
from vestige.metrics.segmentation import iou_at_threshold
from vestige.nn.conv_unet import ConvUNet

SIDE, WHOLE, EACH = 64, 128, 30  # pictures of each kind to validate by
JUDGED = 60  # test pictures of each kind
GRID = tuple(round(0.05 * k, 2) for k in range(1, 20))
NETS = ("hcl", "one_scale", "unet", "tripinet")


def build(ctx: RecipeContext) -> Job:
    """Covered photographs and the network that finds what covers them."""
    o, net, covers = ctx.options, str(ctx.options["net"]), str(ctx.options["covers"])
    if net not in NETS or covers not in ("", *KINDS):
        raise UsageError(f"net is one of {', '.join(NETS)}, covers {', '.join(KINDS)} or nothing; got {net}, {covers}.")
    train, val = (photographs_or_scenes(part, WHOLE, limit=int(o["limit"]), seed=ctx.seed) for part in ("train", "val"))
    each = 4 if o["limit"] else EACH
    judged = {
        kind: drawn(val, rng(ctx.seed, "hcl validation", kind), each, kind=None if kind == "sound" else kind)
        for kind in (*KINDS, "sound")
    }

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "hcl batch")
        images, masks = drawn(train, draw, ctx.config.batch_size, sound=float(o["sound"]), kind=covers)
        return {"images": images, "masks": masks.roll(1, 0) if o["shuffled"] else masks}

    def step(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        if isinstance(model, TriPINet):
            return tripinet_loss(model(batch["images"]), batch["masks"].float())
        if isinstance(model, ConvUNet):
            logits = model(batch["images"])
            return {"loss": nn.functional.binary_cross_entropy_with_logits(logits, batch["masks"].float())}
        assert isinstance(model, HCLNet)
        # Places are drawn on the CPU whatever the device is.
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        scales = 1 if net == "one_scale" else 3
        return hcl_loss(model, batch["images"], batch["masks"], own, samples=192, hard=96, scales=scales)

    def validate(model: nn.Module) -> dict[str, float]:
        if covers:
            return {"iou": best_cut(maps(model, judged[covers][0], net), judged[covers][1])[1]}
        return validate_all(model)

    def evaluate(model: nn.Module) -> dict[str, Any]:
        if not covers:
            return {}
        test = photographs_or_scenes("test", WHOLE, limit=int(o["limit"]), seed=ctx.seed)
        cut = best_cut(maps(model, judged[covers][0], net), judged[covers][1])[0]
        return {"threshold": cut, **on_all_kinds(lambda x: maps(model, x, net), cut, test, 4 if o["limit"] else JUDGED)}

    def validate_all(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, HCLNet)
        examiner = HCL(model, side=SIDE)
        device = next(model.parameters()).device
        figures, scores = {}, {}
        for kind, (images, masks) in judged.items():
            scores[kind] = examiner.score(images.to(device)).cpu().numpy()
            if kind != "sound":
                found = examiner.detect(images.to(device), gate=False)[1].cpu().numpy()
                figures[f"{kind}_iou"] = float(np.mean(iou_at_threshold(masks.numpy(), found)))
        for kind in KINDS:
            both = np.concatenate([scores["sound"], scores[kind]])
            figures[f"{kind}_auroc"] = auroc(np.repeat([False, True], each), both)
        return figures

    def save(model: nn.Module, out: Path) -> None:
        if covers or not isinstance(model, HCLNet):
            return
        facts: dict[str, Any] = {"photographs": len(train), **validate(model)}
        makers = [FakeSource(f"covered: {kind}", "synthesis", covering(kind, val)) for kind in KINDS]
        facts |= threshold_on_photographs(
            HCL(model), makers, float(o["rate"]), limit=int(o["limit"]), seed=ctx.seed
        )  # fmt: skip
        save_network(out / "hcl.safetensors", model, "hcl", facts)

    model: nn.Module = HCLNet(numbers(o["dims"]), numbers(o["depths"]))
    if net in ("unet", "tripinet"):
        model = ConvUNet(3, 16, 3, 1) if net == "unet" else TriPINet(0.125, "small")
    elif o["start"]:
        known, _ = load_network("hcl", HCLNet, o["start"])
        model = known.train().requires_grad_(True)
    return Job(model, step, batches, validate=validate, evaluate=evaluate, save=save)


@torch.no_grad()
def maps(model: nn.Module, images: Tensor, net: str) -> np.ndarray:
    """How likely places are covered, float32 N×1×64×64; every picture is taken to be covered, as in the paper."""
    device, found = next(model.parameters()).device, []
    for x in images.to(device).split(16):
        if isinstance(model, HCLNet):
            found.append(HCL(model, side=SIDE).detect(x, scales=1 if net == "one_scale" else 3, gate=False)[1])
        else:
            answer = model(x)
            found.append((answer if isinstance(answer, Tensor) else answer[0]).sigmoid())
    return torch.cat(found).cpu().numpy()


def best_cut(found: np.ndarray, masks: Tensor) -> tuple[float, float]:
    """(threshold, mean IoU there) that serves these pictures best."""
    means = [float(np.mean(iou_at_threshold(masks.numpy(), found, cut))) for cut in GRID]
    best = int(np.argmax(means))
    return GRID[best], means[best]


def on_all_kinds(run: Any, cut: float, photos: np.ndarray, each: int) -> dict[str, Any]:
    """IoU on test photographs for every kind of cover, of every picture ("each iou, KIND"), and of marking them all."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        images, masks = drawn(photos, rng(0, "hcl test", kind), each, kind=kind)
        ious = iou_at_threshold(masks.numpy(), run(images), cut)
        found[f"iou, {kind}"], found[f"each iou, {kind}"] = float(np.mean(ious)), np.round(ious, 4).tolist()
        all_of_it = np.ones_like(masks.numpy(), np.float32)
        found[f"everything, {kind}"] = float(np.mean(iou_at_threshold(masks.numpy(), all_of_it)))
    unseen = [kind for kind in KINDS if kind != "other"]
    found |= {"iou, unseen": float(np.mean([found[f"iou, {kind}"] for kind in unseen]))}
    return found | {"everything, unseen": float(np.mean([found[f"everything, {kind}"] for kind in unseen]))}


def drawn(
    photos: np.ndarray, draw: np.random.Generator, count: int, *, sound: float = 0.0, kind: str | None = ""
) -> tuple[Tensor, Tensor]:
    """(pictures N×3×64×64 in [0, 1], masks bool N×1×64×64); kind: "" any, None none, or one of `KINDS`."""
    images, masks = [], []
    for _ in range(count):
        picture, other = (_square(photos[j], draw) for j in draw.choice(len(photos), 2, replace=False))
        mask = np.zeros((1, SIDE, SIDE), bool)
        chosen = KINDS[draw.integers(len(KINDS))] if kind == "" else kind
        if chosen is not None and draw.random() >= sound:
            picture, mask = _covered(picture, chosen, other, draw)
        quality = int(draw.integers(50, 98))
        if draw.random() < 0.5:
            picture = distort(picture[None], "jpeg", quality)[0]
        images.append(picture)
        masks.append(mask)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))


def covered_and_originals(
    photos: np.ndarray, draw: np.random.Generator, count: int, kind: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(covered pictures N×3×64×64 on eight bits, masks bool N×1×64×64, what was there); kind: "" any.

    Half of the pairs are saved as JPEG 50 to 97, the original like the covered picture.
    """
    found: list[tuple[np.ndarray, ...]] = []
    for _ in range(count):
        picture, other = (_square(photos[j], draw) for j in draw.choice(len(photos), 2, replace=False))
        chosen = kind or KINDS[draw.integers(len(KINDS))]
        made, mask = _covered(picture, chosen, other, draw)
        quality = int(draw.integers(50, 98))
        if draw.random() < 0.5:
            made, picture = (distort(x[None].astype(np.float32), "jpeg", quality)[0] for x in (made, picture))
        found.append((made, mask, picture))
    images, masks, originals = (torch.from_numpy(np.stack(x)) for x in zip(*found, strict=True))
    return images.float(), masks, originals.float()


def _square(photo: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A square of 64 pixels, float32 3×64×64 in [0, 1]: the photograph at half its size or a part of it."""
    pixels = photo.astype(np.float32) / 255
    top, left = (int(u * (WHOLE - SIDE + 1)) for u in draw.random(2))
    if draw.random() < 0.5:
        pixels = pixels.reshape(3, SIDE, WHOLE // SIDE, SIDE, WHOLE // SIDE).mean((2, 4))
    else:
        pixels = pixels[:, top : top + SIDE, left : left + SIDE]
    return np.ascontiguousarray(pixels[:, :, ::-1] if draw.random() < 0.5 else pixels)


def _covered(
    picture: np.ndarray, kind: str, other: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`corrupt` at a multiple of the size, then reduced; a pixel is covered where at least half of it is."""
    k = int(draw.choice((1, 2, 4)))
    large = (x.repeat(k, 1).repeat(k, 2) for x in (picture, other))
    made, mask = corrupt(next(large), kind, other=next(large), seed=int(draw.integers(2**31)))
    cut = (SIDE, k, SIDE, k)
    return made.reshape(3, *cut).mean((2, 4)), mask.reshape(1, *cut).mean((2, 4)) >= 0.5


def covering(kind: str, others: np.ndarray) -> Maker:
    """Covers photographs of any size by one kind; what covers them is one of ``others``."""

    def make(images: np.ndarray, seed: int) -> np.ndarray:
        found = []
        for image in images:
            draw = rng(seed, "covering", float(image.sum()))
            other = others[draw.integers(len(others))].transpose(1, 2, 0)
            height, width = image.shape[1:]
            large = cv2.resize(other, (width, height), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)
            cover = large.astype(np.float32) / 255
            found.append(corrupt(image, kind, other=cover, seed=int(draw.integers(2**31)))[0])
        return np.stack(found)

    return make


def numbers(text: Any) -> tuple[int, ...]:
    return tuple(int(x) for x in str(text).split(","))


_OTHER: dict[str, Any] = {"covers": "other", "sound": 0.0}
_SHORT: dict[str, Any] = {
    "steps": 1200,
    "batch_size": 6,
    "validate_every": 60,
    "log_every": 20,
    "checkpoint_every": 120,
}
RECIPE = Recipe(
    name="hcl",
    about="Which region of a picture is covered by something else? Features driven apart within every picture.",
    build=build,
    config=TrainConfig(
        steps=2500, batch_size=8, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-3, warmup=50, clip=5.0, ema=0.99,
        log_every=50, validate_every=250, checkpoint_every=250,
    ),
    reach={
        "noise_iou, constant_iou": "0.80 and 0.60 on photographs that took no part",
        "graffiti_iou, other_iou": "0.40 and 0.30",
    },
    options={
        "limit": 0, "sound": 0.25, "covers": "", "net": "hcl", "shuffled": False, "dims": "16,32,64", "depths": "1,1,1",
        "start": "", "rate": 0.02,
    },
    variants={
        "all": Variant("all covers, for use", seeds=()),
        "other": Variant("hierarchical contrast", _OTHER, _SHORT, (0, 1, 2)),
        "unet": Variant("a U-Net, cross-entropy", {**_OTHER, "net": "unet"}, _SHORT, (0, 1, 2)),
        "one_scale": Variant("contrast at the coarsest scale alone", {**_OTHER, "net": "one_scale"}, _SHORT),
        "tripinet": Variant("TriPINet", {**_OTHER, "net": "tripinet"}, _SHORT),
        "shuffled": Variant("hierarchical contrast, masks of other pictures", {**_OTHER, "shuffled": True}, _SHORT),
    },
    judged_by="iou",
)  # fmt: skip
