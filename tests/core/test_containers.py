"""Container layouts: where the picture ends in every format, and what damaged structure does."""

import contextlib
import io
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vestige.core.containers import layout
from vestige.core.errors import VestigeError
from vestige.core.image_io import encode
from vestige.core.pictures.tiff import tiff_directories
from vestige.core.records.embedded import clean, read_embedded
from vestige.core.subjects import ImageSubject

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")


def picture(height=24, width=31):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 9 % 256, columns * 7 % 256, (rows * columns) % 256], -1).astype(np.uint8)


FILES = {f: encode(picture(), f) for f in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
def test_end_of_picture_is_found_with_and_without_appended_bytes(format):
    data = FILES[format]
    assert layout(data, format).end == len(data)
    assert layout(data + b"\x00\x01 appended", format).end == len(data)
    assert not layout(data, format).problems


@pytest.mark.parametrize("format", FORMATS)
def test_parts_lie_inside_the_file_in_order(format):
    parts = layout(FILES[format], format).parts
    assert parts
    assert all(0 <= p.start <= p.body <= p.end <= len(FILES[format]) for p in parts)
    assert all(a.end <= b.start for a, b in pairwise(parts))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_file_is_a_problem_and_not_an_exception(format):
    cut = FILES[format][: len(FILES[format]) // 2]
    found = layout(cut, format)
    assert found.problems
    assert found.end is None or found.end <= len(cut)


@given(st.sampled_from(FORMATS), st.integers(0, 2**32 - 1), st.integers(1, 30))
@settings(max_examples=150, deadline=None)
def test_no_damage_makes_the_readers_raise(format, seed, count):
    data = bytearray(FILES[format])
    random = np.random.default_rng(seed)
    for at in random.integers(4, len(data), count):
        data[at] = random.integers(256)
    found = layout(bytes(data), format)
    assert found.end is None or 0 <= found.end <= len(data)
    with contextlib.suppress(VestigeError):  # Pillow may not read the header any more
        read_embedded(ImageSubject(bytes(data)))


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_tiff_directories_accept_any_bytes(tail):
    found = tiff_directories(b"II*\x00" + tail)
    assert len(found.items) <= 512
    for directory in found.items:
        for entry in directory.entries.values():
            found.value(entry)


def test_a_looping_directory_chain_ends():
    block = b"II*\x00" + struct.pack("<IH", 8, 0) + struct.pack("<I", 8)
    found = tiff_directories(block)
    assert len(found.items) == 1
    assert any("loops" in p for p in found.problems)


def test_multi_strip_and_multi_page_tiff_ends_after_its_last_strip():
    image = Image.fromarray(picture(300, 200))
    out = io.BytesIO()
    image.save(out, "TIFF", save_all=True, append_images=[image.rotate(90)], tiffinfo={278: 16})
    data = out.getvalue()
    assert 0 <= len(data) - layout(data, "TIFF").end < 16  # the writer pads pages to 16 bytes


def test_jpeg_with_junk_between_segments_reports_the_gap():
    data = FILES["JPEG"]
    first = layout(data, "JPEG").parts[0]
    found = layout(data[: first.end] + b"junk!" + data[first.end :], "JPEG")
    assert found.gaps == [(first.end, first.end + 5)]
    assert found.end == len(data) + 5


def test_progressive_jpeg_with_many_scans_ends_at_its_last_marker():
    out = io.BytesIO()
    Image.fromarray(picture(64, 64)).save(out, "JPEG", progressive=True)
    found = layout(out.getvalue() + b"tail", "JPEG")
    assert len(found.named("SOS")) > 1
    assert found.end == len(out.getvalue())


def png_with(*chunks):
    data = FILES["PNG"]
    extra = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:33] + extra + data[33:]


def test_inflation_of_text_chunks_is_bounded(monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 26)  # our own bound must stand alone
    bomb = zlib.compress(b"a" * 30_000_000)
    data = png_with((b"iTXt", b"Bomb\x00\x01\x00\x00\x00" + bomb))
    (text,) = read_embedded(ImageSubject(data)).texts
    assert len(text.value) == 4 * 2**20


def test_hostile_xmp_is_refused_in_words():
    for packet in (
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        b"<a>" * 200_000 + b"</a>" * 200_000,
        b"<a b=",
        b"\xff\xfe<\x00",
    ):
        embedded = read_embedded(ImageSubject(png_with((b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + packet))))
        assert embedded.xmp == []
        assert any("XMP" in p for p in embedded.problems)


def test_damaged_exif_becomes_a_problem():
    exif = Image.Exif()
    exif[0x0131] = "Example Program"
    block = bytearray(exif.tobytes())
    block[10:14] = b"\xff\xff\xff\xff"
    data = encode(picture(), "WEBP", exif=bytes(exif.tobytes()))
    assert read_embedded(ImageSubject(data)).exif["Software"] == "Example Program"
    cut = FILES["JPEG"]
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + bytes(block)
    embedded = read_embedded(ImageSubject(cut[:2] + segment + cut[2:]))
    assert any("EXIF block is damaged" in p for p in embedded.problems)


def test_clean_removes_direction_and_control_characters():
    assert clean("a\u202eb\x07c\n\n d") == "a b c d"
    assert clean("x" * 500, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_exif_is_read_from_every_format(format):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Example", "Model 1"
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 30.0, 0.0), 3: "E", 4: (18.0, 15.0, 0.0)})
    if format == "TIFF":
        out = io.BytesIO()
        Image.fromarray(picture()).save(out, "TIFF", exif=exif)
        data = out.getvalue()
    else:
        data = encode(picture(), format, exif=exif.tobytes())
    embedded = read_embedded(ImageSubject(data))
    assert embedded.exif["Make"] == "Example"
    if format != "TIFF":  # Pillow writes no GPS directory into TIFF files
        assert embedded.gps == (-33.5, 18.25)
