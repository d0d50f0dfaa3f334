"""Finished runs: when one counts as finished, and when it may be judged."""

from __future__ import annotations

import json
import math

import pytest

from vestige.core.errors import InputError
from vestige.engines.runs import ENOUGH_SECONDS, Run, finished, flat, run_folder


def log(values, name="validation", key="accuracy"):
    return [{"step": 10 * (i + 1), "loss": 1.0, name: {key: v}} for i, v in enumerate(values)]


def write(tmp_path, lines, **metrics):
    folder = run_folder("toy", "method", 0, tmp_path)
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_a_run_is_finished_only_with_its_evaluation(tmp_path):
    assert finished("toy", "method", 0, tmp_path) is None
    folder = write(tmp_path, log([0.1]), step=1)
    assert finished("toy", "method", 0, tmp_path) is None
    (folder / "metrics.json").write_text(json.dumps({"step": 1, "evaluation": {"auroc": 0.7}, "validation": None}))
    run = finished("toy", "method", 0, tmp_path)
    assert run.figures == {"auroc": 0.7}
    (folder / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match="not the metrics"):
        finished("toy", "method", 0, tmp_path)


def test_curves_are_flat_when_the_last_fifth_gains_nothing():
    saturating = [1 - math.exp(-i / 4) for i in range(40)]
    rising = [i / 40 for i in range(40)]
    assert flat(log(saturating), "accuracy")
    assert not flat(log(rising), "accuracy")
    falling = [{"step": i + 1, "loss": 1.0, "validation": {"error": 1 - v}} for i, v in enumerate(saturating)]
    assert flat(falling, "-error")
    assert not flat(log(rising[:3]), "accuracy"), "three points say nothing"


def test_half_an_hour_of_work_is_enough_for_any_curve_but_not_its_beginning(tmp_path):
    rising = log([i / 40 for i in range(40)])
    folder = write(tmp_path, rising, evaluation={}, core_seconds=60, judged_by="accuracy")
    run = finished("toy", "method", 0, tmp_path)
    fair, why = run.fair()
    assert not fair
    assert "still rises" in why
    (folder / "metrics.json").write_text(json.dumps({"evaluation": {}, "core_seconds": ENOUGH_SECONDS}))
    assert finished("toy", "method", 0, tmp_path).fair()[0]


def test_every_part_of_a_run_is_judged(tmp_path):
    folder = write(tmp_path, log([1 - math.exp(-i / 4) for i in range(40)]), evaluation={}, judged_by="accuracy")
    assert finished("toy", "method", 0, tmp_path).fair()[0]
    part = folder / "student"
    part.mkdir()
    (part / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in log([i / 40 for i in range(40)])))
    run: Run = finished("toy", "method", 0, tmp_path)
    assert not run.fair()[0]
    assert "student" in run.fair()[1]
