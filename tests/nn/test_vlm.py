"""The small vision-language model: rows of words, causality, greedy answers."""

from __future__ import annotations

import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.nn.vlm import IGNORED, SmallVLM, Words, answers, token_log_probs, visual_tokens


def small(words: Words, pictures: int = 4) -> SmallVLM:
    torch.manual_seed(0)
    return SmallVLM(torch.randn(pictures, 4, 6), len(words), width=32, depth=2, heads=2, length=8)


WORDS = Words(["what colour ?", "red blue dark red"])


def test_targets_are_the_words_of_the_answer_alone():
    x, y = WORDS.rows([2], ["what colour ?"], ["dark red"], 8)
    assert x[0, 0] == 2
    assert WORDS.text(x[0, 1:].tolist()) == "what colour ? dark red"
    kept = y[0] != IGNORED
    assert kept.nonzero()[:, 0].tolist() == [3, 4, 5]
    assert y[0, kept].tolist() == [*WORDS.ids("dark red"), WORDS.end]
    with pytest.raises(InputError, match="no word 'green'"):
        WORDS.ids("green")
    with pytest.raises(InputError, match="words long"):
        WORDS.rows([0], ["what colour ?"], ["red red red red red"], 8)


def test_a_word_does_not_see_those_after_it():
    model = small(WORDS)
    x, _ = WORDS.rows([1], ["what colour ?"], ["red"], 8)
    other = x.clone()
    other[0, 6:] = WORDS.ids("blue")[0]
    assert torch.allclose(model(x)[0, :5], model(other)[0, :5], atol=1e-6)
    assert torch.equal(model.lens(model.states(x)[-1]), model(x))
    with pytest.raises(UsageError, match="A row is"):
        model(x[:, :-1])


def test_it_learns_answers_that_depend_on_the_picture_and_gives_them_greedily():
    model = small(WORDS)
    wanted = ["red", "blue", "dark red", "dark"]
    x, y = WORDS.rows(range(4), ["what colour ?"] * 4, wanted, 8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        kept = y != IGNORED
        loss = torch.nn.functional.cross_entropy(model(x)[kept], y[kept])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    empty, _ = WORDS.rows(range(4), ["what colour ?"] * 4, [""] * 4, 8)
    assert answers(model, empty, WORDS) == wanted
    assert answers(model, x[[1, 1]], WORDS, most=1) == ["blue", "blue"]
    plain, standard = token_log_probs(model, x, y)
    assert [len(v) for v in plain] == [2, 2, 3, 2]
    assert min(v.min() for v in plain) > -0.5
    assert min(v.min() for v in standard) > 0


def test_visual_tokens_are_standardised_cells_of_all_maps():
    tokens = visual_tokens(lambda x: [x, x.mean(1, keepdim=True)], torch.rand(6, 3, 12, 12), grid=2, batch=4)
    assert tokens.shape == (6, 4, 4)
    assert tokens.mean((0, 1)).abs().max() < 1e-5
