"""What sort of picture it is, and what follows from it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vestige.core.calibration import Calibration
from vestige.core.domain import GRAPHICS, measure
from vestige.core.findings import Finding
from vestige.core.image_io import encode
from vestige.core.panel import Panel
from vestige.core.subjects import ImageSubject

RARE = Calibration(1.0, 0.002, 2000, 1.0, 0.0)


def drawn(height: int = 300, width: int = 400) -> np.ndarray:
    image = Image.new("RGB", (width, height), (250, 250, 246))
    pen = ImageDraw.Draw(image)
    for n in range(14):
        pen.rectangle((12 + 24 * n, 30 + 9 * n, 52 + 24 * n, 80 + 12 * n), fill=(17 * n, 90, 250 - 17 * n))
    pen.text((20, 8), "Sales by quarter", fill="black")
    return np.asarray(image)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from skimage import data

    return data.astronaut()[40:340, 60:460]


class Sees:
    """An examiner of photographs that is sure of an edit."""

    slug, kind, photographs = "sees", "edit", True

    def find(self, subject):
        return Finding(self.slug, "edit", 9.0, "A region stands out.", "Nothing stands out.")


class Reads(Sees):
    """One that reads the file, whatever the picture is."""

    slug, photographs = "reads", False


def test_photographs_are_photographs(photo):
    assert measure(photo).names == ()
    assert measure(np.asarray(Image.fromarray(photo).resize((300, 225)))).names == ()


def test_graphics_are_told_as_drawn_and_as_jpeg():
    assert measure(drawn()).names == (GRAPHICS,)
    assert measure(ImageSubject(encode(drawn(), "JPEG", quality=75)).pixels).names == (GRAPHICS,)
    grey = np.repeat(drawn().mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert measure(grey).names == (GRAPHICS,)


def test_a_dark_grey_photograph_is_no_graphics():
    from skimage import data

    moon = np.repeat(data.moon()[..., None], 3, axis=2)  # a third of it equals its neighbours, in few grey values
    assert measure(moon).names == ("without colour",)


def test_a_page_with_a_photograph_in_it_is_partly_graphics(photo):
    page = np.full((760, 760, 3), 255, np.uint8)
    page[:520, :] = np.tile(photo, (2, 2, 1))[:520, :760]
    assert measure(page).names[0] == "partly flat graphics"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda p: p // 6, "dark"),
        (lambda p: np.repeat(p.mean(2, keepdims=True).astype(np.uint8), 3, axis=2), "without colour"),
        (lambda p: p[:100, :100], "tiny"),
        (
            lambda p: np.where(np.arange(p.shape[1])[None, :, None] < 260, 240 + p // 32, p).astype(np.uint8),
            "mostly white",
        ),
    ],
)
def test_pictures_outside_ordinary_photographs_are_named(photo, change, name):
    domain = measure(np.ascontiguousarray(change(photo)))
    assert name in domain.names
    assert len(domain.sentences) == len(domain.names)


def test_examiners_of_photographs_do_not_judge_graphics(photo):
    panel = Panel([Sees(), Reads()], {"sees": RARE, "reads": RARE})
    found = panel.examine(ImageSubject(encode(drawn(), "PNG"), "x.png"))
    assert not found["sees"].applies
    assert "as flat as graphics" in found["sees"].summary
    assert found["reads"].flagged
    assert any("as flat as graphics" in s for s in found.verdict.sentences)
    alone = Panel([Sees()], {"sees": RARE}).examine(ImageSubject(encode(drawn(), "PNG"), "x.png"))
    assert alone.verdict.level == "not examined"
    assert alone.verdict.probability is None


def test_a_sign_in_the_dark_is_a_place_to_look_at(photo):
    panel = Panel([Sees()], {"sees": RARE})
    assert panel.examine(ImageSubject(encode(photo, "PNG"))).verdict.level == "found"
    dark = panel.examine(ImageSubject(encode(photo // 6, "PNG")))
    assert dark["sees"].level == dark.verdict.level == "a place to look at"
    assert "outside what its error rate was measured on (dark)" in dark["sees"].summary
