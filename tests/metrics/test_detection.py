import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from vestige.core.errors import InputError, UsageError
from vestige.metrics.detection import (
    auroc,
    average_precision,
    best_f1,
    bootstrap_interval,
    detection_summary,
    empirical_p_value,
    equal_error,
    fpr_at_tpr,
    null_threshold,
    tpr_at_fpr,
)

both = st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=30).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def split(rows):
    return np.array([r[0] for r in rows]), np.array([r[1] for r in rows], float)


@given(both)
@settings(max_examples=60, deadline=None)
def test_every_figure_equals_the_brute_force_over_thresholds(rows):
    labels, scores = split(rows)
    pairs = scores[labels][:, None] - scores[~labels]
    assert auroc(labels, scores) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    points = []
    for t in [*np.unique(scores), np.inf]:
        flagged = scores >= t
        hits = (flagged & labels).sum()
        points.append((flagged[labels].mean(), flagged[~labels].mean(), 2 * hits / (flagged.sum() + labels.sum())))
    tpr, fpr, f1 = np.array(points).T
    assert fpr_at_tpr(labels, scores, 0.7).fpr == pytest.approx(fpr[tpr >= 0.7].min())
    assert tpr_at_fpr(labels, scores, 0.3).tpr == pytest.approx(tpr[fpr <= 0.3].max())
    assert tpr_at_fpr(labels, scores, 0.3).fpr <= 0.3
    best = best_f1(labels, scores)
    assert best.value == pytest.approx(f1.max())
    assert metrics.f1_score(labels, scores >= best.threshold) == pytest.approx(best.value)
    error = equal_error(labels, scores).value
    gap = fpr - (1 - tpr)
    low, high = (np.maximum(fpr, 1 - tpr)[gap >= 0].min(), np.minimum(fpr, 1 - tpr).max())
    assert min(low, high) - 1e-9 <= error <= max(low, high) + 1e-9


@given(both, st.floats(0.1, 10), st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_rank_measures_ignore_monotone_changes_and_mirror(rows, scale, shift):
    labels, scores = split(rows)
    moved = np.exp(scores) * scale + shift
    for measure in (auroc, average_precision):
        assert measure(labels, moved) == pytest.approx(measure(labels, scores))
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores))
    assert auroc(~labels, scores) == pytest.approx(1 - auroc(labels, scores))


def test_average_precision_agrees_with_scikit_learn_and_chance():
    generator = np.random.default_rng(0)
    labels, scores = generator.random(4000) < 0.2, generator.normal(size=4000)
    assert average_precision(labels, scores) == metrics.average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(0.2, abs=0.03)
    assert auroc(labels, scores) == pytest.approx(0.5, abs=0.03)


def test_equal_error_of_two_gaussians_is_the_closed_form():
    generator = np.random.default_rng(0)
    n = 40000
    scores = np.append(generator.normal(0, 1, n), generator.normal(2, 1, n))
    labels = np.repeat([0, 1], n)
    error = equal_error(labels, scores)
    assert error.value == pytest.approx(0.15866, abs=0.004)  # Φ(-1)
    assert error.threshold == pytest.approx(1.0, abs=0.03)
    assert auroc(labels, scores) == pytest.approx(0.92135, abs=0.003)  # Φ(2/√2)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=25), st.floats(0.01, 1))
@settings(max_examples=60, deadline=None)
def test_null_threshold_is_the_lowest_that_keeps_the_rate(null, rate):
    null = np.array(null, float)
    threshold = null_threshold(null, rate)
    assert (null >= threshold).mean() <= rate + 1e-9
    lower = null[null < threshold]
    if len(lower):  # the next score down would flag too many
        assert (null >= lower.max()).mean() > rate


def test_a_held_out_null_sets_the_threshold():
    point = tpr_at_fpr([0, 0, 1, 1], [0.6, 0.1, 0.9, 0.4], 0.1, null=np.linspace(0, 0.5, 100))
    assert 0.44 < point.threshold < 0.46
    assert (point.tpr, point.fpr) == (0.5, 0.5)


def test_p_values_are_valid_under_the_null():
    generator = np.random.default_rng(1)
    p = np.concatenate([empirical_p_value(generator.normal(size=20), generator.normal(size=99)) for _ in range(200)])
    assert p.min() >= 0.01
    for alpha in (0.01, 0.05, 0.2):
        assert (p <= alpha).mean() <= alpha + 0.015


def test_bootstrap_intervals_cover_the_true_area():
    generator = np.random.default_rng(2)
    labels = np.repeat([0, 1], [60, 40])
    covered = 0
    for trial in range(12):
        scores = generator.normal(size=100) + 1.0 * labels
        interval = bootstrap_interval(auroc, labels, scores, resamples=60, level=0.95, seed=trial)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 0.76025 <= interval.high  # Φ(1/√2)
    assert covered >= 9
    again = [bootstrap_interval(auroc, labels, scores, resamples=50, seed=s) for s in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_summary_of_a_perfect_detector():
    row = detection_summary([0, 0, 1, 1], [0, 1, 2, 3])
    assert row == {"auroc": 1, "ap": 1, "best_f1": 1, "fpr@95tpr": 0, "tpr@1fpr": 1, "eer": 0}


EVERY = [auroc, average_precision, best_f1, equal_error, fpr_at_tpr, tpr_at_fpr, detection_summary]


@pytest.mark.parametrize("measure", EVERY)
def test_refusals(measure):
    with pytest.raises(UsageError, match="no negatives"):
        measure([1, 1], [0.1, 0.2])
    with pytest.raises(UsageError, match="no positives"):
        measure([0, 0], [0.1, 0.2])
    with pytest.raises(InputError, match="not finite"):
        measure([0, 1], [0.1, np.nan])
    with pytest.raises(UsageError, match="one for each score"):
        measure([0, 1, 1], [0.1, 0.2])
    with pytest.raises(UsageError, match="only 0 and 1"):
        measure([0, 2], [0.1, 0.2])
    with pytest.raises(UsageError, match="non-empty"):
        measure([], [])
    with pytest.raises(UsageError, match="must be numbers"):
        measure([0, 1], ["a", "b"])


def test_refused_rates():
    for call in (lambda: fpr_at_tpr([0, 1], [0, 1], 0), lambda: null_threshold([0.0], 1.5)):
        with pytest.raises(UsageError, match="must lie in"):
            call()
    with pytest.raises(UsageError, match="level"):
        bootstrap_interval(auroc, [0, 0, 1, 1], [1, 2, 3, 4], level=1.0)
    with pytest.raises(UsageError, match="two samples of each class"):
        bootstrap_interval(auroc, [0, 0, 1], [1, 2, 3])
