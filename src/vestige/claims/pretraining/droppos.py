"""Claims of DropPos: what is learned by finding positions is worth more than MAE, and knows where things are."""

from __future__ import annotations

from vestige.bench.controls import over_seeds
from vestige.bench.masked.table import ahead, row, values
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.pretraining._runs import runs_of
from vestige.engines.runs import Need, Run

NEEDS = (Need("droppos"),)
CHANCE = 1 / 64


@headline("fine-tuned on 2,000 labels it recognises more than MAE at equal updates on the same crops (3 seeds)")
def tunes_better(context: ClaimContext) -> Evidence:
    arms = {name: runs_of(context, "droppos", name) for name in ("droppos", "mae")}
    keys = ("tuned", "linear", "knn")
    rows = [row(name, found, *keys) for name, found in arms.items()]
    rows.append(row("random weights", arms["mae"], *keys, prefix="untrained "))
    ours, theirs, scratch = (
        values(arms["droppos"], "tuned"), values(arms["mae"], "tuned"), values(arms["mae"], "untrained tuned"),
    )  # fmt: skip
    found = ahead(ours, theirs, scratch)
    return Evidence(found.holds, rows, f"against MAE {found.gain}; against scratch {found.learned}", found.weak)


@claim("hidden positions of new pictures are found far more often than by random weights, and shown ones help")
def finds_positions(context: ClaimContext) -> Evidence:
    runs = runs_of(context, "droppos", "droppos")
    keys = ("positions_0", "positions_4", "positions_8")
    rows = [row("droppos", runs, *keys), row("random weights", runs, *keys, prefix="untrained ")]
    rows.append({"arm": "chance", **dict.fromkeys(keys, CHANCE)})
    found = over_seeds(values(runs, "positions_4"), values(runs, "untrained positions_4"))
    shown = over_seeds(values(runs, "positions_4"), values(runs, "positions_0"))
    return Evidence(found.low > 4 * CHANCE and shown.low > 0, rows, f"above random weights {found}; shown help {shown}")


def points_lost(runs: list[Run], prefix: str = "") -> list[float]:
    """How much of a linear probe's accuracy goes when positions are shuffled at test time."""
    places, mixed = values(runs, f"{prefix}linear_in_place"), values(runs, f"{prefix}linear_shuffled")
    return [a - b for a, b in zip(places, mixed)]


@claim("shuffling the positions at test time costs its linear probe more than MAE's and than random weights' (3 seeds)")
def knows_where_things_are(context: ClaimContext) -> Evidence:
    arms = {name: runs_of(context, "droppos", name) for name in ("droppos", "mae")}
    keys = ("linear_in_place", "linear_shuffled")
    rows = [row(name, found, *keys) for name, found in arms.items()]
    rows.append(row("random weights", arms["droppos"], *keys, prefix="untrained "))
    ours, theirs = points_lost(arms["droppos"]), points_lost(arms["mae"])
    found = ahead(ours, theirs, points_lost(arms["droppos"], "untrained "))
    return Evidence(found.holds, rows, f"lost more than MAE's {found.gain}; than random {found.learned}", found.weak)
