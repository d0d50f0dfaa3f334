"""Claims of LUT: whole-image targets for seen tokens give features that recognise more and look further."""

from __future__ import annotations

from vestige.bench.masked.table import Comparison, Schedule, difference, figure, points
from vestige.claims import ClaimContext, Evidence, claim

BOTH: tuple[Schedule, ...] = ("epochs", "time")


@claim("k-NN and linear probe are at least 5 points above MAE's at equal epochs, and above them at equal time")
def recognises_more(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(*((name, s) for s in BOTH for name in ("lut", "mae")), ("mae", "random"))
    rows = [comparison.row(*want, found, "linear", "knn") for want, found in runs.items()]
    gains = {(s, key): points(runs["lut", s], runs["mae", s], key) for s in BOTH for key in ("knn", "linear")}
    holds = all(g.higher and (g.value >= 5 or s == "time") for (s, _), g in gains.items())
    return Evidence(holds, rows, "; ".join(f"{key} at equal {s} {gain}" for (s, key), gain in gains.items()))


@claim("its last blocks look further than MAE's at equal epochs")
def looks_further(context: ClaimContext) -> Evidence:
    return _larger(context, "attention_distance")


@claim("its tokens use more directions than MAE's at equal epochs")
def uses_more_directions(context: ClaimContext) -> Evidence:
    return _larger(context, "effective_rank")


def _larger(context: ClaimContext, key: str) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(*((name, s) for s in BOTH for name in ("lut", "mae")), ("mae", "random"))
    rows = [comparison.row(*want, found, key) for want, found in runs.items()]
    gains = {s: difference(figure(runs["lut", s], key), figure(runs["mae", s], key)) for s in BOTH}
    return Evidence(gains["epochs"].higher, rows, "; ".join(f"at equal {s} {gain}" for s, gain in gains.items()))


@claim("the summaries of pictures do not collapse: their spread is more than half of an even one's")
def does_not_collapse(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(*(("lut", s) for s in BOTH))
    rows = [comparison.row(*want, found, "summary_spread") for want, found in runs.items()]
    return Evidence(all(r["summary_spread"] > 0.5 for s in BOTH for r in runs["lut", s]), rows)
