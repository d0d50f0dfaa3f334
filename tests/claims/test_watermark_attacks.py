"""The headlines of attacks on marks can fail: the method replaced by its baseline, or by chance, is not shown."""

from __future__ import annotations

import numpy as np

from vestige.claims import claims_of
from vestige.claims.watermark import robust_limits, visual_paraphrase
from vestige.core.catalogue import system


def test_every_system_of_attacks_and_texts_has_one_headline():
    for slug in (
        "robust_limits", "ctrlregen", "visual_paraphrase", "ddsp", "copyrightmeter", "face_adv_watermark",
        "distortion_free_text", "text_blackbox",
    ):  # fmt: skip
        assert sum(c.headline for c in claims_of(system(slug))) == 1, slug


def test_substitution_must_beat_random_changes_and_a_stand_in_that_learnt_nothing():
    random = [0.97, 0.98, 0.96]
    assert robust_limits.removed(random, [0.4, 0.5, 0.45], control=0.95)[0]
    assert not robust_limits.removed(random, random, control=0.95)[0]
    assert not robust_limits.removed(random, [0.2, 0.97, 0.99], control=0.95)[0]  # one lucky seed
    assert not robust_limits.removed(random, [0.4, 0.5, 0.45], control=0.4)[0]  # shuffled labels do as well


def test_a_paraphrase_must_keep_more_and_leave_no_more():
    rng = np.random.default_rng(0)
    bits = 0.5 + 0.02 * rng.standard_normal(80)
    plain = {"bits": bits, "kept": rng.uniform(0.4, 0.6, 80)}
    ours = {"bits": bits[::-1], "kept": plain["kept"] + 0.2}
    better = visual_paraphrase.better_than_plain
    assert better(ours, plain)
    assert not better(plain, plain)  # without words
    assert not better({**ours, "bits": bits + 0.2}, plain)  # the mark is still there
    assert not better({**ours, "kept": plain["kept"] + rng.normal(0, 0.2, 80)}, plain)  # chance
