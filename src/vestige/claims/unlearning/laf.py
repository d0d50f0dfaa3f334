"""Claims of Label-Agnostic Forgetting: without any label it forgets a class and undoes wrong labels."""

from __future__ import annotations

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import BED_NEEDS, SEEDS, Rows, apart, bed_rows, figures, means, values
from vestige.engines.runs import Need

NEEDS = (*BED_NEEDS, Need("laf"))
REPAIR = "laf:repair=500"
PEERS = (
    "original", "retrain", "untrained", "laf", REPAIR, "grad_ascent", "random_labels:retain=0", "neggrad_plus",
    "bad_teacher", "boundary_shrink", "ssd", "random_labels",
)  # fmt: skip


def no_worse(rows: Rows, ours: str = "laf") -> tuple[bool, str]:
    """Whether ours comes nearer to retraining, over both problems, than erasers that are given labels and as little of
    the retained data, and than nothing done."""
    gap = {
        m: [
            (c + r) / 2
            for c, r in zip(*(values(rows, "gap", problem=k, method=m) for k in ("class", "random")), strict=True)
        ]
        for m in (ours, "grad_ascent", "random_labels:retain=0", "original")
    }
    differences = {m: apart(gap[ours], gap[m]) for m in ("grad_ascent", "random_labels:retain=0", "original")}
    return all(d.high < 0 for d in differences.values()), "mean gap over both problems, ours less " + ", less ".join(
        f"{m} {d}" for m, d in differences.items()
    )


@headline(
    "without any label it comes nearer to retraining than gradient ascent and than random labels without retained "
    "data, which are given labels, and than nothing done"
)
def no_worse_than_with_labels(context: ClaimContext) -> Evidence:
    rows = [r for r in bed_rows(context) if r["method"] in PEERS]
    holds, note = no_worse(rows)
    return Evidence(holds, means(rows), note)


@claim("wrong labels: without any label it raises test accuracy above the original's, over seeds")
def undoes_wrong_labels(context: ClaimContext) -> Evidence:
    rows = figures(context, "laf", "default")
    ta = {m: values(rows, "TA", method=m) for m in ("laf", "original", "retrain")}
    gain, room = apart(ta["laf"], ta["original"]), apart(ta["retrain"], ta["original"])
    shares = [(a - o) / (r - o) if r > o else float("nan") for a, o, r in zip(*ta.values(), strict=True)]
    note = f"gain {gain}, of {room} that retraining gains; shares by seed (card: .5) " + ", ".join(
        f"{s:.2f}" for s in shares
    )
    weak = "" if room.low > 0 else "retraining itself gains nothing here"
    return Evidence(gain.low > 0, means(rows, ("method",), ("wrong labels kept", "RA", "TA")), note, too_weak=weak)


@claim(
    "class forgetting: forget accuracy at most 10 %, test accuracy of the other classes within 10 points of retraining "
    "without labels and within 5 after repair with 500 labelled samples"
)
def forgets_a_class(context: ClaimContext) -> Evidence:
    rows = [r for r in bed_rows(context) if r["problem"] == "class" and r["method"] in PEERS]
    table = means(rows)
    at = {r["method"]: r for r in table}
    aim, plain, repaired = (at[m] for m in ("retrain", "laf", REPAIR))
    low = all(row["UA"] >= 0.9 for row in (plain, repaired))
    near = abs(plain["TA"] - aim["TA"]) <= 0.10 and abs(repaired["TA"] - aim["TA"]) <= 0.05
    probes = [context.run("laf", "default", seed).figures["probe"] for seed in SEEDS]
    note = (
        f"forget accuracy {1 - plain['UA']:.3f} and {1 - repaired['UA']:.3f} after repair; test {plain['TA']:.3f} and "
        f"{repaired['TA']:.3f}, retrained {aim['TA']:.3f}; a new head names "
        f"{sum(p['laf'] for p in probes) / len(probes):.2f} of the forgotten class (retrained features: "
        f"{sum(p['retrain'] for p in probes) / len(probes):.2f})"
    )
    return Evidence(low and near, table, note)
