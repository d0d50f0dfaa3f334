"""Synonym mark: detection, the exact text around the changes, the table's grammar, masked models and scorers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import InputError, UsageError
from vestige.watermark.text_blackbox import (
    MaskedModelCandidates,
    Passage,
    TableCandidates,
    TextBlackbox,
    edit_distance,
)
from vestige.watermark.text_words import SynonymTable, replace_words, split_words

KEY, OTHER = b"key one", b"key two"
TEXT = """However, the method is simple and it also gives precise results. Researchers often employ several
techniques to determine the purpose of a large change. They usually compute the difference quickly, and therefore the
result is often correct! The main advantage is clear: we can use different tools, choose a suitable option, and verify
whether the outcome may be useful. Many people consider this an important problem.

Perhaps the approach must also explain various details. Typically, users create a brief summary; "obviously" it should
mention the basic idea (and the goal) of the entire task. A fast procedure generally improves the accuracy. The teacher
may describe a comparable example, modify the rule slightly, and carefully examine each part. Moreover, an adequate
amount of additional help can reduce the risk significantly, though rarely completely. Finally, the author assumes
that the question is easy, and that a complex answer is probably wrong. The company purchased many devices recently,
and its workers immediately began to fix the obvious flaws. The customers noticed a significant change; they frequently
recommend the firm, especially because the cost is small. Sometimes the purpose of a rule is vague, and a typical
student may ignore it entirely. We expect a rapid improvement and currently attempt to obtain the required permission.
"""


@pytest.fixture(scope="module")
def table() -> SynonymTable:
    return SynonymTable()


@pytest.fixture(scope="module")
def system() -> TextBlackbox:
    return TextBlackbox()


# the mark -------------------------------------------------------------------------------------------------------------


def test_the_mark_is_seen_with_its_key_only(system):
    plain, wrong, right = [], [], []
    for i in range(40):
        key = f"key {i}".encode()
        marked = system.mark_text(TEXT, key)
        right.append(system.read_text(marked, key))
        wrong.append(system.read_text(marked, OTHER + key).outcome == "read")
        plain.append(system.read_text(TEXT, key).outcome == "read")
    assert all(r.outcome == "read" for r in right)
    assert max(r.p_value for r in right) < 0.01
    assert sum(plain) <= 6  # 2 expected at alpha = 0.05
    assert sum(wrong) <= 6
    assert right[0].details["z"] > right[0].details["threshold"]
    assert right[0].bits is None


def test_precise_detection_sees_more_than_fast_detection(system):
    marked = [(system.mark_text(TEXT, bytes([i])), bytes([i])) for i in range(20)]
    precise, fast = ([system.detect(text, key, mode) for text, key in marked] for mode in ("precise", "fast"))
    assert np.mean([d.z for d in precise]) > np.mean([d.z for d in fast])
    assert all(p.n < f.n for p, f in zip(precise, fast))


def test_every_tenth_word_may_go(system):
    found = []
    for i in range(20):
        words = system.mark_text(TEXT, bytes([i])).split()
        kept = [w for j, w in enumerate(words) if j % 10 != i % 10]
        found.append(system.read_text(" ".join(kept), bytes([i])).outcome == "read")
    assert np.mean(found) >= 0.8


def test_line_breaks_and_capitals_do_not_matter(system):
    marked = system.mark_text(TEXT, KEY)
    again = system.detect(re.sub(r"\s+", "\n", marked), KEY)
    assert again.z == pytest.approx(system.detect(marked, KEY).z, abs=0.7)


def test_marking_again_changes_nothing(system):
    marked = system.mark_text(TEXT, KEY)
    assert marked != TEXT
    assert system.mark_text(marked, KEY) == marked


def test_a_repeated_text_is_no_stronger_evidence(system):
    marked = system.mark_text(TEXT, KEY)
    once, twice = system.detect(marked, KEY), system.detect(f"{marked}\n{marked}", KEY)
    assert twice.n - once.n <= 1


def test_all_but_the_replaced_words_stays(system, table):
    marked = system.mark_text(TEXT, KEY)
    assert re.split(r"[^\W\d_]+", marked) == re.split(r"[^\W\d_]+", TEXT)
    changed = 0
    for before, after in zip(re.findall(r"[^\W\d_]+", TEXT), re.findall(r"[^\W\d_]+", marked)):
        assert before[0].isupper() == after[0].isupper()
        changed += before != after
    assert 5 < changed < 60


_PIECES = st.sampled_from(
    [*TEXT.split(), "a", "an", "naïve", "cafe\u0301", "日本語", "🙂", "x_1", "np.array()", "İstanbul", "\u200b"]
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(_PIECES | st.text(max_size=6), st.text(" \t\n\u00a0\u3000", min_size=1, max_size=3)), max_size=30
    )
)
def test_any_text_keeps_its_white_space_and_foreign_words(system, pieces):
    text = "".join(word + space for word, space in pieces)
    marked = system.mark_text(text, KEY)
    assert re.findall(r"\s+", marked) == re.findall(r"\s+", text)
    for before, after in zip(text.split(), marked.split()):
        if before != after:
            assert before.isascii()
            assert re.sub(r"[A-Za-z]+", "", before) == re.sub(r"[A-Za-z]+", "", after)
    found = system.detect(text, KEY)
    assert 0 <= found.ones <= found.n
    assert 0 <= found.p_value <= 1


@pytest.mark.parametrize("text", ["", "  \n", "日本語の文章です。", "1234 5678", "\ud800 lone"])
def test_text_without_usable_words_is_absent_with_a_reason(system, text):
    assert system.mark_text(text, KEY) == text
    reading = system.read_text(text, KEY)
    assert (reading.outcome, reading.p_value) == ("absent", 1.0)
    assert "no word" in reading.details["why"]


def test_names_code_and_acronyms_are_left_alone(system):
    text = "see Large and `use` USE use_it use.this my-method http://use.it/ method2 (e.g.) iMethod"
    assert all(system.mark_text(text, bytes([i])) == text for i in range(8))


def test_bad_arguments_are_refused(system):
    for wrong in ({"mode": "slow"}, {"alpha": 0.0}):
        with pytest.raises(UsageError):
            TextBlackbox(**wrong)
    with pytest.raises(UsageError, match="decode"):
        system.mark_text(b"bytes", KEY)
    with pytest.raises(UsageError):
        system.detect(TEXT, KEY, "quick")


# the table ------------------------------------------------------------------------------------------------------------


def test_the_table_is_large_and_its_sets_are_apart(table):
    assert sum(any(len(forms) > 1 for forms in group.values()) for group in table.members) >= 150
    for group in table.members:
        for tag, forms in group.items():
            assert len(set(forms)) == len(forms)
            for form in forms:
                assert form not in table.stop
                assert form.isascii()
                assert [e.group for e in table.entries[form] if e.tag == tag] == [table.members.index(group)]


def test_candidates_are_symmetric(table):
    words = split_words(TEXT)
    places = 0
    for i, word in enumerate(words):
        choices = table.candidates(words, i)
        for choice in choices:
            text = replace_words(TEXT, words, {i: choice})
            back = table.candidates(split_words(text), i)
            assert {*back, choice} == {*choices, word.lower}
            places += 1
    assert places > 80


@pytest.mark.parametrize(
    ("text", "index", "expected"),
    [
        ("They use the tool.", 1, {"employ", "utilize"}),
        ("the use of tools", 1, set()),
        ("He uses the tool.", 1, {"employs", "utilizes"}),
        ("a large set", 1, {"big", "sizable"}),
        ("a simple set", 1, {"straightforward"}),
        ("an easy set", 1, set()),
        ("It is easy to do.", 2, {"simple", "straightforward"}),
        ("We tried to go.", 1, {"attempted"}),
        ("The tries of it.", 1, set()),
        ("The methods of it.", 1, {"approaches", "techniques"}),
        ("as well as that", 1, set()),
        ("It may be.", 1, {"might"}),
        ("Also this works.", 0, {"additionally"}),
    ],
)
def test_part_of_speech_inflection_and_article_agree(table, text, index, expected):
    assert set(table.candidates(split_words(text), index)) == expected


def test_words_are_told_from_punctuation_and_sentences():
    words = split_words("“Yes,” (he) said… It's 3.5!\n\nTitle here")
    assert [w.text for w in words] == ["Yes", "he", "said", "It's", "3.5", "Title", "here"]
    assert [w.first for w in words] == [True, False, False, False, False, True, False]
    assert [w.closed for w in words] == [True, True, True, False, True, False, False]


# candidates and scorers from outside ----------------------------------------------------------------------------------


def test_vectors_rank_the_candidates(table):
    vectors = {"use": np.array([1.0, 0]), "employ": np.array([0.0, 1]), "utilize": np.array([1.0, 0.1])}
    words = split_words("They use the tool.")
    ranked = TableCandidates(table, vectors).propose(words, 1, lambda: Passage("", 0, 0))
    assert [word for word, _ in ranked] == ["utilize", "employ"]


def test_a_sentence_scorer_decides_what_stays():
    seen = []

    def never(before: str, after: str) -> float:
        seen.append((before, after))
        return 0.0

    assert TextBlackbox(sentence_scorer=never).mark_text(TEXT, KEY) == TEXT
    assert all(before != after and len(before.split()) == len(after.split()) for before, after in seen)
    assert all(before in TEXT for before, _ in seen)
    assert TextBlackbox(sentence_scorer=lambda a, b: 1.0).mark_text(TEXT, KEY) == TextBlackbox().mark_text(TEXT, KEY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny masked language model with a word-piece vocabulary of the sample text, as a transformers folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    known = sorted({w.lower() for w in re.findall(r"[A-Za-z]+", TEXT)})
    vocabulary = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", ".", ",", *known])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=128,
    )  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("masked")
    BertForMaskedLM(config).save_pretrained(path)
    fast.save_pretrained(path)
    return path


def test_a_masked_model_proposes_whole_words_of_the_same_kind(folder, table):
    candidates = MaskedModelCandidates.from_folder(folder, threshold=-1.0, top=200)
    text = TEXT[:500]
    words = split_words(text)
    system = TextBlackbox(candidates=candidates)
    changed = system.replacements(text, words, KEY)
    marked = replace_words(text, words, changed)
    assert changed
    assert system.mark_text(text, KEY) == marked
    for index, form in changed.items():
        assert form.isalpha()
        assert form not in table.stop
        assert edit_distance(form, words[index].lower) >= 0.5 * max(len(form), len(words[index].lower))
    assert system.detect(marked, KEY, "fast").z > system.detect(text, KEY, "fast").z
    assert 0 <= system.detect(marked, KEY, "precise").n <= system.detect(marked, KEY, "fast").n


def test_the_word_threshold_and_vectors_take_part(folder):
    passage = Passage("They use the result of this.", 5, 8)
    words = split_words(passage.text)
    lenient = MaskedModelCandidates.from_folder(folder, threshold=-1.0, top=200)
    found = lenient.propose(words, 1, lambda: passage)
    assert found == sorted(found, key=lambda pair: -pair[1])
    strict = MaskedModelCandidates(lenient.model, lenient.tokenizer, threshold=1.01, top=200)
    assert strict.propose(words, 1, lambda: passage) == []
    weighted = MaskedModelCandidates(lenient.model, lenient.tokenizer, vectors={}, threshold=-1.0, top=200)
    for (_, score), (_, context) in zip(weighted.propose(words, 1, lambda: passage), found):
        assert score == pytest.approx(0.83 * context, abs=1e-6)


def test_folders_without_a_model_and_slow_tokenizers_are_refused(folder, tmp_path):
    for wrong in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError):
            MaskedModelCandidates.from_folder(wrong)
    with pytest.raises(UsageError, match="fast"):
        MaskedModelCandidates(None, object())


def test_edit_distance():
    assert [edit_distance(*p) for p in (("", ""), ("abc", ""), ("kitten", "sitting"), ("same", "same"))] == [0, 3, 3, 0]
