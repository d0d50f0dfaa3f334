"""The grid of CopyrightMeter: protections of three families under the attacks that answer them, over several seeds.

    vestige learn copyrightmeter

Every cell is a protection, an attack and a seed; imitators, adapters and words are trained anew in each. Cells that are
finished are kept, so that the same command goes on after a kill. About ten minutes of one core a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from vestige.bench.copyrightmeter import protocol
from vestige.bench.copyrightmeter.world import Settings
from vestige.core.errors import UsageError
from vestige.engines import parts
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig

#: Sizes that are options; that of batches is a setting of training, and "steps" has another meaning there.
_SIZES: dict[str, Any] = {name: size for name, size in asdict(Settings()).items() if name != "batch"}
_NAMES = {"steps": "sampling_steps"}


def perform(ctx: RecipeContext) -> dict[str, Any]:
    """{"cells": records of the grid, "upgrades": those of protections made again for the attack that breaks them}."""
    o, config = ctx.options, ctx.config
    sizes = {name: type(default)(o[_NAMES.get(name, name)]) for name, default in _SIZES.items()}
    settings = Settings(**sizes, batch=config.batch_size)
    if int(o["seeds"]) < 2 or int(o["attacks"]) < 0:
        raise UsageError("The audit needs two seeds or more, and a number of attacks from 0 (all) on.")

    def keep(name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return dict(parts.figures(ctx, f"cells/{name}", compute))

    seeds = range(ctx.seed, ctx.seed + int(o["seeds"]))
    found, again = protocol.audit(seeds, settings, keep, int(o["attacks"]))
    return {"cells": found, "upgrades": again}


RECIPE = Recipe(
    name="copyrightmeter",
    about="The audit of cloaks, sanitised generators and watermarks, cell by cell.",
    perform=perform,
    config=TrainConfig(batch_size=4),
    options={
        "seeds": len(protocol.SEEDS), "attacks": 0, **{_NAMES.get(name, name): size for name, size in _SIZES.items()},
    },
    variants={"default": Variant("the whole grid")},
)  # fmt: skip
