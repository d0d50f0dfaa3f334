import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from sklearn.metrics import roc_auc_score

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.tampering import OPERATIONS, tamper
from vestige.data.tampering_regions import draw_region


def planes(pixels):
    return pixels.astype(np.float32).transpose(2, 0, 1) / 255


@pytest.fixture(scope="module")
def photo():
    return planes(cv2.resize(data.astronaut(), (192, 160), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def donor():
    return planes(data.coffee()[:300, :400])


def eight(image):
    return np.round(image * 255).astype(np.uint8)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("blend", [False, True])
def test_masks_are_exact(photo, donor, operation, blend):
    for seed in range(6):
        result = tamper(photo, operation, donor=donor, seed=seed, blend=blend)
        assert result.image.shape == photo.shape
        assert result.image.dtype == np.float32
        assert result.mask.shape == (1, 160, 192)
        assert result.mask.dtype == bool
        np.testing.assert_allclose(result.image * 255, eight(result.image), atol=1e-3)
        differs = (eight(result.image) != eight(photo)).any(0)
        assert not (differs & ~result.mask[0]).any()
        share = differs[result.mask[0]].mean()
        assert share == pytest.approx(result.details["changed"])
        assert share >= 0.6
        assert 0.02 <= result.details["area"] <= 0.25
        assert result.details["area"] == pytest.approx(result.mask.mean())
        assert (result.details["seam"] == "hard") != blend


def test_same_seed_same_result(photo, donor):
    for operation in OPERATIONS:
        one, two, other = (tamper(photo, operation, donor=donor, seed=s) for s in (7, 7, 8))
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.mask, two.mask)
        assert (one.mask != other.mask).any()


def test_a_centre_prior_gains_nothing(photo):
    small = planes(cv2.resize(data.astronaut(), (64, 64), interpolation=cv2.INTER_AREA))
    y, x = np.mgrid[:64, :64] - 31.5
    prior = -np.hypot(y, x).ravel()
    masks = np.stack([tamper(small, "erase_fill", seed=seed).mask[0] for seed in range(300)])
    per_image = np.mean([roc_auc_score(m.ravel(), prior) for m in masks])
    mean = masks.mean(0).ravel()
    truth, weight = np.repeat([1, 0], 64 * 64), np.concatenate([mean, 1 - mean])
    pooled = roc_auc_score(truth, np.tile(prior, 2), sample_weight=weight)
    assert 0.45 < per_image < 0.55
    assert 0.45 < pooled < 0.55
    blocks = masks.mean(0).reshape(4, 16, 4, 16).mean((1, 3)) / mean.mean()
    assert blocks.min() > 0.7
    assert blocks.max() < 1.35
    # The same test finds the bias of regions that must lie inside the picture.
    inside = [draw_region(rng(s, "test"), 64, 64, placement="inside")[0] for s in range(100)]
    assert np.mean([roc_auc_score(m.ravel(), prior) for m in inside]) > 0.6


@settings(max_examples=60, deadline=None)
@given(st.integers(32, 300), st.integers(32, 300), st.integers(0, 10**6))
def test_regions_have_the_area_they_should(height, width, seed):
    mask, _ = draw_region(rng(seed), height, width)
    assert mask.shape == (height, width)
    assert 0.03 <= mask.mean() <= 0.25
    assert cv2.connectedComponents(mask.astype(np.uint8))[0] <= 3  # a concave outline may be cut in two by the border


def test_splice_brings_donor_pixels(photo):
    colour = np.zeros((3, 400, 400), np.float32)
    colour[1] = 1
    result = tamper(photo, "splice", donor=colour, seed=2)
    assert (result.image[:, result.mask[0]] == np.array([[0], [1], [0]])).all()
    assert result.details["scale"] == 1.0
    small = tamper(photo, "splice", donor=colour[:, :5, :4], seed=2)
    assert small.details["scale"] > 1


def test_plain_copy_move_copies_its_source(photo):
    plain = rotated = 0
    for seed in range(12):
        result = tamper(photo, "copy_move", seed=seed)
        source, target = result.details["source_mask"][0], result.mask[0]
        assert (source & target).sum() <= 0.65 * target.sum()
        if result.details["angle"] == 0:
            plain += 1
            dy, dx = (round(v) for v in result.details["offset"])
            rows, columns = np.nonzero(target)
            np.testing.assert_array_equal(
                result.image[:, rows, columns], eight(photo)[:, rows - dy, columns - dx] / np.float32(255)
            )
            assert source[rows - dy, columns - dx].all()
            assert source.sum() == target.sum()
        else:
            rotated += 1
            assert source.sum() * result.details["scale"] ** 2 == pytest.approx(target.sum(), rel=0.08)
    assert plain > 2
    assert rotated > 2


def test_poisson_blending_softens_the_seam(photo, donor):
    """Steps across the edge of the region are smaller than with a hard seam."""

    def step(result):
        mask = result.mask[0]
        edge = mask[:, 1:] != mask[:, :-1]
        return np.abs(np.diff(result.image, axis=2)).mean(0)[edge].mean()

    ratios = []
    for seed in range(10):
        soft = tamper(photo, "splice", donor=donor, seed=seed, blend=True)
        if soft.details["seam"] == "poisson":
            ratios.append(step(soft) / step(tamper(photo, "splice", donor=donor, seed=seed)))
    assert len(ratios) > 2
    assert np.median(ratios) < 0.6


def test_local_filters_do_what_they_say(photo):
    def detail(image, mask):
        return np.abs(cv2.Laplacian(image.mean(0), cv2.CV_32F))[mask[0]].mean()

    for operation, direction in (
        ("local_blur", -1), ("local_resample", -1), ("local_noise", 1), ("local_sharpen", 1),
    ):  # fmt: skip
        changes = []
        for seed in range(6):
            result = tamper(photo, operation, seed=seed)
            changes.append(detail(result.image, result.mask) - detail(photo, result.mask))
        assert direction * np.median(changes) > 0, operation


def test_local_jpeg_leaves_its_grid(photo):
    """Inside the region, blocks on the recorded grid have more vanishing DCT coefficients than blocks off it."""

    def zeros(result, phase):
        luma = np.tensordot([0.299, 0.587, 0.114], result.image * 255, 1)
        shares = []
        for top in range(phase[0] % 8, luma.shape[0] - 7, 8):
            for left in range(phase[1] % 8, luma.shape[1] - 7, 8):
                if result.mask[0, top : top + 8, left : left + 8].all():
                    shares.append((np.abs(cv2.dct(luma[top : top + 8, left : left + 8])) < 1).mean())
        return np.mean(shares)

    for seed in range(5):
        result = tamper(photo, "local_jpeg", seed=seed)
        row, column = result.details["grid"]
        assert zeros(result, (row, column)) > zeros(result, (row + 4, column + 4)) + 0.05


def test_removal_takes_an_object_away():
    ramp = np.linspace(0.2, 0.8, 128, dtype=np.float32)
    scene = np.stack([np.tile(ramp, (96, 1))] * 3)
    errors = []
    for seed in range(8):
        clean = tamper(scene, "removal", seed=seed)
        errors.append(np.abs(clean.image - scene).mean(0)[clean.mask[0]].mean())
    assert np.median(errors) < 0.08  # the ramp is continued, where another place would be off by 0.2


def test_shapes_of_input(photo, donor):
    batch = tamper(photo[None], "splice", donor=donor[None], seed=1)
    assert batch.image.shape == (1, *photo.shape)
    np.testing.assert_array_equal(batch.image[0], tamper(photo, "splice", donor=donor, seed=1).image)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(list(OPERATIONS)), st.integers(32, 90), st.integers(32, 90), st.integers(0, 999), st.booleans(),
    st.sampled_from(["noise", "black", "white"]), st.sampled_from(["uniform", "inside"]),
)  # fmt: skip
def test_odd_pictures(operation, height, width, seed, blend, content, placement):
    picture = {"noise": 1.0, "black": 0.0, "white": 0.0}[content] * np.random.default_rng(seed).random(
        (3, height, width)
    )
    picture = (picture + (content == "white")).astype(np.float32)
    donor = np.random.default_rng(1).random((3, 11, 7)).astype(np.float32)
    result = tamper(picture, operation, donor=donor, seed=seed, blend=blend, placement=placement)
    expected = np.floor(picture * 255 + 0.5).astype(np.uint8)
    outside = ~result.mask[0]
    np.testing.assert_array_equal(eight(result.image)[:, outside], expected[:, outside])
    assert result.mask.any()


def test_long_thin_pictures(photo):
    strip = planes(cv2.resize(data.astronaut(), (1000, 32), interpolation=cv2.INTER_AREA))
    for operation in ("copy_move", "removal", "text", "recolor"):
        assert tamper(strip, operation, seed=3).mask.any()


def test_refusals(photo):
    with pytest.raises(UsageError, match="no operation 'morph'"):
        tamper(photo, "morph")
    with pytest.raises(UsageError, match="no placement"):
        tamper(photo, "recolor", placement="left")
    with pytest.raises(UsageError, match="needs a donor"):
        tamper(photo, "splice")
    with pytest.raises(InputError, match="at least 32"):
        tamper(photo[:, :31], "recolor")
    with pytest.raises(UsageError, match="3×H×W"):
        tamper(photo[:1], "recolor")
    with pytest.raises(UsageError, match="divide by 255"):
        tamper(eight(photo), "recolor")
    with pytest.raises(InputError, match="not finite"):
        tamper(photo * np.nan, "recolor")
