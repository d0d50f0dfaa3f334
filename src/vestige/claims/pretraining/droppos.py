"""Claims of DropPos: it finds hidden positions, its encoder knows where things are, and it learns no less."""

from __future__ import annotations

from vestige.bench.masked.table import Comparison, Schedule, difference, figure, figure_of, points
from vestige.claims import ClaimContext, Evidence, claim

CHANCE = 1 / 64
#: "Far above chance" is five times as often.
FAR = 5 * CHANCE


@claim("hidden positions of new pictures are found at least five times as often as by chance, and shown ones help")
def finds_positions(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    schedules: tuple[Schedule, ...] = ("time", "epochs")
    runs = comparison.records(*(("droppos", s) for s in schedules))
    keys = ("positions_0", "positions_4", "positions_8")
    rows = [comparison.row(*want, found, *keys) for want, found in runs.items()]
    rows.append({"method": "chance", "runs": "none", **{key: CHANCE for key in keys}})
    trained = runs["droppos", "time"]
    help_ = difference(figure(trained, "positions_4", 100), figure(trained, "positions_0", 100))
    found = all(record["positions_4"] >= FAR for record in trained)
    return Evidence(found and help_.higher, rows, f"4 positions shown against none, equal time: {help_} points")


@claim("at equal time its linear probe is at least MP3's and not below MAE's")
def learns_no_less(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(
        *((name, s) for s in ("time", "epochs") for name in ("droppos", "mp3", "mae")),
        ("mae", "random"),
    )
    rows = [comparison.row(*want, found, "linear", "knn") for want, found in runs.items()]
    to_mp3, to_mae = (points(runs["droppos", "time"], runs[name, "time"], "linear") for name in ("mp3", "mae"))
    holds = to_mp3.value >= 0 and not to_mae.lower and to_mae.judged
    return Evidence(holds, rows, f"against MP3 {to_mp3}; against MAE {to_mae}")


@claim("shuffling the positions at test time costs its linear probe more than MAE's")
def knows_where_things_are(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(
        *((name, s) for s in ("time", "epochs") for name in ("droppos", "mae")), ("mae", "random")
    )
    rows, losses = [], {}
    for want, found in runs.items():
        losses[want] = figure_of([100 * (r["linear_in_place"] - r["linear_shuffled"]) for r in found])
        row = comparison.row(*want, found, "linear_in_place", "linear_shuffled")
        rows.append({**row, "points lost": round(losses[want].mean, 2)})
    gap = difference(losses["droppos", "time"], losses["mae", "time"])
    return Evidence(gap.higher, rows, f"points lost at equal time, DropPos against MAE: {gap}")
