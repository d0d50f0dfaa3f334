"""Selective Synaptic Dampening: which weights shrink, and by how much."""

from __future__ import annotations

import pytest
import torch

from tests.unlearning.toys import toy_problem
from vestige.core.errors import UsageError
from vestige.engines.forgetting.cost import measured
from vestige.engines.forgetting.evaluate import say
from vestige.unlearning.ssd import SSD, damp


def test_dampening_follows_its_equation():
    theta, everything, forget = torch.ones(4), torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([20.0, 11.0, 9.0, 0.0])
    torch.testing.assert_close(damp(theta, everything, forget, 10.0, 1.0), torch.tensor([1 / 20, 1 / 11, 1.0, 1.0]))
    torch.testing.assert_close(damp(theta, everything, forget, 10.0, 15.0)[1], torch.tensor(1.0))  # β is at most 1


def test_a_class_is_forgotten_without_a_gradient_step_and_the_rest_is_kept():
    problem = toy_problem("class")
    problem.importance_of_all()
    with measured() as cost:
        model = SSD(alpha=1.5).erase(problem)
    assert cost.steps == 0
    assert cost.forward == len(problem.forget)  # I_D was stored
    assert say(model, problem.forget).accuracy < say(problem.model, problem.forget).accuracy - 0.3
    assert say(model, problem.retain).accuracy > 0.6


def test_smaller_alpha_and_lambda_forget_more():
    problem = toy_problem("class")

    def loss(**options):
        return say(SSD(**options).erase(problem), problem.forget).loss

    assert loss(alpha=1.2) > loss(alpha=3.0)
    assert loss(alpha=1.5, lam=0.2) > loss(alpha=1.5, lam=1.0)


def test_only_chosen_weights_change_and_running_statistics_do_not():
    problem = toy_problem("class")
    method = SSD(alpha=2.0)
    everything, forget = method.importances(problem)
    model = method.erase(problem)
    for name, p in problem.model.named_parameters():
        changed = dict(model.named_parameters())[name] != p
        assert not (changed & (forget[name] <= 2.0 * everything[name])).any(), name
    for name, b in problem.model.named_buffers():
        assert torch.equal(b, dict(model.named_buffers())[name])


def test_without_alpha_the_share_of_what_is_forgotten_decides():
    problem = toy_problem("class")
    method = SSD()
    everything, forget = method.importances(problem)
    alpha = method.chosen_alpha(problem, everything, forget)
    chosen = sum(int((forget[n] > alpha * everything[n]).sum()) for n in forget)
    share = chosen / sum(v.numel() for v in forget.values())
    assert share == pytest.approx(torch.log1p(torch.tensor(25.0)).item() / 100, abs=0.01)


def test_weights_that_share_the_largest_ratio_are_chosen_all_the_same():
    problem, method = toy_problem(), SSD()
    bound = len(problem.train) / len(problem.forget)
    forget = {"w": torch.full((100,), bound)}
    forget["w"] *= 1 + 1e-6 * torch.rand(100)  # equal but for rounding
    forget["w"][:3] = 1.0
    everything = {"w": torch.ones(100)}
    assert method.chosen_alpha(problem, everything, forget) == 1.0


def test_the_ratio_of_single_gradients_is_bounded_by_the_share():
    problem = toy_problem("class")
    everything, forget = SSD().importances(problem)
    bound = len(problem.train) / len(problem.forget)
    assert all((forget[n] <= bound * everything[n] * (1 + 1e-4) + 1e-12).all() for n in forget)


def test_no_labels_are_needed_for_the_output_norm():
    problem = toy_problem("class").without_labels()
    assert SSD(importance="output_norm").needs == {"statistics"}
    model = SSD(importance="output_norm").erase(problem)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), problem.model.parameters()))


def test_batch_squares_and_single_squares_differ():
    problem = toy_problem("class")
    single, batch = (SSD(alpha=None, per_sample=p).importances(problem)[1]["head.weight"] for p in (True, False))
    assert (batch <= single + 1e-9).all()
    assert not torch.allclose(single, batch)


def test_senseless_settings_are_refused():
    for options in ({"alpha": 0.0}, {"lam": -1.0}):
        with pytest.raises(UsageError, match="positive"):
            SSD(**options)
    with pytest.raises(UsageError, match="No weight is chosen"):
        SSD(alpha=10.0).erase(toy_problem("class"))
