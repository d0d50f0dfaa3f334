"""Claims of WSCL: labels of whole pictures in training, edits it has never seen in the test.

All networks see the same pictures; thresholds of maps are those that serve validation pictures with the edits of the
training best.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.claims import ClaimContext, Evidence, claim
from vestige.bench.forensics.localisers import GradCAM
from vestige.claims.forensics.edit_study import edited
from vestige.data.manipulated import Manipulated
from vestige.engines.fitting import fit, rows_of
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.tripinet import TriPINet, tripinet_loss
from vestige.forensics.wscl import WSCLNet, wscl_loss
from vestige.metrics.detection import auroc
from vestige.metrics.segmentation import centre_prior, f1_at_threshold, f1_best_threshold_pooled, pixel_auroc

SIZE, COUNT, STEPS, SUPERVISED, BATCH = 64, 1600, 480, 240, 24
SEEN = ("splice", "removal")
UNSEEN = ("copy_move", "recolor")
NET: dict[str, Any] = {"depth": 18, "width": 0.25, "stages": 2}
OURS, RGB, MAX, TOP = "WSCL", "RGB alone, no consistency", "max pooling, no consistency", "top tenth, no consistency"
NO_MSC, NO_IPC, TRI = "WSCL without MSC", "WSCL without IPC", "TriPINet, trained with masks"
CAM = "Grad-CAM of a classifier on RGB"
#: Settings of the network and weights of the consistencies.
WAYS: dict[str, tuple[dict[str, Any], float, float]] = {
    OURS: ({}, 0.1, 0.1),
    RGB: ({"streams": ("rgb",)}, 0.0, 0.0),
    MAX: ({"pool": "max"}, 0.0, 0.0),
    TOP: ({"pool": "top"}, 0.0, 0.0),
    NO_MSC: ({}, 0.0, 0.1),
    NO_IPC: ({}, 0.1, 0.0),
}


def _tensors(made: Manipulated) -> tuple[Tensor, Tensor, Tensor]:
    labels = torch.tensor([bool(o) for o in made.operations]).float()
    return torch.from_numpy(made.images), torch.from_numpy(made.masks), labels


@lru_cache(maxsize=8)
def _trained(context: ClaimContext, name: str) -> nn.Module:
    images, masks, labels = _tensors(edited(context, "train", SEEN, COUNT, SIZE))
    torch.manual_seed(context.seed)
    steps = SUPERVISED if name == TRI else STEPS
    steps = 3 if context.limit else steps
    options, msc, ipc = WAYS.get(name, ({}, 0.0, 0.0))
    network: nn.Module
    if name in (TRI, CAM):
        network = TriPINet(0.125, "small") if name == TRI else GradCAM(**NET)
    else:
        network = WSCLNet(**NET, **options)

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows, turn = rows_of(len(images), BATCH, generator), int(torch.randint(4, (), generator=generator))
        x, mask = (part[rows].rot90(turn, (2, 3)).float() for part in (images, masks))
        return x / 255, mask, labels[rows], number / steps

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        x, mask, label, progress = batch
        if isinstance(model, WSCLNet):
            return wscl_loss(model, x, label, progress, msc=msc, ipc=ipc)
        if isinstance(model, GradCAM):
            return model.loss(x, label)
        return tripinet_loss(model(x), mask)

    config = TrainConfig(steps=steps, lr=2e-3, betas=(0.9, 0.99), weight_decay=5e-4, warmup=20, seed=context.seed)
    return fit(network, step, batches, config)


@torch.no_grad()
def _answers(network: Any, made: Manipulated) -> tuple[np.ndarray, np.ndarray]:
    """(scores N, maps N×1×S×S)."""
    parts = [x.float() / 255 for x in torch.from_numpy(made.images).split(48)]
    scores = torch.cat([network.score(x) for x in parts])
    return scores.numpy(), torch.cat([network.localize(x) for x in parts]).numpy()


@lru_cache(maxsize=1)
def _table(context: ClaimContext) -> dict[str, dict[str, Any]]:
    val = edited(context, "val", SEEN, 160, SIZE)
    tests = {
        "seen edits": edited(context, "test", SEEN, 240, SIZE),
        "other edits": edited(context, "test", UNSEEN, 240, SIZE),
    }
    rows = {}
    for name in (*WAYS, CAM, TRI):
        network = _trained(context, name)
        threshold = f1_best_threshold_pooled(val.masks, _answers(network, val)[1]).threshold
        row: dict[str, Any] = {"detector": name, "threshold": float(threshold)}
        for what, made in tests.items():
            scores, maps = _answers(network, made)
            labels = np.array([bool(o) for o in made.operations])
            row[f"image auc, {what}"] = auroc(labels, scores)
            row[f"pixel auc, {what}"] = pixel_auroc(made.masks, maps)
            row[f"pixel f1, {what}"] = float(np.nanmean(f1_at_threshold(made.masks, maps, threshold)))
            for operation in sorted(set(made.operations) - {""}):
                chosen = np.array([o in ("", operation) for o in made.operations])
                row[f"image auc, {operation}"] = auroc(labels[chosen], scores[chosen])
        rows[name] = row
    floor: dict[str, Any] = {"detector": "centre prior; every pixel"}
    for what, made in tests.items():
        prior = np.broadcast_to(centre_prior(SIZE, SIZE), made.masks.shape)
        floor[f"pixel auc, {what}"] = pixel_auroc(made.masks, prior)
        floor[f"pixel f1, {what}"] = float(np.nanmean(f1_at_threshold(made.masks, np.ones_like(prior))))
    rows["floor"] = floor
    return rows


@claim(
    "on edits it has not seen, the image AUC is >= 0.03 above colours alone and within 0.05 of TriPINet trained with "
    "masks"
)
def detects_other_edits(context: ClaimContext) -> Evidence:
    rows = _table(context)
    ours, rgb, tri = (rows[name]["image auc, other edits"] for name in (OURS, RGB, TRI))
    note = f"trained on {', '.join(SEEN)}; {STEPS} updates, TriPINet {SUPERVISED}"
    return Evidence(ours >= rgb + 0.03 and ours >= tri - 0.05, list(rows.values()), note)


@claim("pixel F1 at the validation threshold is >= 0.08 above multiple-instance learning with max pooling")
def locates_better_than_max_pooling(context: ClaimContext) -> Evidence:
    rows = _table(context)
    keys = ("pixel f1, seen edits", "pixel f1, other edits")
    gains = [rows[OURS][key] - rows[MAX][key] for key in keys]
    return Evidence(float(np.mean(gains)) >= 0.08, list(rows.values()), "mean of seen and of other edits")


@claim("leaving out the consistency of streams, or that of places, each costs >= 0.01 AUC")
def both_consistencies_help(context: ClaimContext) -> Evidence:
    rows = _table(context)
    means = {
        name: float(np.mean([row[f"image auc, {what} edits"] for what in ("seen", "other")]))
        for name, row in rows.items()
        if name != "floor"
    }
    table: list[dict[str, Any]] = [{"detector": name, "image auc, all edits": value} for name, value in means.items()]
    return Evidence(means[OURS] >= max(means[NO_MSC], means[NO_IPC]) + 0.01, table, "one seed")
