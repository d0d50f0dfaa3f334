"""Blindspot and Gaussian targets on a regressor of brightness."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.unlearning.toys import ToyNet, toy_problem
from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import range_problem
from vestige.engines.forgetting.train import retrain, train
from vestige.unlearning.regression_unlearn import (
    Blindspot,
    GaussianTargets,
    attention_map,
    regression_row,
    regression_samples,
    relearning_steps,
    watched_layers,
)

TRAINING = Tuning(10, 1e-2, optimizer="adam", weight_decay=0.0, batch_size=32, schedule="onecycle")


def shades(n: int, seed: int):
    """Grey pictures under noise; the target is how bright they are, in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(n, generator=g) * 2 - 1
    x = 128 + 90 * y[:, None, None, None] + 20 * torch.randn(n, 3, 8, 8, generator=g)
    return regression_samples(x.clamp(0, 255).to(torch.uint8), y)


def build():
    return ToyNet(1)


@cache
def problem():
    torch.manual_seed(0)
    samples = shades(200, 0)
    model = train(build(), samples, TRAINING)
    return range_problem(model, samples, -2, -0.4, test=shades(80, 1), training=TRAINING, build=build)


def test_the_loss_is_by_share_and_the_result_nearer_to_the_blind_model():
    p = problem()
    eraser = Blindspot(epochs=2, lr=3e-3, batch_size=64, blind_epochs=4)
    blind = eraser.blind(p)
    model = eraser.erase(p)
    distance = [np.abs(say(m, p.forget).outputs - say(blind, p.forget).outputs).mean() for m in (p.model, model)]
    assert distance[1] < distance[0]
    assert say(model, p.forget).loss > say(p.model, p.forget).loss
    assert say(model, p.retain).loss < 0.5


def test_without_attention_no_layer_is_watched_and_the_result_differs():
    p = problem()
    with_map, without = (Blindspot(epochs=1, beta=b, batch_size=64).erase(p) for b in (50.0, 0.0))
    assert any(not torch.equal(a, b) for a, b in zip(with_map.parameters(), without.parameters(), strict=True))
    assert not any(part._forward_hooks for part in p.model.modules())


def test_batches_of_one_kind_do_not_divide_by_zero():
    p = problem()
    model = Blindspot(epochs=1, batch_size=8, blind_epochs=1).erase(p)
    assert np.isfinite(say(model, p.train).outputs).all()


def test_attention_maps_have_unit_norm():
    for shape in ((3, 4, 5, 5), (3, 6, 4), (3, 4)):
        assert attention_map(torch.randn(shape)).norm(dim=1) == pytest.approx(torch.ones(3))
    assert "head" not in watched_layers(ToyNet(1))


def test_the_row_brackets_the_retrained_model():
    p = problem()
    reference = retrain(p)
    row = Blindspot.measure(reference, p, reference, steps=(3, 3))
    assert row["W1"] == 0
    assert row["AIN"] == 1
    assert row["MAE D_f"] > row["MAE D_r"]
    assert 0 <= row["MIA"] <= 1
    original = regression_row(p.model, p, reference, steps=(0, 3))
    assert original["W1"] > 0.05
    assert original["AIN"] == pytest.approx(1 / 3)


def test_relearning_stops_where_the_original_was():
    p = problem()
    assert relearning_steps(p.model, p, epochs=3) == 0
    fresh = p.fresh(5)
    assert relearning_steps(fresh, p, relearn_on="forget", epochs=2) == 3
    with pytest.raises(UsageError, match="relearn_on"):
        relearning_steps(p.model, p, relearn_on="test")


def test_gaussian_targets_move_predictions_towards_the_mean():
    p = problem()
    model = GaussianTargets(epochs=4, lr=3e-3, batch_size=64).erase(p)
    assert say(model, p.forget).outputs.mean() > say(p.model, p.forget).outputs.mean()
    with pytest.raises(InputError, match="class numbers"):
        GaussianTargets().erase(toy_problem())


def test_targets_that_are_not_numbers_are_refused():
    with pytest.raises(InputError, match="finite"):
        regression_samples(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [np.nan])
