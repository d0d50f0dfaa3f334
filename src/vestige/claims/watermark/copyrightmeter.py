"""Claims of CopyrightMeter: the three findings of its paper, on the shipped model of drawn scenes.

All claims rest on one grid, whose cells are kept under results/runs/copyrightmeter, so that a stopped run goes on.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from vestige.bench.copyrightmeter import protocol
from vestige.bench.copyrightmeter.page import cell_rows, rank_rows
from vestige.bench.copyrightmeter.ranking import DAMAGE, LINE, WEIGHTINGS, efficacy, protections, ranked, ratio, summary
from vestige.bench.copyrightmeter.world import Settings
from vestige.claims import ClaimContext, Evidence, claim

#: Rise of the mean resilience that counts.
RISE = 0.1
#: Cheap cells that are computed a second time.
REPEATED = (("sanitisation", "UCE", "identity"), ("watermark", "spread spectrum", "JPEG 75"))


def _plan(context: ClaimContext) -> tuple[list[protocol.Cell], Settings]:
    """In a trial: two seeds, one attack for each family, few pictures."""
    seeds = tuple(context.seed + s for s in protocol.SEEDS[: 2 if context.limit else None])
    settings = Settings.trial(context.limit) if context.limit else Settings()
    return protocol.cells(seeds, 2 if context.limit else 0), settings


@cache
def _audit(context: ClaimContext) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records of the grid and of the upgrade round."""
    listed, settings = _plan(context)
    found = protocol.records(listed, settings, trial=bool(context.limit))
    return found, protocol.records(list(protocol.upgrades(found)), settings, trial=bool(context.limit))


@claim(
    "the table is complete, with intervals from 3 seeds, and all protections that work but at most one lose >= 50 % of "
    "their efficacy to one attack that spares the content; every family has one that works"
)
def few_protections_are_resilient(context: ClaimContext) -> Evidence:
    found, _ = _audit(context)
    rows = summary(found)
    listed = protections(rows)
    working = [p for p in listed if p["effective"]]
    broken = [p for p in working if p["lowest"] is not None and p["lowest"] <= LINE]
    complete = len({r["seed"] for r in found}) >= 3 and len(listed) >= 2 * len(protocol.FAMILIES)
    everywhere = {p["family"] for p in working} == set(protocol.FAMILIES)
    note = (
        f"{len(broken)} of {len(working)} protections that work are broken; without effect from the start: "
        f"{', '.join(p['protection'] for p in listed if not p['effective']) or 'none'}; attacks may destroy {DAMAGE:g} "
        "of the content"
    )
    return Evidence(complete and everywhere and len(broken) >= len(working) - 1, cell_rows(rows), note)


@claim("the best protection changes with the weighting of fidelity, efficacy and resilience")
def the_best_depends_on_the_weights(context: ClaimContext) -> Evidence:
    rows = summary(_audit(context)[0])
    listed = protections(rows)
    best = {name: ranked(listed, weights)[0][0] for name, weights in WEIGHTINGS.items()}
    return Evidence(len(set(best.values())) > 1, rank_rows(rows), f"best: {best}")


@claim("each protection that is made again for the attack that leaves least of it keeps >= 0.1 more of its efficacy")
def upgrades_raise_resilience(context: ClaimContext) -> Evidence:
    found, again = _audit(context)
    none = {(r["family"], r["seed"]): r for r in found if r["protection"] == "none"}
    table: list[dict[str, Any]] = []
    for protection, attack in dict.fromkeys((r["protection"], r["against"]) for r in again):
        values: dict[str, list[float]] = {}
        for when, part, against in (("plain", found, ""), ("upgraded", again, attack)):
            for name in ("identity", attack):
                values[f"{when} {'before' if name == 'identity' else 'after'}"] = [
                    efficacy(r, none[r["family"], r["seed"]])
                    for r in part
                    if (r["protection"], r["attack"], r["against"]) == (protection, name, against)
                ]
        plain, better = (ratio(values[f"{w} after"], values[f"{w} before"]) for w in ("plain", "upgraded"))
        means = {f"efficacy, {name}": sum(v) / len(v) for name, v in values.items()}
        table.append(
            {
                "protection": protection, "made for": attack, "resilience": plain.value, "upgraded": better.value,
                "upgraded low": better.low, "rise": better.value - plain.value, **means,
            }
        )  # fmt: skip
    return Evidence(len(table) >= 2 and all(row["rise"] >= RISE for row in table), table)


@claim("a repeated run reads every cell from the cache bit for bit, and cells computed anew give equal figures")
def runs_repeat(context: ClaimContext) -> Evidence:
    listed, settings = _plan(context)
    trial = bool(context.limit)
    first, _ = _audit(context)
    same = json.dumps(first) == json.dumps(protocol.records(listed, settings, trial=trial))
    table: list[dict[str, Any]] = [{"cells": "all, from the cache", "count": len(listed), "equal": same}]
    protocol.forget()
    for family, protection, attack in REPEATED:
        cell = next(c for c in listed if (c.family, c.protection, c.attack) == (family, protection, attack))
        old, new = (
            {k: v for k, v in r.items() if k != "seconds"}
            for r in (protocol.record(cell, settings, trial=trial), protocol.computed(cell, settings))
        )
        table.append({"cells": f"{protection}, {attack}, computed anew", "count": 1, "equal": old == new})
    return Evidence(all(row["equal"] for row in table), table)
