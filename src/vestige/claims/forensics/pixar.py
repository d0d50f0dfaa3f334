"""Claims of PIXAR at the size of drawn scenes: what object masks miss, and what labels by the pixel are worth.

Edits are drawn anew by the shipped autoencoder of scenes. Networks are trained here that differ in one setting of their
training; each is scored on scenes that took no part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.claims import ClaimContext, Evidence, claim
from vestige.bench.forensics.localisers import PlainUNet, TruForLite
from vestige.core.errors import InputError
from vestige.data.recolouring import saved
from vestige.data.scene_edits import PRIMITIVES, edit_scenes
from vestige.engines.fitting import fit
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.learned import WEIGHTS
from vestige.forensics.pixar import PixarModel, answers
from vestige.forensics.pixar_data import examples, masks_of, pixar_training, redrawing
from vestige.forensics.tripinet import TriPINet, tripinet_loss
from vestige.metrics.pixel_labels import TAU, TAUS, audit_ladder, pixar_report, pixel_labels

AUDITED, JUDGED, SIZE = 160, 480, 64
_SEED = 5_000  # far from the seeds of trainings
COUNT, STEPS, BATCH, SPREAD = 1200, 400, 24, 0.3
#: Networks and the settings of `pixar_training` that make them.
VARIANTS: dict[str, dict[str, Any]] = {
    "pixel labels": {},
    "object masks": {"labels": "objects"},
    "masks and class alone": {"semantic": 0.0, "text": 0.0},
}
#: Localisers without classes and words, trained on the object masks of the same pictures.
PEERS: dict[str, Callable[[], nn.Module]] = {
    "U-Net, object masks": PlainUNet,
    "TriPINet, object masks": lambda: TriPINet(0.125, "small"),
    "TruFor-like, object masks": TruForLite,
}


@claim(
    "in edits drawn anew by an autoencoder at least 20 % of the object mask has D <= 0.05, and the share of the rest "
    "with D above tau is above 0 at 0.01 and falls with tau"
)
def object_masks_are_wrong(context: ClaimContext) -> Evidence:
    _needs_autoencoder()
    count, redraw = context.limit or AUDITED, redrawing()
    rows: list[dict[str, Any]] = []
    for name, function, spread in (("drawn twice", None, 1.0), ("kept by 0.3", redraw, 0.3), ("redrawn", redraw, 1.0)):
        edits = edit_scenes(count, SIZE, _SEED + context.seed, redraw=function, spread=spread)
        rows += [{"edits": name, **row} for row in audit_ladder(edits.difference, edits.object_masks)]
    unedited = edits.before.astype(np.float32) / 255
    again = np.stack([saved(x.transpose(1, 2, 0), 95).transpose(2, 0, 1) for x in edits.before])
    for name, other in (("redrawn", redraw(unedited)), ("saved as JPEG 95", again.astype(np.float32) / 255)):
        floor = pixel_labels(unedited, other).difference
        rows += [{"edits": f"none, {name}", "tau": t, "off_mask_share": float((floor > t).mean())} for t in TAUS]
    for primitive in PRIMITIVES:
        of = np.array(edits.primitives) == primitive
        if of.any():
            found = audit_ladder(edits.difference[of], edits.object_masks[of], (TAU,))[0]
            rows.append({"edits": f"redrawn, {primitive}", **found})
    redrawn = [row for row in rows if row["edits"] == "redrawn"]
    off = [row["off_mask_share"] for row in redrawn]
    over = next(row["over_label_rate"] for row in redrawn if row["tau"] == TAU)
    return Evidence(over >= 0.2 and off[0] > 0 and all(a > b for a, b in pairwise(off)), rows, f"{count} edits")


@claim(
    "trained on labels by the pixel, c_iou on them is >= 0.10 above the same network trained on object masks, and the "
    "order is the reverse when both are scored on object masks"
)
def pixel_labels_teach_more(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    for labels in ("pixels", "objects"):
        for name in ("pixel labels", "object masks"):
            rows.append({"scored on": labels, "trained on": name, **_localisation(context, name, labels)})
        for name, row in (_peers(context, labels) | _floors(context, labels)).items():
            rows.append({"scored on": labels, "trained on": name, **row})
    score = {(row["scored on"], row["trained on"]): row["c_iou"] for row in rows}
    ahead = score["pixels", "pixel labels"] - score["pixels", "object masks"]
    reversed_ = score["objects", "object masks"] - score["objects", "pixel labels"]
    note = f"ahead by {ahead:+.3f} on pixel labels, behind by {reversed_:+.3f} on object masks; one training each"
    return Evidence(ahead >= 0.10 and reversed_ > 0, rows, note)


@claim("objects and sentences cost at most 0.01 of c_iou, and the first object named is right twice as often as chance")
def meaning_costs_nothing(context: ClaimContext) -> Evidence:
    judged = _judged(context)
    compared = ("pixel labels", "masks and class alone")
    rows: list[dict[str, Any]] = [{"heads": name, **_report(context, name, "pixels")} for name in compared]
    shares = judged["objects"][judged["classes"] == 2].mean(0)
    chance = float(max(shares.max(), 1 / len(shares)))
    rows.append({"heads": "most frequent class", "top1": chance})
    cost = rows[1]["c_iou"] - rows[0]["c_iou"]
    note = f"chance is the share of the most frequent class; c_iou lost: {cost:+.3f}"
    return Evidence(cost <= 0.01 and rows[0]["top1"] >= 2 * chance, rows, note)


def _needs_autoencoder() -> None:
    if not (WEIGHTS / "scenes_vae" / "config.json").is_file():
        raise InputError(
            "This claim needs weights/scenes_vae; train it with: vestige learn scenes_vae, and copy "
            "the folder of the run."
        )


@lru_cache(maxsize=2)
def _scenes(context: ClaimContext, count: int, number: int) -> dict[str, Any]:
    """Tampered, untouched and redrawn scenes of a seed of their own."""
    _needs_autoencoder()
    redraw = redrawing()
    edits = edit_scenes(context.limit or count, SIZE, number + context.seed, redraw=redraw, spread=SPREAD)
    return examples(edits, redraw)


def _judged(context: ClaimContext) -> dict[str, Any]:
    return _scenes(context, JUDGED, _SEED + 1)


@lru_cache(maxsize=len(VARIANTS))
def _network(context: ClaimContext, name: str) -> PixarModel:
    torch.manual_seed(context.seed)
    model = PixarModel(SIZE)
    batches, step = pixar_training(_scenes(context, COUNT, 0), model, BATCH, **VARIANTS[name])
    return fit(model, step, batches, _config(context))


def _config(context: ClaimContext) -> TrainConfig:
    steps = 3 if context.limit else STEPS
    return TrainConfig(steps=steps, lr=1e-3, weight_decay=0.01, warmup=0.05, clip=1.0, seed=context.seed)


@lru_cache(maxsize=len(PEERS))
def _maps(context: ClaimContext, name: str) -> np.ndarray:
    """Probabilities float32 N×1×S×S of a peer, trained on the tampered pictures of the same batches."""
    batches, _ = pixar_training(_scenes(context, COUNT, 0), PixarModel(SIZE), BATCH, labels="objects")
    torch.manual_seed(context.seed)
    network = PEERS[name]()

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        rows = batch["classes"] == 2
        return tripinet_loss(model(batch["images"][rows].float() / 255), batch["masks"][rows].float())

    fit(network, step, batches, _config(context))
    with torch.no_grad():
        parts = torch.from_numpy(_judged(context)["images"]).split(60)
        return torch.cat([network(part.float() / 255)[0].sigmoid() for part in parts]).numpy()


@lru_cache(maxsize=len(VARIANTS))
def _answers(context: ClaimContext, name: str) -> dict[str, Any]:
    return answers(_network(context, name), _judged(context)["images"])


def _report(context: ClaimContext, name: str, labels: str) -> dict[str, float]:
    judged = _judged(context)
    return pixar_report(_answers(context, name), {**judged, "masks": masks_of(judged, labels, TAU)})


def _localisation(context: ClaimContext, name: str, labels: str) -> dict[str, float]:
    report = _report(context, name, labels)
    keys = ("accuracy", "g_iou", "c_iou", "empty", "pixel_f1", "pixel_auc", "over_label_rate", "off_mask_recall",
            "intensity_recall")  # fmt: skip
    return {key: report[key] for key in keys}


def _peers(context: ClaimContext, labels: str) -> dict[str, dict[str, float]]:
    return {name: _overlap(context, labels, _maps(context, name)) for name in PEERS}


def _floors(context: ClaimContext, labels: str) -> dict[str, dict[str, float]]:
    """Answers that look at nothing, and the difference itself, which looks at the original."""
    judged = _judged(context)
    shape = judged["object_masks"].shape
    guesses = {
        "nothing (every pixel marked)": np.ones(shape, np.float32),
        "nothing (no pixel marked)": np.zeros(shape, np.float32),
        "the original itself": masks_of(judged, "pixels", TAU).astype(np.float32),
    }
    return {name: _overlap(context, labels, maps) for name, maps in guesses.items()}


def _overlap(context: ClaimContext, labels: str, maps: np.ndarray) -> dict[str, float]:
    """How maps float N×1×S×S alone agree with the labels."""
    judged = _judged(context)
    report = pixar_report({"masks": maps}, {**judged, "masks": masks_of(judged, labels, TAU)})
    return {key: report[key] for key in ("g_iou", "c_iou", "empty", "pixel_f1", "pixel_auc")}
