import numpy as np
import pytest

from vestige.core.errors import InputError, UsageError
from vestige.data.manipulated import handled, manipulated, past, posted, travelled


@pytest.fixture(scope="module")
def photographs():
    from sklearn.datasets import load_sample_image

    return [load_sample_image(name)[:300, :400] for name in ("china.jpg", "flower.jpg")]


@pytest.fixture(scope="module")
def made(photographs):
    return manipulated(photographs, 24, 96, seed=3)


def test_pictures_masks_and_operations_belong_together(made):
    assert made.images.shape == (24, 3, 96, 96)
    assert made.images.dtype == np.uint8
    assert made.masks.shape == (24, 1, 96, 96)
    assert made.masks.dtype == bool
    for mask, operation in zip(made.masks, made.operations, strict=True):
        assert mask.any() == bool(operation)
    assert len({o for o in made.operations if o}) >= 5
    assert len(made.only("")) == made.operations.count("")


def test_a_picture_depends_on_its_number_alone(photographs, made):
    fewer = manipulated(photographs, 5, 96, seed=3)
    np.testing.assert_array_equal(fewer.images, made.images[:5])
    assert fewer.operations == made.operations[:5]
    assert not np.array_equal(manipulated(photographs, 5, 96, seed=4).images, fewer.images)


def test_operations_can_be_left_out_and_chosen(photographs):
    only = manipulated(photographs, 6, 96, operations=["recolor"], unedited=0)
    assert set(only.operations) == {"recolor"}
    assert set(manipulated(photographs, 4, 96, operations=[], unedited=1).operations) == {""}


def test_masks_favour_no_place(photographs):
    """Carelessly placed edits lie in the middle, and a guess of the middle then looks like a localiser."""
    masks = manipulated(photographs, 120, 96, operations=["recolor"], unedited=0, seed=1).masks[:, 0]
    mean = masks.mean(0)
    middle, rim = mean[32:64, 32:64].mean(), np.concatenate([mean[:16].ravel(), mean[-16:].ravel()]).mean()
    assert middle < 1.8 * rim


def test_handling_moves_the_mask_with_the_pixels(photographs):
    image = np.full((100, 120, 3), 128, np.uint8)
    mask = np.zeros((100, 120), bool)
    mask[20:60, 30:90] = True
    image[mask] = 255
    for number in range(6):
        done, moved = handled(image, mask, np.random.default_rng(number))
        assert done.shape[:2] == moved.shape
        assert np.abs((done[..., 1] > 190).astype(int) - moved).mean() < 0.05
        done, moved = travelled(image, mask, np.random.default_rng(number))
        assert done.shape[:2] == moved.shape
        assert abs(moved.mean() - mask.mean()) < 0.02
    done, moved = posted(80, 0.5)(image, mask, np.random.default_rng(0))
    assert done.shape == (50, 60, 3)
    assert abs(moved.mean() - mask.mean()) < 0.02


def test_a_past_leaves_room_for_what_is_cut_out(photographs):
    for number in range(12):
        assert min(past(photographs[0], np.random.default_rng(number), least=200).shape[:2]) >= 200


def test_bad_requests_are_refused(photographs):
    with pytest.raises(UsageError, match="Operations are"):
        manipulated(photographs, 2, 96, operations=["magic"])
    with pytest.raises(InputError, match="at least two"):
        manipulated(photographs[:1], 2, 96)
    with pytest.raises(InputError, match="96 pixels"):
        manipulated([p[:50] for p in photographs], 2, 64)
