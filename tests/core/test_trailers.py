"""Trailers of cameras and programs: named where their lengths add up, unknown where one byte is not theirs."""

import struct

import numpy as np
import pytest
from PIL import Image

from vestige.core.containers import layout
from vestige.core.image_io import encode
from vestige.core.records.trailers import PADDING, peel, sef_entries

PIXELS = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
JPEG = encode(PIXELS, "JPEG")
RANDOM = np.random.default_rng(2).bytes(600)
VRD = b"CANON OPTIONAL DATA\x00"


def canon(body=RANDOM):
    return VRD + bytes(4) + struct.pack(">I", len(body)) + body + VRD + bytes(42) + b"\xff\xd9"


def photo_mechanic(body=b"\x1c\x02" + RANDOM, counted=0):
    return body + struct.pack(">I", len(body) + counted) + b"cbipcbbl"


def afcp(start, body=RANDOM):
    head = b"AXS!" + struct.pack(">HHI", 1, 1, 0) + b"IPTC" + struct.pack(">II", len(body), start + 24)
    return head + body + b"AXS!" + struct.pack(">II", start, 0)


def sef(*records):
    body, entries = b"", b""
    for kind, (name, content) in enumerate(records):
        body += struct.pack("<HHI", 0, kind, len(name)) + name + content
    at = len(body)
    for kind, (name, content) in enumerate(records):
        size = 8 + len(name) + len(content)
        entries += struct.pack("<HHII", 0, kind, at, size)
        at -= size
    directory = b"SEFH" + struct.pack("<II", 107, len(records)) + entries
    return body + directory + struct.pack("<I", len(directory)) + b"SEFT"


def film(size=1000):
    return struct.pack(">I4s", 24, b"ftyp") + b"mp42" + bytes(12) + struct.pack(">I4s", size + 8, b"mdat") + bytes(size)


def huawei():
    text = b"v2_f31" + b" " * 15 + b"0:0"
    return film() + text + f"LIVE_{len(film()) + 40}".ljust(20).encode()


def insta360():
    size = len(RANDOM) + 78
    return RANDOM + bytes(38) + struct.pack("<I", size) + bytes(4) + b"8db42d694ccc418790edff439fe026bf"


def vivo():
    return b'vivo{"model":"example","flags":[1,2]}' + bytes(12)


def known(data):
    pieces, unknown = peel(data, layout(data, "JPEG"), "JPEG")
    return [p.words for p in pieces], sum(b - a for a, b in unknown)


TRAILERS = {
    "Canon": canon(), "Photo Mechanic": photo_mechanic(), "AFCP": afcp(len(JPEG)),
    "Samsung": sef((b"Image_UTC_Data", b"1"), (b"PhotoEditor_Re_Edit_Data", b"{}")), "Huawei": huawei(), "Vivo": vivo(),
    "FotoStation": RANDOM + struct.pack(">HII", 1, 610, 0xA1B2C3D4), "Insta360": insta360(),
}  # fmt: skip


@pytest.mark.parametrize("vendor", TRAILERS)
def test_a_trailer_whose_lengths_add_up_is_named(vendor):
    words, unknown = known(JPEG + TRAILERS[vendor])
    assert unknown == 0
    assert len(words) == 1
    assert vendor in words[0]


@pytest.mark.parametrize("vendor", TRAILERS)
def test_bytes_in_front_of_a_trailer_are_not_its_own(vendor):
    trailer = TRAILERS[vendor] if vendor != "AFCP" else afcp(len(JPEG) + 600)
    words, unknown = known(JPEG + RANDOM + trailer)
    if vendor in ("Huawei", "Insta360"):  # these must start where the picture ends
        assert unknown == 600 + len(trailer)
    else:
        assert unknown == 600
        assert vendor in words[0]


@pytest.mark.parametrize("vendor", ["Canon", "Samsung", "Huawei", "Vivo"])
def test_bytes_inside_a_trailer_do_not_pass(vendor):
    trailer = TRAILERS[vendor]
    at = {"Canon": 40, "Samsung": len(trailer) - 60, "Huawei": len(film()), "Vivo": len(trailer)}[vendor]
    assert known(JPEG + trailer[:at] + RANDOM + trailer[at:])[1] > 0


@pytest.mark.parametrize(
    "forged",
    [
        b"SEFH" + bytes(20) + b"SEFT",
        b"\x00\x00\xff\xffcbipcbbl",
        b"vivo{",
        b"LIVE_600            ",
        b"vivo{}" + bytes(80),
        b"8db42d694ccc418790edff439fe026bf",
    ],
)
def test_a_mark_alone_covers_nothing(forged):
    assert known(JPEG + RANDOM * 30 + forged)[1] >= 18_000


def test_several_trailers_are_taken_off_one_by_one():
    words, unknown = known(JPEG + canon() + photo_mechanic())
    assert unknown == 0
    assert ["Canon" in words[0], "Photo Mechanic" in words[1]] == [True, True]


@pytest.mark.parametrize("size", [1, 7, 900, 19_462])
@pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
def test_padding_that_cameras_write_is_padding(size, fill):
    words, unknown = known(JPEG + fill * size)
    assert unknown == 0
    assert "padding" in words[0]


def test_more_than_padding_is_not_padding():
    assert known(JPEG + bytes(PADDING + 1))[1] == PADDING + 1
    assert known(JPEG + bytes(5000) + RANDOM)[1] > 0


def test_a_smaller_copy_behind_a_camera_s_picture_is_a_preview():
    exif = Image.Exif()
    exif[0x010F] = "Example"
    camera = encode(PIXELS, "JPEG", exif=exif.tobytes())
    preview = encode(PIXELS[::2, ::2], "JPEG")
    words, unknown = known(camera + bytes(300) + preview + bytes(40))
    assert unknown == 0
    assert any("preview" in w for w in words)
    assert known(JPEG + preview)[1] == len(preview)  # no camera is named
    assert known(camera + JPEG)[1] == len(JPEG)  # as large as the picture


def test_films_of_motion_photos_count_where_the_file_lists_them():
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" MotionPhoto="1"/>'
    listed = encode(PIXELS, "JPEG", xmp=packet)
    assert known(listed + film())[1] == 0
    assert known(JPEG + film())[1] == len(film())
    assert known(listed + film() + RANDOM)[1] > 0


def test_samsung_records_are_listed_with_their_content():
    trailer = JPEG + sef((b"One", b"first"), (b"Two", b"{}"))
    assert [(e.name, trailer[e.start : e.end]) for e in sef_entries(trailer)] == [("One", b"first"), ("Two", b"{}")]
    assert sef_entries(trailer + b"x") == []
    assert sef_entries(JPEG + b"SEFH" + b"\xff" * 20 + struct.pack("<I", 24) + b"SEFT") == []


def test_any_bytes_after_a_picture_are_read_in_bounds():
    random = np.random.default_rng(3)
    whole = JPEG + canon() + sef((b"One", b"first")) + huawei() + vivo()
    for _ in range(60):
        data = bytearray(whole)
        for at in random.integers(len(JPEG), len(data), 6):
            data[at] = random.integers(256)
        known(bytes(data))
