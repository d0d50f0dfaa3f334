"""The representation audit: head edits keep the representation, retraining changes it, collapse loses it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.unlearning.toys import pictures, toy_problem
from vestige.core.errors import UsageError
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.train import retrain
from vestige.unlearning.repr_audit import ReprAudit, closeness, halves, harmonic, most_similar, silenced


@cache
def audit() -> ReprAudit:
    problem = toy_problem("class")
    return ReprAudit(problem, retrain(problem), {"colours": pictures(80, 9, noise=80.0)}, most=200)


def test_a_silenced_head_forgets_in_the_outputs_alone():
    problem = toy_problem("class")
    before = [p.clone() for p in problem.model.parameters()]
    row = audit().measure(silenced(problem))
    assert row["FA"] == row["TFA"] == 0
    assert row["cka_original"] == pytest.approx(1)
    assert row["recovery"] > 0.9
    assert all(torch.equal(a, b) for a, b in zip(before, problem.model.parameters(), strict=True))


def test_the_reference_agrees_with_itself_and_the_original_less():
    row = audit().measure(audit().reference)
    assert row["AGL"] == pytest.approx(1)
    assert row["AGR"] == pytest.approx(1)
    assert row["H-LR"] == pytest.approx(1)
    original = audit().measure(audit().problem.model)
    assert original["FA"] > 0.8
    assert original["AGL"] < 0.5
    assert original["cka_original"] == pytest.approx(1)


def test_a_collapsed_encoder_scores_zero_similarity_and_loses_the_neighbours():
    model = audit().problem.copy()
    with torch.no_grad():
        for p in model.body.parameters():
            p.zero_()
    row = audit().measure(model)
    assert row["cka_forget"] == 0
    assert row["knn_colours"] < audit().measure(audit().problem.model)["knn_colours"]
    assert row["H-LR"] == 0


def test_closeness_and_the_harmonic_mean():
    assert closeness({"a": 0.9, "b": 0.2}, {"a": 1.0, "b": 0.7}, ("a", "b")) == pytest.approx(0.45)
    assert closeness({"a": 3.0}, {"a": 0.0}, ("a",)) == 0
    assert harmonic(0.0, 0.0) == 0


def test_the_top_protocol_ranks_classes_by_their_centroids():
    g = np.random.default_rng(0)
    centres = np.eye(4)
    labels = np.arange(80) % 4
    features = centres[labels] + 0.05 * g.normal(size=(80, 4))
    chosen, scores = most_similar(features, labels, centres[[2, 2, 1]] + 0.05 * g.normal(size=(3, 4)), 2)
    assert chosen == [2, 1]
    assert scores[2] > scores[1] > max(scores[0], scores[3])
    with pytest.raises(UsageError, match="can be forgotten"):
        most_similar(features, labels, centres, 4)


def test_the_split_of_a_downstream_set_is_fixed():
    samples = pictures(50, 3)
    one, two = halves(samples, 1), halves(samples, 1)
    assert [len(p) for p in one] == [40, 10]
    assert torch.equal(one[1].inputs, two[1].inputs)


def test_problems_that_cannot_be_audited_are_refused():
    with pytest.raises(UsageError, match="whole classes"):
        silenced(toy_problem("random"))
    problem = toy_problem("class")
    problem.test = None
    with pytest.raises(UsageError, match="test samples"):
        ReprAudit(problem, problem.model)
    assert say(silenced(toy_problem("class")), toy_problem("class").test).accuracy > 0.8
