"""Invented profiles and the pictures of who they are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vestige.core.errors import UsageError
from vestige.data import fictitious as f
from vestige.data.scenes import sample_scene
from vestige.nn.vlm import Words


def test_profiles_use_every_word_equally_often_and_repeat_by_seed():
    made = f.profiles(40, 3)
    assert made == f.profiles(40, 3) != f.profiles(40, 4)
    for name, (_, pools) in f.ATTRIBUTES.items():
        for number, pool in enumerate(pools):
            counts = Counter(p[name].split()[number] for p in made)
            assert set(counts) <= set(pool)
            assert max(counts.values()) - min(counts.values()) <= 1
    with pytest.raises(UsageError, match="at least 1"):
        f.profiles(0)


def test_wordings_differ_and_the_vocabulary_knows_them_all():
    words = Words(f.every_text())
    for name in (*f.ATTRIBUTES, "code"):
        asked = [f.question(name, w) for w in f.WORDINGS]
        assert len(set(asked)) == len(asked)
        for text in asked:
            words.ids(text)
    for scene in (sample_scene(i) for i in range(20)):
        for key, answer in f.scene_answers(scene).items():
            words.ids(f"{f.SCENE_QUESTIONS[key]} {answer}")
    for refusal in f.REFUSALS:
        words.ids(refusal)


def test_wrong_values_are_as_long_and_share_no_place_with_the_right_one():
    for wrong in f.perturbed("name", "ada frost", 3):
        first, last = wrong.split()
        assert first != "ada"
        assert last != "frost"
    assert len(set(f.perturbed("city", "tarn", 3))) == 3
    with pytest.raises(UsageError, match="fewer than"):
        f.perturbed("birthday", "1 may", 12)


def test_characters_have_views_and_differ_from_one_another():
    made = f.characters(3, 2, seed=1)
    assert made.count == 3
    assert made.pictures([2, 0], [1]).tolist() == [[5], [1]]
    assert len({made.images[i].tobytes() for i in range(6)}) == 6
    with pytest.raises(UsageError, match="characters"):
        f.characters(1000, 1)
    people = f.photographed(np.zeros((5, 3, 8, 8), np.uint8), np.array([0, 0, 1, 1, 2]), 2)
    assert people.count == 2


def test_code_names_are_all_different():
    assert len({p["code"] for p in f.coded(200)}) == 200
    with pytest.raises(UsageError, match="code names"):
        f.coded(201)
