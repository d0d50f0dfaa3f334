"""Scores of answers in words and of their probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.core.errors import UsageError
from vestige.metrics import answers as m


def test_key_words_must_appear_in_order():
    assert m.exact_match(["it is ada frost", "ada", "frost ada"], ["ada frost"] * 3) == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="equally many"):
        m.exact_match(["a"], [])


def test_rouge_counts_the_longest_common_subsequence():
    assert m.rouge_l("the red ball lies there", "red ball there") == 1
    assert m.rouge_l("ball red", "red ball") == 0.5
    with pytest.raises(UsageError, match="no word"):
        m.rouge_l("a", "")


def test_the_truth_ratio_is_one_where_right_and_wrong_are_alike():
    t = m.truth_ratio([1.0, 0.0, 5.0], [[1.0, 1.0], [2.0, 4.0], [1.0, 1.0]])
    np.testing.assert_allclose(t, [1, np.exp(3), np.exp(-4)])
    assert m.forget_truth(t) == pytest.approx((1 + np.exp(-3) + np.exp(-4)) / 3)
    assert m.retain_truth(t) == pytest.approx((1 - np.exp(-3)) / 3)
    assert np.isfinite(m.truth_ratio([0.0], [[1e6]])).all()


def test_forget_quality_is_a_logarithm_that_does_not_underflow():
    draw = np.random.default_rng(0)
    same, far = draw.normal(size=400), draw.normal(size=400) + 50
    assert m.forget_quality(same, draw.normal(size=400))[0] > -2
    assert m.forget_quality(same, far)[0] < -50
    huge = np.arange(4000.0)
    assert np.isfinite(m.forget_quality(huge, huge + 1e6)[0])
    assert m.forget_quality(huge, huge + 1e6)[0] < -300


def test_min_k_looks_at_the_least_likely_words():
    np.testing.assert_allclose(m.min_k([[-1, -9, -2, -3, -1], [-0.1, -0.2]], 0.4), [-6, -0.2])
    with pytest.raises(UsageError, match="share"):
        m.min_k([[-1.0]], 0)


def test_adversarial_extraction_takes_the_worst_wording():
    assert m.worst_match([["x", "b"], ["a", "x"], ["x", "x"]], ["a", "b"]) == 1
    with pytest.raises(UsageError, match="rewording"):
        m.worst_match([], ["a"])


def test_the_harmonic_mean_is_drawn_to_the_least():
    assert m.harmonic([0.5, 1.0]) == pytest.approx(2 / 3)
    assert m.harmonic([0.0, 1.0]) == 0
    with pytest.raises(UsageError, match="below 0"):
        m.harmonic([-0.1])
