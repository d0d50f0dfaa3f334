"""JPEG marker parser: what it reads from good files, and that no damage makes it raise."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vestige.core.errors import InputError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import standard_table
from vestige.forensics.jpeg_parse import MAX_SEGMENTS, luma_steps, parse_jpeg

PIXELS = np.random.default_rng(1).integers(0, 255, (40, 56, 3), dtype=np.uint8)


def make(pixels=PIXELS, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize(("code", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_reads_size_tables_and_subsampling(code, name):
    structure = parse_jpeg(make(quality=71, subsampling=code))
    assert (structure.width, structure.height, structure.precision) == (56, 40, 8)
    assert structure.subsampling == name
    assert np.array_equal(structure.luma_table, standard_table(71))
    assert np.array_equal(structure.chroma_table, standard_table(71, "chroma"))
    assert structure.process == "baseline"
    assert structure.app_markers == ("APP0 JFIF",)
    assert structure.ended
    assert structure.problems == ()
    assert structure.segments[0].name == "SOI"
    assert structure.segments[-1].name == "EOI"


def test_reads_progressive_grey_restarts_and_markers():
    progressive = parse_jpeg(make(progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"))
    assert progressive.progressive
    assert progressive.scans > 1
    assert "APP1 Exif" in progressive.app_markers
    grey = parse_jpeg(make(PIXELS[..., 0], quality=90))
    assert grey.subsampling == "grey"
    assert grey.chroma_table is None
    restarts = parse_jpeg(make(restart_marker_blocks=5, subsampling=0))
    assert restarts.restart_interval == 5
    assert restarts.restart_markers == 35 // 5 - 1


def test_counts_trailing_bytes_and_notices_a_missing_end():
    data = make()
    assert parse_jpeg(data + b"more").trailing == 4
    cut = parse_jpeg(data[:-40])
    assert not cut.ended
    assert "the file ends before its end-of-image marker" in cut.problems


def test_damage_is_reported_in_words():
    data = make()
    at = data.index(b"\xff\xdb")
    zero = bytearray(data)
    zero[at + 5] = 0
    assert "a quantisation table holds a zero step" in parse_jpeg(bytes(zero)).problems
    long = bytearray(data)
    long[at + 2 : at + 4] = b"\xff\xff"
    assert any("impossible length" in p for p in parse_jpeg(bytes(long)).problems)
    assert "there is no frame header" in parse_jpeg(b"\xff\xd8\xff\xd9").problems
    many = b"\xff\xd8" + b"\xff\xfe\x00\x02" * (2 * MAX_SEGMENTS)
    assert len(parse_jpeg(many).segments) == MAX_SEGMENTS
    assert "too many segments" in parse_jpeg(many).problems


def test_refuses_what_is_not_jpeg():
    with pytest.raises(InputError, match="start-of-image"):
        parse_jpeg(encode(PIXELS, "PNG"))
    with pytest.raises(InputError):
        parse_jpeg(b"")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_never_raises_on_damaged_files(data):
    file = bytearray(make(quality=60))
    for _ in range(data.draw(st.integers(1, 12))):
        file[data.draw(st.integers(2, len(file) - 1))] = data.draw(st.integers(0, 255))
    structure = parse_jpeg(bytes(file[: data.draw(st.integers(2, len(file)))]))
    assert all(t.shape == (8, 8) and t.min() >= 1 for t in structure.tables.values())
    assert all(0 <= s.offset < len(file) for s in structure.segments)
    assert structure.subsampling is not None


def test_luma_steps_only_where_luma_was_quantised():
    assert np.array_equal(luma_steps(ImageSubject(make(quality=80))), standard_table(80))
    assert luma_steps(ImageSubject(encode(PIXELS, "PNG"))) is None
    cmyk = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(cmyk, "JPEG")
    with pytest.raises(InputError, match="luma"):
        luma_steps(ImageSubject(cmyk.getvalue()))
    with pytest.raises(InputError, match="AVIF"):
        luma_steps(ImageSubject(encode(PIXELS, "AVIF")))
    with pytest.raises(InputError, match="luma"):
        luma_steps(ImageSubject(make(keep_rgb=True)))
