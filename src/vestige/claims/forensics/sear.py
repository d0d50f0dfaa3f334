"""Claims of SEAR against small localisers trained here; the edits are splices, copy-moves and removals.

Concealers and localisers learn from photographs of the training part, everything is judged on the test part, at one
half. Concealed pictures are eight-bit. The strength of PGD and FGSM is set by the PSNR that SEAR has on validation
pictures.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.forensics.edit_study import edited
from vestige.data.distortions import distort
from vestige.engines.adversarial import Budget, Maximise, pgd
from vestige.engines.fitting import fit, rows_of
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.sear import SEAR, Concealer, Supervisor, give_away, localiser_loss, mask_logits, sear_loss
from vestige.metrics.quality import psnr

OPERATIONS = ("splice", "copy_move", "removal")
SIZE, COUNT, JUDGED, WIDTH = 64, 1600, 96, 0.25
LOCALISER, CONTEST, MAGNITUDE, KEPT = 800, 250, 20.0, 35.0
HINGE = 1000.0  # on what the generator with a hinge adds beyond KEPT
WHITE, UNSEEN = "SRM localiser (supervisor)", "Bayar localiser (unseen)"


def _pictures(context: ClaimContext, part: str, count: int) -> tuple[Tensor, Tensor]:
    made = edited(context, part, OPERATIONS, count, SIZE, unedited=0.0)
    return torch.from_numpy(made.images).float() / 255, torch.from_numpy(made.masks)


def _localiser(context: ClaimContext, front: str) -> Supervisor:
    images, masks = _pictures(context, "train", COUNT)
    torch.manual_seed(context.seed)

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows, turn = rows_of(len(images), 8, generator), int(torch.randint(4, (), generator=generator))
        return images[rows].rot90(turn, (2, 3)), masks[rows].rot90(turn, (2, 3))

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": localiser_loss(model(batch[0]), batch[1])}

    config = TrainConfig(
        steps=3 if context.limit else LOCALISER, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=20,
        seed=context.seed,
    )  # fmt: skip
    return fit(Supervisor(WIDTH, front), step, batches, config)


@dataclass(frozen=True)
class Contest:
    """system: after two rounds. localisers: the supervisor before and an unseen one. images, masks: of the test."""

    system: SEAR
    localisers: dict[str, nn.Module]
    images: Tensor
    masks: Tensor
    versions: dict[str, Tensor]
    psnr: float

    def row(self, name: str, localiser: nn.Module) -> dict[str, Any]:
        with torch.no_grad():
            maps = mask_logits(localiser, self.versions[name]).sigmoid()
        quality = float(np.mean(psnr(self.images.numpy(), self.versions[name].numpy())))
        # None where a picture was not changed at all
        return {"pictures": name, "psnr": quality if np.isfinite(quality) else None, **give_away(self.masks, maps)}


@lru_cache(maxsize=1)
def _contest(context: ClaimContext) -> Contest:
    known, known_masks = _pictures(context, "train", COUNT)
    images, masks = _pictures(context, "test", JUDGED)
    localisers: dict[str, nn.Module] = {WHITE: _localiser(context, "srm"), UNSEEN: _localiser(context, "bayar")}
    torch.manual_seed(context.seed)
    system = SEAR(
        Concealer(WIDTH), localisers[WHITE], w_mag=MAGNITUDE, psnr=KEPT, steps=3 if context.limit else CONTEST,
        batch_size=8, lr=1e-3, seed=context.seed,
    ).fit(known, known_masks)  # fmt: skip
    first = copy.copy(system)
    first.concealer = system.concealers[0]
    val, val_masks = _pictures(context, "val", JUDGED // 2)
    target = float(np.mean(psnr(val.numpy(), first.conceal(val).numpy())))
    level = max(1, round(255 * 10 ** (-min(target, 48.0) / 20)))  # what every pixel moved by has that PSNR
    frozen, tried = system.supervisors[0], dict[int, float]()
    for stronger in range(level, 2 * level + 1):  # not every pixel ends at the border of the budget
        found = _astray(frozen, val, val_masks, stronger, 3 if context.limit else 10, context.seed)
        tried[stronger] = abs(float(np.mean(psnr(val.numpy(), found.numpy()))) - target)
    matched = min(tried, key=lambda x: tried[x])
    hinged = _hinged(context, frozen, known, known_masks)
    versions = {
        "as it is": images,
        "SEAR, first round": first.conceal(images),
        "SEAR, second round": system.conceal(images),
        "FGSM": _astray(frozen, images, masks, level, 1, context.seed),
        "PGD-10": _astray(frozen, images, masks, matched, 10, context.seed),
        "generator with a hinge (AdvGAN without critic)": hinged.conceal(images),
        "JPEG 70": torch.from_numpy(distort(images.numpy(), "jpeg", 70)),
        "median filter": _filtered(images, lambda x: cv2.medianBlur(x, 3)),
        "Gaussian blur": _filtered(images, lambda x: cv2.GaussianBlur(x, (0, 0), 0.8)),
    }
    return Contest(system, localisers, images, masks, versions, target)


def _hinged(context: ClaimContext, localiser: nn.Module, images: Tensor, masks: Tensor) -> SEAR:
    """The same network, trained to lead the localiser astray; only what is beyond a deviation costs anything.

    Source: Generating Adversarial Examples with Adversarial Networks, IJCAI 2018; its critic is left out.
    """
    torch.manual_seed(context.seed)
    most = 2 * 10 ** (-KEPT / 20)  # in units of [-1, 1]

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows = rows_of(len(images), 8, generator)
        return images[rows], masks[rows]

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        change = model(batch[0])
        adversarial = sear_loss(localiser, batch[0], batch[1], change, weights=(10.0, 0.0, 0.0))["loss"]
        deviation = change.square().flatten(1).mean(1).clamp_min(1e-12).sqrt()
        return {"loss": adversarial + HINGE * F.relu(deviation - most).mean()}

    config = TrainConfig(
        steps=3 if context.limit else CONTEST, batch_size=8, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0,
        seed=context.seed,
    )  # fmt: skip
    return SEAR(fit(Concealer(WIDTH), step, batches, config))


def _astray(localiser: nn.Module, images: Tensor, masks: Tensor, level: int, steps: int, seed: int) -> Tensor:
    """Pictures moved by at most ``level`` grey levels so that the map is as wrong as signed gradients can make it."""
    wanted = masks.float()

    def wrong(x: Tensor, chosen: Tensor) -> Tensor:
        logits = mask_logits(localiser, x)
        return F.binary_cross_entropy_with_logits(logits, wanted[chosen], reduction="none").mean((1, 2, 3))

    budget, step = Budget("linf", level / 255), level / 255 if steps == 1 else None
    return pgd(
        images, Maximise(wrong), budget, steps=steps, step_size=step, random_start=False, early_stop=False,
        batch_size=24, seed=seed,
    ).images  # fmt: skip


def _filtered(images: Tensor, by: Any) -> Tensor:
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(np.stack([by(np.ascontiguousarray(x)) for x in pixels])).permute(0, 3, 1, 2).float() / 255


@claim("white box: pixel F1 at one half falls from >= 0.6 to <= 0.15 at PSNR >= 33 dB")
def conceals_from_its_supervisor(context: ClaimContext) -> Evidence:
    contest = _contest(context)
    rows = [contest.row(name, contest.localisers[WHITE]) for name in contest.versions if "second" not in name]
    before, after = rows[0], rows[1]
    holds = before["f1"] >= 0.6 and after["f1"] <= 0.15 and (after["psnr"] or 0) >= 33
    return Evidence(holds, rows, f"{WHITE}; {', '.join(OPERATIONS)}; an inverted map gives the edit away as well")


@claim("the F1 of an unseen localiser falls >= 1.5 times as far as under PGD of equal PSNR crafted on the supervisor")
def transfers(context: ClaimContext) -> Evidence:
    contest = _contest(context)
    rows = [contest.row(name, contest.localisers[UNSEEN]) for name in contest.versions if "second" not in name]
    by = {row["pictures"]: row["f1"] for row in rows}
    falls = {name: by["as it is"] - by[name] for name in ("SEAR, first round", "PGD-10")}
    note = f"{UNSEEN}; F1 falls by {falls['SEAR, first round']:.3f} and by {falls['PGD-10']:.3f} under PGD"
    return Evidence(falls["SEAR, first round"] > 0 and falls["SEAR, first round"] >= 1.5 * falls["PGD-10"], rows, note)


@claim(
    "after the localiser was trained on concealed pictures, the second round still halves its F1, FGSM and PGD crafted "
    "once do not"
)
def survives_retraining(context: ClaimContext) -> Evidence:
    contest = _contest(context)
    rows = [contest.row(name, contest.system.supervisors[1]) for name in contest.versions]
    rows += [
        {**contest.row(name, contest.system.supervisors[0]), "pictures": f"{name}; before retraining"}
        for name in ("as it is", "SEAR, first round")
    ]
    by = {row["pictures"]: row["f1"] for row in rows}
    half = by["as it is"] / 2
    holds = by["SEAR, second round"] <= half and min(by["FGSM"], by["PGD-10"]) > half
    return Evidence(holds, rows, "retraining recovers what the first round took where its row is near the first")
