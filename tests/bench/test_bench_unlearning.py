"""The unlearning benchmark on drawn scenes: cells are kept, runs go on, tables and pages say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vestige.app.cli import app
from vestige.bench.methods import Method
from vestige.bench.unlearning.parameters import PARAMETERS
from vestige.bench.unlearning.protocol import Grid, eraser, methods, parameters_in_words, parameters_of, run
from vestige.bench.unlearning.table import COLUMNS, figures, page, rows
from vestige.bench.unlearning.tuning import GRIDS, candidates
from vestige.bench.unlearning.world import TUNING_SEED, Settings, kept, splits, world
from vestige.core.errors import InputError, UsageError

TINY = Settings("scenes", images=150, val=60, test=90, width=0.0625, epochs=2, batch_size=32)
CHOSEN = "finetune:epochs=1,ssd:alpha=1.5"


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Grid:
    root = tmp_path_factory.mktemp("bench")
    return Grid(TINY, "", root / "work", root / "records")


@pytest.fixture(scope="module")
def records(grid):
    found, problems = run(grid, methods(CHOSEN), ["class", "random"], [0, 1])
    assert not problems
    return found


def test_every_cell_has_a_record_and_is_not_computed_again(grid, records, monkeypatch):
    assert len(records) == 4 * 2 * 2
    monkeypatch.setattr("vestige.bench.unlearning.protocol.measure", lambda *_: pytest.fail("computed again"))
    again, _ = run(grid, methods(CHOSEN), ["class", "random"], [0, 1])
    assert again == records


def test_a_torn_record_is_computed_again_and_networks_are_kept(grid, records, monkeypatch):
    path = grid.records / f"{records[-1]['key']}.json"
    path.write_text("{")
    monkeypatch.setattr("vestige.bench.unlearning.world.train", lambda *_: pytest.fail("trained again"))
    again, _ = run(grid, methods(CHOSEN), ["class", "random"], [0, 1])
    assert again[-1]["row"] == records[-1]["row"]


def test_the_table_has_the_gap_to_the_retrained_model_of_the_same_seed(records):
    table = rows(records)
    assert [r["method"] for r in table[:4]] == ["original", "retrain", "finetune:epochs=1", "ssd:alpha=1.5"]
    assert all(set(r) == set(COLUMNS) for r in table)
    for row in table:
        assert row["seeds"] == 2
        assert 0 <= row["gap"] <= 1
        if row["method"] == "retrain":
            assert row["gap"] == 0
            assert row["of retraining"] == 1
        if row["method"] == "retrain" and row["problem"] == "class":
            assert row["UA"] == 1
    assert next(r for r in table if r["method"] == "ssd:alpha=1.5")["needs"] == "labels, statistics"
    images = figures(table)
    assert set(images) == {"heatmap.png", "gap.png"}
    html = page(table, images, ["About this run."])
    assert html.count("data:image/png") == 2
    assert "ssd:alpha=1.5" in html


def test_an_eraser_that_fails_leaves_its_reason(grid):
    found, problems = run(grid, methods("ssd:alpha=1000"), ["class"], [0])
    assert "No weight is chosen" in problems[0]
    row = next(r for r in rows(found) if r["method"] == "ssd:alpha=1000")
    assert row["gap"] is None
    assert "1 of 1 failed" in row["note"]


def test_the_training_pictures_of_the_tuning_seed_are_judged_on_validation_samples(grid):
    found = world("random", TUNING_SEED, TINY, folder=grid.folder)
    _, val, test = splits(TINY, TUNING_SEED)
    assert len(found.problem.test) == len(val) != len(test)
    train_zero = splits(TINY, 0)[0]
    assert not (train_zero.inputs == splits(TINY, 1)[0].inputs).all()


def test_every_eraser_has_parameters_and_a_grid_that_it_takes():
    assert set(GRIDS) == set(PARAMETERS)
    assert len(PARAMETERS) >= 14
    for slug in PARAMETERS:
        for kind in ("class", "random"):
            eraser(Method(slug), kind)
        for candidate in candidates(slug):
            eraser(candidate, "class")
    assert [m.slug for m in methods("all")] == list(PARAMETERS)
    assert parameters_of(Method("sparse_unlearn"), "class")["unlearner"] == PARAMETERS["finetune"]["class"]


def test_the_reader_is_told_how_parameters_were_come_by(monkeypatch):
    chosen = methods("finetune,ssd")
    monkeypatch.setitem(PARAMETERS, "finetune", {"class": {"lr": 0.1}, "random": {"lr": 0.1}})
    monkeypatch.setitem(PARAMETERS, "ssd", {"class": {}, "random": {}})
    assert "except those of ssd" in parameters_in_words(chosen)
    assert "except" not in parameters_in_words(chosen[:1])
    assert "not chosen for this network" in parameters_in_words(chosen[1:])


def test_wrong_words_are_refused_in_one_sentence(grid):
    with pytest.raises(UsageError, match="does not make"):
        methods("dwt_dct_svd")
    with pytest.raises(UsageError, match="cannot be made"):
        run(grid, methods("ssd:depth=3"), ["class"], [0])
    with pytest.raises(UsageError, match="no problem"):
        run(grid, methods("ssd"), ["everything"], [0])
    with pytest.raises(InputError, match="pack"):
        splits(Settings(images=10, val=1, test=1), 0, Path("nowhere"))
    with pytest.raises(UsageError, match="data"):
        Settings("imagenet")


def test_a_torn_network_is_made_again(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return TINY.build()

    kept(tmp_path, {"a": 1}, TINY.build, make)
    kept(tmp_path, {"a": 1}, TINY.build, make)
    assert len(calls) == 1
    (path,) = (tmp_path / "models").glob("*.safetensors")
    path.write_bytes(b"torn")
    kept(tmp_path, {"a": 1}, TINY.build, make)
    assert len(calls) == 2


def test_the_command_writes_table_figures_and_page(tmp_path):
    arguments = [
        "bench", "unlearning", "--data", "scenes", "--images", "120", "--width", "0.0625", "--epochs", "1",
        "--seeds", "1", "--methods", "finetune:epochs=1", "--problems", "class", "--jobs", "1",
        "--out", str(tmp_path / "out"),
        "--results", str(tmp_path / "results"), "--work", str(tmp_path / "work"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "table.csv", "table.md", "index.html", "heatmap.png", "gap.png"
    }  # fmt: skip
    (record, *_) = (tmp_path / "results" / "bench" / "unlearning").glob("*.json")
    assert {"row", "cost", "parameters", "versions", "hardware"} <= set(json.loads(record.read_text()))


def test_a_data_folder_that_is_not_there_is_said_even_when_all_cells_are_stored(tmp_path):
    arguments = ["bench", "unlearning", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert "nowhere" in str(result.exception)
    assert not (tmp_path / "out").exists()
