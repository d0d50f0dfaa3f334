"""Shapley values by their axioms, attribution on generators of which the truth is known, and the command's refusals."""

import json
from itertools import permutations

import numpy as np
import pytest

from vestige.app.cli import main
from vestige.copies.copyscope import CopyScope, coalitions, sampled_shapley, shapley
from vestige.core.errors import UsageError
from vestige.core.image_io import save_image

PARTS = ["a", "b", "c", "d"]


def game(seed, parts=PARTS):
    random = np.random.default_rng(seed)
    return {c: float(random.normal()) if c else 0.0 for c in coalitions(parts)}


def by_orders(v, parts):
    """The mean gain over all orders: the definition."""
    phi = dict.fromkeys(parts, 0.0)
    orders = list(permutations(parts))
    for order in orders:
        for i, p in enumerate(order):
            phi[p] += (v[frozenset(order[: i + 1])] - v[frozenset(order[:i])]) / len(orders)
    return phi


@pytest.mark.parametrize("seed", range(3))
def test_shapley_values_are_the_mean_gain_over_all_orders(seed):
    v = game(seed)
    phi = shapley(v, PARTS)
    assert phi == pytest.approx(by_orders(v, PARTS))
    assert sum(phi.values()) == pytest.approx(v[frozenset(PARTS)], abs=1e-9)
    other = game(seed + 10)
    both = shapley({c: v[c] + other[c] for c in v}, PARTS)
    assert all(both[p] == pytest.approx(phi[p] + shapley(other, PARTS)[p]) for p in PARTS)


def test_a_dummy_gets_nothing_and_twins_get_the_same():
    v = {c: float(len(c & {"a", "b"})) ** 2 for c in coalitions(PARTS)}
    phi = shapley(v, PARTS)
    assert phi["c"] == phi["d"] == pytest.approx(0)
    assert phi["a"] == pytest.approx(phi["b"])


def test_random_orders_come_near_the_exact_values():
    parts = [*PARTS, "e"]
    v = game(1, parts)
    exact, (mean, error) = shapley(v, parts), sampled_shapley(lambda c: v[c], parts, orders=150)
    assert all(abs(mean[p] - exact[p]) < 4 * error[p] for p in parts)


def generators(shifts, seed=0, count=120):
    """Features of a generator whose parts each move the mean; rows of all coalitions share their noise."""
    noise = np.random.default_rng(seed).normal(size=(count, 6))
    return {c: noise + sum((np.array(shifts[p]) for p in c), np.zeros(6)) for c in coalitions(sorted(shifts))}


def test_the_part_that_was_made_from_the_work_gets_the_share():
    shifts = {"style": [3, 0, 0, 0, 0, 0], "other": [0, 0.3, 0, 0, 0, 0], "nothing": [0] * 6}
    protected = np.random.default_rng(9).normal(size=(150, 6)) + np.array(shifts["style"])
    for distance in ("fid", "kid"):
        found = CopyScope(distance=distance, rounds=20).measure(generators(shifts), protected)
        assert found.share["style"] > 0.9
        assert found.low["style"] > 0
        assert found.phi["nothing"] == pytest.approx(0, abs=1e-6)
        assert found.low["other"] < 0.3 * found.phi["style"]


def test_twins_share_what_leaving_one_out_does_not_see():
    # either of a and b is enough
    shift = np.array([2.0, 0, 0, 0, 0, 0])
    noise = np.random.default_rng(0).normal(size=(100, 6))
    features = {c: noise + shift * bool(c & {"a", "b"}) for c in coalitions(["a", "b", "c"])}
    found = CopyScope(rounds=5).measure(features, noise + shift)
    assert found.left_out["a"] == pytest.approx(0, abs=1e-6)
    assert found.share["a"] == pytest.approx(0.5, abs=1e-6)


def test_sets_of_other_sizes_are_refused():
    features = generators({"a": [1] * 6})
    with pytest.raises(UsageError):
        CopyScope().measure({**features, frozenset(): np.zeros((3, 6))}, np.zeros((9, 6)))
    with pytest.raises(UsageError, match="coalition"):
        CopyScope().measure({c: f for c, f in features.items() if c}, np.zeros((9, 6)))
    with pytest.raises(UsageError):
        CopyScope(distance="l2")


@pytest.fixture
def drawn(tmp_path):
    random = np.random.default_rng(0)
    for c in coalitions(["base", "style"]):
        for i in range(6):
            picture = random.integers(0, 60, (32, 32, 3)) + 120 * ("style" in c)
            name = "+".join(sorted(c)) or "none"
            save_image(tmp_path / "sets" / name / f"{i}.png", picture.astype(np.uint8))
    for i in range(6):
        save_image(tmp_path / "work" / f"{i}.png", (random.integers(0, 60, (32, 32, 3)) + 120).astype(np.uint8))
    return tmp_path


def called(*words):
    with pytest.raises(SystemExit) as stopped:
        main([str(w) for w in words])
    return stopped.value.code


def test_the_command_names_the_part_and_refuses_what_is_incomplete(drawn, capsys):
    words = ("measure", drawn / "sets", "--reference", drawn / "work", "--method", "copyscope", "--json")
    assert called(*words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"][0]["part"] == "style"
    assert said["figures"]["v(none)"] == 0
    (drawn / "sets/style").rename(drawn / "moved")
    assert called(*words) == 2
    assert "no folder style" in capsys.readouterr().err
    assert called("measure", drawn / "work", "--reference", drawn / "work", "--method", "copyscope") == 2
