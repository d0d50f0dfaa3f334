import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label
from sklearn import metrics

from vestige.core.errors import InputError, UsageError
from vestige.metrics.segmentation import (
    aupro,
    centre_prior,
    f1_at_threshold,
    f1_best_threshold_per_image,
    f1_best_threshold_pooled,
    f1_curve,
    iou_at_threshold,
    overlap_curve,
    pixel_auroc,
    pixel_average_precision,
)


def sample(seed, n=3, height=9, width=11, levels=6):
    generator = np.random.default_rng(seed)
    masks = generator.random((n, 1, height, width)) < 0.25
    maps = np.round(generator.random(masks.shape) * levels) / levels + 0.3 * masks
    return masks, maps


def brute_overlap(masks, maps, thresholds):
    points = [(0.0, 0.0)]
    for t in sorted(thresholds, reverse=True):
        shares = []
        for mask, map_ in zip(masks, maps, strict=True):
            parts = label(mask[0], connectivity=2)
            shares += [(map_[0] >= t)[parts == k].mean() for k in range(1, parts.max() + 1)]
        points.append(((maps >= t)[~masks].mean(), np.mean(shares)))
    return np.array(points).T


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_overlap_curve_equals_a_sweep_over_thresholds(seed):
    masks, maps = sample(seed)
    fpr, overlap = brute_overlap(masks, maps, np.unique(maps))
    curve = overlap_curve(masks, maps)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.overlap, overlap)
    grid = np.linspace(0, 0.3, 30001)
    # np.interp takes the right end of vertical pieces, which have no area.
    assert aupro(masks, maps) == pytest.approx(np.trapezoid(np.interp(grid, fpr, overlap), grid) / 0.3, abs=1e-3)


def test_overlap_of_perfect_random_constant_and_inverted_maps():
    masks, _ = sample(1, n=4, height=40, width=50)
    assert aupro(masks, masks.astype(float)) == 1.0
    assert aupro(masks, 1.0 - masks) == 0.0
    assert aupro(masks, np.full(masks.shape, 0.7)) == 0.0
    generator = np.random.default_rng(0)
    assert np.mean([aupro(masks, generator.random(masks.shape)) for _ in range(5)]) == pytest.approx(0.15, abs=0.02)


def test_small_regions_weigh_as_much_as_large_ones():
    mask = np.zeros((1, 1, 20, 20), bool)
    mask[0, 0, :10, :10], mask[0, 0, 15, 15] = True, True
    large_only = mask.astype(float)
    large_only[0, 0, 15, 15] = -1
    assert aupro(mask, large_only) == pytest.approx(0.5)
    assert pixel_auroc(mask, large_only) > 0.98
    corner = np.zeros((1, 1, 4, 4), bool)
    corner[0, 0, 0, 0] = corner[0, 0, 1, 1] = True  # one region: corners touch
    half = np.zeros(corner.shape)
    half[0, 0, 0, 0] = 1
    assert overlap_curve(corner, half).overlap.tolist() == [0.0, 0.5, 1.0]


@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.8]))
@settings(max_examples=20, deadline=None)
def test_fixed_threshold_figures_agree_with_scikit_learn(seed, threshold):
    masks, maps = sample(seed)
    f1, iou = f1_at_threshold(masks, maps, threshold), iou_at_threshold(masks, maps, threshold)
    for i, (mask, map_) in enumerate(zip(masks, maps, strict=True)):
        truth, predicted = mask.ravel(), map_.ravel() >= threshold
        assert f1[i] == pytest.approx(metrics.f1_score(truth, predicted, zero_division=0))
        assert iou[i] == pytest.approx(metrics.jaccard_score(truth, predicted, zero_division=0))
    np.testing.assert_allclose(iou, f1 / (2 - f1))
    assert (f1_best_threshold_per_image(masks, maps) >= f1 - 1e-12).all()
    pooled = f1_best_threshold_pooled(masks, maps)
    assert pooled.value >= metrics.f1_score(masks.ravel(), maps.ravel() >= threshold) - 1e-12
    assert pooled.value == pytest.approx(metrics.f1_score(masks.ravel(), maps.ravel() >= pooled.threshold))


def test_pixel_curves_pool_all_pictures():
    masks, maps = sample(5)
    assert pixel_auroc(masks, maps) == metrics.roc_auc_score(masks.ravel(), maps.ravel())
    assert pixel_average_precision(masks, maps) == metrics.average_precision_score(masks.ravel(), maps.ravel())
    assert pixel_auroc(masks, np.zeros(masks.shape)) == 0.5


def test_empty_and_full_masks():
    masks = np.zeros((3, 1, 4, 4), bool)
    masks[2] = True
    maps = np.zeros(masks.shape)
    maps[1, 0, 0, 0] = 1.0
    maps[2] = 1.0
    for measure in (f1_at_threshold, iou_at_threshold):
        np.testing.assert_array_equal(measure(masks, maps), [np.nan, np.nan, 1.0])
        np.testing.assert_array_equal(measure(masks, maps, empty="score"), [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(f1_best_threshold_per_image(masks, maps), [np.nan, np.nan, 1.0])
    with pytest.raises(UsageError, match="at least one true pixel"):
        aupro(masks[:2], maps[:2])
    with pytest.raises(UsageError, match="outside"):
        aupro(masks[2:], maps[2:])


def test_the_curve_holds_what_single_thresholds_give():
    masks, maps = sample(5)
    thresholds = (*np.unique(maps).tolist(), 2.0)
    for mask, map_ in zip(masks, maps, strict=True):
        curve = f1_curve(mask, map_, thresholds)
        expected = [f1_at_threshold([mask], [map_], t)[0] for t in thresholds]
        np.testing.assert_allclose(curve, expected)
        assert curve.max() == f1_best_threshold_per_image([mask], [map_])[0]
    assert np.isnan(f1_curve(masks[0] & False, maps[0], (0.5,))).all()
    for wrong in ((), (0.5, 0.5)):
        with pytest.raises(UsageError, match="must rise"):
            f1_curve(masks[0], maps[0], wrong)


def test_the_centre_prior_falls_to_the_corners():
    drawn = centre_prior(5, 9)
    assert drawn.shape == (5, 9)
    assert drawn.dtype == np.float32
    assert (drawn[2, 4], drawn[0, 0], drawn[2, 0]) == (1.0, 0.0, 0.5)
    assert centre_prior(1, 1).tolist() == [[1.0]]


def test_pictures_may_differ_in_size():
    masks = [np.eye(4, dtype=bool), np.ones((2, 6), bool)[None]]
    maps = [np.eye(4), np.zeros((1, 2, 6))]
    assert f1_at_threshold(masks, maps).tolist() == [1.0, 0.0]
    assert 0 < aupro(masks, maps) < 1


def test_refusals():
    mask, map_ = np.ones((1, 1, 2, 2), bool), np.ones((1, 1, 2, 2))
    for measure in (f1_at_threshold, iou_at_threshold, f1_best_threshold_per_image, aupro, pixel_auroc):
        with pytest.raises(UsageError, match="same shape"):
            measure(mask, map_[..., :1])
        with pytest.raises(UsageError, match="must be bool"):
            measure(mask.astype(int), map_)
        with pytest.raises(UsageError, match="needs a mask"):
            measure(mask, map_[:0])
        with pytest.raises(UsageError, match="1×H×W"):
            measure(np.ones((1, 3, 2, 2), bool), np.ones((1, 3, 2, 2)))
        with pytest.raises(InputError, match="not finite"):
            measure(mask, map_ * np.nan)
    with pytest.raises(UsageError, match="'skip' or 'score'"):
        f1_at_threshold(mask, map_, empty="zero")
    with pytest.raises(UsageError, match="must lie in"):
        aupro(mask, map_, fpr_limit=0)
