"""Knowledge supplied by context: episodes, recovery, filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.core.errors import UsageError
from vestige.data.glyphs import glyphs
from vestige.nn.in_context import InContextNet
from vestige.unlearning.ununlearning import (
    Episodes,
    FactWorld,
    KeywordFilter,
    LearnedFilter,
    UnUnlearning,
    digest,
    recovery,
)


def test_glyphs_of_a_class_are_alike_and_do_not_depend_on_the_number_of_classes():
    few, many = glyphs(3, 6, seed=2), glyphs(6, 6, seed=2)
    np.testing.assert_array_equal(few, many[:3])
    x = many.reshape(6, 6, -1).astype(float)
    within = np.linalg.norm(x[:, 0] - x[:, 1], axis=1).mean()
    between = np.linalg.norm(x[:3, 0] - x[3:, 0], axis=1).mean()
    assert within < between
    with pytest.raises(UsageError, match="at least 1"):
        glyphs(0, 1)


def taught(model, batches, steps, lr):
    """The model after so many updates by Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for step in range(steps):
        x, y = batches(step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def easy() -> Episodes:
    """Classes as separate directions with a little noise."""
    g = np.random.default_rng(0)
    return Episodes((np.eye(12)[:, None] * 2 + 0.1 * g.normal(size=(12, 8, 12))).astype(np.float32), 6)


def test_an_episode_holds_k_labelled_examples_of_each_way_and_an_unlabelled_query():
    made = easy()
    x, y = made.draw(20, range(12), 3, ways=4, asked=[5], queries=slice(6, 8), seed=1)
    assert x.shape == (20, 13, 18)
    assert (x[:, -1, 12:] == 0).all()
    assert (x[:, :-1, 12:].sum(2) == 1).all()
    for episode, answer in zip(x, y, strict=True):
        shown = episode[:-1, 12:].argmax(1)[episode[:-1, :12].argmax(1) == 5]
        assert shown.tolist() == [int(answer)] * 3  # the class asked about carries the answer's label
        assert episode[-1, :12].argmax() == 5
        assert sorted(np.unique(episode[:-1, 12:].argmax(1), return_counts=True)[1]) == [3] * 4
    assert len(set(y.tolist())) > 1  # labels are not tied to the class
    again = made.draw(20, range(12), 3, ways=4, asked=[5], queries=slice(6, 8), seed=1)
    assert torch.equal(x, again[0])
    with pytest.raises(UsageError, match="ways"):
        made.draw(2, range(3), 1, ways=4)


def test_context_brings_back_what_was_never_learned():
    made = easy()
    g = np.random.default_rng(1)

    def batches(step):
        if step % 2:
            classes = g.integers(1, 6, 64)
            return made.question(classes, g.integers(0, 6, 64)), torch.from_numpy(classes)
        return made.draw(64, [1, 2, 3, 4, 5, 6, 7, 8, 9], 1 + step % 4, ways=3, queries=slice(0, 6), seed=step)

    torch.manual_seed(0)
    never = taught(InContextNet(18, 6, width=32, depth=2), batches, 140, 4e-3)
    probe = UnUnlearning(made, [0], range(12), {c: c for c in range(12)}, (0, 2), 3, 100, slice(6, 8))
    before = digest(never)
    curve = probe.attack(never)
    assert digest(never) == before
    assert curve[2] > 0.5  # one of three labels at random: 0.33
    assert recovery(curve[2], 1.0, 1 / 6) > 0.4
    residual = {k for k in UnUnlearning(made, [1], range(12), {1: 1}, (0, 2), 3, 60, slice(6, 8)).measure(
        never, never, never)}  # fmt: skip
    assert {"acc(2)", "recovery(0)", "residual(2)"} <= residual
    with pytest.raises(UsageError, match="does not know"):
        recovery(0.5, 0.1, 0.2)


def test_sequences_of_the_wrong_width_are_refused():
    net = InContextNet(6, 3, width=8, depth=1, heads=2)
    assert net(torch.zeros(2, 6)).shape == (2, 3)
    with pytest.raises(UsageError, match="Sequences"):
        net(torch.zeros(2, 5, 7))
    with pytest.raises(UsageError, match="multiple"):
        InContextNet(6, 3, width=9)


def test_the_digest_sees_a_single_weight():
    net = InContextNet(6, 3, width=8, depth=1, heads=2)
    before = digest(net)
    with torch.no_grad():
        net.head.bias[0] += 1e-3
    assert digest(net) != before


def test_definitions_do_not_say_the_answer_and_comparisons_name_somebody_who_has_it():
    world = FactWorld(names=12, aliases=4, properties=3)
    subjects, known = np.array([0, 1]), np.arange(2, 12)
    x, y, prompts = world.contexts("like", subjects, np.array([2, 0]), known, others=np.arange(2, 16))
    every = world.names + world.aliases
    assert x.shape == (2, 4, world.inside)
    assert x[:, :, 2 * every : -1].sum() == 0  # no property is stated
    for episode, wanted, subject, prompt in zip(x, y, subjects, prompts, strict=True):
        row = episode[:-1][episode[:-1, :every].argmax(1) == subject]
        assert world.truth[int(row[0, every : 2 * every].argmax())] == int(wanted)
        assert episode[-1, -1] == 1
        assert prompt[-2:] == [f"name{subject}", "?"]
        assert not any(w.startswith("property") for w in prompt)
    stated, _, words = world.contexts("has", subjects, np.array([2, 0]), known, others=known)
    assert (stated[:, :-1, 2 * every : -1].sum(2) == 1).all()
    assert "property2" in words[0]
    with pytest.raises(UsageError, match="kind"):
        world.contexts("is", subjects, subjects, known, others=known)


def test_a_learned_filter_learns_words_and_a_keyword_filter_misses_aliases():
    harmful = [["name0", "is-like", f"name{i}"] for i in range(2, 9)]
    harmless = [["name1", "is-like", f"name{i}"] for i in range(2, 9)]
    learned = LearnedFilter(harmful, harmless)
    assert learned.refuses([["name0", "?"], ["name1", "?"]]).tolist() == [True, False]
    assert not KeywordFilter({"name0"}).refuses([["alias3", "is-like", "name2"]])[0]
