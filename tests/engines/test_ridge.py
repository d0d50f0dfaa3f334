"""Ridge regression that takes rows in and out: always the joint solution over what it holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import InputError, UsageError
from vestige.engines.ridge import Ridge, grown, shrunk, solve


def data(n: int, width: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    return torch.randn(n, width, **draw), torch.randn(n, 3, **draw)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 99)), min_size=1, max_size=60))
def test_any_sequence_of_requests_equals_the_joint_solution(sequence):
    rows, targets = data(60)
    ridge, held = Ridge(6, 3, gamma=0.5), set()
    for learns, size, start in sequence:
        wanted = [(start + i) % 60 for i in range(size)]
        chosen = [i for i in wanted if (i in held) != learns]
        if not chosen:
            continue
        getattr(ridge, "learn" if learns else "forget")(rows[chosen], targets[chosen])
        held = held | set(chosen) if learns else held - set(chosen)
    kept = sorted(held)
    torch.testing.assert_close(ridge.weights, solve(rows[kept], targets[kept], 0.5), rtol=1e-8, atol=1e-9)
    assert ridge.count == len(kept)


@pytest.mark.parametrize("n", [1, 6, 40])  # fewer and more rows than columns
def test_taking_out_undoes_putting_in(n):
    rows, _ = data(n)
    start = torch.eye(6, dtype=torch.float64)
    inside = grown(start, rows)
    torch.testing.assert_close(inside @ (start + rows.T @ rows), start)
    torch.testing.assert_close(shrunk(inside, rows), start)
    assert torch.equal(inside, inside.T)


@pytest.mark.parametrize("n", [3, 40])
def test_rows_that_are_not_inside_are_refused_and_nothing_changes(n):
    rows, targets = data(40)
    ridge = Ridge(6, 3)
    ridge.learn(rows, targets)
    before = ridge.inverse.clone(), ridge.weights.clone(), ridge.count
    with pytest.raises(InputError, match="never learned"):
        ridge.forget(10 * rows[:n], targets[:n])
    with pytest.raises(InputError, match="only 40 were learned"):
        ridge.forget(rows.repeat(2, 1), targets.repeat(2, 1))
    assert torch.equal(ridge.inverse, before[0])
    assert torch.equal(ridge.weights, before[1])
    assert ridge.count == before[2]


def test_wrong_shapes_and_ridges_are_refused():
    with pytest.raises(UsageError, match="positive"):
        Ridge(4, gamma=0)
    with pytest.raises(UsageError, match="5×3"):
        Ridge(4, 2).learn(torch.zeros(5, 3), torch.zeros(5, 2))


def test_columns_come_and_go():
    rows, targets = data(20)
    ridge = Ridge(6, 2, gamma=0.5)
    ridge.learn(rows[:10], targets[:10, :2])
    ridge.widen(1)
    ridge.learn(rows[10:], targets[10:])
    padded = torch.cat([torch.nn.functional.pad(targets[:10, :2], (0, 1)), targets[10:]])
    torch.testing.assert_close(ridge.weights, solve(rows, padded, 0.5))
    ridge.drop(0)
    torch.testing.assert_close(ridge.weights, solve(rows, padded[:, 1:], 0.5))
