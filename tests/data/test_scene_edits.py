import cv2
import numpy as np
import pytest

from vestige.core.errors import InputError, UsageError
from vestige.data.scene_edits import OBJECTS, PRIMITIVES, edit_scene, edit_scenes
from vestige.data.scenes import CLASSES


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_an_edit_differs_where_it_says(primitive: str) -> None:
    edits = [edit_scene(seed, primitive, 48) for seed in range(4)]
    for edit in edits:
        assert edit.before.shape == edit.after.shape == (3, 48, 48)
        assert edit.before.dtype == edit.difference.dtype == np.float32
        np.testing.assert_array_equal(np.round(edit.after * 255) / np.float32(255), edit.after)
        np.testing.assert_allclose(edit.difference, np.abs(edit.after - edit.before).mean(0, keepdims=True), atol=1e-7)
        assert 0.005 < edit.object_mask.mean() < 1
        assert edit.touched in OBJECTS
        assert (edit.touched == "other") == (primitive == "background")
        assert edit.touched == "other" or edit.touched in edit.caption
        assert len(edit.caption.split()) >= 4
    inside = np.mean([e.difference[e.object_mask].mean() for e in edits])
    outside = np.mean([e.difference[~e.object_mask].mean() for e in edits])
    assert inside > 4 * outside
    assert len({e.caption for e in edits}) > 1
    again = edit_scene(0, primitive, 48)
    np.testing.assert_array_equal(edits[0].after, again.after)
    assert edits[0].caption == again.caption


@pytest.mark.parametrize("primitive", ["splice", "inpaint"])
def test_pixel_edits_stay_inside_their_mask(primitive: str) -> None:
    for seed in range(3):
        edit = edit_scene(seed, primitive, 48)
        assert edit.difference[~edit.object_mask].max() == 0


def test_redrawing_the_frame_changes_pixels_off_the_mask() -> None:
    def softened(images: np.ndarray) -> np.ndarray:
        return (images + np.roll(images, 1, 3)) / 2

    plain, redrawn = (edit_scene(2, "colourise", 48, redraw=f) for f in (None, softened))
    np.testing.assert_array_equal(plain.before, redrawn.before)
    off = [(e.difference[~e.object_mask] > 0.01).mean() for e in (plain, redrawn)]
    assert off[0] < 0.2
    assert off[1] > off[0] + 0.1
    assert redrawn.details["redrawn"]
    partly = edit_scene(2, "colourise", 48, redraw=softened, spread=0.0)
    far = ~cv2.dilate(partly.object_mask[0].astype(np.uint8), np.ones((17, 17), np.uint8)).astype(bool)
    np.testing.assert_array_equal(partly.after[:, far], plain.after[:, far])
    np.testing.assert_array_equal(partly.after[:, partly.object_mask[0]], redrawn.after[:, partly.object_mask[0]])
    with pytest.raises(UsageError, match="spread"):
        edit_scene(2, "colourise", 48, spread=2)
    with pytest.raises(UsageError, match="keep its shape"):
        edit_scene(2, "colourise", 48, redraw=lambda x: x[:, :, ::2])


def test_removal_and_addition_are_each_others_inverse_in_kind() -> None:
    edits = edit_scenes(4, 48, seed=3, primitives=["remove", "add"])
    assert edits.primitives == ("remove", "add", "remove", "add")
    assert edits.before.dtype == edits.after.dtype == np.uint8
    assert edits.object_masks.shape == edits.difference.shape == (4, 1, 48, 48)
    assert len(edits) == 4
    for caption, touched, primitive in zip(edits.captions, edits.touched, edits.primitives, strict=True):
        assert OBJECTS[touched] in CLASSES
        assert caption.endswith("was removed" if primitive == "remove" else "was added")
    difference = np.abs(edits.after.astype(np.float32) - edits.before).mean(1, keepdims=True) / 255
    np.testing.assert_allclose(difference, edits.difference, atol=1e-6)


def test_a_long_series_can_be_made_in_parts() -> None:
    whole = edit_scenes(3, 32, seed=1)
    part = edit_scenes(1, 32, seed=1, first=2)
    np.testing.assert_array_equal(whole.after[2:], part.after)
    assert whole.captions[2:] == part.captions


def test_wrong_input_is_refused() -> None:
    with pytest.raises(UsageError, match="no edit"):
        edit_scene(0, "stretch")
    with pytest.raises(UsageError, match="at least 1"):
        edit_scenes(0)
    with pytest.raises(InputError, match="could be edited"):
        edit_scene(0, "remove", n_objects=0)
