"""Claims of FIUBench on a small vision-language model; the runs are those of the recipe ``fiubench``.

Drawn characters with eight invented facts each, eight of them (64 facts) to be forgotten, twelve more (96 facts) that
nobody was told of; over three seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.controls import over_seeds, too_weak
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.engines.runs import Need

SEEDS = (0, 1, 2)
NEEDS = (Need("fiubench", ("default",), SEEDS), Need("fiubench", ("blind",)), Need("fiubench", ("photographs",)))
#: Measures by which an attacker tells forgotten facts from facts nobody was told.
HIDDEN = ("Min-K", "APE")
Rows = Sequence[Mapping[str, Any]]


def _runs(context: ClaimContext) -> list[list[dict[str, Any]]]:
    return [context.run("fiubench", "default", seed).figures["rows"] for seed in SEEDS]


def means(runs: Sequence[Rows]) -> list[dict[str, Any]]:
    """One row a model: means over the runs."""
    table = []
    for name in dict.fromkeys(r["model"] for rows in runs for r in rows):
        each = [r for rows in runs for r in rows if r["model"] == name]
        keys = [k for k in each[0] if k != "model"]
        table.append({"model": name, **{k: float(np.mean([r[k] for r in each])) for k in keys}, "seeds": len(each)})
    return table


def figure(runs: Sequence[Rows], model: str, name: str) -> list[float]:
    """A model's figure in every run."""
    return [float(next(r for r in rows if r["model"] == model)[name]) for rows in runs]


def refusals_hide(runs: Sequence[Rows]) -> Evidence:
    """PO's answers are gone as GA's are, at less utility, and yet more of the facts is found than in the reference."""
    table = means(runs)
    of = {r["model"]: r for r in table}
    saved = over_seeds(figure(runs, "po", "utility"), figure(runs, "ga", "utility"))
    over = {k: over_seeds(figure(runs, "po", k), figure(runs, "reference", k)) for k in HIDDEN}
    # What the attack says of facts that are as unknown as any: the reference was told neither.
    null = max(abs(v - 0.5) for v in figure(runs, "reference", "Min-K"))
    gone = of["po"]["EM"] < 0.5 * of["original"]["EM"]
    left = any(over[k].low > 0 for k in HIDDEN)
    weak = ""
    if not over["APE"].low > 0:
        weak = too_weak(over["Min-K"].value, null, "facts that nobody was told")
    note = f"utility saved over GA {saved}; above the reference: " + ", ".join(f"{k} {v}" for k, v in over.items())
    note += f"; Min-K of the reference is off 0.5 by up to {null:.3f}; EM left by PO {of['po']['EM']:.2f}"
    return Evidence(gone and left and saved.low > 0, table, note, too_weak=weak)


def tied_to_pictures(runs: Sequence[Rows], blind: Rows, photographs: Rows, chance: float) -> Evidence:
    """The original knows the facts from unseen views and only with the right picture; the reference does not."""
    table = means(runs) + [{"model": f"blind, {r['model']}", **{k: v for k, v in r.items() if k != "model"}}
                           for r in blind]  # fmt: skip
    table += [{"model": f"photographs, {r['model']}", **{k: v for k, v in r.items() if k != "model"}}
              for r in photographs]  # fmt: skip
    known = over_seeds(figure(runs, "original", "EM"), figure(runs, "reference", "EM"))
    swapped = over_seeds(figure(runs, "original", "EM"), figure(runs, "original", "EM swapped"))
    least, most = min(figure(runs, "original", "EM")), max(figure(runs, "reference", "EM"))
    unseeing = max(float(r["EM"]) for r in blind)
    holds = min(known.low, swapped.low) > 0 and least >= 0.9 and max(most, unseeing) <= chance + 0.05
    note = f"over the reference {known}, over another person's picture {swapped}; blind {unseeing:.3f}; "
    return Evidence(holds, table, note + f"chance {chance:.3f}; least of the original {least:.2f}")


def rewording_extracts(runs: Sequence[Rows], objectives: Sequence[str] = ("ga", "gd", "kl", "po")) -> Evidence:
    """Other wordings bring out more of what PO forgot than the wording it was shown, and never fewer for anybody."""
    more = {m: over_seeds(figure(runs, m, "APE"), figure(runs, m, "EM")) for m in objectives}
    note = "APE - EM: " + ", ".join(f"{m} {v}" for m, v in more.items())
    # APE is the worst over wordings that the eraser did not see; EM is of the one it saw.
    return Evidence(more["po"].low > 0 and min(v.value for v in more.values()) >= 0, means(runs), note)


@headline(
    "refusals hide facts and do not remove them: PO costs less utility than gradient ascent, and yet Min-K or "
    "rewording finds more of the forgotten facts than in a model that was never told them, over seeds"
)
def hides(context: ClaimContext) -> Evidence:
    return refusals_hide(_runs(context))


@claim("the model taught about everybody answers at least 90 % of the facts to forget from unseen views, more than the "
       "reference and more than with another person's picture; reference and a model without pictures reach no more "
       "than chance + 5 points")  # fmt: skip
def facts_are_tied_to_pictures(context: ClaimContext) -> Evidence:
    run = context.run("fiubench", "default", SEEDS[0])
    blind, photographs = (context.run("fiubench", v).figures["rows"] for v in ("blind", "photographs"))
    return tied_to_pictures(_runs(context), blind, photographs, float(run.figures["chance"]))


@claim("asking again in other words brings out more of what PO forgot than the wording it was tuned on, over seeds, "
       "and no fewer for any eraser on average")  # fmt: skip
def rewording(context: ClaimContext) -> Evidence:
    return rewording_extracts(_runs(context))
