"""Claims of DMJD: two disjoint views and a head on seen tokens are worth more than one view twice as often."""

from __future__ import annotations

from vestige.bench.masked.table import Comparison, points
from vestige.claims import ClaimContext, Evidence, claim


@claim("with as many encoder tokens, in half the passes over the data, its linear probe is at least that of one view")
def two_views_are_worth_it(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(
        ("dmjd", "time"), ("dmjd/one_view", "tokens"), ("dmjd/independent", "time"), ("mae", "time"), ("mae", "random")
    )
    rows = [comparison.row(*want, found, "linear", "knn", "processor_seconds") for want, found in runs.items()]
    gain = points(runs["dmjd", "time"], runs["dmjd/one_view", "tokens"], "linear")
    apart = points(runs["dmjd", "time"], runs["dmjd/independent", "time"], "linear")
    return Evidence(gain.value >= 0, rows, f"against one view {gain}; against two independent views {apart}")


@claim("its linear probe is lower without the head on seen tokens")
def the_visible_head_helps(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(("dmjd", "time"), ("dmjd/masked_only", "time"))
    rows = [comparison.row(*want, found, "linear", "knn", "final_loss") for want, found in runs.items()]
    gain = points(runs["dmjd", "time"], runs["dmjd/masked_only", "time"], "linear")
    return Evidence(gain.higher, rows, f"with against without: {gain}")
