"""Analytic continual unlearning: a head that always equals the solution over what remains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.unlearning.toys import CLASSES, pictures, toy_problem, trained
from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting.evaluate import represent, say
from vestige.engines.forgetting.samples import Samples
from vestige.engines.ridge import solve
from vestige.nn.access import head
from vestige.unlearning.acu import ACU, AnalyticHead

POINTS = torch.rand(48, 5, generator=torch.Generator().manual_seed(0))
NAMES = torch.arange(48) % 4 + 10


def some(chosen) -> Samples:
    chosen = list(chosen)
    return Samples(POINTS[chosen], NAMES[chosen])


def joint(learner: AnalyticHead, kept: list[int]) -> torch.Tensor:
    places = torch.tensor([learner.classes.index(c) for c in NAMES[kept].tolist()])
    return solve(learner.rows(some(kept)), F.one_hot(places, len(learner.classes)).double(), 0.1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 47), min_size=1)), min_size=1, max_size=30))
def test_any_sequence_of_learning_and_forgetting_equals_the_joint_solution(sequence):
    learner, held = AnalyticHead(width=12, gamma=0.1), set()
    for learns, wanted in sequence:
        chosen = sorted(wanted - held if learns else wanted & held)
        if not chosen:
            continue
        getattr(learner, "learn" if learns else "forget")(some(chosen))
        held = held | set(chosen) if learns else held - set(chosen)
    kept = sorted(held)
    assert set(learner.classes) == set(NAMES[kept].tolist())
    if kept:
        torch.testing.assert_close(learner.ridge.weights, joint(learner, kept), rtol=1e-7, atol=1e-8)


def test_only_what_is_held_can_be_forgotten_and_refusals_change_nothing():
    learner = AnalyticHead(width=12)
    learner.learn(some(range(10)))
    before = learner.digest()
    relabelled = Samples(POINTS[:2], NAMES[:2] + 1)
    for request in (some([3, 20]), some([3, 3]), relabelled):
        with pytest.raises(InputError, match="never learned, or are forgotten already"):
            learner.forget(request)
    learner.forget(some([3]))
    with pytest.raises(InputError, match="forgotten already"):
        learner.forget(some([3]))
    learner.learn(some([3]))
    assert learner.ridge.count == 10
    assert [r.kind for r in learner.log] == ["learn", "forget", "learn"]
    assert learner.log[0].digest == before != learner.log[1].digest


def test_a_class_that_is_gone_has_no_column_left():
    learner = AnalyticHead(width=12)
    learner.learn(some(range(48)))
    learner.forget(some(i for i in range(48) if NAMES[i] == 12))
    assert learner.classes == [10, 11, 13]
    assert 12 not in learner.predict(some(range(48)))


def test_a_head_that_has_drifted_refuses_to_drop_a_class_and_stays_as_it_was():
    learner = AnalyticHead(width=12)
    learner.learn(some(range(48)))
    learner.ridge.weights += 1e-3
    before = learner.digest()
    with pytest.raises(InputError, match="drifted"):
        learner.forget(some(i for i in range(48) if NAMES[i] == 12))
    assert learner.digest() == before
    assert learner.classes == [10, 11, 12, 13]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (Samples(POINTS[:0], NAMES[:0]), "no sample"),
        (Samples(POINTS[:3]), "no labels"),
        (Samples(POINTS[:3], torch.rand(3)), "whole numbers"),
        (Samples(POINTS[:3, :2], NAMES[:3]), "begun with 5"),
        (Samples(POINTS[:3] / 0, NAMES[:3]), "not finite"),
    ],
)
def test_requests_that_make_no_sense_are_refused_in_one_sentence(samples, words):
    learner = AnalyticHead(width=12)
    learner.learn(some(range(10)))
    before = learner.digest(), list(learner.classes)
    with pytest.raises(InputError, match=words) as caught:
        learner.learn(samples)
    assert "\n" not in str(caught.value)
    assert (learner.digest(), learner.classes) == before


def test_an_empty_head_and_a_width_of_nothing_are_refused():
    with pytest.raises(UsageError, match="holds no class"):
        AnalyticHead(width=3).predict(some([0]))
    with pytest.raises(UsageError, match="width"):
        AnalyticHead(width=0)


def test_over_a_frozen_network_it_learns_a_class_at_a_time_and_forgets_one():
    learner, train, test = ACU(width=64).start(trained()), pictures(160, 0), pictures(80, 1)
    for c in range(CLASSES):
        learner.learn(train.take(train.labels == c))
    assert float((learner.predict(test) == test.labels).double().mean()) > 0.7
    learner.forget(train.take(train.labels == 1))
    assert not (learner.predict(test) == 1).any()
    again = ACU(width=64).start(trained())
    again.learn(train.take(train.labels != 1))
    assert torch.equal(again.predict(test), learner.predict(test))


@pytest.mark.parametrize("kind", ["class", "random"])
def test_erasing_gives_the_last_layer_of_the_retained_samples_alone(kind):
    problem = toy_problem(kind)
    model = ACU(gamma=0.3).erase(problem)
    rows = F.pad(torch.from_numpy(represent(problem.model, problem.retain)), (0, 1), value=1.0)
    expected = solve(rows, F.one_hot(problem.retain.labels, CLASSES).double(), 0.3)
    torch.testing.assert_close(head(model).weight.double(), expected[:-1].T, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(head(model).bias.double(), expected[-1], rtol=1e-4, atol=1e-6)
    assert say(model, problem.test).accuracy > 0.7
    if kind == "class":
        assert say(model, problem.forget).accuracy == 0
