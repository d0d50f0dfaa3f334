"""DADM and what it is compared with, on faces presented before made-up cameras, one of which is left out.

    vestige learn dadm                      # all four cameras, for `vestige find --only dadm`
    vestige learn dadm --variant unseen     # the camera whose number is the seed's, modulo four, is left out
    vestige learn dadm --for-claims

Faces are those of the people pack, drawn ones without it; depth and infrared are made from a dome and another
reflectance, not recorded, and materials differ between presentations. People of training, validation and test are
different; the threshold is that of equal errors before the cameras of the training. In half of the batches one modality
is missing in the first variant, because files have colours alone.

Options: method, "dadm", "no_masks", "concat" or "gated"; dropout, whether a modality is missing in half of the batches;
held_out, whether a camera is; limit, of faces, 0 all that are used; shuffled.

Result of the first variant: dadm.safetensors, with its threshold for colours alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.forensics.presented import Alone, GatedNet, Shown, all_cameras, figures, scores_of, shown
from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.presentations import ATTACKS, MODALITIES
from vestige.engines.fitting import rows_of
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics.dadm import DADMNet, dadm_loss
from vestige.forensics.learned import calibration, save_network
from vestige.metrics.detection import equal_error

SIDE, COUNTS = 48, {"train": 700, "val": 120, "test": 200}
METHODS = ("dadm", "no_masks", "concat", "gated")


def build(ctx: RecipeContext) -> Job:
    """Presentations before the cameras of the training and the network of the variant."""
    o, limit = ctx.options, int(ctx.options["limit"])
    method = str(o["method"])
    if method not in METHODS:
        raise UsageError(f"method is one of {', '.join(METHODS)}; got {method}.")
    cameras = all_cameras()
    held = ctx.seed % len(cameras) if o["held_out"] else -1
    others = tuple(c for c in cameras if c != held)

    def part(name: str, chosen: tuple[int, ...]) -> Shown:
        return shown(name, SIDE, min(COUNTS[name], limit or COUNTS[name]), chosen, root=ctx.data)

    known, val = part("train", others), part("val", others)
    live = known.live
    if o["shuffled"]:
        live = live[torch.from_numpy(rng(ctx.seed, "shuffled labels").permutation(len(live)))]
    full = method in ("dadm", "no_masks")
    domains = torch.tensor([others.index(int(c)) if full else 0 for c in known.cameras])
    sides = [(live == value).nonzero().squeeze(1) for value in (0, 1)]
    build_ = GatedNet if method == "gated" else DADMNet
    model = build_(n_domains=len(others) if full else 1, size=SIDE, mim=method == "dadm", hidden=32)

    def batches(number: int, generator: torch.Generator) -> dict[str, Any]:
        rows = torch.cat([s[rows_of(len(s), ctx.config.batch_size // 2, generator)] for s in sides])
        pictures = {k: v[rows].float() / 255 for k, v in known.pictures.items()}
        if o["dropout"] and float(torch.rand(1, generator=generator)) < 0.5:
            kept = MODALITIES[:1] if not o["held_out"] else _but_one(generator)
            pictures = {k: v if k in kept else torch.zeros_like(v) for k, v in pictures.items()}
        return {"pictures": pictures, "live": live[rows], "domains": domains[rows]}

    def step(module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        if isinstance(module, GatedNet):
            return module.loss(batch["pictures"], batch["live"])
        assert isinstance(module, DADMNet)
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        weights = (0.2, 0.3, 0.15) if full else (0.0, 0.0, 0.0)
        return dadm_loss(module, batch["pictures"], batch["live"], batch["domains"], own, weights=weights)

    def align(number: int, module: nn.Module) -> None:
        if isinstance(module, DADMNet):
            module.align()

    def validate(module: nn.Module) -> dict[str, float]:
        scores = scores_of(module, val)
        return {"equal_error": float(equal_error(val.presented, scores).value)}

    def evaluate(module: nn.Module) -> dict[str, Any]:
        test = part("test", (held,) if held >= 0 else cameras)
        found: dict[str, Any] = {"held": held, **figures(module, val, test)}
        if isinstance(module, GatedNet):
            alone = [Alone(module, k) for k in range(len(MODALITIES))]
            best = min(alone, key=lambda m: float(equal_error(val.presented, scores_of(m, val)).value))
            found["hter of the best modality"] = figures(best, val, test)["hter"]
        if method == "dadm":
            found |= depth_masks(module, test)
        return found

    def save(module: nn.Module, out: Path) -> None:
        if ctx.variant == RECIPE.default and isinstance(module, DADMNet):
            colours = Shown({"rgb": val.pictures["rgb"]}, val.live, val.cameras, val.kinds)
            scores = scores_of(module, colours)
            facts = {
                "side": SIDE,
                "faces": len(known),
                **calibration(scores[~val.presented], scores[val.presented], 0.05),
            }
            save_network(out / "dadm.safetensors", module, "dadm", facts)

    return Job(
        model, step, batches, validate=validate, evaluate=evaluate, save=save, on_step=align if full else None
    )  # fmt: skip


def _but_one(generator: torch.Generator) -> tuple[str, ...]:
    gone = int(torch.randint(len(MODALITIES), (1,), generator=generator))
    return tuple(m for k, m in enumerate(MODALITIES) if k != gone)


@torch.no_grad()
def depth_masks(module: Any, test: Shown) -> dict[str, Any]:
    """Mean mask of depth in the last block by kind, and in how many pairs it is lower on masks than on prints."""
    found = []
    for at in range(0, len(test), 64):
        masks = module.tokens({k: v[at : at + 64].float() / 255 for k, v in test.pictures.items()})[2]
        found.append(((masks[0][1] + masks[2][0]) / 2).mean((1, 2)))
    depth = torch.cat(found).numpy()
    by = {kind: depth[[k == kind for k in test.kinds]] for kind in ("", *ATTACKS)}
    means = {f"depth mask, {kind or 'live'}": float(np.mean(v)) for kind, v in by.items()}
    return {**means, "lower on masks": int((by["mask"] < by["print"]).sum()), "pairs": len(by["mask"])}


_EIGHT, _FOUR = tuple(range(8)), tuple(range(4))  # every camera is left out twice, or once
RECIPE = Recipe(
    name="dadm",
    about="Live faces told from presented ones by colours, depth and infrared, before cameras never seen.",
    build=build,
    config=TrainConfig(
        steps=900, batch_size=16, lr=7e-4, betas=(0.9, 0.99), weight_decay=5e-5, warmup=50, log_every=15,
        validate_every=45, checkpoint_every=150,
    ),
    reach={"equal_error": "0.05 before the cameras of the training"},
    options={"method": "dadm", "dropout": False, "held_out": True, "limit": 0, "shuffled": False},
    variants={
        "all": Variant("DADM on all four cameras, in half of the batches colours alone",
            {"held_out": False, "dropout": True},
        ),
        "unseen": Variant("DADM, a camera left out", seeds=_EIGHT),
        "concat": Variant("concatenation, cross-entropy", {"method": "concat"}, seeds=_EIGHT),
        "no_masks": Variant("DADM without masks", {"method": "no_masks"}, seeds=_FOUR),
        "dropout": Variant("concatenation with modality dropout", {"method": "concat", "dropout": True}, seeds=_FOUR),
        "gated": Variant("modalities weighed by certainty (MMDG-like)", {"method": "gated"}, seeds=_FOUR),
        "shuffled": Variant("DADM on labels dealt out anew", {"shuffled": True}),
    },
    judged_by="-equal_error",
)  # fmt: skip
