"""Prune, then unlearn; and the shrinking l1 penalty."""

from __future__ import annotations

import pytest
import torch

from tests.unlearning.toys import toy_problem
from vestige.core.errors import UsageError
from vestige.engines.forgetting.evaluate import say
from vestige.nn.pruning import prunable
from vestige.unlearning.baselines import FineTune, GradAscent
from vestige.unlearning.sparse_unlearn import L1Sparse, SparseUnlearn


def zeros(model) -> float:
    weights = torch.cat([w.detach().flatten() for w in prunable(model).values()])
    return float((weights == 0).float().mean())


@pytest.mark.parametrize("pruner", ["omp", "imp", "synflow"])
def test_pruned_networks_recover_and_forget_at_their_density(pruner):
    problem = toy_problem("class")
    method = SparseUnlearn(rate=0.7, pruner=pruner, recover_epochs=4, unlearner=FineTune(lr=0.05, epochs=8))
    sparse = method.sparse(problem)
    assert zeros(sparse.model) == pytest.approx(0.7, abs=0.02)
    assert say(sparse.model, problem.retain).accuracy > 0.7
    assert not sparse.statistics
    model = method.erase(problem)
    assert zeros(model) == pytest.approx(0.7, abs=0.02)
    for name, kept in sparse.mask.items():
        assert (dict(model.named_parameters())[name][kept == 0] == 0).all()
    assert zeros(problem.model) == 0
    assert problem.mask is None


def test_any_eraser_can_follow_and_its_row_tells_the_density():
    row = SparseUnlearn(rate=0.5, recover_epochs=1, unlearner=GradAscent(lr=0.01)).measure(toy_problem("class"))
    assert row["density"] == pytest.approx(0.5, abs=0.01)
    assert 0 < row["least_density"] <= 1
    assert {"UA", "RA", "TA", "MIA"} <= set(row)


def test_the_penalty_falls_linearly_and_rests():
    method = L1Sparse(gamma=1.0, epochs=10, rest=2)
    assert [method.gamma_at(t) for t in (0, 4, 7, 8, 9)] == [1.0, 0.5, 0.125, 0.0, 0.0]
    assert L1Sparse(epochs=2, rest=2, gamma=1.0).gamma_at(0) == 1.0


def test_l1_shrinks_the_weights():
    problem = toy_problem("class")

    def norm(model):
        return sum(float(w.detach().abs().sum()) for w in prunable(model).values())

    plain = FineTune(lr=0.05, epochs=6).erase(problem)
    sparse = L1Sparse(gamma=5e-3, lr=0.05, epochs=6).erase(problem)
    assert norm(sparse) < norm(plain)
    assert say(sparse, problem.retain).accuracy > 0.8
    only = L1Sparse(gamma=5e-3, lr=0.05, epochs=6, weights_only=True).erase(problem)
    assert not torch.equal(only.body[1].weight, sparse.body[1].weight)


def test_senseless_settings_are_refused():
    with pytest.raises(UsageError, match="pruner"):
        SparseUnlearn(pruner="axe")
    with pytest.raises(UsageError, match="rate"):
        SparseUnlearn(rate=1.0)
