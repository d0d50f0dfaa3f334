"""Claims of sparsity-aware unlearning: a pruned network forgets more, and l1 prunes and forgets in one go."""

from __future__ import annotations

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import BED_NEEDS, Rows, apart, bed_rows, figures, means, values
from vestige.engines.runs import Need

NEEDS = (*BED_NEEDS, Need("sparse_unlearn"))
SPARSE, DENSE, LONGER = "95% sparse", "dense", "dense, as long"
BY = ("problem", "network", "method", "density", "least_density")
SHOWN = ("UA", "RA", "TA", "MIA", "gap")


def narrows(rows: Rows, ours: str = SPARSE) -> tuple[bool, str]:
    """Whether fine-tuning comes nearer to its retrained model on the pruned network than on either dense one."""
    gap = {n: values(rows, "gap", problem="class", network=n, method="finetune 0.01") for n in (ours, DENSE, LONGER)}
    differences = {n: apart(gap[ours], gap[n]) for n in (DENSE, LONGER)}
    note = "gap of fine-tuning, sparse less " + ", less ".join(f"{n} {d}" for n, d in differences.items())
    return all(d.high < 0 for d in differences.values()), note


@headline(
    "class forgetting: fine-tuning comes nearer to retraining at 95 % sparsity than on the dense network, and than on "
    "a dense one trained on for as long"
)
def sparse_forgets_more(context: ClaimContext) -> Evidence:
    rows = figures(context, "sparse_unlearn", "default")
    holds, note = narrows(rows)
    at = {
        (n, m): values(rows, m, problem="class", network=n, method="finetune 0.01")
        for n in (SPARSE, DENSE)
        for m in ("UA", "TA")
    }
    gain, loss = apart(at[SPARSE, "UA"], at[DENSE, "UA"]), apart(at[DENSE, "TA"], at[SPARSE, "TA"])
    note += f"; UA gains {gain} (card: .25), TA loses {loss} (card: at most .02)"
    return Evidence(holds, means([r for r in rows if r["problem"] == "class"], BY, SHOWN), note)


@claim("l1-sparse comes nearer to retraining on a class than fine-tuning without the penalty, over seeds")
def l1_forgets_a_class(context: ClaimContext) -> Evidence:
    peers = ("finetune", "grad_ascent", "fisher_forget", "influence", "sparse_unlearn")
    named = ("original", "retrain", "l1_sparse", *peers)
    rows = [r for r in bed_rows(context) if r["problem"] == "class" and r["method"] in named]
    gap = apart(*(values(rows, "gap", problem="class", method=m) for m in ("l1_sparse", "finetune")))
    table = means(rows)
    at = {r["method"]: r for r in table}
    note = f"gap less fine-tuning's {gap}; " + ", ".join(
        f"{m} {100 * at['l1_sparse'][m]:.1f} (retrain {100 * at['retrain'][m]:.1f})" for m in ("UA", "RA", "TA")
    )
    return Evidence(gap.high < 0, table, f"{note}, {100 * at['l1_sparse']['of retraining']:.0f} % of the time")


@claim("random forgetting: the average gap to retraining is smaller sparse than dense for at least 3 of 4 erasers")
def sparse_is_nearer(context: ClaimContext) -> Evidence:
    rows = [r for r in figures(context, "sparse_unlearn", "default") if r["problem"] == "random"]
    wins = {}
    for name in ("finetune", "grad_ascent", "fisher_forget", "influence"):
        wins[name] = apart(*(values(rows, "gap", problem="random", network=n, method=name) for n in (SPARSE, DENSE)))
    note = "gap sparse less dense, each to its own retrained model: " + ", ".join(f"{n} {d}" for n, d in wins.items())
    return Evidence(sum(d.high < 0 for d in wins.values()) >= 3, means(rows, BY, SHOWN), note)
