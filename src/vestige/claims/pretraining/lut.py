"""Claims of LUT: whole-picture targets for seen tokens give features that recognise more, from less."""

from __future__ import annotations

from vestige.bench.masked.table import Verdict, ahead, row, values
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.pretraining._runs import runs_of
from vestige.engines.runs import Need, Run

NEEDS = (Need("lut"), Need("mae"))


def against_both(arms: dict[str, list[Run]], keys: tuple[str, ...]) -> dict[str, Verdict]:
    """LUT against MAE on the same views and against plain MAE, by every figure."""
    ours = arms["lut"]
    return {
        f"{key} against {name}": ahead(values(ours, key), values(arms[name], key), values(ours, f"untrained {key}"))
        for name in ("no_context", "mae")
        for key in keys
    }


def _evidence(context: ClaimContext, keys: tuple[str, ...], shown: tuple[str, ...]) -> Evidence:
    arms = {name: runs_of(context, "lut", name) for name in ("lut", "no_context")}
    arms["mae"] = runs_of(context, "mae", "mae")
    rows = [row(name, found, *shown) for name, found in arms.items()]
    rows.append(row("random weights", arms["lut"], *shown, prefix="untrained "))
    found = against_both(arms, keys)
    note = "; ".join(f"{what} {verdict.gain}" for what, verdict in found.items())
    weak = next((verdict.weak for verdict in found.values() if verdict.weak), "")
    return Evidence(all(verdict.holds for verdict in found.values()), rows, note, weak)


@headline("k-NN and linear probe are above those of MAE on the same views and of plain MAE, at equal updates (3 seeds)")
def recognises_more(context: ClaimContext) -> Evidence:
    return _evidence(context, ("knn", "linear"), ("knn", "linear", "effective_rank", "attention_distance"))


@claim("from a quarter of the patches the class is told better than from MAE's features of them (3 seeds)")
def tells_the_whole_from_a_quarter(context: ClaimContext) -> Evidence:
    return _evidence(context, ("quarter",), ("quarter", "linear"))
