"""Claims of worst-case forget sets on the bed: chosen better than by plain rules, and harder than retraining explains.

A network retrained without a worst-case set names it anyway, because the rest teaches it. Claims about methods
therefore take each method's gap to the network retrained without the same set; retraining alone has none.
"""

from __future__ import annotations

from vestige.bench.controls import Interval
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import BED_NEEDS, SEEDS, Rows, apart, figures, means, values
from vestige.engines.runs import Need

NEEDS = (*BED_NEEDS, Need("worst_case"))
FAMILIES = {"relabelling-free": ("finetune", "cfk", "euk", "l1_sparse"), "relabelling": ("random_labels", "salun")}
PLAIN = ("random", "moderate", "lowest loss")


def chosen_well(rows: Rows, ours: str = "worst") -> tuple[bool, str]:
    """Whether a network retrained without the set errs less on it than on every plain choice of that size."""
    ua = {s: values(rows, "UA", problem=s, method="retrain") for s in (ours, *PLAIN)}
    differences = {s: apart(ua[ours], ua[s]) for s in PLAIN}
    ratio = sum(ua[ours]) / max(sum(ua["random"]), 1e-9)
    note = "UA of retraining, worst less " + ", less ".join(f"{s} {d}" for s, d in differences.items())
    return all(d.high < 0 for d in differences.values()), f"{note}; {ratio:.2f} of the random set's (card: at most .2)"


@headline(
    "at equal size the chosen set is known to the rest better than a random, a moderate and the lowest-loss one: "
    "retraining without it errs least on it"
)
def selection_beats_heuristics(context: ClaimContext) -> Evidence:
    rows = figures(context, "worst_case", "default")
    holds, note = chosen_well(rows)
    about = [context.run("worst_case", "default", seed).figures["about"] for seed in SEEDS]
    note += "; " + ", ".join(f"{name} {sum(a[name] for a in about) / len(about):.2f}" for name in about[0])
    ta = apart(*(values(rows, "TA", problem=s, method="retrain") for s in ("worst", "random")))
    table = means([r for r in rows if r["method"] in ("retrain", "original")])
    return Evidence(holds, table, f"{note}; TA of retraining, worst less random {ta} (card: at least -.01)")


def beyond_retraining(rows: Rows, methods: tuple[str, ...], first: str = "worst", second: str = "random") -> Interval:
    """How much more of the first set than of the second the methods still name, over what retraining names of each:
    mean over methods, over seeds. 0 for retraining itself."""

    def left(name: str) -> list[float]:
        aim = values(rows, "UA", problem=name, method="retrain")
        each = [values(rows, "UA", problem=name, method=m) for m in methods]
        return [sum(a - u[i] for u in each) / len(each) for i, a in enumerate(aim)]

    return apart(left(first), left(second))


@claim(
    "methods that show no wrong label leave more of the worst-case set than of a random one, beyond what retraining "
    "without each set knows"
)
def harder_beyond_retraining(context: ClaimContext) -> Evidence:
    rows = figures(context, "worst_case", "default")
    found = beyond_retraining(rows, FAMILIES["relabelling-free"])
    plain = beyond_retraining(rows, FAMILIES["relabelling-free"], "lowest loss")
    note = f"still named above retraining, worst less random {found}; lowest loss less random {plain}"
    return Evidence(found.low > 0, means(rows), note)


def widens(rows: Rows) -> Interval:
    """The gap of relabelling methods less that of the others, on the worst-case set less on a random one."""

    def difference(name: str) -> list[float]:
        each = {f: [values(rows, "gap", problem=name, method=m) for m in members] for f, members in FAMILIES.items()}
        mean = {f: [sum(v) / len(v) for v in zip(*found, strict=True)] for f, found in each.items()}
        return [a - b for a, b in zip(mean["relabelling"], mean["relabelling-free"], strict=True)]

    return apart(difference("worst"), difference("random"))


@claim(
    "the worst-case set separates the two families: the gap of relabelling methods less that of the others is larger "
    "on it than on a random set"
)
def families_part(context: ClaimContext) -> Evidence:
    rows = figures(context, "worst_case", "default")
    found = widens(rows)
    return Evidence(found.low > 0, means(rows), f"difference of the families' gaps, worst less random {found}")
