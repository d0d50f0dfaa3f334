"""Claims of MAE, the reference of the masked models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from vestige.bench.masked.runs import Stepper, Study, interleaved, test_pack, thread_limit, training_pack
from vestige.bench.masked.table import Comparison, points
from vestige.bench.store import results_root
from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.files import read_json, write_json
from vestige.engines.masked.evaluate import knn_accuracy


@claim("15 minutes of the recipe on two cores put a linear probe at least 8 points above that of random weights")
def beats_random_weights(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(("mae", "time"), ("mae", "random"))
    rows = [comparison.row(*want, found, "linear", "knn") for want, found in runs.items()]
    rows.append({"method": "pixels, no network", "runs": "none", "knn": round(_pixel_knn(comparison.study), 4)})
    recipe = recipe_run(comparison.study)
    if recipe is not None:
        rows.append({"method": "mae", "runs": "recipe", "seeds": 1, **recipe})
        return Evidence(100 * (recipe["linear"] - recipe["random linear"]) >= 8, rows)
    gain = points(runs["mae", "time"], runs["mae", "random"], "linear")
    seconds = comparison.study.protocol.seconds
    note = (
        f"judged by the short runs of {seconds:g} s on one core ({gain} points): train the recipe first with 'vestige "
        "learn recipes/pretraining/mae_cifar', or name its folder in VESTIGE_MAE_RUN"
    )
    return Evidence(gain.value >= 8 and seconds <= 1800, rows, note)


def recipe_run(study: Study) -> dict[str, Any] | None:
    """The figures of a finished run of the recipe within its budget, on a processor; kept beside the other records."""
    kept = study.records / "mae-recipe.json"
    default = results_root().parent / "out" / "learn" / "mae_cifar"
    path = Path(os.environ.get("VESTIGE_MAE_RUN") or default) / "metrics.json"
    found = read_json(path) if path.is_file() else {}
    evaluation = found.get("evaluation", {})
    fits = found.get("recipe") == "mae_cifar" and evaluation.get("system") == "mae" and found["seconds"] <= 930
    if fits and "linear" in evaluation and "accelerator" not in found["hardware"]:
        row = {"updates": found["step"], "linear": evaluation["linear"], "knn": evaluation["knn"]}
        row |= {f"random {key}": evaluation[f"random_{key}"] for key in ("linear", "knn")}
        write_json(kept, {**row, "seconds": found["seconds"], "cores": found["hardware"]["cores"]})
    return read_json(kept) if kept.is_file() else None


def _pixel_knn(study: Study) -> float:
    bank, judged = training_pack(study.data, study.protocol.limit), test_pack(study.data, study.protocol.probe_test)
    bank, judged = bank.take(range(min(len(bank), 10_000))), judged.take(range(min(len(judged), 1000)))
    (x, y), (test_x, truth) = (
        (torch.from_numpy(p.images).float().flatten(1), torch.from_numpy(p.labels)) for p in (bank, judged)
    )
    with thread_limit(study.protocol.threads):
        return knn_accuracy(x, y, test_x, truth, k=min(20, len(x)))


@claim("fine-tuning from MAE beats the same fine-tuning from random weights by at least 3 points")
def fine_tunes_better_than_scratch(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(("mae", "time"), ("mae", "tuned"), ("mae", "scratch"))
    rows = [comparison.row("mae", s, runs["mae", s], "tuned") for s in ("tuned", "scratch")]
    gain = points(runs["mae", "tuned"], runs["mae", "scratch"], "tuned")
    p = comparison.study.protocol
    return Evidence(
        gain.value >= 3 and gain.higher, rows, f"{gain} points; {comparison.epochs} epochs, {p.labels} labels"
    )


@claim("encoding only what is seen makes an update at least 2.5 times faster than masking by replacement")
def seen_tokens_are_cheap(context: ClaimContext) -> Evidence:
    study = Comparison.of(context).study
    pack = test_pack(study.data, study.protocol.probe_test)
    names = ("mae", "mae/replacement", "mae/simmim")
    with thread_limit(study.protocol.threads):
        times = interleaved({name: Stepper(study, name, pack) for name in names}, 2 * study.protocol.rounds)
    rows = [{"method": n, "ms per update": round(1000 * times[n], 1), "ratio": times[n] / times["mae"]} for n in names]
    note = "replacement: the same decoder; simmim: a linear layer in its place, reported only"
    return Evidence(times["mae/replacement"] >= 2.5 * times["mae"], rows, note)
