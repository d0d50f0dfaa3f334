"""Each headline of the unlearning wing holds on figures with the effect, and fails when its method is its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from vestige.claims.unlearning import (
    acu,
    corrective,
    laf,
    regression_unlearn,
    repr_audit,
    sae_restore,
    sparse_unlearn,
    ssd,
    worst_case,
)

Rows = list[dict[str, Any]]


def rows(figures: Mapping[str, Mapping[str, float]], **about: Any) -> Rows:
    """One row a method and seed, each seed's figures a little apart."""
    return [
        {**about, "method": method, "seed": seed, **{name: value + 0.002 * seed for name, value in found.items()}}
        for method, found in figures.items()
        for seed in (0, 1, 2)
    ]


def swapped(given: Rows, ours: str, theirs: str, key: str = "method") -> Rows:
    """Our figures replaced by those of the other, row for row."""
    other = {(r["seed"], r.get("problem"), r.get("network")): r for r in given if r[key] == theirs}
    made = []
    for row in given:
        place = (row["seed"], row.get("problem"), row.get("network"))
        made.append({**other[place], key: ours} if row[key] == ours and place in other else row)
    return made


def test_ssd():
    gaps = {"ssd": 0.03, "finetune": 0.08, "original": 0.47, "retrain": 0.0}
    table = rows({m: {"gap": g, "passes of retraining": 0.01} for m, g in gaps.items()}, problem="class")
    assert ssd.nearer(table)[0]
    assert not ssd.nearer(swapped(table, "ssd", "finetune"))[0]
    assert not ssd.nearer(swapped(table, "ssd", "original"))[0]
    assert not ssd.nearer([{**r, "passes of retraining": 0.2} for r in table])[0]
    assert not ssd.nearer([r for r in table if r["seed"] != 2 or r["method"] != "ssd"])[0]  # a run that failed


def test_sparse_unlearn():
    gaps = {sparse_unlearn.SPARSE: 0.03, sparse_unlearn.DENSE: 0.2, sparse_unlearn.LONGER: 0.15}
    table = [r for n, g in gaps.items() for r in rows({"finetune 0.01": {"gap": g}}, problem="class", network=n)]
    assert sparse_unlearn.narrows(table)[0]
    for control in (sparse_unlearn.DENSE, sparse_unlearn.LONGER):
        planted = [r for r in table if r["network"] != sparse_unlearn.SPARSE]
        planted += [{**r, "network": sparse_unlearn.SPARSE} for r in table if r["network"] == control]
        assert not sparse_unlearn.narrows(planted)[0]


def test_laf():
    gaps = {"laf": 0.15, "grad_ascent": 0.25, "random_labels:retain=0": 0.4, "original": 0.36}
    table = [r for k in ("class", "random") for r in rows({m: {"gap": g} for m, g in gaps.items()}, problem=k)]
    assert laf.no_worse(table)[0]
    for control in ("grad_ascent", "original"):
        assert not laf.no_worse(swapped(table, "laf", control))[0]


def test_corrective():
    right = {"SSD": 0.5, "EU (retrain)": 0.05, corrective.CONTROL: 0.06, "no unlearning": 0.04}
    figures = {m: {"Acc_corr": a, "Acc_retain": 0.6, "trigger success": 0.97} for m, a in right.items()}
    table = rows(figures, known=0.1)
    assert corrective.cleans(table)[0]
    assert not corrective.cleans(table)[2]
    for control in ("EU (retrain)", corrective.CONTROL, "no unlearning"):
        assert not corrective.cleans(swapped(table, "SSD", control))[0]
    assert corrective.cleans([{**r, "trigger success": 0.5} for r in table])[2]


def test_worst_case():
    errs = {"worst": 0.05, "random": 0.4, "moderate": 0.45, "lowest loss": 0.09}
    table = [r for s, u in errs.items() for r in rows({"retrain": {"UA": u}}, problem=s)]
    assert worst_case.chosen_well(table)[0]
    for control in ("lowest loss", "random"):
        planted = [r for r in table if r["problem"] != "worst"]
        planted += [{**r, "problem": "worst"} for r in table if r["problem"] == control]
        assert not worst_case.chosen_well(planted)[0]


def test_retraining_alone_satisfies_no_claim_about_worst_case_methods():
    errs = {"worst": 0.05, "random": 0.4}
    members = [m for family in worst_case.FAMILIES.values() for m in family]
    table = [
        r for s, u in errs.items() for r in rows({m: {"UA": u, "gap": 0.0} for m in ("retrain", *members)}, problem=s)
    ]
    assert not worst_case.beyond_retraining(table, worst_case.FAMILIES["relabelling-free"]).low > 0
    flat = [{**r, "gap": 0.0} for r in table]
    assert not worst_case.widens(flat).low > 0


def test_acu():
    kept = {"ACU": 0.6, "joint solution": 0.6, "FT": 0.5, "GA": 0.4, "RL": 0.45, "SSD": 0.42}
    table = rows({m: {"retained accuracy": a} for m, a in kept.items()})
    assert acu.keeps_more(table)[0]
    assert not acu.keeps_more(swapped(table, "ACU", "FT"))[0]


def test_regression_unlearn():
    w1 = {"Blindspot": 0.3, "FT": 0.7, "Gaussian": 0.4, "original": 0.6}
    ain = {"Blindspot": 0.8, "FT": 0.1, "original": 0.0}
    table = rows({m: {"W1": w, "AIN": ain.get(m, 0.5), "relearn": 5.0} for m, w in w1.items()})
    table += rows({"retrain": {"relearn of retrain": 200.0}})
    assert regression_unlearn.nearest(table)[0]
    assert regression_unlearn.relearns(table)[0]
    assert not regression_unlearn.relearns(table)[2]
    for control in ("FT", "Gaussian"):
        assert not regression_unlearn.nearest(swapped(table, "Blindspot", control))[0]
    assert not regression_unlearn.relearns(swapped(table, "Blindspot", "FT"))[0]
    capped = [{**r, "relearn": 200.0} for r in table]
    assert regression_unlearn.relearns(capped)[2]  # all arms take as long: the bed cannot tell


def test_repr_audit():
    figures = {
        repr_audit.CHEAT: {"AGL": 0.94, "recovery": 0.95, "cka_original": 0.995, "AGR": 0.03},
        "retrain": {"AGL": 1.0, "recovery": 0.75, "cka_original": 0.3, "AGR": 1.0},
        "retrain, 2nd seed": {"AGL": 0.95, "recovery": 0.76, "cka_original": 0.3, "AGR": 0.08},
    }
    table = rows(figures)
    assert repr_audit.exposes(table)[0]
    assert not repr_audit.exposes(swapped(table, repr_audit.CHEAT, "retrain, 2nd seed"))[0]


def test_sae_restore():
    found = {m: {"before": 0.0, "inject_experts": 0.3, "inject_experts, random": 0.02, "read": 0.9}
             for m in sae_restore.FROM_ORIGINAL}  # fmt: skip
    retrain = {"before": 0.0, "inject_experts": 0.01, "inject_experts, random": 0.0, "read": 0.6}
    table = rows({**found, "retrain": retrain})
    assert sae_restore.suppressed(table)[0]
    gone = rows({**dict.fromkeys(found, retrain), "retrain": retrain})
    assert not sae_restore.suppressed(gone)[0]
    # What another network's layers read is no restoration.
    only_read = rows({**{m: {**retrain, "read": 1.0} for m in found}, "retrain": retrain})
    assert not sae_restore.suppressed(only_read)[0]
    random = [{**r, "inject_experts, random": r["inject_experts"]} for r in table]
    assert not sae_restore.suppressed(random)[0]


@pytest.mark.parametrize(
    "module", [acu, corrective, laf, regression_unlearn, repr_audit, sae_restore, sparse_unlearn, ssd, worst_case]
)
def test_each_system_has_one_headline_and_at_most_four_claims(module):
    from vestige.claims import Claim

    found = [value for value in vars(module).values() if isinstance(value, Claim)]
    assert len(found) <= 4
    assert [claim.headline for claim in found].count(True) == 1
