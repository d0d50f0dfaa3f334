"""The comparison of the masked models: runs are kept and resume, steps are fair, claims follow the figures."""

from __future__ import annotations

import io
import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vestige.bench.masked import runs as masked_runs, measure as masked_runs_measure, table as masked_runs_table
from vestige.claims import ClaimContext, claims_of
from vestige.claims.pretraining import color_mae, dmjd, droppos, lut, mae, mp3
from vestige.bench.masked.runs import Protocol, Run, Study, calibration, calibration_file, ensure, fresh, study_of
from vestige.bench.masked.measure import PROTOCOL, measure
from vestige.bench.masked.systems import METHODS, OPTIMISATION, VARIANTS, build_method
from vestige.bench.masked.table import Comparison, Figure, difference, figure, markdown_table
from vestige.core.catalogue import system
from vestige.core.errors import InputError, Interrupted, UsageError, VestigeError
from vestige.core.files import read_json, write_json

TINY = Protocol(
    seconds=1.0, seeds=2, probe_train=60, probe_test=40, labels=32, rounds=1,
    sizes={"width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    optimisation={**OPTIMISATION, "batch_size": 16},
)  # fmt: skip
SECONDS = {
    "mae": 0.1, "color_mae": 0.102, "droppos": 0.125, "mp3": 0.2, "lut": 0.3, "dmjd": 0.25, "dmjd/one_view": 0.12,
    "fine_tune": 0.2,
}  # fmt: skip


def write_pack(path, count: int, seed: int) -> None:
    """Pictures that are lighter at the top, with a colour for each label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        label = i % 10
        shade = np.linspace(220, 30, 32)[:, None, None] * np.ones((1, 32, 1))
        pixels = shade + 25 * np.array([label % 3 - 1, label // 4 - 1, label % 2]) + rng.normal(0, 6, (32, 32, 3))
        data = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(data, "PNG")
        rows.append({"image": {"bytes": data.getvalue(), "path": f"{seed}-{i}.png"}, "label": label})
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs") / "cifar10"
    folder.mkdir()
    write_pack(folder / "train.parquet", 110, 0)
    write_pack(folder / "test.parquet", 40, 1)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PROTOCOL, "scenes", [12, 6])
    monkeypatch.setitem(PROTOCOL, "tokens", 8)
    masked_runs_measure._scenes.cache_clear()
    yield
    masked_runs_measure._scenes.cache_clear()


@pytest.fixture
def study(data, tmp_path) -> Study:
    return Study(TINY, data, tmp_path / "records", tmp_path / "work")


def calibrated(study: Study) -> Study:
    tokens = {"dmjd": 800, "dmjd/one_view": 400, "mp3": 1040}
    methods = {
        name: {"seconds": s, "tokens": tokens.get(name, 272), "tokens_without_gradient": 1040 * (name == "lut")}
        for name, s in SECONDS.items()
    }
    write_json(calibration_file(study), {"methods": methods})
    return study


# runs


def forbidden(*args, **kwargs):
    raise AssertionError("this was to come from what is there")


def test_a_run_is_made_once_and_named_by_what_decides_it(study, monkeypatch):
    run = Run("mae", 0, 3)
    (first,) = ensure(study, [run])
    assert first["images"] == 48
    assert first["processor_seconds"] > 0
    assert 0.5 < first["final_loss"] < 3
    assert {"linear", "knn", "effective_rank", "attention_distance", "scenes_miou", "linear_shuffled"} <= first.keys()
    assert first["settings"]["probe_train"] == 60
    assert not list(study.work.rglob("checkpoint.pt"))
    monkeypatch.setattr(masked_runs, "make", forbidden)
    assert ensure(study, [run, run]) == [first, first]
    others = [Run("mae", 1, 3), Run("mae", 0, 4), Run("mae", 0, 3, epochs=1), Run("droppos", 0, 3)]
    assert len({study.record(r) for r in (run, *others)}) == 5
    for protocol in (
        replace(TINY, probe_test=30),
        replace(TINY, limit=50),
        replace(TINY, sizes={**TINY.sizes, "depth": 2}),
    ):
        assert replace(study, protocol=protocol).record(run) != study.record(run)
    assert replace(study, protocol=replace(TINY, seconds=7.0, seeds=9)).record(run) == study.record(run)


def test_a_record_is_measured_anew_from_kept_weights(study, monkeypatch):
    run = Run("mae", 0, 2)
    (first,) = ensure(study, [run])
    study.record(run).unlink()
    monkeypatch.setattr(masked_runs, "Trainer", forbidden)
    (again,) = ensure(study, [run])
    assert {k: v for k, v in again.items() if k != "measuring_seconds"} == {
        k: v for k, v in first.items() if k != "measuring_seconds"
    }


def test_an_interrupted_run_goes_on_and_ends_the_same(study, tmp_path, monkeypatch):
    run, updates = Run("droppos", 0, 5), []
    stop = masked_runs.ProcessorClock.stop

    def stopping(clock):
        stop(clock)
        updates.append(1)
        if len(updates) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(masked_runs.ProcessorClock, "stop", stopping)
    with pytest.raises(Interrupted):
        ensure(study, [run])
    assert len(updates) == 2
    assert not study.record(run).exists()
    resumed, _ = masked_runs.train(study, run)
    assert len(updates) == 5
    whole, taken = masked_runs.train(replace(study, work=tmp_path / "other"), run)
    assert len(updates) == 10
    assert taken["images"] == 80
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_fine_tuning_starts_from_the_run_and_scratch_from_nothing(study):
    base, tuned, scratch = ensure(study, [Run("mp3", 0, 2), Run("mp3", 0, 2, epochs=1), Run("mp3", 0, 0, epochs=1)])
    assert "linear" in base
    assert "positions" in base
    for record in (tuned, scratch):
        assert 0 <= record["tuned"] <= 1
        assert "linear" not in record
    assert scratch["final_loss"] is None


def test_errors_of_a_worker_can_travel(study, monkeypatch):
    import pickle

    from vestige.engines.train import NonFiniteLossError

    def diverging(study, run):
        raise NonFiniteLossError(float("nan"), 3, 0.1, study.work)

    monkeypatch.setattr(masked_runs, "make", diverging)
    with pytest.raises(VestigeError, match=r"mae, seed 0: .*step 3") as caught:
        masked_runs._make_elsewhere(study, Run("mae", 0, 3))
    assert "step 3" in str(pickle.loads(pickle.dumps(caught.value)))


def test_step_times_are_measured_once_with_the_tokens_they_buy(study, monkeypatch):
    cost = calibration(study)
    per_image = {
        name: (c["tokens"] / 16, c["tokens_without_gradient"] / 16) for name, c in cost.items() if "tokens" in c
    }
    assert per_image == {
        "mae": (17, 0), "color_mae": (17, 0), "droppos": (17, 65), "mp3": (65, 0), "lut": (34, 130), "dmjd": (50, 0),
        "dmjd/one_view": (25, 0),
    }  # fmt: skip
    assert all(c["seconds"] > 0 for c in cost.values())
    assert "fine_tune" in cost
    monkeypatch.setattr(masked_runs, "Stepper", forbidden)
    assert calibration(study) == cost


@pytest.mark.parametrize("name", VARIANTS)
def test_every_baseline_learns_something(name, study):
    stepper = masked_runs.Stepper(study, name)
    before = [p.clone() for p in stepper.model.parameters()]
    stepper()
    assert any(not torch.equal(a, b) for a, b in zip(before, stepper.model.parameters(), strict=True))


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="color_mae"):
        build_method("colour_mae")


@pytest.mark.parametrize("name", METHODS)
def test_measuring_gives_sound_figures_and_changes_nothing(name, study):
    model = fresh(study, Run(name, 0, 0))
    mask, hidden = model.mask, getattr(model, "hidden_count", None)
    labelled, test = masked_runs._labelled(study, 60), masked_runs.test_pack(study.data, 40)
    found = measure(model, name, labelled, test)
    assert all(np.isfinite(list(found.values())))
    assert found["linear"] > 0.5  # the colours are the labels
    assert 0 < found["attention_distance"] < 8
    assert 1 <= found["effective_rank"] <= 16
    assert model.mask is mask
    assert getattr(model, "hidden_count", None) == hidden
    assert measure(model, name, labelled, test) == found


# steps and tables


def test_steps_fit_the_time_the_passes_or_the_tokens(study):
    comparison = Comparison(calibrated(replace(study, protocol=replace(TINY, seconds=100.0))))
    assert comparison.steps("mae", "time") == 1000
    assert comparison.steps("color_mae", "time") == 1000  # 980 cannot be told from it
    assert comparison.steps("droppos", "time") == 800
    assert comparison.steps("dmjd", "time") == comparison.steps("dmjd/masked_only", "time") == 400
    assert comparison.steps("dmjd/one_view", "tokens") == 800
    assert all(comparison.steps(name, "epochs") == 1000 for name in METHODS)
    assert comparison.steps("lut", "random") == 0
    assert comparison.tokens("dmjd/masked_only", 400) == comparison.tokens("dmjd/one_view", 800) == 0.32
    assert comparison.epochs == 250
    assert comparison.runs("mae", "time") == comparison.runs("mae", "epochs")
    assert comparison.runs("mp3", "scratch") == [Run("mp3", seed, 0, 250) for seed in (0, 1)]
    with pytest.raises(UsageError):
        comparison.steps("dmjd/masked_only", "tokens")


def test_differences_follow_the_house_rule():
    a, b = figure([{"x": v} for v in (0.50, 0.52, 0.54)], "x", 100), Figure(47.0, 2.0, 3)
    assert (a.mean, a.sd) == (pytest.approx(52), pytest.approx(2))
    assert difference(a, b).words == "higher"
    assert difference(b, a).lower
    assert difference(a, Figure(49.0, 2.0, 3)).words == "no difference at this scale"
    alone = difference(figure([{"x": 0.9}], "x"), b)
    assert not alone.judged
    assert not alone.higher


def test_the_table_shows_what_is_recorded(study):
    with pytest.raises(InputError, match="step times"):
        markdown_table(study)
    comparison = Comparison(calibrated(study))
    empty = markdown_table(study)
    assert all(f"| {name} |" in empty for name in METHODS)
    assert empty.count("| – |") > 10
    for run, linear in zip(comparison.runs("lut", "time"), (0.40, 0.44), strict=True):
        write_json(study.record(run), {"linear": linear, "knn": 0.3})
    write_json(study.record(comparison.runs("mp3", "time")[0]), {"linear": 0.25, "knn": 0.3})
    table = markdown_table(study).splitlines()
    (row,) = (line for line in table if line.startswith("| lut |"))
    assert "| 3 | 0.00 | 42.00 ± 2.83 | 30.00 ± 0.00 |" in row
    assert "| 17 + 65 without gradient |" in row
    assert "25.00 (1 of 2 seeds)" in next(line for line in table if line.startswith("| mp3 |"))
    assert len({line.count("|") for line in table if line.startswith("|")}) == 1


def test_the_study_of_a_claim(data, monkeypatch):
    monkeypatch.setenv("VESTIGE_RUN_SECONDS", "7.5")
    found = study_of(ClaimContext(data.parent, seed=4, jobs=2))
    assert (found.protocol.seconds, list(found.seeds), found.jobs) == (7.5, [4, 5, 6], 2)
    assert found.records == found.work / "trial"  # not the default data
    monkeypatch.setenv("VESTIGE_DATA", str(data.parent))
    assert study_of(ClaimContext(data.parent)).records.parts[-3:] == ("results", "runs", "masked")
    assert study_of(ClaimContext(data.parent, limit=5)).records == found.records
    for bad in ("soon", "-1", "nan"):
        monkeypatch.setenv("VESTIGE_RUN_SECONDS", bad)
        with pytest.raises(UsageError):
            study_of(ClaimContext(data.parent))
    monkeypatch.delenv("VESTIGE_RUN_SECONDS")
    with pytest.raises(InputError):
        study_of(ClaimContext(None))


# claims

GOOD = {
    "mae": {"linear": 0.40, "knn": 0.30, "linear_in_place": 0.40, "linear_shuffled": 0.36, "scenes_miou": 0.60,
            "loss_uniform": 0.50, "loss_green": 0.60, "effective_rank": 20.0, "attention_distance": 2.0, "tuned": 0.55},
    "color_mae": {"linear": 0.40, "knn": 0.30, "scenes_miou": 0.65, "loss_uniform": 0.50, "loss_green": 0.60},
    "droppos": {"linear": 0.40, "knn": 0.30, "linear_in_place": 0.40, "linear_shuffled": 0.30, "positions_0": 0.10,
                "positions_4": 0.15, "positions_8": 0.20},
    "mp3": {"linear": 0.35, "knn": 0.3, "positions": 0.40, "positions_all_keys": 0.45, "tuned": 0.55},
    "lut": {"linear": 0.50, "knn": 0.40, "effective_rank": 30.0, "attention_distance": 2.5, "summary_spread": 0.8},
    "dmjd": {"linear": 0.45, "knn": 0.3},
    "dmjd/one_view": {"linear": 0.44, "knn": 0.3}, "dmjd/independent": {"linear": 0.44, "knn": 0.3},
    "dmjd/masked_only": {"linear": 0.42, "knn": 0.3},
}  # fmt: skip
RANDOM = {"linear": 0.30, "knn": 0.25, "tuned": 0.40}
#: What makes each claim fail: (method, figures); "random" stands for the runs without updates.
BAD = {
    mae.beats_random_weights: ("mae", {"linear": 0.37}),
    mae.fine_tunes_better_than_scratch: ("mae", {"tuned": 0.42}),
    color_mae.green_is_harder: ("color_mae", {"loss_green": 0.50}),
    color_mae.segments_better: ("color_mae", {"scenes_miou": 0.602}),
    color_mae.recognises_no_worse: ("color_mae", {"knn": 0.27}),
    droppos.finds_positions: ("droppos", {"positions_4": 0.07}),
    droppos.learns_no_less: ("droppos", {"linear": 0.38}),
    droppos.knows_where_things_are: ("droppos", {"linear_shuffled": 0.36}),
    mp3.places_need_context: ("mp3", {"positions": 0.29}),
    mp3.fine_tunes_without_positions: ("mp3", {"tuned": 0.41}),
    lut.recognises_more: ("lut", {"knn": 0.34}),
    lut.looks_further: ("lut", {"attention_distance": 2.0}),
    lut.uses_more_directions: ("lut", {"effective_rank": 20.01}),
    lut.does_not_collapse: ("lut", {"summary_spread": 0.4}),
    dmjd.two_views_are_worth_it: ("dmjd", {"linear": 0.43}),
    dmjd.the_visible_head_helps: ("dmjd", {"linear": 0.421}),
}


def staged(monkeypatch, study: Study, **changed: dict[str, float]) -> None:
    """Let claims see invented figures, a little apart between seeds."""

    def invented(study, runs):
        records = []
        for run in runs:
            figures = {**GOOD[run.name], **changed.get(run.name, {})}
            if not run.steps:
                figures |= RANDOM
            spread = {k: v * (1 + 0.005 * run.seed) for k, v in figures.items()}
            records.append({"steps": run.steps, "final_loss": 0.5, "processor_seconds": 1.0, **spread})
        return records

    monkeypatch.setattr(masked_runs_table, "study_of", lambda context: calibrated(study))
    monkeypatch.setattr(masked_runs_table, "ensure", invented)
    monkeypatch.setattr(mp3, "floor", lambda study: {"per-patch network": 0.2})
    monkeypatch.delenv("VESTIGE_MAE_RUN", raising=False)
    monkeypatch.setattr(mae, "results_root", lambda: study.records)


@pytest.mark.parametrize("claim", BAD, ids=lambda claim: claim.text[:30])
def test_claims_follow_the_figures(claim, study, monkeypatch):
    staged(monkeypatch, study)
    held = claim.run(ClaimContext(None))
    assert held.holds, held.note
    assert len(held.table) >= 2
    json.dumps(held.table, allow_nan=False)
    name, figures = BAD[claim]
    staged(monkeypatch, study, **{name: figures})
    assert not claim.run(ClaimContext(None)).holds


@pytest.mark.parametrize(
    ("claim", "slow"),
    [(mae.seen_tokens_are_cheap, "mae/replacement"), (mp3.context_saves_time, "mp3/all_keys"),
     (color_mae.masks_cost_nothing, "an update of ColorMAE")],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_claims_about_time_follow_the_times(claim, slow, study, monkeypatch):
    monkeypatch.setattr(masked_runs_table, "study_of", lambda context: study)
    module = {mae.seen_tokens_are_cheap: mae, mp3.context_saves_time: mp3}.get(claim, color_mae)
    measured = claim.run(ClaimContext(None))
    assert all(value > 0 for row in measured.table for value in row.values() if isinstance(value, float))
    for seconds, holds in ((100.0, True), (1.0, False)):
        times = {slow: seconds}
        monkeypatch.setattr(
            module, "interleaved", lambda actions, rounds, times=times: {a: times.get(a, 1.0) for a in actions}
        )
        assert claim.run(ClaimContext(None)).holds is holds


def test_the_masks_are_what_they_are_said_to_be(monkeypatch):
    monkeypatch.setattr(color_mae, "MASKS", 25_000)
    assert color_mae.masks_have_their_colour.run(ClaimContext(None)).holds
    monkeypatch.setattr(color_mae, "MASKS", 5_000)
    monkeypatch.setattr(color_mae, "ColorMask", lambda color: build_method("mae", TINY.sizes).mask)
    assert not color_mae.masks_have_their_colour.run(ClaimContext(None)).holds


def test_the_floor_of_position_prediction(study, monkeypatch):
    monkeypatch.setattr(mp3, "FLOOR_UPDATES", 25)
    found = mp3.floor(study)
    assert found["per-patch network"] > 3 * found["chance"]  # rows differ in brightness
    assert found["mean colour"] > 3 * found["chance"]
    assert found["ceiling"] == 1
    flat = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert mp3._ceiling(flat, 4) == 1 / 64


def test_a_finished_recipe_is_used_and_remembered(study, tmp_path, monkeypatch):
    staged(monkeypatch, study)
    folder = tmp_path / "recipe"
    metrics = {
        "recipe": "mae_cifar", "seconds": 900.0, "step": 4000, "hardware": {"cores": 2},
        "evaluation": {"system": "mae", "linear": 0.47, "knn": 0.4, "random_linear": 0.40, "random_knn": 0.3},
    }  # fmt: skip
    monkeypatch.setenv("VESTIGE_MAE_RUN", str(folder))
    write_json(folder / "metrics.json", {**metrics, "seconds": 5000.0})
    assert mae.recipe_run(study) is None
    write_json(folder / "metrics.json", metrics)
    judged = mae.beats_random_weights.run(ClaimContext(None))
    assert not judged.holds  # 7 points, whatever the short runs say
    assert judged.table[-1]["runs"] == "recipe"
    (folder / "metrics.json").unlink()
    assert mae.recipe_run(study)["linear"] == 0.47


def test_a_claim_trains_what_it_needs_and_can_fail(study, monkeypatch):
    calibrated(study)
    monkeypatch.setattr(
        masked_runs_table, "study_of", lambda context: replace(study, protocol=replace(TINY, seconds=0.35))
    )
    result = droppos.finds_positions.run(ClaimContext(None))
    assert not result.holds  # after two or three updates
    assert [row["updates"] for row in result.table[:2]] == [2, 3]
    assert len(list(study.records.glob("droppos-*.json"))) == 4
    assert read_json(next(study.records.glob("droppos-3-seed1-*.json")))["steps"] == 3


def test_every_system_has_claims():
    counts = {slug: len(claims_of(system(slug))) for slug in METHODS}
    assert counts == {"mae": 3, "color_mae": 5, "droppos": 3, "mp3": 3, "lut": 4, "dmjd": 2}
