"""Claims of TriPINet in narrow form: edited photographs that share no photograph with the training.

Splices, copy-moves and removals, stored without loss; a quarter of the pictures is not edited. All networks see the
same pictures in as many updates and are cut at one half; maps of baselines that are not trained are cut where
validation pictures serve best.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.claims import ClaimContext, Evidence, claim
from vestige.bench.forensics.localisers import ManTraLite, MVSSLite, PlainUNet
from vestige.claims.forensics.edit_study import edited
from vestige.data.distortions import distort
from vestige.data.manipulated import Manipulated
from vestige.engines.fitting import fit, rows_of
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.tripinet import TriPINet, tripinet_loss
from vestige.metrics.segmentation import centre_prior, f1_at_threshold, f1_best_threshold_pooled, pixel_auroc
from vestige.nn.residual import SRM

OPERATIONS = ("splice", "copy_move", "removal")
SIZE, COUNT, JUDGED, STEPS, BATCH = 64, 2000, 240, 700, 16
OURS, RGB, CONCAT, UNET = "TriPINet", "RGB alone", "TriPINet, side by side", "U-Net on RGB"
#: Branches and fusion of each network.
WAYS: dict[str, dict[str, Any]] = {
    OURS: {},
    CONCAT: {"fusion": "concat"},
    RGB: {"branches": ("rgb",)},
    "RGB and frequency": {"branches": ("rgb", "freq")},
    "RGB and noise": {"branches": ("rgb", "noise")},
    "frequency and noise": {"branches": ("freq", "noise")},
}
#: Networks of other make.
OTHERS: dict[str, Callable[[], nn.Module]] = {
    UNET: PlainUNet,
    "MVSS-Net, small": MVSSLite,
    "ManTra-Net, small": ManTraLite,
}
PAIRS = tuple(name for name, way in WAYS.items() if len(way.get("branches", ())) == 2)


def _edited(context: ClaimContext, part: str, count: int) -> Manipulated:
    return edited(context, part, OPERATIONS, count, SIZE, unedited=0.25)


@lru_cache(maxsize=9)
def _trained(context: ClaimContext, name: str) -> nn.Module:
    known = _edited(context, "train", COUNT)
    images, masks = torch.from_numpy(known.images), torch.from_numpy(known.masks)
    torch.manual_seed(context.seed)
    network = OTHERS[name]() if name in OTHERS else TriPINet(0.125, "small", **WAYS[name])

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows = rows_of(len(images), BATCH, generator)
        turn, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))
        x, y = (part[rows].rot90(turn, (2, 3)).float() for part in (images, masks))
        return (x.flip(3) / 255, y.flip(3)) if mirror else (x / 255, y)

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        if isinstance(model, MVSSLite | ManTraLite):
            return model.loss(*batch)
        return tripinet_loss(model(batch[0]), batch[1])

    config = TrainConfig(
        steps=3 if context.limit else STEPS, lr=2e-3, betas=(0.9, 0.99), weight_decay=5e-4, warmup=20, clip=5.0,
        schedule="constant", ema=0.98, seed=context.seed,
    )  # fmt: skip
    return fit(network, step, batches, config)


@torch.no_grad()
def _maps(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Probabilities float32 N×1×S×S of uint8 N×3×S×S."""
    parts = torch.from_numpy(images).split(60)
    return torch.cat([network(part.float() / 255)[0].sigmoid() for part in parts]).numpy()


def _error_levels(images: np.ndarray) -> np.ndarray:
    """How much JPEG 90 changes the surroundings of each pixel."""
    x = images.astype(np.float32) / 255
    return _around(np.abs(x - distort(x, "jpeg", 90)).mean(1, keepdims=True))


def _noise_energy(images: np.ndarray) -> np.ndarray:
    """How far the size of the residuals around a pixel is from what is usual in its picture."""
    residual = SRM(3)(torch.from_numpy(images).float()).abs().mean(1, keepdim=True).numpy()
    level = np.log(_around(residual) + 0.1)
    return np.abs(level - np.median(level, (2, 3), keepdims=True))


def _around(maps: np.ndarray) -> np.ndarray:
    pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(maps), 9, 1, 4, count_include_pad=False)
    return pooled.numpy()


@lru_cache(maxsize=1)
def _table(context: ClaimContext) -> dict[str, dict[str, Any]]:
    val, test = _edited(context, "val", JUDGED // 2), _edited(context, "test", JUDGED)
    resaved = np.round(distort(test.images.astype(np.float32) / 255, "jpeg", 70) * 255).astype(np.uint8)
    rows: dict[str, dict[str, Any]] = {}
    for name in (*WAYS, *OTHERS):
        network = _trained(context, name)
        rows[name] = _row(name, test, _maps(network, test.images), _maps(network, resaved), 0.5)
    for name, maps in (("error levels", _error_levels), ("noise energy", _noise_energy)):
        cut = f1_best_threshold_pooled(val.masks, maps(val.images)).threshold
        rows[name] = _row(name, test, maps(test.images), maps(resaved), float(cut))
    prior = np.broadcast_to(centre_prior(SIZE, SIZE), test.masks.shape)
    rows["floor"] = _row("centre prior; every pixel", test, prior, prior, -1.0)
    return rows


def _row(name: str, test: Manipulated, maps: np.ndarray, resaved: np.ndarray, cut: float) -> dict[str, Any]:
    each, operations = f1_at_threshold(test.masks, maps, cut), np.array(test.operations)
    row: dict[str, Any] = {"detector": name, "f1": float(np.nanmean(each)), "pixel auc": pixel_auroc(test.masks, maps)}
    row["f1, JPEG 70"] = float(np.nanmean(f1_at_threshold(test.masks, resaved, cut)))
    row["marked where nothing is"] = float((maps[operations == ""] > cut).mean())
    return row | {f"f1, {name}": float(np.nanmean(each[operations == name])) for name in OPERATIONS}


@claim("F1 at one half is >= 0.10 above RGB alone and >= 0.05 above the best pair of branches, on other photographs")
def three_branches_help(context: ClaimContext) -> Evidence:
    rows = _table(context)
    ours, rgb, pair = rows[OURS]["f1"], rows[RGB]["f1"], max(rows[name]["f1"] for name in PAIRS)
    ahead = f"above RGB alone by {ours - rgb:+.3f}, above the best pair by {ours - pair:+.3f}"
    note = f"{ahead}; {STEPS} updates of {BATCH}, one seed; F1 is the mean over edited pictures"
    return Evidence(ours >= rgb + 0.10 and ours >= pair + 0.05, list(rows.values()), note)


@claim("fusion by guided attention is >= 0.02 of F1 above the same branches side by side, and no lower in pixel AUC")
def attention_helps(context: ClaimContext) -> Evidence:
    # F1 at one half alone would only tell which of two networks has come to mark anything by then.
    rows = _table(context)
    ahead, area = (rows[OURS][name] - rows[CONCAT][name] for name in ("f1", "pixel auc"))
    note = f"ahead by {ahead:+.3f} in F1, by {area:+.3f} in pixel AUC; one seed"
    return Evidence(ahead >= 0.02 and area >= 0, list(rows.values()), note)


@claim("after JPEG 70 it keeps >= 60 % of its F1, and more than a map of every pixel has")
def bears_jpeg(context: ClaimContext) -> Evidence:
    rows = _table(context)
    ours, floor = rows[OURS], rows["floor"]
    holds = ours["f1, JPEG 70"] >= 0.6 * ours["f1"] and ours["f1, JPEG 70"] > floor["f1"]
    kept = ours["f1, JPEG 70"] / max(ours["f1"], 1e-9)
    return Evidence(holds, list(rows.values()), f"it keeps {kept:.0%}; a map of every pixel keeps all of its F1")
