"""The unlearning recipes on drawn scenes, from the bed to the claims; what is found there means nothing."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from vestige.app.verbs import learning
from vestige.claims import ClaimContext, MissingRunsError, claims_of, missing_runs, needs_of, runs_needed
from vestige.core.catalogue import system
from vestige.core.errors import UsageError
from vestige.engines.runs import run_folder

TINY = ["source=scenes", "images=90", "held=40", "tested=60", "net_width=0.0625", "passes=1", "batch_size=32"]
SLUGS = ("ssd", "sparse_unlearn", "laf", "corrective", "worst_case", "acu", "regression_unlearn", "repr_audit",
         "sae_restore")  # fmt: skip
#: (recipe, variant, settings) in an order in which each finds what it rests on.
ARMS: tuple[tuple[str, str, list[str]], ...] = (
    ("unlearning_bed", "default", [*TINY, "tuned=false"]),
    ("ssd", "default", []),
    ("sparse_unlearn", "default", []),
    ("laf", "default", TINY),
    ("worst_case", "default", []),
    ("repr_audit", "default", ["downstream=60"]),
    ("repr_audit", "top", ["images=96", "held=24", "net_width=0.0625", "passes=1"]),
    ("sae_restore", "default", ["shown=60", "latents=24", "k=4", "passes=1"]),
    ("corrective", "poison", [*TINY, "count=10", "stem=imagenet"]),
    ("corrective", "confusion", [*TINY, "count=10"]),
    ("acu", "stream", [*TINY, "width=16", "requests=10", "least=30"]),
    ("regression_unlearn", "default", ["images=60", "held=20", "tested=30", "side=32", "net_width=0.0625", "passes=2",
                                       "forgetting=1", "batch_size=32"]),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_splits():
    """An attacker of two splits: what it finds on such networks means nothing, and it is asked hundreds of times."""
    from vestige.metrics import unlearning as metric

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric, "mia_forget_vs_test", partial(metric.mia_forget_vs_test, splits=2))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Seed 0 of every run; the other seeds are copies with other numbers, for claims count seeds."""
    from vestige.bench.unlearning import parameters, tuning
    from vestige.recipes.unlearning import corrective, regression_unlearn, sparse_unlearn, worst_case
    from vestige.unlearning.corrective import Corrective

    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VESTIGE_RUNS", str(root))
        short = {
            "laf": {"loops": 1, "vae_epochs": 1},
            "ssd": {"alpha": 1.2},
            "unsir": {"steps": 1, "noise": 8},
            "influence": {"samples": 8},
            "fisher_forget": {"samples": 8},
            "sparse_unlearn": {"recover_epochs": 1},
        }
        for slug in list(parameters.PARAMETERS):
            own = short.get(slug, {"epochs": 1})
            patch.setitem(parameters.PARAMETERS, slug, {"class": own, "random": own})
        patch.setattr(corrective, "OURS", Corrective(alphas=(0.5,), lambdas=(1.0,), batch_size=16, most=40))
        patch.setattr(worst_case, "ATTACK", worst_case.WorstCase(rounds=1, epochs=1))
        patch.setattr(regression_unlearn, "MOST_UPDATES", 10)
        patch.setattr(sparse_unlearn, "ERASERS", ("finetune", "grad_ascent"))
        patch.setattr("vestige.bench.unlearning.analytic_stream.RATES", (0.001,))
        patch.setitem(tuning.GRIDS, "finetune", {"lr": (0.03, 0.1), "epochs": (1,)})
        learning.run(
            "unlearning_bed", run_folder("unlearning_bed", "tuning", 109, root), None,
            [*TINY, "only=finetune"], seed=109, variant="tuning", quiet=True,
        )  # fmt: skip
        for recipe, variant, settings in ARMS:
            learning.run(
                recipe, run_folder(recipe, variant, 0, root), None, settings, seed=0, variant=variant, quiet=True
            )
            for seed in (1, 2):
                copied(run_folder(recipe, variant, 0, root), seed)
    return root


def copied(folder: Path, seed: int) -> None:
    other = folder.parent / str(seed)
    shutil.copytree(folder, other)
    metrics = json.loads((other / "metrics.json").read_text())
    for row in metrics["evaluation"].get("rows", ()):
        row["seed"] = seed
    (other / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.parametrize("slug", SLUGS)
def test_claims_read_finished_runs(slug, runs):
    context = ClaimContext(None, runs=runs)
    assert not missing_runs(slug, runs)
    for claim in claims_of(system(slug)):
        result = claim.run(context)
        assert result.table
        assert result.note
        json.dumps(result.table)
    used = {(recipe, variant) for recipe, variant, _ in context.used}
    assert used <= {(recipe, variant) for recipe, variant, _ in runs_needed(needs_of(system(slug)))}


@pytest.mark.parametrize("slug", SLUGS)
def test_claims_name_the_command_that_makes_what_is_missing(slug, tmp_path):
    with pytest.raises(MissingRunsError, match=r"vestige learn .* --for-claims"):
        claims_of(system(slug))[0].run(ClaimContext(None, runs=tmp_path))


def test_the_tuning_run_chooses_parameters(runs):
    metrics = json.loads((run_folder("unlearning_bed", "tuning", 109, runs) / "metrics.json").read_text())
    chosen = metrics["evaluation"]["parameters"]["finetune"]
    assert set(chosen) == {"class", "random"}
    assert chosen["class"]["lr"] in (0.03, 0.1)


def test_a_run_goes_on_with_the_parts_that_are_finished(runs, monkeypatch, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(run_folder("unlearning_bed", "default", 0, runs), folder)
    before = json.loads((folder / "metrics.json").read_text())["evaluation"]["rows"]
    (folder / "class" / "retrain.row.json").unlink()
    monkeypatch.setattr("vestige.bench.unlearning.bed.tune", lambda *a, **k: pytest.fail("trained again"))
    learning.run("unlearning_bed", folder, None, [*TINY, "tuned=false", "only=finetune"], seed=0, quiet=True)
    after = json.loads((folder / "metrics.json").read_text())["evaluation"]["rows"]
    assert [r for r in before if r["method"] in ("retrain", "original", "finetune")] == [
        r for r in after if r["method"] in ("retrain", "original", "finetune")
    ]


def test_trainings_leave_logs_to_be_judged_by(runs):
    from vestige.engines.runs import finished

    run = finished("unlearning_bed", "default", 0, runs)
    assert run is not None
    assert {"original", "class/retrain", "random/retrain"} <= set(run.logs())
    assert "accuracy" in run.logs()["original"][0]["validation"]


def test_a_recipe_that_rests_on_the_bed_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VESTIGE_RUNS", str(tmp_path))
    for slug in ("ssd", "worst_case", "sae_restore"):
        with pytest.raises(UsageError, match="vestige learn unlearning_bed"):
            learning.run(slug, tmp_path / "out", None, [], seed=0, quiet=True)
    with pytest.raises(UsageError, match="--variant tuning"):
        learning.run("unlearning_bed", tmp_path / "bed", None, TINY, seed=0, quiet=True)
