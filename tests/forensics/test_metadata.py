"""Metadata examiner: editors, contradictions and plain camera files."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from vestige.core.image_io import encode
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject
from vestige.forensics.metadata import Metadata, parse_date

PIXELS = np.random.default_rng(3).integers(0, 255, (40, 50, 3), dtype=np.uint8)
EXIF_IFD = (0x9003, 0x9004, 0xA002, 0xA003)
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" '
    'xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" '
    'xmlns:stRef="http://ns.adobe.com/xap/1.0/sType/ResourceRef#" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>'
)


def exif_bytes(fields, gps=False):
    exif = Image.Exif()
    for tag, value in fields.items():
        (exif.get_ifd(0x8769) if tag in EXIF_IFD else exif)[tag] = value
    if gps:
        exif.get_ifd(0x8825).update({1: "N", 2: (10.0, 0.0, 0.0), 3: "E", 4: (20.0, 0.0, 0.0)})
    return exif.tobytes()


def find(fields=None, format="JPEG", xmp=None, gps=False):
    data = encode(PIXELS, format, exif=exif_bytes(fields or {}, gps) if fields or gps else None, xmp=xmp)
    return Metadata().find(ImageSubject(data))


def test_plain_files_are_clear():
    assert isinstance(Metadata(), Finder)
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF"):
        finding = find(format=format)
        assert finding.applies
        assert not finding.flagged
        assert finding.score == 0
        assert finding.probability is None


def test_a_camera_file_is_clear_and_names_the_camera():
    finding = find(
        {0x010F: "Example", 0x0110: "Cam 7", 0x0131: "Ver.1.02", 0x0132: "2023:05:01 10:00:00",
         0x9003: "2023:05:01 10:00:00", 0xA002: 50, 0xA003: 40}
    )  # fmt: skip
    assert not finding.flagged
    assert finding.details["camera"] == "Example Cam 7"
    assert any("2023:05:01" in e for e in finding.evidence)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("signature", "name"),
    [("GIMP 2.10.34", "GIMP"), ("Adobe Photoshop 25.0 (Windows)", "Adobe Photoshop"), ("Snapseed 2.0", "Snapseed"),
     ("Adobe Photoshop Lightroom Classic 12", "Adobe Photoshop Lightroom")],
)  # fmt: skip
def test_editing_software_is_named(format, signature, name):
    finding = find({0x0131: signature}, format)
    assert finding.flagged
    assert list(finding.details["editors"]) == [name]
    assert name in finding.summary


def test_resizers_are_stated_but_not_flagged():
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "JPEG", comment=b"CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90")
    finding = Metadata().find(ImageSubject(out.getvalue()))
    assert not finding.flagged
    assert any("GD" in e for e in finding.evidence)


def test_an_editor_mentioned_in_a_caption_does_not_count():
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", "I do not use Adobe Photoshop or GIMP")
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "PNG", pnginfo=info)
    assert not Metadata().find(ImageSubject(out.getvalue())).flagged


def test_contradicting_size_and_dates_are_flagged():
    finding = find({0x0132: "2020:01:01 00:00:00", 0x9003: "2022:01:01 00:00:00", 0xA002: 4000, 0xA003: 3000})
    assert finding.flagged
    assert finding.score == 2
    assert "4000×3000" in finding.details["contradictions"][0]


def test_turned_pictures_and_time_zones_do_not_contradict():
    fields = {0x0132: "2022:01:01 09:00:00", 0x9003: "2022:01:01 20:00:00", 0xA002: 40, 0xA003: 50}
    assert not find(fields).flagged


def test_creation_dates_of_exif_and_xmp_are_compared():
    xmp = XMP.format(attributes='photoshop:DateCreated="2010-03-04T00:00:00"', body="").encode()
    finding = find({0x9003: "2022:01:01 20:00:00"}, xmp=xmp)
    assert any("creation dates differ" in c for c in finding.details["contradictions"])


def test_xmp_history_is_reported():
    body = (
        "<xmpMM:DerivedFrom stRef:documentID='xmp.did:1'/><xmpMM:History><rdf:Seq>"
        "<rdf:li stEvt:action='converted' stEvt:softwareAgent='Adobe Photoshop 24.1'/>"
        "<rdf:li rdf:parseType='Resource'><stEvt:action>saved</stEvt:action></rdf:li>"
        "<rdf:li stEvt:action='saved'/></rdf:Seq></xmpMM:History>"
    )
    for format in ("JPEG", "WEBP", "AVIF"):
        finding = find(format=format, xmp=XMP.format(attributes="", body=body).encode())
        assert finding.flagged
        assert any("saved 2×" in e for e in finding.evidence)
        assert any("another document" in e for e in finding.evidence)
        assert "Adobe Photoshop" in finding.details["editors"]


def test_position_is_a_privacy_warning_and_no_flag():
    finding = find(gps=True)
    assert not finding.flagged
    assert finding.details["gps"] == [10.0, 20.0]
    assert any(e.startswith("privacy") for e in finding.evidence)


def test_iptc_and_photoshop_resources_are_read():
    iptc = b"".join(
        b"\x1c\x02" + bytes([n]) + struct.pack(">H", len(v)) + v
        for n, v in ((65, b"Adobe Photoshop"), (55, b"20200101"))
    )
    irb = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + struct.pack(">I", len(iptc)) + iptc + b"\x00" * (len(iptc) % 2)
    data = encode(PIXELS, "JPEG")
    data = data[:2] + b"\xff\xed" + struct.pack(">H", len(irb) + 2) + irb + data[2:]
    finding = Metadata().find(ImageSubject(data))
    assert finding.flagged
    assert finding.details["dates"]["IPTC DateCreated"] == "20200101"


def test_control_characters_and_length_are_bounded():
    finding = find({0x0131: "GIMP \x1b[31m" + "x" * 5000})
    assert all(len(e) < 250 and "\x1b" not in e for e in finding.evidence)


def test_unreadable_files_do_not_apply():
    assert not Metadata().find(ImageSubject(b"not a picture")).applies


@pytest.mark.parametrize("text", ["", "0000:00:00 00:00:00", "2024-13-45", "yesterday", "2024:02:30 01:02:03"])
def test_impossible_dates_are_none(text):
    assert parse_date(text) is None


def position(latitude, longitude):
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: latitude, 3: "W", 4: longitude})
    return Metadata().find(ImageSubject(encode(PIXELS, "JPEG", exif=exif.tobytes())))


NOTHING = TiffImagePlugin.IFDRational(0, 0)


@pytest.mark.parametrize(
    ("latitude", "longitude", "degrees"),
    [((51.0, 30.5, NOTHING), (0.0, 7.2, NOTHING), [51.508333, -0.12]), ((51.0, 30.0), (1.0, 6.0), [51.5, -1.1]),
     ((51.25,), (1.5,), [51.25, -1.5])],
)  # fmt: skip
def test_positions_are_told_whatever_their_numbers_look_like(latitude, longitude, degrees):
    finding = position(latitude, longitude)
    assert finding.details["tells_position"]
    assert finding.details["gps"] == degrees
    assert any("privacy: the file tells the position" in e for e in finding.evidence)


def test_a_gps_record_without_a_position_tells_none():
    assert not position((NOTHING,) * 3, (NOTHING,) * 3).details["tells_position"]


@pytest.mark.parametrize("value", ["51,30.5N", "51,30,30N", "51.5083", "+51.5083"])
def test_positions_in_xmp_alone_are_told(value):
    attributes = f'xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="{value}" exif:GPSLongitude="0,7.2W"'
    finding = find(xmp=XMP.format(attributes=attributes + ' photoshop:City="Exampleville"', body="").encode())
    assert finding.details["gps"][0] == pytest.approx(51.508333, abs=1e-4)
    assert any("Exampleville" in e for e in finding.evidence)


def dated(taken, gps):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = taken
    exif.get_ifd(0x8825)[29] = gps
    return Metadata().find(ImageSubject(encode(PIXELS, "JPEG", exif=exif.tobytes())))


def test_a_gps_clock_that_lost_its_weeks_is_no_contradiction():
    finding = dated("2022:08:22 10:00:00", "2003:01:06")
    assert not finding.flagged
    assert any("1024 weeks" in e for e in finding.evidence)
    assert dated("2022:08:22 10:00:00", "2003:02:20").flagged
    assert dated("2003:01:06 10:00:00", "2022:08:22").flagged  # no clock runs ahead by it


@pytest.mark.parametrize(
    ("created", "fields", "flagged"),
    [("1943-06-05", {}, False), ("1943-06-05T12:00:00", {}, False), ("2001-06-05", {}, False),
     ("2001-06-05T12:00:00", {0x010F: "Epson"}, False), ("2001-06-05T12:00:00", {0x010F: "Acme"}, True),
     ("2024-06-05", {}, True)],
)  # fmt: skip
def test_the_date_of_what_a_scan_shows_is_no_contradiction(created, fields, flagged):
    xmp = XMP.format(attributes=f'photoshop:DateCreated="{created}"', body="").encode()
    finding = find({0x9003: "2021:03:04 10:00:00", **fields}, xmp=xmp)
    assert finding.flagged == flagged
    assert any("dates the content" in e for e in finding.evidence) != flagged


def test_a_date_before_digital_cameras_is_the_content_s():
    fields = {0x9003: "1943:06:05 00:00:00", 0x0132: "2021:03:04 10:00:00"}
    finding = find(fields, xmp=XMP.format(attributes='photoshop:DateCreated="2021-03-04"', body="").encode())
    assert not finding.flagged
    assert any("1943" in e for e in finding.evidence)
