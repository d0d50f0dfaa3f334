from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.core.errors import UsageError
from vestige.metrics.bits import bit_accuracy, match_p_value, match_threshold


def test_accuracy_broadcasts_and_counts():
    sent = np.array([1, 0, 1, 1], bool)
    received = np.stack([sent, ~sent, sent ^ np.array([1, 0, 0, 0], bool)])
    assert bit_accuracy(sent, received).tolist() == [1.0, 0.0, 0.75]


@pytest.mark.parametrize(("a", "b"), [((3,), (4,)), ((0,), (0,)), ((2, 3), (2, 2))])
def test_accuracy_refuses_unequal_lengths(a, b):
    with pytest.raises(UsageError, match="compared"):
        bit_accuracy(np.zeros(a, bool), np.zeros(b, bool))


@given(st.integers(1, 60), st.data())
def test_p_value_is_the_binomial_tail(n, data):
    matches = data.draw(st.integers(0, n))
    exact = sum(comb(n, k) for k in range(matches, n + 1)) / 2**n
    assert float(match_p_value(matches, n)) == pytest.approx(exact, rel=1e-9)


@given(st.integers(1, 128), st.floats(1e-12, 1.0))
def test_threshold_is_the_smallest_that_keeps_the_rate(n, rate):
    threshold = match_threshold(n, rate)
    if threshold <= n:
        assert match_p_value(threshold, n) <= rate
    else:
        assert match_p_value(n, n) > rate
    if threshold > 0:
        assert match_p_value(threshold - 1, n) > rate


def test_invalid_arguments():
    with pytest.raises(UsageError):
        match_p_value(5, 4)
    with pytest.raises(UsageError):
        match_p_value(-1, 4)
    for n, rate in ((0, 0.1), (8, 0.0), (8, 1.5)):
        with pytest.raises(UsageError):
            match_threshold(n, rate)
