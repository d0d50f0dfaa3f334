"""Fairness metrics on tables whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vestige.core.errors import UsageError
from vestige.metrics.fairness import (
    FAMILIES,
    approach_averaged,
    fairness_interval,
    fairness_summary,
    fairness_table,
    naive,
    utility_regularised,
)

TABLES = arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(2, 5)), elements=st.floats(0, 1))


def test_errors_that_cancel_are_seen_by_the_averaged_metrics_alone():
    table = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert naive(table) == {"dpd": 0.0, "deo": 1.0, "deodds": 1.0, "std": 0.0}
    assert approach_averaged(table) == {"dpd": 1.0, "deo": 1.0, "deodds": 1.0, "std": 0.5}
    assert utility_regularised(table)["dpd"] == pytest.approx(1 / 1.5)


def test_a_constant_detector_has_no_spread_and_shows_in_its_accuracy():
    approach, group = ["real", "real", "swap", "swap"] * 5, ["a", "b"] * 10
    summary = fairness_summary(fairness_table(np.full(20, 0.7), approach, group))
    assert all(value == 0 for name, value in summary.items() if "accuracy" not in name)
    assert summary["accuracy"] == 0.5


@given(TABLES, st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_groups_does_not_matter_and_a_fair_row_lowers_by_its_share(table, random):
    order = list(range(table.shape[1]))
    random.shuffle(order)
    for family in FAMILIES.values():
        assert family(table) == pytest.approx(family(table[:, order]))
    rows = len(table)
    longer = np.vstack([table, np.full(table.shape[1], 0.8)])
    before, after = approach_averaged(table), approach_averaged(longer)
    assert after["dpd"] == pytest.approx(before["dpd"] * rows / (rows + 1))
    assert after["deo"] == pytest.approx(before["deo"] * (rows - 1) / rows)
    assert after["std"] == pytest.approx(before["std"] * rows / (rows + 1))


@given(TABLES)
@settings(max_examples=40, deadline=None)
def test_naive_never_exceeds_averaged_and_regularised_lies_between_half_and_all_of_it(table):
    found = {name: family(table)["dpd"] for name, family in FAMILIES.items()}
    assert found["naive"] <= found["aa"] + 1e-12
    assert found["aa"] / 2 - 1e-12 <= found["ur"] <= found["aa"] + 1e-12


def test_tables_count_and_name_their_cells():
    scores = [0.1, 0.6, 0.7, 0.4, 0.9]
    table = fairness_table(scores, ["real", "real", "swap", "swap", "warp"] * 1 + [], ["a", "a", "a", "a", "a"])
    assert table.approaches == ("real", "swap", "warp")
    assert table.counts.tolist() == [[2], [2], [1]]
    assert table.accuracy.tolist() == [[0.5], [0.5], [1.0]]
    with pytest.raises(UsageError, match="two groups"):
        naive(table)


@pytest.mark.parametrize(
    ("approach", "group", "words"),
    [
        (["real", "real"], ["a", "b"], "forged"),
        (["swap", "swap"], ["a", "b"], "real pictures"),
        (["real", "swap"], ["a", "b"], "no picture of approach"),
        (["real"], ["a", "b"], "as many"),
    ],
)
def test_tables_that_cannot_be_made_say_why(approach, group, words):
    with pytest.raises(UsageError, match=words):
        fairness_table([0.1, 0.9], approach, group)


def test_intervals_resample_subjects_and_hold_the_value():
    draw = np.random.default_rng(0)
    approach = np.repeat(["real", "swap"], 120)
    group, subjects = np.tile(["a", "b"], 120), np.tile(np.repeat(np.arange(12), 2), 10)
    scores = np.clip(draw.normal(np.where(approach == "real", 0.3, 0.7), 0.2), 0, 1)

    def gap(table):
        return approach_averaged(table)["dpd"]

    found = fairness_interval(gap, scores, approach, group, subjects, resamples=50)
    assert found.low <= found.high
    assert found.low <= found.value + 0.1
    assert found == fairness_interval(gap, scores, approach, group, subjects, resamples=50)
    with pytest.raises(UsageError, match="two subjects"):
        fairness_interval(gap, scores, approach, group, np.zeros(240))
