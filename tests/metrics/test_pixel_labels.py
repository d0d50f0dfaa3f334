from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import InputError, UsageError
from vestige.metrics.pixel_labels import (
    CLASSES,
    TAUS,
    audit_ladder,
    audit_masks,
    overlaps,
    pixar_report,
    pixel_labels,
)

REAL, SYNTHETIC, TAMPERED = range(3)


def plane(*rows: str) -> np.ndarray:
    """bool 1×H×W of rows of # and dots."""
    return np.array([[c == "#" for c in row] for row in rows])[None]


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(0)
    before = g.random((2, 3, 12, 16), np.float32)
    after = np.clip(before + g.normal(0, 0.1, before.shape).astype(np.float32) * (g.random((2, 1, 12, 16)) < 0.5), 0, 1)
    return before, after.astype(np.float32)


def test_identical_pictures_have_no_labels(pair) -> None:
    for tau in (0.0, *TAUS):
        masks, difference = pixel_labels(pair[0], pair[0].copy(), tau)
        assert not masks.any()
        assert not difference.any()


def test_the_difference_is_the_mean_of_channels_and_the_threshold_strict() -> None:
    before = np.zeros((1, 3, 1, 3), np.float32)
    after = before.copy()
    after[0, 0, 0, 0] = 0.375  # one channel: its mean is an exact 0.125
    after[0, :, 0, 1] = 0.125
    after[0, :, 0, 2] = 0.25
    masks, difference = pixel_labels(before, after, 0.125)
    assert difference[0, 0, 0].tolist() == [0.125, 0.125, 0.25]
    assert masks[0, 0, 0].tolist() == [False, False, True]
    assert pixel_labels(before, after, 0.12).masks.all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_labels_shrink_as_the_threshold_rises(seed: int, taus: list[float]) -> None:
    g = np.random.default_rng(seed)
    before, after = g.random((2, 1, 3, 6, 6), np.float32)
    masks = [pixel_labels(before, after, tau).masks for tau in sorted(taus)]
    assert all(not (small & ~large).any() for large, small in pairwise(masks))


def test_an_audit_counts_both_kinds_of_error() -> None:
    labels = plane("##..", "#..#")[None]
    mask = plane("###.", "....")[None]
    difference = np.where(labels, 0.2, 0.01).astype(np.float32)
    found = audit_masks(labels, difference, mask)
    assert found["over_label_rate"] == pytest.approx(1 / 3)
    assert found["off_mask_share"] == pytest.approx(2 / 5)
    assert found["missed_share"] == pytest.approx(2 / 4)
    assert found["missed_intensity"] == pytest.approx(0.43 / 0.84, rel=1e-5)
    assert found["iou"] == pytest.approx(2 / 5)


def test_a_ladder_is_monotone(pair) -> None:
    _, difference = pixel_labels(*pair)
    mask = np.zeros((2, 1, 12, 16), bool)
    mask[:, :, 2:8, 3:9] = True
    rows = audit_ladder(difference, mask)
    assert [r["tau"] for r in rows] == list(TAUS)
    off, over = ([r[key] for r in rows] for key in ("off_mask_share", "over_label_rate"))
    assert off == sorted(off, reverse=True)
    assert over == sorted(over)
    assert off[0] > off[1] > 0


def test_overlaps_of_three_pairs_by_hand() -> None:
    masks = np.stack([plane("##", ".."), plane("..", ".."), plane("..", "..")])
    marked = np.stack([plane("#.", "#."), plane("..", ".."), plane("#.", "..")])
    found = overlaps(masks, marked.astype(float))
    assert found.g_iou == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert found.c_iou == pytest.approx(1 / 4)
    assert found.empty == 1


def test_a_perfect_answer_and_a_blank_one() -> None:
    masks = np.stack([plane("##..", "#..."), plane("....", "...."), plane(".###", "....")])
    target = {
        "classes": np.array([TAMPERED, REAL, TAMPERED]), "masks": masks, "difference": masks * np.float32(0.3),
        "object_masks": np.stack([plane("##..", "...."), plane("....", "...."), plane(".###", "....")]),
        "objects": np.eye(3, dtype=bool), "texts": ["a red ball was removed", "", "a cup became blue"],
    }  # fmt: skip
    perfect = pixar_report({**target, "masks": masks.astype(float), "objects": np.eye(3)}, target)
    ones = ("accuracy", "g_iou", "c_iou", "pixel_f1", "pixel_auc", "intensity_recall", "off_mask_recall", "exact_match",
            "object_macro_f1", "object_micro_f1", "top1", "top5", "text_cosine", "combined_f1",
            "tampered_f1")  # fmt: skip
    assert {key: perfect[key] for key in ones} == pytest.approx(dict.fromkeys(ones, 1.0))
    assert perfect["over_label_rate"] == 0
    blank = pixar_report({"classes": np.zeros(3, int), "masks": np.zeros(masks.shape)}, target)
    assert blank["accuracy"] == pytest.approx(1 / 3)
    assert blank["real_recall"] == 1
    assert blank["real_precision"] == pytest.approx(1 / 3)
    assert blank["g_iou"] == blank["c_iou"] == blank["combined_f1"] == blank["intensity_recall"] == 0
    assert blank["empty"] == 0  # the real picture, where blank is right, is not judged
    assert "top1" not in blank
    assert f"{CLASSES[SYNTHETIC]}_f1" not in blank


def test_objects_and_intensity_by_hand() -> None:
    masks = plane("##", "..")[None]
    marked = plane("#.", "#.")[None].astype(float)
    difference = np.array([[[[0.6, 0.2], [0.0, 0.2]]]], np.float32)
    objects = np.array([[True, False, True]])
    found = pixar_report(
        {"masks": marked, "objects": np.array([[0.6, 0.9, 0.2]])},
        {"masks": masks, "difference": difference, "objects": objects},
    )
    assert found["intensity_recall"] == pytest.approx(0.6)
    assert found["over_label_rate"] == pytest.approx(0.5)
    assert found["object_micro_precision"] == found["object_micro_recall"] == pytest.approx(0.5)
    assert found["object_macro_f1"] == pytest.approx(1 / 3)
    assert found["exact_match"] == 0
    assert (found["top1"], found["top5"]) == (0, 1)


def test_sentences_are_compared_with_what_is_given() -> None:
    target = {"texts": ["a red ball was removed", "a blue cup was added"]}
    close = pixar_report({"texts": ["a red ball was added", "a blue cup was added"]}, target)["text_cosine"]
    far = pixar_report({"texts": ["nothing", "else"]}, target)["text_cosine"]
    assert 0.5 < close < 1
    assert far == 0
    lengths = pixar_report(
        {"texts": ["xx", "y"]}, {"texts": ["zz", "zz"]}, embed=lambda t: np.array([[len(s), 1] for s in t])
    )
    assert lengths["text_cosine"] == pytest.approx((1 + 3 / np.sqrt(10)) / 2)


def test_wrong_input_is_refused(pair) -> None:
    before, after = pair
    with pytest.raises(UsageError, match="one size"):
        pixel_labels(before, after[:, :, :-1])
    with pytest.raises(UsageError, match="floating point"):
        pixel_labels((before * 255).astype(np.uint8), (after * 255).astype(np.uint8))
    with pytest.raises(UsageError, match="lies in"):
        pixel_labels(before, after, 2)
    with pytest.raises(InputError, match="not finite"):
        pixel_labels(before, np.full_like(after, np.nan))
    masks, difference = pixel_labels(before, after)
    with pytest.raises(UsageError, match="bool N×1×H×W"):
        audit_masks(difference, difference, masks)
    with pytest.raises(UsageError, match="one shape"):
        audit_masks(masks, difference, masks[:1])
    with pytest.raises(UsageError, match="there is none"):
        pixar_report({"masks": difference}, {"classes": np.zeros(2, int), "masks": masks})
    with pytest.raises(UsageError, match="one row a picture"):
        pixar_report({"masks": difference[:1]}, {"classes": np.full(2, 2), "masks": masks})
    with pytest.raises(UsageError, match="Objects must be"):
        pixar_report({"objects": np.zeros((2, 3))}, {"objects": np.zeros((2, 4), bool)})
