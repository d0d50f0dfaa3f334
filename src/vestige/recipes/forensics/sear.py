"""The network that conceals edits from localisers, for the attacks of `vestige bench forensics --ladder none,sear`.

    vestige learn sear

A localiser on noise residuals learns splices, copy-moves and removals first, ``localiser`` updates of 8 squares of 64
pixels; then the concealer learns to lead it astray while its pictures keep ``psnr`` decibels. Photographs to learn from
and to validate by are different ones. Without data the pictures are rendered scenes, which serves to try the recipe and
nothing else.

Options: count, the number of squares; limit, of photographs, 0 all; width of both networks, a factor on the paper's;
localiser; psnr.

Result: sear.safetensors; a copy of it goes into the package's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.data.manipulated import manipulated
from vestige.data.stand_in import photographs_or_scenes
from vestige.engines.fitting import fit, rows_of
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.learned import save_network
from vestige.forensics.sear import SEAR, Concealer, Supervisor, give_away, localiser_loss, mask_logits, sear_loss
from vestige.metrics.quality import psnr

OPERATIONS = ("splice", "copy_move", "removal")
SIDE, WHOLE = 64, 192
ADVERSARIAL, LEAST, PRETEXT = 10.0, 20.0, 1e-3


def build(ctx: RecipeContext) -> Job:
    """Edited squares, a localiser that knows them, and the concealer."""
    o = ctx.options
    images, masks = edited("train", int(o["count"]), int(o["limit"]), ctx.seed)
    judged, truth = edited("val", max(8, int(o["count"]) // 16), int(o["limit"]), ctx.seed)
    torch.manual_seed(ctx.seed)
    localiser = fit(
        Supervisor(float(o["width"])),
        lambda model, batch, generator: {"loss": localiser_loss(model(batch[0]), batch[1])},
        lambda number, generator: _turned(images, masks, 8, generator),
        TrainConfig(
            steps=int(o["localiser"]), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=20, seed=ctx.seed
        ),
    ).requires_grad_(False)  # fmt: skip
    weight = torch.tensor(LEAST)  # that of the size of what is added; it follows the PSNR, as in `SEAR`
    most = 2 * 10 ** (-float(o["psnr"]) / 20)

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = rows_of(len(images), ctx.config.batch_size, generator)
        return {"images": images[rows], "masks": masks[rows]}

    def step(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        x, mask = batch["images"], batch["masks"]
        found = sear_loss(localiser.to(x.device), x, mask, model(x), weights=(ADVERSARIAL, float(weight), PRETEXT))
        weight.mul_(1.1 if float(found["magnitude"].detach()) > most else 1 / 1.1).clamp_(LEAST)
        return found

    def validate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        hidden = SEAR(model).attack(judged.to(device)).cpu()
        with torch.no_grad():
            before, after = (mask_logits(localiser.cpu(), x).sigmoid() for x in (judged, hidden))
        return {
            "f1": give_away(truth, before)["f1"], "f1_concealed": give_away(truth, after)["f1"],
            "psnr": float(np.mean(psnr(judged.numpy(), hidden.numpy()))),
        }  # fmt: skip

    def save(model: nn.Module, out: Path) -> None:
        facts: dict[str, Any] = {"squares": len(images), "operations": list(OPERATIONS), **validate(model)}
        save_network(out / "sear.safetensors", model, "sear", facts)

    extra = {"weight": _Held(weight)}
    return Job(Concealer(float(o["width"])), step, batches, validate=validate, save=save, extra=extra)


class _Held:
    """A tensor that survives a restart of the run."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Tensor]:
        return {"value": self.value.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.value.copy_(state["value"])


def edited(part: str, count: int, limit: int, seed: int) -> tuple[Tensor, Tensor]:
    """(squares float N×3×64×64 in [0, 1], masks bool N×1×64×64), all of them edited and stored without loss."""
    known = photographs_or_scenes(part, WHOLE, limit=limit, seed=seed)
    made = manipulated(
        [image.transpose(1, 2, 0) for image in known], count, SIDE, operations=OPERATIONS, unedited=0.0,
        seed=2 * seed + (part != "train"), handling=lambda image, mask, generator: (image, mask),
    )  # fmt: skip
    return torch.from_numpy(made.images).float() / 255, torch.from_numpy(made.masks)


def _turned(images: Tensor, masks: Tensor, count: int, generator: torch.Generator) -> Batch:
    rows, turn = rows_of(len(images), count, generator), int(torch.randint(4, (), generator=generator))
    return images[rows].rot90(turn, (2, 3)), masks[rows].rot90(turn, (2, 3))


RECIPE = Recipe(
    name="sear",
    about="A network that changes edited pictures a little, so that localisers no longer see the edit.",
    build=build,
    config=TrainConfig(
        steps=500, batch_size=8, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, log_every=25, validate_every=100,
        checkpoint_every=100,
    ),
    reach={"f1_concealed": "half of f1, at 35 dB, on photographs that took no part"},
    options={"count": 1600, "limit": 0, "width": 0.25, "localiser": 800, "psnr": 35.0},
)  # fmt: skip
