"""Distortion-free token watermarks: exact law, detection after edits, transformers models and tokenizers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.nn.text import build_tokenizer
from vestige.watermark.distortion_free_text import (
    SCHEMES,
    DistortionFreeText,
    delete,
    insert,
    round_trip,
    substitute,
)
from vestige.watermark.text_baselines import GreenList, HashGumbel

KEY, OTHER, V = b"key one", b"key two", 60
WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me", "ra") for b in ("n", "st", "x", "rt", "ll", "ck", "v", "sh")]


def flat(ids: np.ndarray) -> np.ndarray:
    return np.full(V, 1 / V)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([" ".join(WORDS)], length=128)


@pytest.fixture(scope="module")
def model(tokenizer):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=1, n_head=2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_marked_text_is_found_with_its_key_only(scheme):
    system = DistortionFreeText(scheme, resamples=199)
    made = system.generate(flat, [0], 40, KEY, seed=3)
    assert made.ids.shape == (40,)
    assert made.ids.dtype == np.int64
    assert made.potential == pytest.approx(1 - 1 / V)
    found, missed = system.detect(made.ids, KEY, V), system.detect(made.ids, OTHER, V)
    assert (found.outcome, found.p_value) == ("read", 1 / 200)
    assert missed.outcome == "absent"
    assert missed.p_value > 0.01
    unmarked = rng(1, scheme).integers(V, size=40)
    assert system.detect(unmarked, KEY, V).outcome == "absent"


@pytest.mark.parametrize("scheme", ["its", "exp"])
def test_tokens_have_the_law_of_the_model(scheme):
    law = np.random.default_rng(0).dirichlet(np.full(12, 0.6))
    law = np.append(law * 0.9, [0.0, 0.1])
    system = DistortionFreeText(scheme, key_length=20_000)
    tokens = system.choose(np.broadcast_to(law, (20_000, 14)), np.arange(20_000), KEY)
    counts = np.bincount(tokens, minlength=14)
    assert counts[12] == 0
    assert stats.chisquare(np.delete(counts, 12), np.delete(law, 12) * 20_000).pvalue > 0.01


@pytest.mark.parametrize("scheme", SCHEMES)
def test_p_values_of_unmarked_text_are_uniform_even_where_tokens_repeat(scheme):
    system = DistortionFreeText(scheme, key_length=32, resamples=49, stop_after=0)
    generator = rng(5, scheme)
    ids = [generator.choice(5, size=12, p=[0.6, 0.1, 0.1, 0.1, 0.1]) for _ in range(150)]
    p_values = np.array([system.detect(x, f"{i}".encode(), V).p_value for i, x in enumerate(ids)])
    assert p_values.min() >= 1 / 50
    assert stats.kstest(p_values - generator.random(150) / 50, "uniform").pvalue > 0.005


def test_deletions_hide_the_mark_from_plain_alignment_only():
    plain, edit = DistortionFreeText("its", resamples=199), DistortionFreeText("exp-edit", resamples=199)
    for system, outcome in ((plain, "absent"), (edit, "read")):
        made = system.generate(flat, [0], 50, KEY, seed=1).ids
        assert system.detect(np.delete(made, np.arange(3, 50, 5)), KEY, V).outcome == outcome


def test_substitutions_are_survived():
    system = DistortionFreeText("exp-edit", gap=1.0, resamples=199)
    ids = system.generate(flat, [0], 50, KEY, seed=1).ids
    assert system.detect(substitute(ids, 0.4, V, rng(0)), KEY, V).outcome == "read"


def test_a_seed_fixes_the_text_and_no_seed_varies_it():
    system = DistortionFreeText("exp")
    first, again = (system.generate(flat, [0], 20, KEY, seed=4).ids for _ in range(2))
    np.testing.assert_array_equal(first, again)
    texts = {tuple(system.generate(flat, [0], 20, KEY).ids.tolist()) for _ in range(4)}
    assert len(texts) > 1


def test_text_without_choice_has_no_potential_and_is_not_found():
    certain = np.eye(V)[7]
    system = DistortionFreeText("exp-edit", resamples=99)
    made = system.generate(lambda ids: certain, [0], 30, KEY, seed=0)
    assert made.potential == 0
    assert set(made.ids.tolist()) == {7}
    assert system.detect(made.ids, KEY, V).outcome == "absent"


def test_long_texts_are_read_in_overlapping_blocks():
    system = DistortionFreeText("exp-edit", key_length=64, block=20, resamples=99)
    generator = rng(0, "long")
    marked = system.generate(flat, [0], 40, KEY, seed=0).ids
    text = np.concatenate([generator.integers(V, size=60), marked, generator.integers(V, size=60)])
    reading = system.detect(text, KEY, V)
    assert reading.outcome == "read"
    assert reading.details["block"] == 20


def test_stored_null_statistics_stand_in_for_fresh_keys():
    system = DistortionFreeText("exp", alpha=0.02)
    generator = rng(2)
    null = np.concatenate([system.null(generator.integers(V, size=30), V, 10, generator) for _ in range(10)])
    ids = system.generate(flat, [0], 30, KEY, seed=0).ids
    assert system.detect(ids, KEY, V, null=null).p_value == 1 / 101
    assert system.detect(ids, OTHER, V, null=null).outcome == "absent"


def test_own_sampling_and_the_hook_of_transformers_agree(model, tokenizer):
    import torch

    system = DistortionFreeText("exp", resamples=99)
    prompt = tokenizer("ban dost", return_tensors="pt").input_ids[:, :-1]
    own = system.generate(model, prompt[0].tolist(), 30, KEY, seed=9)
    hook = system.hook(KEY, seed=9)
    for sampled in (False, True):
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=sampled,
            logits_processor=[hook],
        )  # fmt: skip
        np.testing.assert_array_equal(out[0, prompt.shape[1] :].numpy(), own.ids)
    assert system.detect(own.ids, KEY, len(tokenizer)).outcome == "read"


def test_rows_of_a_batch_have_shifts_of_their_own(model, tokenizer):
    import torch

    prompt = tokenizer(["ban dost", "ban dost"], return_tensors="pt").input_ids[:, :-1]
    hook = DistortionFreeText("its").hook(KEY, seed=1)
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, logits_processor=[hook]
    )
    assert not torch.equal(out[0], out[1])


def test_the_cache_of_a_model_changes_nothing(model, tokenizer):
    import torch

    def without_cache(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch.softmax(model(torch.tensor([ids.tolist()])).logits[0, -1].double(), -1).numpy()

    model.eval()
    system = DistortionFreeText("exp")
    cached = system.generate(model, [5, 6], 20, KEY, seed=2).ids
    np.testing.assert_array_equal(cached, system.generate(without_cache, [5, 6], 20, KEY, seed=2).ids)


def test_from_text_to_text(model, tokenizer):
    system = DistortionFreeText("exp-edit", resamples=99)
    text = system.generate_text(model, tokenizer, "ban dost kix", 60, KEY, seed=0)
    assert isinstance(text, str)
    assert system.read_text(text, KEY, tokenizer).outcome == "read"
    assert system.read_text(text, OTHER, tokenizer).outcome == "absent"
    assert system.read_text("", KEY, tokenizer).details["why"]


@pytest.mark.parametrize("mark", [GreenList(delta=3.0), HashGumbel(width=2)], ids=["green list", "gumbel"])
def test_baselines_find_their_own_mark(mark):
    ids = mark.generate(flat, [0, 1], 60, KEY).ids
    assert mark.detect(ids, KEY).outcome == "read"
    assert mark.detect(ids, OTHER).outcome == "absent"
    assert mark.detect(ids[:1], KEY).p_value == 1.0
    with pytest.raises(UsageError):
        mark.generate(flat, [], 5, KEY)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, V - 1), max_size=30), st.floats(0, 1), st.integers(0, 99))
def test_attacks_change_as_many_tokens_as_they_say(ids, rate, seed):
    count = round(rate * len(ids))
    replaced = substitute(ids, rate, V, rng(seed))
    assert len(replaced) == len(ids)
    assert (replaced != np.array(ids, int)).sum() <= count
    assert len(insert(ids, rate, V, rng(seed))) == len(ids) + count
    kept = delete(ids, rate, rng(seed)).tolist()
    assert len(kept) == len(ids) - count
    rest = iter(ids)
    assert all(token in rest for token in kept)  # what is left keeps its order


def test_round_trip_goes_there_and_back():
    assert round_trip("ab", str.upper, lambda text: text + "!") == "AB!"


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "xyz"},
        {"key_length": 0},
        {"block": 0},
        {"alpha": 1.0},
        {"resamples": 0},
        {"scheme": "exp", "gap": 0.1},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError):
        DistortionFreeText(**options)


@pytest.mark.parametrize("ids", [[V], [-1], [0.5], [[1, 2]]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(UsageError):
        DistortionFreeText().detect(ids, KEY, V)


def test_a_model_that_returns_no_probabilities_is_refused(model):
    system = DistortionFreeText()
    for wrong in (lambda ids: np.ones(5), lambda ids: np.array([np.nan, 1.0]), lambda ids: np.eye(3)):
        with pytest.raises(UsageError, match="probabilities"):
            system.generate(wrong, [0], 3, KEY)
    with pytest.raises(UsageError, match="prompt"):
        system.generate(model, [], 3, KEY)
    with pytest.raises(UsageError):
        substitute([1, 2], 1.5, V, rng(0))
