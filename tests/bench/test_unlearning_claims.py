"""The claims of the unlearning systems run from end to end on drawn scenes; what they find there means nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.test_bench_unlearning import TINY
from vestige.claims import ClaimContext, claims_of
from vestige.claims.unlearning import cells, laf, sparse_unlearn, ssd
from vestige.bench.unlearning.parameters import PARAMETERS
from vestige.core.catalogue import system

#: One pass where the benchmark makes several.
SHORT = {
    "laf": {"loops": 1, "vae_epochs": 1},
    "ssd": {"alpha": 1.5},
    "influence": {"samples": 10},
    "fisher_forget": {"samples": 20},
    "sparse_unlearn": {"recover_epochs": 1},
    **{slug: {"epochs": 1} for slug in ("finetune", "grad_ascent", "neggrad_plus", "bad_teacher", "l1_sparse")},
    "random_labels": {"epochs": 1},
}


@pytest.fixture(autouse=True)
def small(tmp_path_factory, monkeypatch):
    root = tmp_path_factory.getbasetemp() / "unlearning claims"  # one folder of networks for all tests
    settings = replace(TINY, images=60, val=20, test=40, epochs=1)
    for module in (cells, laf):
        monkeypatch.setattr(module, "settings_of", lambda context: settings)
        monkeypatch.setattr(module, "FOLDER", root)
    monkeypatch.setattr(cells, "results_root", lambda: root)
    for module in (laf, sparse_unlearn, ssd):
        monkeypatch.setattr(module, "SEEDS", 1)
        if hasattr(module, "PEERS"):
            monkeypatch.setattr(module, "PEERS", "ssd,finetune,grad_ascent,laf,laf:repair=500,random_labels:retain=0")
    monkeypatch.setattr(cells.cells, "__defaults__", (1,))
    monkeypatch.setattr(ssd, "CURVE", (1.5, 1e6))
    for slug, chosen in SHORT.items():
        monkeypatch.setitem(PARAMETERS, slug, {"class": chosen, "random": chosen})


@pytest.mark.parametrize("slug", ["ssd", "laf", "sparse_unlearn"])
def test_claims_run_and_print_their_baselines(slug):
    claims = claims_of(system(slug))
    assert len(claims) == 3
    for claim in claims:
        result = claim.run(ClaimContext(None))
        assert result.table
        assert result.note
        assert {"original", "retrain", "ssd", "finetune"} & {row["method"] for row in result.table}
