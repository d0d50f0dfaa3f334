"""Claims of ColorMAE: what is learned from green masks segments better; the masks have structure and cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from vestige.bench.controls import over_seeds
from vestige.bench.masked.systems import OPTIMISATION
from vestige.bench.masked.table import ahead, row, values
from vestige.bench.masked.timing import interleaved, thread_limit
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.pretraining._runs import runs_of
from vestige.engines.masked.masking import MaskStrategy, uniform
from vestige.engines.runs import Need
from vestige.pretraining.color_mae import WIDTHS, ColorMask

NEEDS = (Need("color_mae"), Need("mae"))
#: P(right neighbour seen | seen) on 8×8 tokens as the card measured it, for widths as in `WIDTHS`.
NEIGHBOURS = {"white": 0.24, "red": 0.68, "blue": 0.18, "green": 0.37, "purple": 0.14}
MASKS = 100_000


@headline("linear segmentation of scenes from frozen tokens is better than MAE's at equal updates (3 seeds)")
def segments_better(context: ClaimContext) -> Evidence:
    green, white = runs_of(context, "color_mae", "color_mae"), runs_of(context, "mae", "mae")
    keys = ("scenes_miou", "linear", "knn")
    rows = [row("color_mae", green, *keys), row("mae", white, *keys)]
    rows.append(row("random weights", white, *keys, prefix="untrained "))
    key = "scenes_miou"
    found = ahead(values(green, key), values(white, key), values(white, f"untrained {key}"))
    return Evidence(found.holds, rows, f"mIoU {found.gain}; above random weights {found.learned}", found.weak)


@claim("what green masks hide is harder to reconstruct than what random masks hide, each by its own model (3 seeds)")
def green_is_harder(context: ClaimContext) -> Evidence:
    green, white = runs_of(context, "color_mae", "color_mae"), runs_of(context, "mae", "mae")
    keys = ("loss_uniform", "loss_green")
    rows = [row("color_mae", green, *keys), row("mae", white, *keys)]
    rows.append(row("random weights", white, *keys, prefix="untrained "))
    gap = over_seeds(values(green, "loss_green"), values(white, "loss_uniform"))
    chance = over_seeds(values(white, "untrained loss_green"), values(white, "untrained loss_uniform"))
    return Evidence(gap.low > max(0.0, chance.value), rows, f"{gap}; with random weights {chance}")


@claim("green masks: exactly a quarter is seen, each cell 25 ± 1 % of the time, neighbours as their spectrum says")
def masks_have_their_colour(context: ClaimContext) -> Evidence:
    generator = torch.Generator().manual_seed(context.seed)
    masks: dict[str, MaskStrategy] = {"white": partial(uniform, ratio=0.75), **{c: ColorMask(c) for c in WIDTHS}}
    rows: dict[str, dict[str, Any]] = {}
    for name, mask in masks.items():
        seen = ~torch.cat([mask(5000, (8, 8), generator).mask for _ in range(MASKS // 5000)]).view(-1, 8, 8)
        share = seen.float().mean(0)
        beside = float((seen[:, :, :-1] & seen[:, :, 1:]).sum() / seen[:, :, :-1].sum())
        rows[name] = {
            "masks": name, "count": MASKS, "all exact": bool((seen.sum((1, 2)) == 16).all()),
            "rarest cell": float(share.min()), "commonest cell": float(share.max()),
            "neighbour seen": beside, "expected": NEIGHBOURS[name],
        }  # fmt: skip
    green = rows["green"]
    fair = green["rarest cell"] >= 0.24 and green["commonest cell"] <= 0.26
    coloured = all(abs(row["neighbour seen"] - row["expected"]) <= 0.02 for row in rows.values())
    return Evidence(green["all exact"] and fair and coloured, list(rows.values()))


@claim("making the masks costs less than 2 % of an update")
def masks_cost_nothing(context: ClaimContext) -> Evidence:
    batch, generator = OPTIMISATION["batch_size"], torch.Generator().manual_seed(0)
    green, white = ColorMask("green"), partial(uniform, ratio=0.75)
    update = sum(values(runs := runs_of(context, "mae", "mae"), "ms mae")) / len(runs) / 1000
    actions: dict[str, Callable[[], object]] = {
        "green masks": lambda: green(batch, (8, 8), generator),
        "uniform masks": lambda: white(batch, (8, 8), generator),
    }
    with thread_limit(1):
        times = {"an update of MAE": update, **interleaved(actions, 20)}
    rows = [{"what": what, "ms": round(1000 * t, 3), "share of an update": t / update} for what, t in times.items()]
    return Evidence(times["green masks"] < 0.02 * update, rows, f"batch of {batch}; the update as timed with the run")
