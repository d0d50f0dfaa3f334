"""JPEG quality reader: exact on libjpeg files, silent unless tables contradict each other."""

import io

import numpy as np
import pytest
from PIL import Image

from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import standard_table
from vestige.forensics.jpeg_quality import JpegQuality, nearest_quality

PIXELS = np.random.default_rng(2).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def find(**options):
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "JPEG", **options)
    return JpegQuality().find(ImageSubject(out.getvalue()))


@pytest.mark.parametrize("quality", [2, 10, 33, 50, 75, 92, 99, 100])
def test_libjpeg_quality_is_exact_and_no_contradiction(quality):
    finding = find(quality=quality)
    assert finding.details["family"] == "libjpeg"
    assert finding.details["quality"] == quality
    assert finding.score == 0
    assert f"quantisation tables match libjpeg quality {quality}" in finding.evidence


def test_tables_of_different_quality_contradict_each_other():
    tables = [standard_table(90).ravel().tolist(), standard_table(60, "chroma").ravel().tolist()]
    finding = find(qtables=tables)
    assert finding.score == pytest.approx(np.log1p(30))
    assert (finding.details["quality"], finding.details["quality_chroma"]) == (90, 60)


def test_custom_and_constant_tables_are_named():
    custom = np.clip(standard_table(80) + np.arange(64).reshape(8, 8) % 3, 1, 255)
    finding = find(qtables=[custom.ravel().tolist()] * 2)
    assert finding.details["family"] == "custom"
    assert finding.details["table_distance"] > 0
    assert finding.score == 0
    assert find(qtables=[[7] * 64] * 2).details["family"] == "constant"


def test_reports_subsampling_and_process():
    details = find(quality=85, subsampling=2, progressive=True).details
    assert details["subsampling"] == "4:2:0"
    assert details["progressive"]
    assert nearest_quality(standard_table(40, "chroma"), "chroma") == (40, 0.0)


def test_does_not_apply_to_other_formats():
    finding = JpegQuality().find(ImageSubject(encode(PIXELS, "PNG")))
    assert not finding.applies
    assert "PNG" in finding.why_not
