"""Claims of CopyrightMeter: the three findings of its paper, on the shipped model of drawn scenes.

All claims rest on one run of the recipe of the system, which keeps the records of its cells. Efficacy is what
protecting achieves over nothing protected under the same attack.
"""

from __future__ import annotations

from typing import Any

from vestige.bench.copyrightmeter import protocol
from vestige.bench.copyrightmeter.page import cell_rows, rank_rows
from vestige.bench.copyrightmeter.ranking import (
    DAMAGE,
    best,
    changes_with_weights,
    efficacies,
    protections,
    summary,
)
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.engines.runs import Need
from vestige.watermark.copyrightmeter.scores import over_seeds, ratio

RECIPE = "copyrightmeter"
NEEDS = (Need(RECIPE, ("default",), (0,)),)
#: Share of resamplings of the seeds in which the best protection must change with the weights.
SURE = 0.95

Records = list[dict[str, Any]]


def _audit(context: ClaimContext) -> tuple[Records, Records]:
    """Records of the grid and of the upgrade round."""
    figures = context.run(RECIPE, "default", 0).figures
    return list(figures["cells"]), list(figures["upgrades"])


def few_resilient(listed: list[dict[str, Any]]) -> bool:
    """Whether every family has a protection that works, and all that work but at most one are broken."""
    working = [p for p in listed if p["effective"]]
    broken = [p for p in working if p["broken"]]
    return {p["family"] for p in working} == set(protocol.FAMILIES) and len(broken) >= len(working) - 1


@headline(
    "of the protections that work, all but at most one lose more than half of their efficacy to one attack that spares "
    "the content, by intervals over seeds, nothing protected under the same attack taken off; every family has one "
    "that works"
)
def few_protections_are_resilient(context: ClaimContext) -> Evidence:
    found, _ = _audit(context)
    listed = protections(summary(found))
    working = [p for p in listed if p["effective"]]
    seeds = len({r["seed"] for r in found})
    idle = ", ".join(f"{p['protection']} ({p['efficacy']:.2f})" for p in listed if not p["effective"]) or "none"
    note = (
        f"{sum(p['broken'] for p in working)} of {len(working)} protections that work are broken; without effect from "
        f"the start: {idle}; attacks may destroy {DAMAGE:g} of the content; {seeds} seeds"
    )
    weak = "" if len(working) >= 3 else "fewer than three protections work on this test bed"
    return Evidence(few_resilient(listed), cell_rows(summary(found)), note, too_weak=weak)


@claim(
    "in a family with two protections that work or more, the best of them changes with the weighting of fidelity, "
    "efficacy and resilience, in 95 % of resamplings of the seeds"
)
def the_best_depends_on_the_weights(context: ClaimContext) -> Evidence:
    found, _ = _audit(context)
    rows = summary(found)
    sure = changes_with_weights(found, seed=context.seed)
    note = f"best: {best(protections(rows))}; it changes in {sure:.2f} of the resamplings; ranks are within families"
    return Evidence(sure >= SURE, rank_rows(rows), note)


def upgrade_rows(found: Records, again: Records) -> Records:
    """A row for each protection that was made again: resilience before and after, and the gain in efficacy under the
    attack with its interval over seeds."""
    seeds = sorted({r["seed"] for r in found})
    everything = [*found, *again]
    table: Records = []
    for protection, attack, family in dict.fromkeys((r["protection"], r["against"], r["family"]) for r in again):
        values = {
            f"{when} {name}": efficacies(everything, protection, under, against, family, seeds)
            for when, against in (("plain", ""), ("upgraded", attack))
            for name, under in (("before", "identity"), ("after", attack))
        }
        plain, better = (ratio(values[f"{w} after"], values[f"{w} before"]) for w in ("plain", "upgraded"))
        gain = over_seeds([b - a for a, b in zip(values["plain after"], values["upgraded after"], strict=True)])
        table.append(
            {
                "protection": protection, "made for": attack, "resilience": plain.value, "upgraded": better.value,
                "gain": gain.value, "gain low": gain.low, "gain high": gain.high,
                **{f"efficacy, {name}": sum(v) / len(v) for name, v in values.items()},
            }
        )  # fmt: skip
    return table


@claim("each protection that is made again for the attack that leaves least of it has more efficacy under that attack")
def upgrades_raise_resilience(context: ClaimContext) -> Evidence:
    table = upgrade_rows(*_audit(context))
    return Evidence(len(table) >= 2 and all(row["gain low"] > 0 for row in table), table)
