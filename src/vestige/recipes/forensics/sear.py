"""A contest between a network that conceals edits and localisers: both sides trained in turn, all attacks judged.

    vestige learn sear
    vestige learn sear --for-claims

Localisers on SRM and on Bayar residuals learn splices, copy-moves and removals, stored without loss or as JPEG with
halved colours; a concealer learns to lead the first astray while its pictures keep ``psnr`` decibels; the localiser is
trained again on what it conceals, and the concealer against that one. A generator with a hinge has as many updates.
Signed gradients and blur are matched in PSNR on validation pictures, thresholds of maps are those of validation; the
Bayar localiser is seen by nobody. Without data the photographs are rendered scenes.

Options: count and limit, of squares and photographs; width of all networks, a factor on the paper's; localiser, updates
of a localiser; psnr. steps are those of each concealer.

Result: sear.safetensors, the concealer of the first round; a copy of it goes into the package's weights.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vestige.bench.forensics import antiforensics as attacks
from vestige.bench.forensics.edits import OPERATIONS, bed, best_threshold
from vestige.data.manipulated import Manipulated
from vestige.engines import parts
from vestige.engines.fitting import rows_of
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.learned import save_network
from vestige.forensics.sear import SEAR, Concealer, MagnitudeWeight, Supervisor, localiser_loss, mask_logits, sear_loss

SIZE, JUDGED = 64, 120
ADVERSARIAL, LEAST, PRETEXT = 10.0, 1.0, 1e-3


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Train localisers and concealers in turn and judge every attack."""
    o, limit = ctx.options, int(ctx.options["limit"])
    few = 16 if limit else JUDGED

    def squares(part: str, count: int, lossless: bool = True) -> tuple[Tensor, Tensor]:
        made = bed(part, OPERATIONS, count, SIZE, unedited=0.0, lossless=lossless, limit=limit)
        return torch.from_numpy(made.images).float() / 255, torch.from_numpy(made.masks)

    known = squares("train", int(o["count"]), lossless=False)
    val, test = squares("val", few), squares("test", few)
    white = _localiser(ctx, "localiser_srm", Supervisor(float(o["width"]), "srm"), known, val)
    unseen = _localiser(ctx, "localiser_bayar", Supervisor(float(o["width"]), "bayar"), known, val)
    first = _concealer(ctx, "concealer", white, known, val)
    retrained = _retrained(ctx, white, first, known, val)
    second = _concealer(ctx, "concealer_2", retrained, known, val, start=first)
    hinged = _concealer(ctx, "hinge", white, known, val, hinge=True)
    save_network(ctx.out / "sear.safetensors", first, "sear", {"psnr": float(o["psnr"]), "operations": OPERATIONS})
    localisers = {"supervisor": white, "unseen": unseen, "retrained": retrained}
    versions = _versions(ctx, white, first, second, hinged, val, test)
    cuts = {name: _cut(one, val) for name, one in localisers.items()}
    found: dict[str, Any] = {"updates": ctx.config.steps}
    for name, pictures in versions.items():
        found[f"psnr, {name}"] = attacks.quality(test[0], pictures)
        for judge, localiser in localisers.items():
            rows = attacks.seen_by(localiser, pictures, test[1], cuts[judge])
            found |= {f"{key}, {name}, {judge}": value for key, value in rows.items()}
    return found


def _versions(
    ctx: RecipeContext, white: nn.Module, first: nn.Module, second: nn.Module, hinged: nn.Module,
    val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:  # fmt: skip
    """The test pictures as every attack leaves them; strengths are matched in PSNR on validation pictures."""
    steps = 3 if ctx.options["limit"] else 10
    hide, images = SEAR(first).conceal, test[0]
    target = attacks.quality(val[0], hide(val[0]))
    told = attacks.level_for(target, lambda level: attacks.astray(white, val[0], val[1], level, steps), val[0])
    blind = attacks.level_for(target, lambda level: attacks.astray(white, val[0], None, level, steps), val[0])
    once = attacks.level_for(target, lambda level: attacks.astray(white, val[0], val[1], level, 1), val[0])
    sigma = attacks.blur_for(float(ctx.options["psnr"]), val[0])
    return {
        "as it is": images, "sear": hide(images), "sear, second round": SEAR(second).conceal(images),
        "pgd": attacks.astray(white, images, test[1], told, steps),
        "pgd without masks": attacks.astray(white, images, None, blind, steps),
        "fgsm": attacks.astray(white, images, test[1], once, 1), "hinge": SEAR(hinged).conceal(images),
        "blur": attacks.blurred(images, sigma), "median": attacks.median(images), "jpeg 70": attacks.jpeg(images),
    }  # fmt: skip


def _cut(localiser: nn.Module, val: tuple[Tensor, Tensor]) -> float:
    """The threshold that serves validation pictures best."""
    with torch.no_grad():
        maps = torch.cat([mask_logits(localiser, x).sigmoid() for x in val[0].split(48)]).numpy()
    made = Manipulated((255 * val[0]).byte().numpy(), val[1].numpy(), ("splice",) * len(maps))
    return best_threshold(made, maps)


def _draw(known: tuple[Tensor, Tensor], size: int) -> Any:
    def batches(number: int, generator: torch.Generator) -> Batch:
        rows, turn = rows_of(len(known[0]), size, generator), int(torch.randint(4, (), generator=generator))
        return tuple(x[rows].rot90(turn, (2, 3)).contiguous() for x in known)

    return batches


def _f1(localiser: nn.Module, pictures: Tensor, masks: Tensor) -> float:
    return float(attacks.seen_by(localiser, pictures, masks, 0.5)["f1"])


def _localiser_config(ctx: RecipeContext) -> TrainConfig:
    steps = (
        min(int(ctx.options["localiser"]), ctx.config.steps) if ctx.options["limit"] else int(ctx.options["localiser"])
    )
    return dataclasses.replace(
        ctx.config,
        steps=steps,
        lr=2e-3,
        weight_decay=1e-4,
        warmup=min(20, steps // 2),
        validate_every=max(1, steps // 20),
    )


def _localiser(
    ctx: RecipeContext, name: str, network: nn.Module, known: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]
) -> nn.Module:
    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": localiser_loss(model(batch[0]), batch[1])}

    job = Job(network, step, _draw(known, 8), validate=lambda model: {"gain": _f1(model, *val)})
    return parts.trained(ctx, name, job, _localiser_config(ctx)).cpu().requires_grad_(False)


def _retrained(
    ctx: RecipeContext, localiser: nn.Module, concealer: nn.Module, known: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
) -> nn.Module:  # fmt: skip
    """The defence: the localiser trained on pictures as they are and as the concealer leaves them."""
    hide = SEAR(concealer).conceal

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        both = torch.cat([batch[0], hide(batch[0])])
        return {"loss": localiser_loss(model(both), batch[1].repeat(2, 1, 1, 1))}

    hidden = hide(val[0])
    network = copy.deepcopy(localiser).requires_grad_(True)
    job = Job(network, step, _draw(known, 4), validate=lambda model: {"gain": _f1(model, hidden, val[1])})
    return parts.trained(ctx, "localiser_retrained", job, _localiser_config(ctx)).cpu().requires_grad_(False)


def _concealer(
    ctx: RecipeContext, name: str, localiser: nn.Module, known: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], *,
    start: nn.Module | None = None, hinge: bool = False,
) -> nn.Module:  # fmt: skip
    kept = float(ctx.options["psnr"])
    weight = MagnitudeWeight(LEAST, kept)
    torch.manual_seed(ctx.seed)
    network = Concealer(float(ctx.options["width"])) if start is None else copy.deepcopy(start)

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        x, mask = batch
        change = model(x)
        if hinge:
            return {"loss": attacks.hinge_loss(localiser, x, mask, change, kept)}
        found = sear_loss(localiser, x, mask, change, weights=(ADVERSARIAL, weight.value, PRETEXT))
        weight.follow(found["magnitude"])
        return found

    def validate(model: nn.Module) -> dict[str, float]:
        hidden = SEAR(model).conceal(val[0])
        return {"gain": -_f1(localiser, hidden, val[1]), "psnr": attacks.quality(val[0], hidden)}

    job = Job(network, step, _draw(known, ctx.config.batch_size), validate=validate, extra={"weight": weight})
    return parts.trained(ctx, name, job).cpu()


RECIPE = Recipe(
    name="sear",
    about="A network that changes edited pictures a little, so that localisers no longer see the edit.",
    perform=perform,
    config=TrainConfig(
        steps=1200, batch_size=8, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, log_every=20, validate_every=60,
        checkpoint_every=120,
    ),
    reach={"f1, sear, unseen": "below that of signed gradients of equal PSNR"},
    options={"count": 2000, "limit": 0, "width": 0.25, "localiser": 700, "psnr": 33.5},
    variants={"sear": Variant("the contest: two rounds, a hinge, gradients and filters", seeds=(0, 1, 2))},
    judged_by="gain",
)  # fmt: skip
