"""Worst-case forget sets and the projection they rest on."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unlearning.toys import pictures, toy_problem, trained
from vestige.core.errors import UsageError
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.samples import Samples, joined
from vestige.nn.access import head
from vestige.nn.simplex import project_capped
from vestige.unlearning.worst_case import WorstCase, duplicates, heuristic, jaccard


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.floats(0.05, 0.95))
def test_the_projection_is_feasible_and_nearest(values, share):
    a = np.array(values)
    total = share * len(a)
    w = project_capped(a, total)
    assert w.min() >= 0
    assert w.max() <= 1
    assert w.sum() == pytest.approx(total, abs=1e-6)
    # No feasible point is nearer: the gradient a − w points out of the set.
    g = np.random.default_rng(0)
    for _ in range(5):
        other = project_capped(g.normal(size=len(a)) * 3, total)
        assert (a - w) @ (other - w) <= 1e-5


def test_bad_projections_are_refused():
    with pytest.raises(UsageError, match="finite"):
        project_capped([np.nan, 1.0], 1)
    with pytest.raises(UsageError, match="finite"):
        project_capped([0.0, 1.0], 3)


def _with_outliers() -> Samples:
    """Clear pictures, and twenty of pure noise under random labels, which nothing else teaches."""
    noise = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    odd = Samples(noise, (torch.arange(20) * 7) % 4)
    return joined([pictures(120, 0, noise=30.0), odd])


def test_what_stays_known_is_chosen_and_the_reverse_chooses_outliers():
    samples, model = _with_outliers(), trained()
    before = [p.clone() for p in model.parameters()]
    worst, w = WorstCase(rounds=2, batch_size=32).attack(model, samples, 20)
    easy, _ = WorstCase(rounds=2, batch_size=32, easiest=True).attack(model, samples, 20)
    assert len(set(worst.tolist())) == len(set(easy.tolist())) == 20
    assert w.sum() == pytest.approx(20, abs=1e-4)
    assert (worst < 120).all()
    assert (easy >= 120).mean() > 0.5
    losses = say(model, samples).losses
    assert losses[worst].mean() < losses[easy].mean()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    again, _ = WorstCase(rounds=2, batch_size=32).attack(model, samples, 20)
    np.testing.assert_array_equal(worst, again)
    assert jaccard([worst, again]) == 1


def test_groups_share_one_weight_and_another_lower_level_may_be_given():
    samples, model = pictures(60, 0), trained()
    seen = []

    def lower(original, w):
        seen.append(w)
        return original

    groups = samples.labels.numpy() * 10
    chosen, w = WorstCase(rounds=2).attack(model, samples, 1, groups=groups, lower=lower)
    assert w.shape == (4,)
    assert chosen.shape == (1,)
    assert all(len(set(s[groups == 10])) == 1 for s in seen)
    assert len(seen) == 2


def test_later_rounds_can_still_change_the_choice():
    samples, model = pictures(60, 0), trained()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in head(other).parameters():
            parameter.neg_()  # what was known best is now known worst
    models = iter((model, other))
    first, _ = WorstCase(rounds=1).attack(model, samples, 6, lower=lambda original, w: model)
    second, _ = WorstCase(rounds=2).attack(model, samples, 6, lower=lambda original, w: next(models))
    assert len(np.intersect1d(first, second)) < 3


@pytest.mark.parametrize("name", ["random", "lowest loss", "highest loss", "moderate", "herding"])
def test_heuristics_give_sets_of_the_size_asked_for(name):
    samples = pictures(100, 0)
    chosen = heuristic(name, trained(), samples, 21)
    assert len(set(chosen.tolist())) == 21
    np.testing.assert_array_equal(chosen, heuristic(name, trained(), samples, 21))


def test_losses_order_the_loss_heuristics():
    samples = pictures(100, 0)
    losses = say(trained(), samples).losses
    low, high = (heuristic(n, trained(), samples, 10) for n in ("lowest loss", "highest loss"))
    assert losses[low].max() <= losses[high].min()


def test_duplicates_outside_the_set_are_listed():
    samples = pictures(10, 0)
    double = joined([samples, samples.take([3])])
    assert duplicates(double, np.array([2, 3])).tolist() == [3]
    assert duplicates(double, np.array([3, 10])).tolist() == []


def test_a_set_is_measured_on_any_model():
    samples = pictures(40, 0)
    double = joined([samples, samples.take([3])])
    row = WorstCase.measure(trained(), double, np.array([3, 5]))
    assert row["duplicated"] == 0.5
    assert row["UA"] in (0, 0.5, 1)
    assert row["loss"] >= 0


def test_sizes_and_names_out_of_range_are_refused():
    problem = toy_problem()
    with pytest.raises(UsageError, match="at least 1"):
        WorstCase(rounds=0)
    with pytest.raises(UsageError, match="can be chosen"):
        WorstCase().attack(problem.model, problem.train, 0)
    with pytest.raises(UsageError, match="heuristic"):
        heuristic("magic", problem.model, problem.train, 3)
    with pytest.raises(UsageError, match="two sets"):
        jaccard([np.array([1])])
