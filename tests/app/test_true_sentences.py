"""No report says what is not so: every sentence about pictures with a known past is held against that past."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from vestige.app.report.items import headline, odds
from vestige.core.calibration import load_calibrations
from vestige.core.findings import KINDS, Findings
from vestige.core.image_io import encode
from vestige.core.panel import calibration_file, default_panel
from vestige.core.subjects import ImageSubject
from vestige.data.tampering import tamper

ZIP = b"PK\x03\x04" + bytes(range(256)) * 20


@dataclass(frozen=True)
class Known:
    """A file and what is true of it.

    quality: of its JPEG tables, None for other formats. jpeg_before: an earlier compression that may show. cropped:
    after that, off its grid. scaled: it was interpolated. edited: pixels were changed in one place. graphic: it was
    drawn.
    """

    data: bytes
    quality: int | None = None
    jpeg_before: bool = False
    cropped: bool = False
    scaled: bool = False
    edited: bool = False
    graphic: bool = False
    appended: bool = False
    signed: str = ""


def saved(pixels: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encode(pixels, "JPEG", quality=quality))).convert("RGB"))


def cut(pixels: np.ndarray, side: int = 208) -> np.ndarray:
    top, left = ((n - side) // 16 * 8 for n in pixels.shape[:2])  # on the grid of an earlier compression
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def edit(pixels: np.ndarray, operation: str, donor: np.ndarray) -> np.ndarray:
    bed, other = (p.transpose(2, 0, 1)[None].astype(np.float32) / 255 for p in (pixels, donor))
    made = tamper(bed, operation, donor=other, seed=5, blend=False)
    return (made.image[0].transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)


def pictures() -> dict[str, Known]:
    """Ten pictures nobody edited and ten edited ones."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    china, flower = (load_sample_image(f"{n}.jpg") for n in ("china", "flower"))
    half = [np.asarray(Image.fromarray(p).resize((276, 184), Image.Resampling.BOX)) for p in (china, flower)]
    chart = Image.new("RGB", (320, 240), "white")
    pen = ImageDraw.Draw(chart)
    for n in range(10):
        pen.rectangle((20 + 28 * n, 200 - 14 * n, 40 + 28 * n, 220), fill=(20 * n, 60, 250 - 20 * n))
    moon = np.repeat(cut(data.moon())[..., None], 3, axis=2)
    cat, coffee, rocket = cut(data.chelsea()), cut(data.coffee()), cut(data.rocket())
    exif = Image.Exif()
    exif[0x0131] = "Adobe Photoshop 25.1"
    signed = io.BytesIO()
    Image.fromarray(half[0]).save(signed, "JPEG", quality=91, exif=exif)
    once = saved(half[0], 60)
    pasted = half[1].copy()
    pasted[50:146, 90:194] = saved(china, 55)[203:299, 301:405]
    copied = coffee.copy()
    copied[10:80, 120:195] = copied[115:185, 20:95]
    filled = cat.copy()
    filled[90:150, 60:150] = (90, 70, 60)
    blurred = rocket.copy()
    blurred[60:160, 80:190] = cv2.GaussianBlur(blurred[60:160, 80:190], (0, 0), 4)
    written = half[0].copy()
    cv2.putText(written, "VACANT", (30, 120), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (250, 250, 250), 4)

    def jpeg(pixels: np.ndarray, quality: int) -> bytes:
        return encode(pixels, "JPEG", quality=quality)

    return {
        "real reduced": Known(encode(half[0], "PNG"), scaled=True),
        "real reduced jpeg": Known(jpeg(half[1], 88), 88, scaled=True),
        "real cat": Known(encode(cat, "PNG"), jpeg_before=True),
        "real coffee": Known(jpeg(coffee, 90), 90),
        "real moon": Known(encode(moon, "PNG"), jpeg_before=True),
        "real saved twice": Known(jpeg(once, 90), 90, jpeg_before=True, scaled=True),
        "real cropped": Known(encode(saved(china, 70)[101:290, 203:410], "PNG"), jpeg_before=True, cropped=True),
        "real chart": Known(encode(np.asarray(chart), "PNG"), graphic=True),
        "real chart jpeg": Known(jpeg(np.asarray(chart), 85), 85, graphic=True),
        "real signed": Known(signed.getvalue(), 91, signed="Adobe Photoshop", scaled=True),
        "edited appended": Known(jpeg(cat, 93) + ZIP, 93, jpeg_before=True, appended=True),
        "edited paste": Known(encode(pasted, "PNG"), jpeg_before=True, scaled=True, edited=True),
        "edited copy": Known(jpeg(copied, 94), 94, edited=True),
        "edited fill": Known(encode(filled, "PNG"), jpeg_before=True, edited=True),
        "edited blur": Known(jpeg(blurred, 95), 95, jpeg_before=True, edited=True),
        "edited text": Known(jpeg(written, 86), 86, scaled=True, edited=True),
        "edited splice": Known(encode(edit(half[0], "splice", half[1]), "PNG"), scaled=True, edited=True),
        "edited removal": Known(jpeg(edit(half[1], "removal", half[0]), 92), 92, scaled=True, edited=True),
        "edited noise": Known(encode(edit(rocket, "local_noise", cat), "PNG"), jpeg_before=True, edited=True),
        "edited recolour": Known(jpeg(edit(coffee, "recolor", cat), 92), 92, edited=True),
    }


KNOWN = pictures()


@pytest.fixture(scope="module")
def reports() -> dict[str, Findings]:
    panel = default_panel()
    return {name: panel.examine(ImageSubject(known.data, name)) for name, known in KNOWN.items()}


@pytest.mark.parametrize("name", KNOWN)
def test_every_sentence_is_true(reports: dict[str, Findings], name: str) -> None:
    known, found = KNOWN[name], reports[name]
    verdict = found.verdict
    said = {f.examiner: f for f in found.findings}
    applied = [f for f in found.findings if f.applies]
    text = " ".join([headline(verdict), odds(verdict), *verdict.sentences])

    # Facts are what stands in the file, and are never given a probability or called a sign of an edit.
    facts = {f.examiner for f in applied if f.flagged and f.basis == "fact"}
    assert facts == {n for n, true in (("container", known.appended), ("metadata", bool(known.signed))) if true}
    assert [s for s in verdict.sentences if s.startswith("Fact: ")] == [f"Fact: {fact}" for fact in verdict.facts]
    assert all(said[examiner].probability is None for examiner in facts)
    if known.signed:
        assert known.signed in verdict.facts[0]
    if known.appended:
        assert f"{len(ZIP):,} bytes follow the end of the picture; they look like a ZIP archive" in verdict.facts[0]
        assert headline(verdict).startswith("Found: file structure")

    # What is said to be found in the pixels is there.
    if verdict.level == "found" and "edit" in verdict.kinds:
        assert known.edited, text
    if said["jpeg_double"].flagged:
        assert known.jpeg_before, text
    if said["resampling"].flagged:
        assert known.scaled, text
    assert said["jpeg_crop"].flagged == known.cropped, text
    assert not any(said[slug].flagged for slug in ("steganalysis", "find_mark", "generator_tags"))

    # Numbers are those of the file, and rates those of the calibration.
    assert (found.format == "JPEG") == (known.quality is not None) == said["jpeg_quality"].applies
    if known.quality is not None:
        assert f"about quality {known.quality};" in said["jpeg_quality"].summary
    assert f"{found.width}×{found.height}" == "{}×{}".format(*Image.open(io.BytesIO(known.data)).size)
    calibrations = load_calibrations(calibration_file())[0]
    for finding in applied:
        if finding.examiner in calibrations:
            own = calibrations[finding.examiner]
            assert (finding.false_positive_rate, finding.n_clean) == (own.false_positive_rate, own.n_clean)
            lowered = bool(found.domain.names) and finding.look
            assert finding.flagged == (finding.score >= own.threshold and not lowered)
            assert not finding.flagged or finding.probability >= 0.1 - 1e-9  # no sign less likely than the prior
    counted = re.search(r"No trace found by the (\d+) examiners", text)
    assert counted is None or int(counted[1]) == len(applied)

    # Graphics are not judged by what was made for photographs, and photographs are.
    assert ("flat graphics" in found.domain.names) == known.graphic
    assert (verdict.probability is None) == known.graphic
    assert ("as flat as graphics" in text) == known.graphic

    # Nothing is cleared: neither of edits nor of having been generated.
    assert "No examiner of this panel judges pixels for generation" in text
    if verdict.level == "nothing found":
        assert "pixels not judged for generation" in headline(verdict)
        assert "does not prove that the picture is untouched" in text
    assert not re.search(r"\b(None|nan|inf|authentic|genuine|safe)\b", text)
    assert all(f.kind in KINDS for f in applied)


def test_the_levels_mean_something(reports: dict[str, Findings]) -> None:
    """Edited pictures are found, or to be looked at, more often than the others, of which none is found edited."""
    edited = [reports[n].verdict for n, known in KNOWN.items() if known.edited]
    others = [reports[n].verdict for n, known in KNOWN.items() if not known.edited]
    told = [np.mean(["edit" in v.kinds for v in group]) for group in (edited, others)]
    assert told[0] > 2 * told[1]
    assert sum(v.level == "found" for v in edited) >= 2
    assert not any(v.level == "found" and "edit" in v.kinds for v in others)
