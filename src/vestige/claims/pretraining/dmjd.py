"""Claims of DMJD: two disjoint views and a head on seen tokens are worth more than one view of twice the pictures."""

from __future__ import annotations

from vestige.bench.masked.table import Verdict, ahead, row, values
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.pretraining._runs import runs_of
from vestige.engines.runs import Need, Run

NEEDS = (Need("dmjd"), Need("mae"))


def _against(ours: list[Run], theirs: list[Run]) -> Verdict:
    return ahead(values(ours, "linear"), values(theirs, "linear"), values(ours, "untrained linear"))


@headline("with as many encoder tokens, in half the passes over the data, its linear probe is above one view's")
def two_views_are_worth_it(context: ClaimContext) -> Evidence:
    arms = {name: runs_of(context, "dmjd", name) for name in ("dmjd", "one_view", "independent")}
    arms["mae"] = runs_of(context, "mae", "mae")
    rows = [row(name, found, "linear", "knn") for name, found in arms.items()]
    rows.append(row("random weights", arms["dmjd"], "linear", "knn", prefix="untrained "))
    found = _against(arms["dmjd"], arms["one_view"])
    note = f"against one view {found.gain}; above random weights {found.learned}"
    return Evidence(found.holds, rows, note, found.weak)


@claim("its linear probe is lower without the head on seen tokens (3 seeds)")
def the_visible_head_helps(context: ClaimContext) -> Evidence:
    arms = {name: runs_of(context, "dmjd", name) for name in ("dmjd", "masked_only")}
    rows = [row(name, found, "linear", "knn") for name, found in arms.items()]
    rows.append(row("random weights", arms["dmjd"], "linear", "knn", prefix="untrained "))
    found = _against(arms["dmjd"], arms["masked_only"])
    return Evidence(found.holds, rows, f"with against without: {found.gain}", found.weak)
