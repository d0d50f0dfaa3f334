"""The claims about small vision-language models and emptied pictures, so tiny that they prove nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from vestige.bench.unlearning.protocol import vqa_world as vqa
from vestige.claims import ClaimContext, claims_of
from vestige.claims.unlearning import fiubench, forgetme, unlok_vqa
from vestige.core.catalogue import system


@pytest.fixture(autouse=True)
def small(monkeypatch):
    short = replace(vqa.TEACHING, epochs=1)
    world = vqa.world
    monkeypatch.setattr(vqa, "VIEWS", 4)

    def tiny(known=6, unseen=2, **options):
        return world(known, unseen, **{**options, "scenes": 12, "held": 6})

    monkeypatch.setattr(vqa, "world", tiny)
    monkeypatch.setattr(vqa, "base_model", partial(vqa.base_model, tuning=short, width=32))
    monkeypatch.setattr(vqa.teach, "__defaults__", (short,))
    for module in (fiubench, unlok_vqa, forgetme):
        for value in vars(module).values():
            getattr(value, "cache_clear", lambda: None)()


def test_fiubench_has_a_row_for_every_model(monkeypatch):
    monkeypatch.setattr(fiubench, "SEEDS", 1)
    monkeypatch.setattr(fiubench, "FORGOTTEN", 1)
    monkeypatch.setattr(fiubench, "RATES", (1e-3, 3e-3))
    results = [c.run(ClaimContext(None)) for c in claims_of(system("fiubench"))]
    assert len(results) == 3
    named = {r["model"] for r in results[0].table}
    assert {"original", "reference", "ga", "gd", "kl", "po", "image-blind", "ga@0.001"} <= named
    row = results[0].table[0]
    assert {"EM", "APE", "Min-K", "Min-K++", "log10 p", "KS", "utility", "generic", "EM swapped"} <= set(row)


def test_unlok_vqa_has_a_row_for_every_defence_and_a_column_for_every_attack(monkeypatch):
    monkeypatch.setattr(unlok_vqa, "THINGS", 6)
    monkeypatch.setattr(unlok_vqa, "EVALUATED", 2)
    monkeypatch.setattr(unlok_vqa, "CALIBRATION", 1)
    monkeypatch.setattr(unlok_vqa, "BOUNDS", (0.5,))
    monkeypatch.setattr(unlok_vqa, "TUNING", replace(vqa.TEACHING, epochs=30, batch_size=8))
    monkeypatch.setattr(unlok_vqa, "VIEWED", (2, 3))
    results = [c.run(ClaimContext(None)) for c in claims_of(system("unlok_vqa"))]
    assert [r["defence"] for r in results[0].table] == ["none", *unlok_vqa.DEFENCES]
    assert {*unlok_vqa.ATTACKS, "random", "output", "specificity"} <= set(results[0].table[0])


def test_forgetme_scores_removals_and_series():
    removal, series = (c.run(ClaimContext(None, limit=3)) for c in claims_of(system("forgetme"))[:2])
    assert {r["removal"] for r in removal.table} >= {"mean colour", "telea", "navier-stokes", "diffusion"}
    assert {r["variant"] for r in series.table} == {"corrected", "released"}
    means = {r["edit"]: r["D"] for r in series.table if r["variant"] == "corrected"}
    assert means["removed 0"] < means["removed 0.5"]


def test_lora_teaches_absence_on_a_few_pictures(monkeypatch):
    monkeypatch.setattr(forgetme, "CHECKPOINTS", (0, 1))
    monkeypatch.setattr(forgetme, "PER_CLASS", 2)
    monkeypatch.setattr(forgetme, "LESSONS", 4)
    rows = forgetme.lora_rows(0)
    assert [r["updates"] for r in rows] == [0, 1]
    assert rows[0]["corrected D"] != rows[1]["corrected D"]
