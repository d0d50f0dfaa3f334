"""Poisons with known truth, and the eraser that chooses its strength without an oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unlearning.toys import TRAINING, ToyNet, pictures
from vestige.core.errors import UsageError
from vestige.data.poisons import backdoored, confused, stamp
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.problem import corrective_problem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import train
from vestige.unlearning.corrective import Corrective, selection_score, trigger_success, triggered


def test_a_backdoor_touches_only_what_it_says():
    clean = pictures(80, 0)
    images, labels, where = backdoored(clean.inputs.numpy(), clean.labels.numpy(), 12, target=0, seed=3)
    assert len(where) == 12
    assert (clean.labels.numpy()[where] != 0).all()
    assert (labels[where] == 0).all()
    rest = np.setdiff1d(np.arange(80), where)
    np.testing.assert_array_equal(images[rest], clean.inputs.numpy()[rest])
    np.testing.assert_array_equal(images[where][:, :, :5], clean.inputs.numpy()[where][:, :, :5])
    assert (images[where][:, :, -3:, -3:] == 255).all()
    again = backdoored(clean.inputs.numpy(), clean.labels.numpy(), 12, target=0, seed=3)
    np.testing.assert_array_equal(again[2], where)


def test_confusion_swaps_two_classes():
    labels = np.arange(40) % 4
    made, where = confused(labels, 1, 2, 10, seed=1)
    assert len(where) == 10
    assert sorted(set(labels[where])) == [1, 2]
    assert (made[where] == 3 - labels[where]).all()
    assert (made == labels).sum() == 30


def test_patches_and_counts_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="does not fit"):
        stamp(np.zeros((1, 3, 4, 4), np.uint8), side=5)
    with pytest.raises(UsageError, match="qualify"):
        confused(np.array([0, 1]), 0, 1, 8)


def _poisoned(known: float):
    clean = pictures(200, 0)
    images, labels, where = backdoored(clean.inputs.numpy(), clean.labels.numpy(), 40, target=0)
    samples = Samples(torch.from_numpy(images), torch.from_numpy(labels))
    torch.manual_seed(0)
    model = train(ToyNet(), samples, TRAINING)
    return corrective_problem(
        model, samples, where, known, val=pictures(40, 2), test=pictures(80, 1), training=TRAINING, build=ToyNet
    )


def test_the_retained_samples_still_hold_the_undetected_poison():
    problem = _poisoned(0.25)
    assert len(problem.forget) == 10
    assert len(problem.retain) == 190
    hidden = np.setdiff1d(problem.forget_idx.numpy(), problem.known_idx.numpy())
    assert np.isin(hidden, problem.retain.index.numpy()).all()


def test_the_chosen_strength_is_the_best_by_the_rule_and_cleans_a_part():
    problem = _poisoned(0.5)
    eraser = Corrective(alphas=(1.0, 2.0, 1e6), lambdas=(0.1, 1.0), batch_size=16)
    tried = [(s, selection_score(m, problem)) for s, m in eraser.candidates(problem)]
    assert tried
    assert all(s["alpha"] < 1e6 for s, _ in tried)  # no weight is that much more important
    strength, model = eraser.chosen(problem)
    assert (strength, selection_score(model, problem)) == max(tried, key=lambda t: t[1])
    affected = triggered(problem.test)
    assert trigger_success(model, affected) <= trigger_success(problem.model, affected)
    row = eraser.measure(model, affected, problem.test)
    assert set(row) == {"corrected", "retained"}
    worst = eraser.chosen(problem, lambda m: -say(m, problem.test).accuracy)[1]
    assert say(worst, problem.test).accuracy <= row["retained"]


def test_triggered_pictures_leave_the_target_class_out():
    affected = triggered(pictures(40, 5), target=2)
    assert len(affected) == 30
    assert 2 not in affected.labels.tolist()
    bright = Samples(affected.inputs.clone(), affected.labels)
    bright.inputs[:10] = 240
    bright.inputs[10:] = 20
    assert len(triggered(bright, target=2, least=64)) == 20
    with pytest.raises(UsageError, match="grey levels"):
        triggered(bright.take(range(10)), target=2, least=64)
    with pytest.raises(UsageError, match="target class"):
        triggered(pictures(40, 5).take([0, 4]), target=0)


def test_a_grid_that_changes_nothing_is_refused():
    with pytest.raises(UsageError, match="lower the alphas"):
        Corrective(alphas=(1e12,)).erase(_poisoned(1.0))
