"""Figures of forgetting on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.core.errors import UsageError
from vestige.metrics import unlearning as metric
from vestige.metrics.representation import knn_probe, layerwise_cka, linear_probe, pooled


def said(confidence: np.ndarray) -> np.ndarray:
    """Two classes, the true one (0) with that confidence."""
    return np.stack([confidence, 1 - confidence], 1)


@pytest.fixture
def overfit() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return said(rng.uniform(0.9, 1.0, 300)), said(rng.uniform(0.4, 0.95, 300))


def test_attacks_call_samples_like_members_members(overfit):
    members, others = overfit
    labels = np.zeros(300, int)
    arguments = (members, labels, others, labels)
    assert metric.mia_efficacy(*arguments, members[:100], labels[:100]) < 0.2
    assert metric.mia_efficacy(*arguments, others[:100], labels[:100]) > 0.7
    assert metric.mia_privacy(*arguments) > 0.75
    assert metric.mia_entropy(members, others, members[:100]) > 0.8
    assert metric.mia_entropy(members, others, others[:100]) < 0.4


def test_attacks_are_at_chance_where_nothing_differs(overfit):
    members, _ = overfit
    labels = np.zeros(300, int)
    half = (members[:150], labels[:150], members[150:], labels[150:])
    assert abs(metric.mia_privacy(*half) - 0.5) < 0.15
    losses = np.random.default_rng(1).exponential(size=(2, 200))
    assert abs(metric.mia_forget_vs_test(*losses) - 0.5) < 0.12
    assert metric.mia_forget_vs_test(losses[0], losses[1] + 3) > 0.9
    assert metric.mia_efficacy(*(np.full((9, 2), 0.5), np.zeros(9, int)) * 3) == 1.0


def test_membership_sides_are_balanced():
    members, others = metric._balanced(np.arange(50), np.arange(20), 0)
    assert len(members) == len(others) == 20
    with pytest.raises(UsageError, match="at least two"):
        metric._balanced(np.arange(1), np.arange(20), 0)


def test_gap_and_tug_of_war():
    row, aim = {"UA": 1.0, "RA": 0.9, "TA": 0.8, "MIA": 0.5}, {"UA": 0.8, "RA": 1.0, "TA": 0.9, "MIA": 0.5}
    assert metric.average_gap(row, aim) == pytest.approx(0.1)
    assert metric.tug_of_war(row, aim) == pytest.approx(0.8 * 0.9 * 0.9)
    assert metric.average_gap(aim, aim) == 0


def test_zrf_and_activation_distance():
    certain, opposite = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert metric.zrf(certain, opposite) == pytest.approx(0)
    assert metric.zrf(certain, certain) == pytest.approx(1)
    assert metric.activation_distance(certain, opposite) == pytest.approx(np.sqrt(2))
    with pytest.raises(UsageError, match="same samples"):
        metric.zrf(certain, np.ones((2, 2)) / 2)


def test_relearning():
    assert metric.relearn_time([1.0, 0.6, 0.52], 0.5) == 2
    assert metric.relearn_time([1.0, 0.9], 0.5) == 2
    assert metric.anamnesis_index(0, 4) == 0.25


def test_nomus_reproduces_the_published_arithmetic():
    assert metric.nomus(0.5951, 0.5 + 0.2136) == pytest.approx(0.5839, abs=1e-4)
    assert metric.nomus(0.5951, 0.5 - 0.2136) == pytest.approx(0.5839, abs=1e-4)


def test_probes_find_what_is_there_and_only_that():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 60)
    x = rng.normal(size=(180, 8)) + 4 * np.eye(8)[labels]
    train, test = np.arange(0, 180, 2), np.arange(1, 180, 2)
    for probe in (knn_probe, linear_probe):
        assert probe(x[train], labels[train], x[test], labels[test]) > 0.95
        assert probe(x[train], labels[train], x[test], labels[test], of_class=1) > 0.9
        assert probe(rng.normal(size=(90, 8)), labels[train], rng.normal(size=(90, 8)), labels[test]) < 0.6
    with pytest.raises(UsageError, match="no test sample"):
        knn_probe(x, labels, x, labels, of_class=7)
    with pytest.raises(UsageError, match="one width"):
        linear_probe(x, labels, x[:, :4], labels)


def test_layerwise_cka_compares_shared_layers():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(40, 6, 4, 4))
    found = layerwise_cka({"a": maps, "b": rng.normal(size=(40, 5))}, {"a": 3 * maps, "b": rng.normal(size=(40, 5))})
    assert found["a"] == pytest.approx(1)
    assert abs(found["b"]) < 0.3
    assert pooled(maps).shape == (40, 6)
    with pytest.raises(UsageError, match="no layer"):
        layerwise_cka({"a": maps}, {"c": maps})
