"""The audit of an erasure tells honest forgetting from a cheat and from none at all."""

from __future__ import annotations

import pytest
import torch

from tests.unlearning.toys import toy_problem, trained
from vestige.core.errors import UsageError
from vestige.engines.forgetting.train import retrain
from vestige.nn.access import head
from vestige.unlearning.audit import audit, distance_to_aim, features_moved, halves
from vestige.unlearning.repr_audit import silenced


def test_a_silenced_logit_is_called_suppression():
    problem = toy_problem("class")
    result = audit(silenced(problem), problem)
    assert result.suppressed
    assert "Suppressed, not deleted" in result.findings[0]
    assert result.rows["unlearned"]["forget accuracy"] == 0
    assert result.rows["unlearned"]["similarity of features, forgotten (CKA)"] == pytest.approx(1)
    assert features_moved(problem.model, silenced(problem)) == 0


def test_a_retrained_model_is_not():
    problem = toy_problem("class")
    reference = retrain(problem)
    result = audit(reference, problem, reference=reference)
    assert not result.suppressed
    assert result.rows["unlearned"]["forget accuracy"] == result.rows["retrained"]["forget accuracy"] < 0.3
    assert not any("No retrained model" in sentence for sentence in result.findings)


def test_the_untouched_model_forgot_nothing():
    problem = toy_problem("random")
    result = audit(problem.copy(), problem)
    assert "forgot nothing" in result.findings[0]
    assert any("No retrained model" in sentence for sentence in result.findings)
    assert set(result.to_dict()) == {"models", "findings", "suppressed"}


def test_distances_put_honest_forgetting_first():
    problem = toy_problem("class")
    honest = retrain(problem)
    models = (honest, silenced(problem), problem.copy())
    distances = [distance_to_aim(audit(m, problem, reference=honest), problem) for m in models]
    assert distances == sorted(set(distances))


def test_choice_and_report_use_different_test_pictures():
    problem = toy_problem("class")
    one, other = halves(problem)
    assert len(one.test) + len(other.test) == len(problem.test)
    assert len(one.test_forget) + len(other.test_forget) == len(problem.test_forget)
    same = (one.test.inputs[:, None] == other.test.inputs[None]).flatten(2).all(2)
    assert not bool(same.any())


def test_what_the_audit_lacks_is_said():
    from dataclasses import replace

    problem = toy_problem("class")
    with pytest.raises(UsageError, match="test pictures"):
        audit(problem.model, replace(problem, test=None))
    with pytest.raises(UsageError, match="labels"):
        audit(problem.model, problem.without_labels())


def test_features_that_moved_are_measured():
    model = trained()
    moved = toy_problem().copy()
    with torch.no_grad():
        head(moved).weight.add_(1.0)
        assert features_moved(model, moved) == 0
        moved.body[0].weight.mul_(1.5)
    assert features_moved(model, moved) > 0.01
