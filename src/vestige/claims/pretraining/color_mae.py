"""Claims of ColorMAE: green masks have structure, cost nothing, and teach no less than random ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from vestige.bench.masked.runs import Stepper, interleaved, test_pack, thread_limit
from vestige.bench.masked.table import Comparison, Schedule, difference, figure, points
from vestige.claims import ClaimContext, Evidence, claim
from vestige.engines.masked.masking import MaskStrategy, uniform
from vestige.pretraining.color_mae import WIDTHS, ColorMask

#: P(right neighbour seen | seen) on 8×8 tokens as the card measured it, for widths as in `WIDTHS`.
NEIGHBOURS = {"white": 0.24, "red": 0.68, "blue": 0.18, "green": 0.37, "purple": 0.14}
MASKS = 100_000


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
    study = Comparison.of(context).study
    batch, generator = study.protocol.optimisation["batch_size"], torch.Generator().manual_seed(0)
    green, white = ColorMask("green"), partial(uniform, ratio=0.75)
    with thread_limit(study.protocol.threads):
        actions: dict[str, Callable[[], object]] = {
            "an update of ColorMAE": Stepper(study, "color_mae", test_pack(study.data, study.protocol.probe_test)),
            "green masks": lambda: green(batch, (8, 8), generator),
            "uniform masks": lambda: white(batch, (8, 8), generator),
        }
        times = interleaved(actions, 3 * study.protocol.rounds)
    whole = times["an update of ColorMAE"]
    rows = [{"what": what, "ms": round(1000 * t, 3), "share of an update": t / whole} for what, t in times.items()]
    return Evidence(times["green masks"] < 0.02 * whole, rows, f"batch of {batch}")


@claim("what green masks hide is harder to reconstruct than what random masks hide")
def green_is_harder(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(("mae", "epochs"), ("color_mae", "epochs"))
    keys = ("loss_uniform", "loss_green", "final_loss")
    rows = [comparison.row(*want, found, *keys) for want, found in runs.items()]
    gap = difference(figure(runs["color_mae", "epochs"], "loss_green"), figure(runs["mae", "epochs"], "loss_uniform"))
    return Evidence(gap.higher, rows, f"own masks on test pictures: {gap.value:+.4f} (pooled s.d. {gap.pooled:.4f})")


@claim("linear segmentation of scenes from frozen tokens is better than MAE's at equal steps")
def segments_better(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(("color_mae", "epochs"), ("mae", "epochs"), ("mae", "random"))
    rows = [comparison.row(*want, found, "scenes_miou") for want, found in runs.items()]
    gain = points(runs["color_mae", "epochs"], runs["mae", "epochs"], "scenes_miou")
    return Evidence(gain.higher, rows, f"mIoU {gain} points")


@claim("linear probe and k-NN are not below MAE's, at equal time and at equal epochs")
def recognises_no_worse(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    schedules: tuple[Schedule, ...] = ("time", "epochs")
    runs = comparison.records(*((name, s) for s in schedules for name in ("color_mae", "mae")), ("mae", "random"))
    rows = [comparison.row(*want, found, "linear", "knn") for want, found in runs.items()]
    gains = {
        f"{key} at equal {s}": points(runs["color_mae", s], runs["mae", s], key)
        for s in schedules for key in ("linear", "knn")
    }  # fmt: skip
    judged = all(not gain.lower and gain.judged for gain in gains.values())
    return Evidence(judged, rows, "; ".join(f"{what} {gain}" for what, gain in gains.items()))
