"""Keyed numbers, alignment with a cyclic key, permutation test and one-proportion test."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vestige.core.errors import UsageError
from vestige.engines.sequence_tests import (
    KeyedUniforms,
    alignment_cost,
    edit_alignment_cost,
    permutation_p_value,
    proportion_test,
)


def plain_edit(cost: np.ndarray, block: int, gap: float, stride: int) -> float:
    """The definition, cell by cell."""
    tokens, length = cost.shape
    best = np.inf
    for start in range(0, tokens - block + 1, stride):
        for offset in range(length):
            table = np.zeros((block + 1, block + 1))
            table[0] = table[:, 0] = gap * np.arange(block + 1)
            for i in range(1, block + 1):
                for j in range(1, block + 1):
                    matched = table[i - 1, j - 1] + cost[start + i - 1, (offset + j - 1) % length]
                    table[i, j] = min(table[i - 1, j] + gap, table[i, j - 1] + gap, matched)
            best = min(best, table[block, block])
    return best


def test_keyed_uniforms_are_a_function_of_key_purpose_and_place():
    xi = KeyedUniforms(b"key", "a")
    table = xi(np.arange(30)[:, None], np.arange(40))
    assert table.shape == (30, 40)
    assert table[7, 11] == xi(7, 11)
    assert len(np.unique(table)) == table.size
    for other in (KeyedUniforms(b"other", "a"), KeyedUniforms(b"key", "b")):
        assert abs(np.corrcoef(table.ravel(), other(np.arange(30)[:, None], np.arange(40)).ravel())[0, 1]) < 0.1


def test_keyed_uniforms_are_uniform_and_never_0_or_1():
    values = KeyedUniforms(b"key", "a")(3, np.arange(20_000))
    assert values.min() > 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 0.01


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 7), st.integers(1, 6), st.integers(1, 3), st.sampled_from([0.0, 0.4, 1.0]),
    st.integers(0, 999),
)  # fmt: skip
def test_alignments_follow_their_definition(tokens, length, block, stride, gap, seed):
    block = min(block, tokens)
    cost = np.random.default_rng(seed).normal(size=(2, tokens, length))
    found = edit_alignment_cost(cost, block, gap=gap, stride=stride)
    np.testing.assert_allclose(found, [plain_edit(c, block, gap, stride) for c in cost], atol=1e-5)
    straight = [
        min(
            sum(c[a + i, (o + i) % length] for i in range(block))
            for a in range(0, tokens - block + 1, stride)
            for o in range(length)
        )
        for c in cost
    ]
    np.testing.assert_allclose(alignment_cost(cost, block, stride=stride), straight, atol=1e-5)


def test_many_tables_give_what_each_gives_alone():
    cost = np.random.default_rng(0).random((70, 5, 300))
    together = edit_alignment_cost(cost, 3, gap=0.2)
    alone = [edit_alignment_cost(c, 3, gap=0.2)[0] for c in cost]
    np.testing.assert_array_equal(together, alone)


def test_a_deletion_shifts_the_plain_alignment_but_not_the_edit_alignment():
    fits = 1 - np.eye(12)
    cut = np.delete(fits, 6, axis=0)
    assert alignment_cost(fits)[0] == 0
    assert alignment_cost(cut)[0] >= 5
    assert edit_alignment_cost(cut, gap=0.25)[0] == pytest.approx(0.5)


def test_80_tokens_against_256_key_positions_are_quick():
    cost = np.random.default_rng(0).random((1, 80, 256)).astype(np.float32)
    edit_alignment_cost(cost[:, :4], gap=0.0)
    start = time.process_time()
    edit_alignment_cost(cost, gap=0.4)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("cost", [np.zeros((0, 4)), np.zeros((2, 0)), np.zeros(3), np.full((2, 2), np.nan)])
def test_impossible_tables_are_refused(cost):
    with pytest.raises(UsageError):
        alignment_cost(cost)


@pytest.mark.parametrize(("block", "stride", "gap"), [(0, 1, 0.0), (4, 1, 0.0), (2, 0, 0.0), (2, 1, -1.0)])
def test_impossible_blocks_and_gaps_are_refused(block, stride, gap):
    with pytest.raises(UsageError):
        edit_alignment_cost(np.zeros((3, 5)), block, gap=gap, stride=stride)


def test_permutation_p_value_counts_the_text_itself():
    null = iter(np.arange(1000.0))
    p_value, drawn = permutation_p_value(9.5, lambda n: np.array([next(null) for _ in range(n)]), 199)
    assert (p_value, drawn) == (11 / 200, 199)
    assert permutation_p_value(-1.0, lambda n: np.zeros(n), 99)[0] == 0.01


def test_an_early_end_stops_at_the_very_value():
    values = np.array([5, 0, 5, 0, 5, 5, 0, 0, 0, 0], float)
    at = [0]

    def draw(count: int) -> np.ndarray:
        at[0] += count
        return values[at[0] - count : at[0]]

    assert permutation_p_value(1.0, draw, 10, stop_after=3, batch=4) == (3 / 7, 7)


def test_early_end_keeps_the_level():
    generator = np.random.default_rng(0)
    p_values = [permutation_p_value(generator.random(), generator.random, 199, stop_after=10)[0] for _ in range(1500)]
    for level in (0.02, 0.05, 0.2):
        assert np.mean(np.array(p_values) <= level) < level + 3 * np.sqrt(level / 1500)


def test_proportion_test_is_normal_from_ten_trials_and_exact_below():
    z, p_value = proportion_test(40, 64)
    assert z == 2.0
    assert p_value == pytest.approx(stats.norm.sf(2.0))
    assert proportion_test(5, 5)[1] == pytest.approx(1 / 32)
    assert proportion_test(3, 7, 0.25)[1] == pytest.approx(stats.binom.sf(2, 7, 0.25))
    assert proportion_test(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("ones", "n", "share"), [(3, 2, 0.5), (-1, 2, 0.5), (1, 2, 0.0), (1, 2, 1.0)])
def test_impossible_counts_are_refused(ones, n, share):
    with pytest.raises(UsageError):
        proportion_test(ones, n, share)


def test_no_resamples_are_refused():
    with pytest.raises(UsageError):
        permutation_p_value(0.0, np.zeros, 0)
