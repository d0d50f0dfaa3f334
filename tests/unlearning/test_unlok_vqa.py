"""Deleting one fact by a bounded edit, and looking for it inside."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.data.fictitious import CODES, coded, every_text
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import train
from vestige.nn.vlm import SmallVLM, Words
from vestige.unlearning import unlok_vqa as u
from vestige.unlearning.fiubench import Quiz

WORDS, THINGS = Words(every_text()), coded(8)


def rows(things: list[int], said: list[str] | None = None, wording: int = 0) -> Samples:
    return Samples(*Quiz(WORDS, things, [THINGS[t] for t in things]).rows(wording, said))


@cache
def problem() -> ForgetProblem:
    """Eight things with code names; the first is to be deleted."""
    torch.manual_seed(0)
    fresh = SmallVLM(torch.randn(8, 4, 16), len(WORDS), width=48, depth=3, heads=2)
    tuning = Tuning(50, 5e-3, optimizer="adam", weight_decay=0.0, batch_size=4, schedule="onecycle", clip=1.0)
    model = train(fresh, rows(list(range(8))), tuning)
    return ForgetProblem(model, rows(list(range(8))), [0], range(1, 8), kind="identity")


@pytest.mark.parametrize("defence", u.DEFENCES)
def test_an_edit_deletes_the_fact_within_its_bound_and_touches_one_matrix(defence):
    made = problem()
    x, y = made.forget.inputs, made.forget.labels
    assert u.forgotten(made.model, x, y)[0] > 0.5
    other = {"empty_response": "i do not know", "error_injection": CODES[0]}.get(defence)
    eraser = u.UnlokVqa(
        defence, clamp=0.5, lr=0.02, steps=60, layers=(2,), instead=None if other is None else rows([0], [other]),
        rephrased=rows([0], wording=1),
    )  # fmt: skip
    model = eraser.erase(made)
    assert u.forgotten(model, x, y)[0] < 0.05
    before = made.model.state_dict()
    changed = {n: (v - before[n]).abs().max() for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert list(changed) == [u.edited_matrix(made.model)]
    small = replace(eraser, clamp=1e-3).erase(made).state_dict()
    (name,) = changed
    assert 0 < (small[name] - before[name]).abs().max() <= 1e-3 + 1e-7


def test_candidates_never_exceed_the_budget_and_hold_an_answer_the_model_knows():
    made = problem()
    x, y = made.train.inputs, made.train.labels
    for attack in u.WHITE_BOX:
        for budget in (1, 4, 9):
            assert all(0 < len(c) <= budget for c in u.white_box(made.model, x, y, attack, budget))
    wanted = u.first_words(y).tolist()
    assert all(w in c for w, c in zip(wanted, u.white_box(made.model, x, y, "head_projection", 9), strict=True))
    assert all(w in c for w, c in zip(wanted, u.top_words(made.model, x, y, 1), strict=True))
    with pytest.raises(UsageError, match="layers"):
        u.white_box(made.model, x, y, "pd2", 4, layers=[1, 2])
    with pytest.raises(UsageError, match="attack"):
        u.white_box(made.model, x, y, "guess", 4)


def test_the_last_layer_of_the_lens_is_the_output():
    made = problem()
    x, y = made.train.inputs, made.train.labels
    with torch.no_grad():
        lens = u.lens_logits(made.model, x, y)
        assert torch.allclose(lens[-1], u.at_answers(made.model(x), y))
    with pytest.raises(UsageError, match="states"):
        u.lens_logits(nn.Linear(2, 2), x, y)


def test_the_union_grows_with_k_until_the_budget():
    scores = torch.tensor([[5.0, 4.0, 3.0, -1.0], [5.0, 3.0, 4.0, -9.0]])
    assert u._union(scores, 1, both=False) == {0}
    assert u._union(scores, 2, both=False) == {0}  # k = 2 would name three
    assert u._union(scores, 3, both=False) == {0, 1, 2}
    assert u._union(scores, 2, both=True) == {0, 3}
    assert u._union(scores, 1, both=True) == {3}  # the largest change


def test_fine_tuning_on_other_facts_leaves_the_edited_model_alone():
    made = problem()
    before = {n: v.clone() for n, v in made.model.state_dict().items()}
    tuned = u.tuned_on(made.model, made.retain, steps=2)
    assert all(torch.equal(v, before[n]) for n, v in made.model.state_dict().items())
    assert any(not torch.equal(v, before[n]) for n, v in tuned.state_dict().items())


def test_what_does_not_fit_is_refused():
    for options, what in (({"defence": "nothing"}, "defence"), ({"clamp": 0}, "bound")):
        with pytest.raises(UsageError, match=what):
            u.UnlokVqa(**options)
    with pytest.raises(UsageError, match="instead"):
        u.UnlokVqa("error_injection").erase(problem())
