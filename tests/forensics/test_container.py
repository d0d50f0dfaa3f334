"""Container examiner: appended data, polyglots, odd chunks, names; camera trailers are no finding."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from vestige.core.image_io import encode
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject
from vestige.forensics.container import Container, entropy, identify

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")
PIXELS = np.random.default_rng(5).integers(0, 255, (32, 48, 3), dtype=np.uint8)
FILES = {f: encode(PIXELS, f) for f in FORMATS}
RANDOM = np.random.default_rng(6).bytes(9000)


def archive():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("secret.txt", "hello")
    return out.getvalue()


def find(data, source="image"):
    return Container().find(ImageSubject(data, source))


@pytest.mark.parametrize("format", FORMATS)
def test_plain_files_and_padding_are_clear(format):
    assert isinstance(Container(), Finder)
    for data in (FILES[format], FILES[format] + bytes(16)):
        finding = find(data)
        assert not finding.flagged
        assert finding.score == 0


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("payload", "words"),
    [(archive(), "ZIP"), (RANDOM, "random-looking"), (b"Meet me at noon, bring the plans.", "text"),
     (b"\x7fELF" + bytes(99), "ELF"), (FILES["PNG"], "another picture"), (b"\r\n7z\xbc\xaf\x27\x1c" + RANDOM, "7-Zip"),
     (bytes(100_000), "zero bytes")],
)  # fmt: skip
def test_appended_data_is_found_and_named(format, payload, words):
    finding = find(FILES[format] + payload)
    assert finding.flagged
    assert finding.details["appended_bytes"] == len(payload)
    assert words in finding.evidence[0]


def test_zip_polyglots_are_named_even_inside_a_chunk():
    body = archive()
    name = b"teSt"
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    data = FILES["PNG"]
    finding = find(data[:33] + chunk + data[33:])
    assert finding.flagged
    assert any("ZIP archive" in e for e in finding.evidence)


def test_pdf_in_the_first_kilobyte_is_a_polyglot():
    comment = b"%PDF-1.4 1 0 obj"
    data = FILES["JPEG"]
    finding = find(data[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + data[2:])
    assert any("PDF" in e for e in finding.details["odd"])


def test_code_in_a_comment_is_flagged_and_quoted_safely():
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "JPEG", comment=b"<script>alert(1)</script>")
    assert any("code" in e for e in find(out.getvalue()).details["odd"])
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "JPEG", comment=b"a quiet afternoon < 3")
    assert not find(out.getvalue()).flagged


def test_large_unknown_chunks_are_flagged_and_small_ones_stated():
    def with_chunk(size):
        body, name = (RANDOM * 60)[:size], b"zzZz"
        chunk = struct.pack(">I", size) + name + body + struct.pack(">I", zlib.crc32(name + body))
        return FILES["PNG"][:33] + chunk + FILES["PNG"][33:]

    assert find(with_chunk(400_000)).flagged
    small = find(with_chunk(400))
    assert not small.flagged
    assert any("zzZz" in e for e in small.evidence)


def test_unknown_jpeg_segments_add_up():
    body = b"mystery" + RANDOM * 7
    segment = b"\xff\xe9" + struct.pack(">H", len(body) + 2) + body
    data = FILES["JPEG"]
    assert find(data[:2] + segment * 6 + data[2:]).flagged
    assert not find(data[:2] + segment + data[2:]).flagged


def test_bytes_between_segments_are_flagged():
    data = FILES["JPEG"]
    finding = find(data[:20] + b"hidden here" + data[20:])
    assert any("between two segments" in e for e in finding.details["odd"])


def test_multi_picture_files_are_known_and_what_follows_them_is_not():
    out = io.BytesIO()
    image = Image.fromarray(PIXELS)
    image.save(out, "MPO", save_all=True, append_images=[image.rotate(180)])
    finding = find(out.getvalue())
    assert not finding.flagged
    assert any("further picture" in e for e in finding.evidence)
    assert find(out.getvalue() + b"Rar!\x1a\x07\x00" + RANDOM).flagged


def test_motion_photos_are_known():
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" MotionPhoto="1"/>'
    data = encode(PIXELS, "JPEG", xmp=packet)
    video = struct.pack(">I4s", 20, b"ftyp") + b"mp42" + bytes(8) + struct.pack(">I4s", 108, b"mdat") + RANDOM[:100]
    assert not find(data + video).flagged
    assert find(FILES["JPEG"] + video).flagged
    assert find(data + video + b"Rar!\x1a\x07\x00" + RANDOM).flagged


@pytest.mark.parametrize(
    ("name", "flagged"),
    [("a.png", False), ("a.jpg", True), ("a", False), ("holiday 3.5", False), ("a.exe", True), ("a.PNG", False),
     ("x.tmp", False)],
)  # fmt: skip
def test_the_name_must_fit_the_content(name, flagged):
    assert find(FILES["PNG"], name).flagged == flagged


def test_entropy_is_bounded_and_ordered():
    assert entropy(bytes(1000)) == 0.0
    assert entropy(b"x") == 0.0
    assert entropy(b"the quick brown fox " * 50) < 0.75 < 0.97 < entropy(RANDOM) <= 1.0
    assert identify(b"") == "unknown data"


def test_truncated_pictures_do_not_raise():
    for format in FORMATS:
        for size in (30, 100, len(FILES[format]) // 2):
            finding = find(FILES[format][:size])
            assert finding.kind == "container"
