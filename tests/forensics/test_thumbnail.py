"""Thumbnail examiner: honest previews pass, stale ones are flagged where they differ."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from vestige.core.image_io import orient
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject
from vestige.forensics.thumbnail import Thumbnail

CHINA, FLOWER = load_sample_image("china.jpg"), load_sample_image("flower.jpg")


def small(pixels, size=(160, 107), quality=75):
    out = io.BytesIO()
    Image.fromarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def exif_with(preview, orientation=1):
    """An EXIF block: IFD0 with the orientation, IFD1 with the preview."""
    second = 8 + 2 + 12 + 4
    at = second + 2 + 24 + 4
    head = b"II*\x00" + struct.pack("<I", 8) + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, second)
    fields = struct.pack("<HHHIIHHIII", 2, 513, 4, 1, at, 514, 4, 1, len(preview), 0)
    return b"Exif\x00\x00" + head + fields + preview


def picture(pixels, preview, orientation=1):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90, exif=exif_with(preview, orientation))
    return out.getvalue()


def find(data):
    return Thumbnail().find(ImageSubject(data))


def letterboxed(pixels):
    canvas = np.zeros((120, 160, 3), np.uint8)
    canvas[6:113] = cv2.resize(pixels, (160, 107), interpolation=cv2.INTER_AREA)
    return small(canvas, (160, 120))


@pytest.mark.parametrize(
    "preview",
    [small(CHINA), small(CHINA, quality=40), letterboxed(CHINA), small(CHINA[:, 106:533], (120, 120)),
     small(cv2.convertScaleAbs(CHINA, alpha=0.8, beta=20))],
)  # fmt: skip
def test_previews_of_the_picture_itself_pass(preview):
    finding = find(picture(CHINA, preview))
    assert isinstance(Thumbnail(), Finder)
    assert finding.applies
    assert not finding.flagged
    assert finding.score < 0.8
    assert finding.map.dtype == np.float32


def test_another_picture_is_flagged():
    finding = find(picture(CHINA, small(FLOWER)))
    assert finding.flagged
    assert finding.details["correlation"] < 0.8


def test_a_local_edit_is_flagged_and_shown_in_the_map():
    edited = CHINA.copy()
    edited[150:290, 400:560] = 255 - edited[150:290, 400:560]
    finding = find(picture(edited, small(CHINA)))
    assert finding.flagged
    height, width = finding.map.shape
    inside = finding.map[int(height * 0.4) : int(height * 0.6), int(width * 0.65) : int(width * 0.85)]
    assert inside.mean() > 4 * finding.map[:, : width // 2].mean()


def test_a_cropped_picture_is_flagged():
    assert find(picture(CHINA[100:, 160:], small(CHINA))).flagged


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_turned_pictures_pass_whether_the_preview_was_turned_or_not(orientation):
    stored = find(picture(CHINA, small(CHINA), orientation))
    assert not stored.flagged
    turns = {3: 2, 6: -1, 8: 1}[orientation]
    upright = np.ascontiguousarray(np.rot90(CHINA, turns))
    size = (160, 107) if orientation == 3 else (107, 160)
    finding = find(picture(CHINA, small(upright, size), orientation))
    assert not finding.flagged
    assert (finding.map.shape[0] > finding.map.shape[1]) == (orientation != 3)


def test_pictures_without_usable_previews_do_not_apply():
    flat = np.full((64, 96, 3), 90, np.uint8)
    for data in (
        picture(CHINA, b"\xff\xd8\xff damaged"),
        picture(flat, small(flat)),
        picture(CHINA, small(CHINA, (8, 5))),
        picture(np.zeros((1, 1, 3), np.uint8), b""),
    ):
        finding = find(data)
        assert not finding.applies
        assert finding.why_not


def test_a_flat_picture_with_a_rich_preview_is_flagged():
    assert find(picture(np.full((64, 96, 3), 90, np.uint8), small(CHINA))).flagged


def test_odd_sizes_do_not_raise():
    for shape in ((1, 1, 3), (3, 5, 3), (2, 900, 3)):
        assert find(picture(np.zeros(shape, np.uint8), small(CHINA))).kind == "edit"


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_that_was_only_turned_passes(turn):
    finding = find(picture(np.ascontiguousarray(orient(CHINA, turn)), small(CHINA)))
    assert not finding.flagged
    assert finding.score < 0.3
    assert finding.details["orientation"] == turn


@pytest.mark.parametrize("tone", ["contrast", "gamma", "local"])
def test_brightness_and_contrast_are_no_difference(tone):
    grey = np.arange(256) / 255
    if tone == "local":
        lab = cv2.cvtColor(CHINA, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(3, (6, 6)).apply(np.ascontiguousarray(lab[..., 0]))
        shown = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    else:
        curve = (grey - 0.5) * 2 + 0.5 if tone == "contrast" else grey**2
        shown = (np.clip(curve, 0, 1) * 255).astype(np.uint8)[CHINA]
    finding = find(picture(CHINA, small(shown)))
    assert not finding.flagged
    assert finding.score < 0.6


def test_a_preview_behind_the_picture_is_compared_too():
    exif = Image.Exif()
    exif[0x010F] = "Example"
    out = io.BytesIO()
    Image.fromarray(CHINA).save(out, "JPEG", exif=exif.tobytes())
    assert not find(out.getvalue() + bytes(100) + small(CHINA, (320, 214))).flagged
    assert find(out.getvalue() + bytes(100) + small(FLOWER, (320, 214))).flagged
