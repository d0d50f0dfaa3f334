"""Micro average precision against a slow calculation from its definition, with ties and strangers."""

import numpy as np
import pytest

from vestige.core.errors import UsageError
from vestige.metrics.retrieval import copy_scores


def slow(scores, truth):
    """Sum over true pairs of the precision at their place; false pairs go first at ties."""
    pairs = sorted(zip(scores.ravel(), truth.ravel(), strict=True), key=lambda p: (-p[0], p[1]))
    total, hits = 0.0, 0
    for place, (_, true) in enumerate(pairs, 1):
        if true:
            hits += 1
            total += hits / place
    return total / truth.sum()


@pytest.mark.parametrize("seed", range(5))
def test_micro_ap_is_that_of_its_definition(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 12, (50, 80)) / 10
    truth = random.random((50, 80)) < 0.02
    scores[truth] += random.choice([0, 0.5], truth.sum())
    assert copy_scores(scores, truth).micro_ap == pytest.approx(slow(scores, truth))


def test_queries_without_a_copy_can_only_lower_it():
    random = np.random.default_rng(0)
    scores, truth = random.random((40, 30)), np.zeros((40, 30), bool)
    truth[np.arange(20), np.arange(20)] = True
    scores[truth] += 0.4
    assert copy_scores(scores[:20], truth[:20]).micro_ap >= copy_scores(scores, truth).micro_ap
    assert copy_scores(scores[:20], truth[:20]).recall_1 == copy_scores(scores, truth).recall_1


def test_ties_count_against():
    truth = np.array([[True, False]])
    assert copy_scores(np.array([[0.5, 0.5]]), truth).recall_1 == 0
    assert copy_scores(np.array([[0.5, 0.5]]), truth).micro_ap == 0.5
    assert copy_scores(np.array([[0.5, 0.4]]), truth) == (1, 1, 1, 1)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(UsageError):
        copy_scores(np.zeros((2, 2)), np.zeros((2, 2), bool))
    with pytest.raises(UsageError):
        copy_scores(np.full((1, 1), np.nan), np.ones((1, 1), bool))
