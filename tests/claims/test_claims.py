"""Claims, runs and records: what is recorded says what a system came to, and nothing is recorded that was not whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vestige.app.cli import main
from vestige.app.verbs import claiming
from vestige.app.verbs.systems_pages import to_markdown
from vestige.bench import controls
from vestige.bench.store import (
    ClaimResult,
    evidence,
    keep_trained,
    lacking,
    record,
    recorded,
    recorded_runs,
    results_root,
    status,
)
from vestige.claims import Claim, ClaimContext, Evidence, MissingRunsError, claim, claims_of, headline, runs_needed
from vestige.core.catalogue import Command, System, system, systems
from vestige.core.errors import InputError, UsageError
from vestige.engines.runs import Need, finished, run_folder

COMMAND = Command("vestige find photo.png --only toy", "a picture", "a finding")


@claim("two is more than one")
def true_claim(context: ClaimContext) -> Evidence:
    return Evidence(2 > 1, [{"two": 2, "one": 1}])


@headline("the data are there")
def claim_with_data(context: ClaimContext) -> Evidence:
    return Evidence(context.pack("photos").is_dir())


def a_run(root: Path, recipe: str, variant: str, seed: int, values=(), **metrics) -> None:
    folder = run_folder(recipe, variant, seed, root)
    folder.mkdir(parents=True)
    lines = [{"step": i + 1, "loss": 1.0, "validation": {"auroc": v}} for i, v in enumerate(values)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "metrics.json").write_text(json.dumps({"step": len(lines), "evaluation": {}, **metrics}))


def test_a_claim_runs_and_is_recorded_with_the_runs_behind_it(tmp_path):
    result = true_claim.run(ClaimContext(None))
    assert result.holds
    a_run(tmp_path / "runs", "toy", "method", 2, values=[1 - 0.5**i for i in range(20)], judged_by="auroc")
    run = finished("toy", "method", 2, tmp_path / "runs")
    record(tmp_path, "toy", [result], seed=3, data="none", runs=[run])
    stored = json.loads((tmp_path / "claims" / "toy.json").read_text())
    assert stored["seed"] == 3
    assert {"versions", "hardware", "date"} <= stored.keys()
    assert recorded(tmp_path, "toy") == [result]
    assert recorded(tmp_path, "other") is None
    (row,) = recorded_runs(tmp_path, "toy")
    assert (row["variant"], row["seed"], row["fair"]) == ("method", 2, True)
    kept = (tmp_path / "runs" / "toy" / "method-2.jsonl").read_text().splitlines()
    assert len(kept) == 20


def test_status_and_evidence_are_two_things(tmp_path):
    planned = System("toy", "toy", ("find",))
    built = System("toy", "toy", ("find",), target="json:loads")
    usable = System("toy", "toy", ("find",), target="json:loads", commands=(COMMAND,))
    trained = System("toy", "toy", ("find",), target="json:loads", commands=(COMMAND,), network="recipe")
    assert [status(s, tmp_path) for s in (planned, built, usable, trained)] == ["planned", "built", "works", "built"]
    assert lacking(built, tmp_path) == "no command"
    assert "flat" in lacking(trained, tmp_path)
    a_run(tmp_path / "runs", "toy", "method", 0, values=[1 - 0.5**i for i in range(20)], judged_by="auroc")
    keep_trained(tmp_path, finished("toy", "method", 0, tmp_path / "runs"))
    assert status(trained, tmp_path) == "works"
    assert evidence(trained, tmp_path) == "not judged yet"
    bad = ClaimResult("main", False, headline=True)
    record(tmp_path, "toy", [bad, ClaimResult("good", True)], seed=0, data="")
    assert status(trained, tmp_path) == "works", "a headline that is not shown does not make a tool unusable"
    assert evidence(trained, tmp_path) == "headline not shown, 1 of 2 claims"
    (tmp_path / "claims" / "toy.json").write_text("{}")
    with pytest.raises(InputError, match="results file"):
        evidence(trained, tmp_path)


def test_a_weak_test_bed_never_holds_a_claim():
    weak = Evidence(True, too_weak=controls.too_weak(0.02, 0.05))
    result = Claim("a margin of two points", lambda context: weak).run(ClaimContext(None))
    assert not result.holds
    assert result.outcome == "test bed too weak"
    assert "shuffled labels" in result.note
    assert Evidence(False, too_small="needs 512 pixels").outcome == "cannot be shown at this size"


def test_a_claim_without_its_data_or_runs_says_what_it_needs(tmp_path):
    with pytest.raises(InputError, match="VESTIGE_DATA"):
        claim_with_data.run(ClaimContext(None))
    with pytest.raises(InputError, match="photos"):
        claim_with_data.run(ClaimContext(tmp_path))
    context = ClaimContext(None, runs=tmp_path)
    with pytest.raises(MissingRunsError, match="vestige learn scenes_classifier --for-claims"):
        context.run("scenes_classifier")
    a_run(tmp_path, "scenes_classifier", "default", 0)
    assert context.run("scenes_classifier").figures == {}
    assert list(context.used) == [("scenes_classifier", "default", 0)]


def test_built_systems_with_claims_find_them():
    assert len(claims_of(system("panel"))) >= 3
    assert len(claims_of(system("dwt_dct_svd"))) == 2
    assert claims_of(system("container")) == []


def test_every_system_has_at_most_one_headline_and_its_needs_exist():
    from vestige.claims import needs_of

    for s in systems():
        assert sum(c.headline for c in claims_of(s)) <= 1, s.slug
        runs_needed(needs_of(s))  # raises for a recipe or a variant that is not there


def test_needs_name_every_variant_and_seed_once():
    needs = [Need("scenes_classifier"), Need("scenes_classifier", ("default",), (0, 1))]
    assert runs_needed(needs) == [("scenes_classifier", "default", s) for s in (0, 1)]


def photographs(folder: Path, photo: np.ndarray) -> Path:
    from vestige.core.image_io import encode

    (folder / "photos").mkdir(parents=True)
    for i in range(6):
        data = encode(photo[10 * i : 10 * i + 200, :260], "JPEG", quality=92)
        (folder / "photos" / f"{i}.jpg").write_bytes(data)
    return folder


def test_a_trial_run_is_printed_and_never_recorded(tmp_path, photo, capsys):
    words = ["claims", "dwt_dct_svd", "--data", str(photographs(tmp_path / "packs", photo)), "--limit", "2"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--json"])
    assert stop.value.code in (0, 1)
    said = json.loads(capsys.readouterr().out)["dwt_dct_svd"]
    assert len(said) == 2
    assert said[1]["holds"]
    assert said[1]["table"][0]["called marked"] == 0
    with pytest.raises(SystemExit) as stop:
        main([*words, "--results", str(tmp_path / "r")])
    assert stop.value.code == 2
    assert "never a record" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_naming_the_default_data_folder_still_records(monkeypatch, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(claiming, "find_data_root", lambda: tmp_path)
    monkeypatch.setattr(claiming, "results_root", lambda given: given or tmp_path / "results")
    monkeypatch.setattr(claiming, "claims_of", lambda entry: [Claim("always", lambda context: Evidence(True))])
    monkeypatch.setattr(claiming, "missing_runs", lambda slug: [])
    monkeypatch.setattr(claiming, "needs_of", lambda entry: [])
    for data, kept in ((other, False), (tmp_path / "." / "", True)):
        claiming.run(["panel"], data=data, results=None, as_json=False, limit=0, jobs=1, seed=0, quiet=False)
        assert (tmp_path / "results" / "claims" / "panel.json").is_file() is kept
        assert ("Not recorded" in capsys.readouterr().err) is not kept


def test_claims_on_runs_that_were_too_short_are_not_judged(monkeypatch, tmp_path):
    a_run(tmp_path / "runs", "scenes_classifier", "default", 0, values=[i / 20 for i in range(20)], judged_by="auroc")
    monkeypatch.setenv("VESTIGE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(claiming, "claims_of", lambda entry: [Claim("always", lambda context: Evidence(True))])
    monkeypatch.setattr(claiming, "missing_runs", lambda slug: [])
    monkeypatch.setattr(claiming, "needs_of", lambda entry: [Need("scenes_classifier")])
    results = tmp_path / "results"
    code = claiming.run(["panel"], None, results, as_json=False, limit=0, jobs=1, seed=0, quiet=True)
    assert code == 1
    (only,) = recorded(results, "panel")
    assert only.outcome == "trained too briefly"
    assert "still rises" in only.note


def test_missing_runs_are_named_before_anything_is_computed(monkeypatch, tmp_path):
    monkeypatch.setattr(claiming, "claims_of", lambda entry: [Claim("never", lambda context: pytest.fail("it ran"))])
    monkeypatch.setattr(claiming, "missing_runs", lambda slug: [("toy", "method", 1), ("toy", "plain", 1)])
    with pytest.raises(UsageError, match=r"lack 2 finished runs \(toy/method/1 for one\)"):
        claiming.run(["panel"], None, tmp_path, as_json=False, limit=0, jobs=1, seed=0, quiet=True)


KILLED = """
import sys
from vestige.app.verbs import learning
from vestige import claims
from vestige.engines.runs import Need

claims.needs_of = lambda entry: [Need("scenes_classifier", seeds=(0, 1))]
real = learning.settings
def shorter(recipe, set_, *rest):
    words = ["steps=30", "scenes=60", "held_out=20", "batch_size=8", "checkpoint_every=1", "validate_every=10"]
    return real(recipe, words, *rest)
learning.settings = shorter
sys.exit(learning.for_claims("panel", "cpu", True))
"""


def test_training_for_claims_goes_on_after_kills(tmp_path):
    """Killed twice with -9, the same command ends with every run, and with the weights of runs that were not killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(runs: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", KILLED], env={**environment, "VESTIGE_RUNS": str(runs)})

    assert start(tmp_path / "whole").wait(120) == 0
    for _ in range(2):
        process = start(tmp_path / "killed")
        checkpoint, deadline = run_folder("scenes_classifier", "default", 0, tmp_path / "killed"), time.monotonic() + 60
        before = (checkpoint / "checkpoint.pt").stat().st_mtime_ns if (checkpoint / "checkpoint.pt").exists() else 0
        while time.monotonic() < deadline:
            path = checkpoint / "checkpoint.pt"
            if process.poll() is not None or (path.exists() and path.stat().st_mtime_ns > before):
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait(120) == 0
    for seed in (0, 1):
        one, other = (finished("scenes_classifier", "default", seed, tmp_path / name) for name in ("whole", "killed"))
        assert one.digest == other.digest


def test_the_documentation_of_systems_is_fresh(tmp_path):
    """docs/SYSTEMS.md is what `make docs` writes now, and every built system has its page."""
    root = results_root()
    docs = root.parent / "docs"
    assert (docs / "SYSTEMS.md").read_text() == to_markdown(root), "run: make docs"
    pages = {p.stem for p in (docs / "systems").glob("*.md")}
    assert pages == {s.slug for s in systems() if s.target is not None}, "run: make docs"


def test_intervals_and_controls_say_what_chance_can_do():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=200)
    assert controls.interval(noise + 1).low > 0.5
    assert controls.paired(noise + 0.01, noise).low > 0, "pairs take the common noise out"
    assert controls.interval(rng.normal(size=200)).low < 0
    assert controls.over_seeds([0.71, 0.70, 0.72], [0.60, 0.61, 0.60]).low > 0
    assert controls.share(0, 25).high == pytest.approx(0.137, abs=0.001)
    labels = np.repeat([0, 1], 50)
    reach = controls.resolution(lambda y: float(noise[:100][y == 1].mean() - noise[:100][y == 0].mean()), labels)
    assert 0.2 < reach < 0.7
    assert controls.floors(0.7, {"constant": 0.5, "blur": 0.72}).startswith("blur")
    with pytest.raises(UsageError):
        controls.over_seeds([0.1, 0.2])
