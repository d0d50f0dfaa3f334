"""The verdict of an audit: right on models of which the truth is known, silent where there is too little to tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.unlearning.test_audit import learnt_by_heart
from vestige.bench.unlearning import battery
from vestige.bench.unlearning.battery_cases import CASES
from vestige.core.errors import EXIT_CODES
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.loop import Phase, Tuning
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.train import retrain
from vestige.unlearning.audit import audit
from vestige.unlearning.audit_features import features_moved
from vestige.unlearning.audit_stats import by_scores, by_share, delong, stand_out
from vestige.unlearning.audit_verdict import VERDICTS


def groups(members: int, others: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    values = np.concatenate([draw.normal(shift, 1, members), draw.normal(0, 1, others)])
    return np.repeat([True, False], [members, others]), values


def test_intervals_of_areas_hold_and_pairs_share_their_chance():
    held = 0
    for seed in range(200):
        members, values = groups(60, 80, 1.0, seed)
        areas, covariance = delong(members, [values, values + 1e-9 * values])
        held += abs(areas[0] - 0.7602) < 1.96 * covariance[0, 0] ** 0.5
        assert covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1] == pytest.approx(0, abs=1e-9)
    assert 180 <= held <= 200


def test_power_is_the_share_of_times_that_an_effect_is_seen():
    strong = groups(100, 200, 1.5)[1]
    seen, powers = 0, []
    for seed in range(200):
        members, values = groups(100, 200, 0.66, seed)  # half of the original's effect: an area of 0.68
        test = by_scores("loss", "answers", members, values, strong, 3)
        seen, powers = seen + test.left, [*powers, test.power]
    assert np.mean(powers) > 0.9
    assert seen / 200 > np.mean(powers) - 0.08
    nothing = [by_scores("loss", "answers", *groups(100, 200, 0.0, s), strong, 3) for s in range(200)]
    assert sum(t.left or t.over for t in nothing) <= 6
    assert sum(t.equivalent for t in nothing) >= 180


def test_ten_pictures_are_too_few_whatever_they_say():
    members, values = groups(10, 20, 0.0)
    test = by_scores("loss", "answers", members, values, groups(10, 20, 3.0)[1], 3)
    assert not test.measurable
    assert test.smallest > 0.3


def test_a_class_that_is_never_named_is_shown_to_be_gone_by_enough_pictures():
    for n, enough in ((3, False), (100, True)):
        test = by_share("named", "answers", np.zeros(n, bool), np.ones(n, bool), 4)
        assert (test.measurable and test.equivalent) == enough
    assert by_share("named", "answers", np.arange(100) < 40, np.ones(100, bool), 4).left


def test_single_pictures_stand_out_and_luck_does_not():
    draw = np.random.default_rng(0)
    usual = draw.normal(size=1000)
    found = stand_out(np.concatenate([draw.normal(size=20), np.full(5, 9.0)]), usual, 0.01)
    assert found.tolist() == [False] * 20 + [True] * 5
    assert sum(stand_out(draw.normal(size=50), usual, 0.01).any() for _ in range(100)) <= 5


def test_every_verdict_has_an_exit_code_of_its_own():
    assert VERDICTS["deleted"] == 0
    assert len(set(VERDICTS.values())) == len(VERDICTS) == 6
    assert set(VERDICTS.values()) <= set(EXIT_CODES)
    assert {v for case in CASES for v in case.right} <= {*VERDICTS, "measured"}


def test_retraining_is_deletion_and_a_few_steps_are_not():
    problem = battery.problem_of("overfitted", 100, 0)
    again = audit(retrain(problem, 70), problem, effort="brief")
    assert again.verdict.word == "deleted"
    assert again.verdict.power >= 0.8
    assert "would have seen" in again.findings[0]
    light = problem.tune([Phase(problem.retain, fit)], Tuning(2, 0.002, batch_size=64)).model
    assert audit(light, problem, effort="brief").verdict.word in ("unchanged", "incomplete")
    told = battery.Told(problem.copy(), "one-hot answers")
    assert audit(told.eval(), problem, effort="brief").verdict.word == "suppressed"


def test_a_network_that_generalises_shows_nothing_and_that_is_said():
    problem = battery.problem_of("generalising", 100, 0)
    result = audit(retrain(problem, 70), problem, effort="brief")
    assert result.verdict.word == "not measurable"
    assert "--reference" in result.findings[0]
    assert audit(problem.copy(), problem, effort="brief").verdict.word == "unchanged"


def test_requests_that_were_never_trained_on_are_noticed():
    problem = learnt_by_heart()
    never = replace(problem, model=retrain(problem, 50))
    result = audit(never.tune([Phase(never.retain, fit)], Tuning(1, 0.001)).model, never, effort="brief")
    assert result.verdict.word == "not measurable"
    assert "do not look trained on" in result.findings[0]
    assert result.requests.none


def test_some_requests_that_were_never_trained_on_are_counted():
    problem = learnt_by_heart()
    test = problem.test
    said = say(problem.model, test.take(range(12))).outputs.argmax(1)
    inputs, labels = problem.train.inputs.clone(), problem.train.targets.clone()
    inputs[:12], labels[:12] = test.inputs[:12], torch.from_numpy((said + 1) % 3)
    mixed = replace(problem, train=replace(problem.train, inputs=inputs, targets=labels), test=test.take(range(12, 80)))
    result = audit(mixed.copy(), mixed, effort="brief")
    assert 8 <= len(result.requests.unlike) <= 12
    assert set(result.requests.unlike) <= set(range(12))
    assert any("requests do not look trained on" in s for s in result.findings)


def test_modules_of_other_names_are_compared_where_they_can_be():
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert features_moved(plain, nn.Sequential(plain)) == 0
    assert features_moved(plain, nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))) is None
    problem = learnt_by_heart()
    torch.manual_seed(1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 3))
    result = audit(other, problem, effort="brief")
    assert any("weights were not compared" in s for s in result.findings)


def test_the_battery_counts_what_it_found():
    rows = [
        {"case": "unchanged", "verdict": "unchanged", "is right": True, "gone": False},
        {"case": "ssd", "verdict": "deleted", "is right": False, "gone": False},
        {"case": "retrained", "verdict": "deleted", "is right": True, "gone": True},
    ]
    said = battery.table(rows)
    assert "right: 2 of 3" in said
    assert "called deleted: 1 of 2" in said
    assert "1 deleted (wrong)" in said
    assert len({cell.case for cell in battery.cells()}) == len(CASES) >= 14


def test_retrained_models_are_counted_by_power():
    rows = [
        {"verdict": v, "measurable": m} for v, m in (("deleted", True), ("deleted", True), ("not measurable", False))
    ]
    strong, weak = battery.table_retrained(rows).splitlines()
    assert "2 deleted" in strong
    assert "1 not measurable" in weak
    assert len(set(battery.retrained_cells())) == 60
