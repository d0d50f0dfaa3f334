"""The audit of an erasure tells honest forgetting from a cheat and from none at all."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.unlearning.toys import toy_problem, trained
from vestige.core.errors import UsageError
from vestige.engines.forgetting.cost import Cost
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import expected_cost, retrain, train, usual_training
from vestige.nn.access import head
from vestige.unlearning.audit import audit, distance_to_aim, halves
from vestige.unlearning.audit_attacks import Candidates, shadow_models
from vestige.unlearning.audit_features import READ, features_moved
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
    assert result.verdict.word == "unchanged"
    assert "nothing was forgotten" in result.findings[0]
    assert any("No retrained model" in sentence for sentence in result.findings)
    assert {"models", "findings", "suppressed", "not measured", "costs"} < set(result.to_dict())


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


def learnt_by_heart() -> ForgetProblem:
    """A network that knows labels drawn by lot, 30 of them to be forgotten: nothing but memory can name them."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(256, (200, 3, 4, 4), generator=generator, dtype=torch.uint8)
    y = torch.randint(3, (200,), generator=generator)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 3))
    recipe = Tuning(60, 0.01, optimizer="adam", weight_decay=0.0, batch_size=32)
    samples = Samples(x[:120], y[:120])
    return ForgetProblem(
        train(net, samples, recipe), samples, range(30), range(30, 120), test=Samples(x[120:], y[120:]), training=recipe
    )


def test_a_full_audit_trains_what_its_attacks_compare_with():
    problem = learnt_by_heart()
    full = audit(problem.copy(), problem, effort="full", names=[f"{i}.png" for i in range(30)])
    for attack in ("loss", "LiRA", "RMIA"):
        of = {model: row[f"membership by {attack} (AUC)"] for model, row in full.rows.items()}
        assert of["original"] == of["unlearned"] > 0.85 > of["retrained"]
    assert set(full.costs) == {"retraining", "shadow models"}
    assert not any("LiRA" in sentence for sentence in full.missing)
    assert full.worst["calibrated by"] == "shadow models"
    assert full.rows["unlearned"]["worst tenth: membership (AUC)"] > 0.85
    assert full.rows["unlearned"]["worst tenth: accuracy"] == 1
    # Names are for the holder of the data: a certificate is shown to others.
    assert full.worst["pictures"][0]["name"] == f"{full.worst['pictures'][0]['number']}.png"
    assert ".png" in json.dumps(full.to_dict(names=True))
    assert ".png" not in json.dumps(full.to_dict())


def test_what_was_not_measured_is_said_with_its_price():
    problem = learnt_by_heart()
    quick = audit(problem.copy(), problem, costs={"erasure": Cost(1.0)})
    assert any("LiRA and RMIA were not run" in s and "--audit full" in s for s in quick.findings)
    assert any("Sparse restoration was not run" in s for s in quick.findings)
    assert any("Forgetting took 1.0 seconds" in s and "expected" in s for s in quick.findings)
    assert set(quick.costs) == {"erasure", "retraining, expected"}
    poor = audit(problem.copy(), problem, effort="full", budget=0)
    assert set(poor.rows) == {"original", "unlearned"}
    assert any("the budget is 0.0 seconds" in s for s in poor.missing)
    assert any(s.startswith("LiRA was not run: 4 shadow models would take") for s in poor.missing)
    for wrong in ({"effort": "some"}, {"shadows": 3}):
        with pytest.raises(UsageError):
            audit(problem.copy(), problem, **wrong)


def test_a_reference_alone_is_enough_for_one_attack():
    problem = learnt_by_heart()
    result = audit(problem.copy(), problem, reference=retrain(problem))
    assert result.rows["unlearned"]["membership by RMIA (AUC)"] > 0.85
    assert "membership by RMIA (AUC)" not in result.rows["retrained"]
    assert result.worst["calibrated by"] == "the retrained model"
    assert any(s.startswith("LiRA was not run") for s in result.missing)


def test_every_candidate_is_in_half_of_the_shadow_models():
    problem = learnt_by_heart()
    candidates = Candidates(problem.train.take(problem.forget_idx), problem.test)
    known = shadow_models(problem, candidates, 4)
    assert known.member.sum(0).tolist() == [2] * 110
    assert known.statistic.shape == known.confidence.shape == (4, 110)
    assert candidates.members.sum() == 30
    assert candidates.chance == pytest.approx(0.687, abs=1e-3)


def test_sparse_restoration_sees_behind_the_last_layer_and_not_what_is_not_there():
    problem = toy_problem("class")
    reference = retrain(problem)
    rows = audit(silenced(problem), problem, reference=reference).rows
    assert rows["unlearned"][READ] == 1
    assert rows["retrained"][READ] < 1


def test_a_network_with_more_behind_its_last_layer_is_not_restored():
    from dataclasses import replace

    problem = toy_problem("class")
    scaled = replace(problem, model=nn.Sequential(problem.model, nn.Softplus()))
    result = audit(scaled.copy(), scaled)
    assert any("outputs are not those of the last linear layer" in s for s in result.missing)
    assert READ not in result.rows["unlearned"]


def test_retraining_is_priced_from_a_few_steps():
    problem = toy_problem("class")
    cost = expected_cost(problem, least=0.05)
    assert 0 < cost.seconds < 60
    assert cost.forward == 10 * 120
    assert usual_training(problem.model).optimizer == "sgd"
    assert usual_training(nn.Linear(2, 2)).optimizer == "adam"
