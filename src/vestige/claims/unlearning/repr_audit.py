"""Claims of the representation audit: head edits and collapse are told from retraining, over three seeds of the bed."""

from __future__ import annotations

from operator import itemgetter

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import BED_NEEDS, SEEDS, Rows, apart, figures, means, values
from vestige.engines.runs import Need

NEEDS = (*BED_NEEDS, Need("repr_audit", ("default",)), Need("repr_audit", ("top",)))
CHEAT = "silenced head"
SHOWN = (
    "FA", "RA", "TFA", "TRA", "MIA", "cka_forget", "cka_retain", "cka_objects", "cka_styles", "cka_original",
    "knn_objects", "knn_styles", "recovery", "AGL", "AGR", "H-LR",
)  # fmt: skip


def exposes(rows: Rows, cheat: str = CHEAT) -> tuple[bool, str]:
    """Whether the logit metrics take the cheat for retraining while a new head on its features finds more of the
    forgotten class than on those of either retrained model."""
    agl = values(rows, "AGL", method=cheat)
    recovery = {m: values(rows, "recovery", method=m) for m in (cheat, "retrain", "retrain, 2nd seed")}
    first, second = (apart(recovery[cheat], recovery[m]) for m in ("retrain", "retrain, 2nd seed"))
    same = min(values(rows, "cka_original", method=cheat), default=0.0)
    accepted = bool(agl) and sum(agl) / len(agl) >= 0.9
    note = f"AGL {sum(agl) / max(len(agl), 1):.2f}, CKA to the original at least {same:.3f}; recovery above "
    note += f"retraining's {first} (card: .15), above its second seed's {second}"
    return accepted and same >= 0.99 and first.low > 0 and second.low > 0, note


@headline(
    "a head-only eraser (forget logits to -inf) passes the logit metrics (AGL >= 0.9) and is exposed: features as the "
    "original's (CKA >= 0.99), and a new head on them finds more of the forgotten class than on retrained ones"
)
def exposes_a_head_edit(context: ClaimContext) -> Evidence:
    rows = figures(context, "repr_audit", "default")
    holds, note = exposes(rows)
    agr = {m: values(rows, "AGR", method=m) for m in (CHEAT, "retrain, 2nd seed")}
    note += f"; AGR less a second retrained model's {apart(*agr.values())}"
    return Evidence(holds, means(rows, ("method",), SHOWN), note)


@claim("gradient ascent that collapses shows the other failure: downstream k-NN accuracy drops by >= 15 points")
def shows_a_collapse(context: ClaimContext) -> Evidence:
    rows = figures(context, "repr_audit", "default")
    name = "grad_ascent, collapsed"
    drops = {
        task: apart(*(values(rows, f"knn_{task}", method=m) for m in ("original", name)))
        for task in ("objects", "styles")
    }
    kept = ("original", "grad_ascent", name, "retrain", "untrained")
    table = means([r for r in rows if r["method"] in kept], ("method",), SHOWN)
    note = "; ".join(f"{n}: drop {d}" for n, d in drops.items())
    large = max(d.value for d in drops.values()) >= 0.15
    return Evidence(large and any(d.low > 0 for d in drops.values()), table, note)


@claim(
    "the Top protocol separates retrained from original on downstream k-NN more than the Random protocol does, over "
    "seeds"
)
def top_forgetting_separates(context: ClaimContext) -> Evidence:
    rows = figures(context, "repr_audit", "top")
    named = ("original", "original, 2nd seed", "retrained, Top", "retrained, Random")
    accuracy = {m: values(rows, "downstream k-NN", method=m) for m in named}
    top, random = (apart(accuracy["original"], accuracy[f"retrained, {which}"]) for which in ("Top", "Random"))
    more = apart(accuracy["retrained, Random"], accuracy["retrained, Top"])
    noise = [abs(a - b) for a, b in zip(accuracy["original"], accuracy["original, 2nd seed"], strict=True)]
    shared = [context.run("repr_audit", "top", seed).figures["shared"] for seed in SEEDS]
    declared = "; ".join(f"Top {s['retrained, Top']}, Random {s['retrained, Random']}" for s in shared)
    note = f"separation Top {top}, Random {random}, difference {more} (card: Top at least twice Random); two originals "
    note += f"differ by up to {max(noise):.3f}; downstream classes among the forgotten, by seed: {declared}"
    return Evidence(more.low > 0 and top.low > 0, rows, note)


@claim("the ordering of erasers by H-LR differs from the ordering by AGL")
def orderings_differ(context: ClaimContext) -> Evidence:
    from scipy.stats import kendalltau

    rows = figures(context, "repr_audit", "default")
    table = [
        r for r in means(rows, ("method",), SHOWN)
        if not str(r["method"]).startswith(("retrain", "original", "untrained")) and "AGL" in r
    ]  # fmt: skip
    orders = [[str(r["method"]) for r in sorted(table, key=itemgetter(key), reverse=True)] for key in ("AGL", "H-LR")]
    tau = float(kendalltau([r["AGL"] for r in table], [r["H-LR"] for r in table]).statistic)
    # The same ordering from one seed to the next is what differences of orderings are held against.
    again = []
    for key in ("AGL", "H-LR"):
        per = [{r["method"]: r[key] for r in rows if r["seed"] == s and key in r} for s in SEEDS[:2]]
        both = [r["method"] for r in table if all(r["method"] in p for p in per)]
        again.append(float(kendalltau([per[0][m] for m in both], [per[1][m] for m in both]).statistic))
    note = f"Kendall tau {tau:.2f}, between two seeds by AGL {again[0]:.2f} and by H-LR {again[1]:.2f}; first by AGL: "
    note += f"{', '.join(orders[0][:3])}; by H-LR: {', '.join(orders[1][:3])}"
    weak = "" if min(again) > tau else "one ordering changes as much from seed to seed"
    return Evidence(orders[0] != orders[1] and tau == tau, table, note, too_weak=weak)
