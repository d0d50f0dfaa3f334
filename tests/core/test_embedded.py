"""Metadata blocks, each read for itself: a second one, a damaged one, a strangely written one hides no other."""

import struct
import time

import numpy as np
import pytest
from PIL import Image

from vestige.core.image_io import encode
from vestige.core.records.embedded import read_embedded
from vestige.core.records.exif import decode_comment
from vestige.core.records.iptc import read_iptc, read_resources
from vestige.core.records.text import Embedded, decode_wide
from vestige.core.records.xmp import read_xmp
from vestige.core.subjects import ImageSubject

PIXELS = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
JPEG, PNG = encode(PIXELS, "JPEG"), encode(PIXELS, "PNG")
TERM = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
BODY = (
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{TERM}"></rdf:Description></rdf:RDF>'
)
PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'{BODY}</x:xmpmeta><?xpacket end="w"?>'
)
FOUND = ("Iptc4xmpExt:DigitalSourceType", TERM)


def segments(data, *bodies, marker=0xE1):
    extra = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(b) + 2) + b for b in bodies)
    return data[:2] + extra + data[2:]


def xmp_segment(packet):
    return b"http://ns.adobe.com/xap/1.0/\x00" + packet


def exif_block(**fields):
    tags = {"Make": 0x010F, "Software": 0x0131}
    exif = Image.Exif()
    for key, value in fields.items():
        if key == "UserComment":
            exif.get_ifd(0x8769)[0x9286] = value
        else:
            exif[tags[key]] = value
    return exif.tobytes()


def read(data):
    return read_embedded(ImageSubject(data))


def xmp(packet):
    out = Embedded()
    read_xmp(packet, out)
    return out


STRANGE = {
    "plain": (PACKET.encode(), ""),
    "no wrapper": (BODY.encode(), ""),
    "bytes after the end": (PACKET.encode() + b'  <?xpacket end="w"?>ion></rdf:RDF>', "left-over"),
    "an older packet after the end": (PACKET.encode() + PACKET.replace("trained", "x").encode(), ""),
    "NUL inside": (PACKET.replace("></rdf:D", ">\0</rdf:D").encode(), "forbids"),
    "control characters": (PACKET.replace("></rdf:D", ">\x01\x1b</rdf:D").encode(), "forbids"),
    "UTF-16 with mark": (PACKET.encode("utf-16"), ""),
    "UTF-16 big-endian without mark": (PACKET.encode("utf-16-be"), ""),
    "UTF-16 little-endian without mark": (PACKET.encode("utf-16-le"), ""),
    "UTF-32": (PACKET.encode("utf-32"), ""),
    "UTF-32 big-endian without mark": (PACKET.encode("utf-32-be"), ""),
    "not UTF-8": (PACKET.encode().replace(b"></rdf:D", b">caf\xe9</rdf:D"), ""),
    "undeclared prefixes": (PACKET.replace(' xmlns:x="adobe:ns:meta/"', "").replace(
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"', "").encode(), "declare"),
    "cut short": (PACKET[: PACKET.index("</rdf:D")].encode(), "searched"),
    "unclosed tag": (PACKET.replace("></rdf:D", "><b:c></rdf:D").encode(), "searched"),
    "stray ampersand": (PACKET.replace("></rdf:D", ">A & B</rdf:D").encode(), "searched"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE)
def test_xmp_is_read_however_it_is_written(kind):
    packet, problem = STRANGE[kind]
    out = xmp(packet)
    assert FOUND in out.xmp
    assert any(problem in p for p in out.problems) if problem else not out.problems


def test_xml_stays_safe():
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + PACKET.replace("></rdf:D", ">&b;</rdf:D")
    out = xmp(bomb.encode())
    assert not any("aaaa" in value for _, value in out.xmp)
    outside = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + PACKET.replace("></rdf:D", ">&a;</rdf:D")
    assert all("&a;" in value or value == TERM for _, value in xmp(outside.encode()).xmp)


@pytest.mark.parametrize(
    "packet", ["<a:b " * 400_000, '<a:b c:d="' * 300_000, "a:b='" * 400_000, "<x:xmpmeta" * 99_000]
)
def test_hostile_xmp_costs_little(packet):
    start = time.process_time()
    xmp(packet.encode())
    assert time.process_time() - start < 4


def test_every_xmp_and_exif_segment_counts():
    first, second = exif_block(Make="Acme", Software="Cam 1"), exif_block(Software="Adobe Photoshop 25.0")
    other = PACKET.replace("Iptc4xmpExt:DigitalSourceType", "Iptc4xmpExt:Other")
    found = read(segments(JPEG, first, second, xmp_segment(other.encode()), xmp_segment(PACKET.encode())))
    assert (found.exif["Make"], found.exif["Software"]) == ("Acme", "Cam 1")
    assert any(t.key == "Software" and t.value.startswith("Adobe Photoshop") for t in found.every_text())
    assert FOUND in found.xmp
    assert any("2 EXIF blocks" in p for p in found.problems)
    assert any("2 XMP blocks" in p for p in found.problems)


def test_an_exif_block_may_fill_several_segments():
    block = exif_block(UserComment=b"ASCII\0\0\0" + b"x" * 70_000 + b"the end")
    pieces = [block[:60_000], b"Exif\0\0" + block[60_000:]]
    found = read(segments(JPEG, *pieces))
    assert found.exif["UserComment"].endswith("the end")
    assert not found.problems


def test_what_is_left_of_a_cut_text_is_read():
    block = exif_block(UserComment=b"ASCII\0\0\0" + b"Steps: 20, " * 400)
    found = read(segments(JPEG, block[:2000]))
    assert found.exif["UserComment"].startswith("Steps: 20")
    assert any("cut short" in p for p in found.problems)


def test_extended_xmp_is_put_in_order():
    whole = PACKET.encode()
    guid, half = b"A" * 32, len(PACKET.encode()) // 2
    parts = [(half, whole[half:]), (0, whole[:half])]
    bodies = [
        b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", len(whole), at) + p for at, p in parts
    ]
    found = read(segments(JPEG, *bodies))
    assert FOUND in found.xmp
    assert not found.problems
    assert any("extended XMP" in p for p in read(segments(JPEG, bodies[0])).problems)


TEXTS = [
    "plain words",
    "Pêche à l’aube",
    "森の中の灯台、夜明け",
    "北京的秋天" * 60,
    "Рассвет над рекой",
    "등대의 새벽",
    "한 hill",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be", "utf-16", "utf-8"])
def test_comments_are_read_in_either_byte_order(text, order):
    if order == "utf-8" and not text.isascii():
        return  # UTF-8 under the name UNICODE is told from UTF-16 only where it is mostly ASCII
    assert decode_comment(b"UNICODE\0" + text.encode(order), order == "utf-16-be") == text


@pytest.mark.parametrize("text", [*TEXTS[1:3], TEXTS[4] + ", steps"])
def test_the_block_s_own_byte_order_does_not_mislead(text):
    assert decode_wide((text + " Steps: 20").encode("utf-16-le"), True) == text + " Steps: 20"
    assert decode_wide((text + " Steps: 20").encode("utf-16-be"), False) == text + " Steps: 20"


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"ASCII\0\0\0caf\xc3\xa9", "café"), (bytes(8) + b"none", "none"), (b"bare words", "bare words"), (b"", ""),
     (b"JIS\0\0\0\0\0" + "灯台".encode("iso2022_jp"), "灯台"), (b"ASCII\0\0\0" + "wide".encode("utf-16-le"), "wide"),
     (b"Unicode\0" + "odd case".encode("utf-16-le"), "odd case")],
)  # fmt: skip
def test_every_charset_of_a_comment_is_known(raw, text):
    assert decode_comment(raw, False) == text


def field(number, value, extended=0):
    if extended:
        return (
            b"\x1c\x02"
            + bytes([number])
            + struct.pack(">H", 0x8000 | extended)
            + len(value).to_bytes(extended, "big")
            + value
        )
    return b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value


def test_iptc_fields_of_any_length_are_read():
    out = Embedded()
    read_iptc(field(120, b"c" * 40_000, 4) + field(110, b"Made with Google AI") + field(115, b"x", 2), out)
    assert [n for n, _ in out.iptc] == ["Caption", "Credit", "Source"]
    assert not out.problems


def test_damage_between_iptc_fields_and_resources_is_stepped_over():
    out = Embedded()
    read_iptc(field(120, b"one") + b"junk" + field(110, b"two") + b"\x1c\x02\x50\x80\xff", out)
    assert [v for _, v in out.iptc] == ["one", "two"]
    assert len(out.problems) == 2
    resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, 4) + b"abcd"
    assert read_resources(b"8BIM" + struct.pack(">HHI", 1, 0, 2) + b"ab" + b"junk!" + resource, out) == [b"abcd"]
    assert any("resource block" in p for p in out.problems)


def test_a_damaged_png_text_gives_what_can_be_read():
    import zlib

    packed = bytearray(zlib.compress(b"Steps: 20, Sampler: Euler a, " + np.random.default_rng(0).bytes(9000)))
    packed[-300] ^= 0xFF
    body = b"parameters\0\0" + bytes(packed)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    found = read(PNG[:33] + chunk + PNG[33:])
    assert found.texts[0].value.startswith("Steps: 20")
    assert any("zTXt chunk is damaged" in p for p in found.problems)


def test_many_segments_are_read_in_bounds():
    start = time.process_time()
    found = read(segments(JPEG, *[xmp_segment(PACKET.encode() + str(n).encode()) for n in range(2000)],
                          *[exif_block(Software=f"Program {n}") for n in range(500)]))  # fmt: skip
    assert len(found.xmp) <= 64
    assert len(found.problems) <= 40
    assert time.process_time() - start < 3


def test_a_position_written_as_text_is_read():
    values = [b"N\0", b"51,30\0\0\0", b"W\0", b"1,6\0"]
    at, fields, tail = 26 + 2 + 12 * 4 + 4, b"", b""
    for number, value in enumerate(values, 1):
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", at + len(tail))
        tail += value if len(value) > 4 else b""
        fields += struct.pack("<HHI", number, 2, len(value)) + place
    head = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8825, 4, 1, 26, 0)
    block = b"Exif\0\0" + head + struct.pack("<H", 4) + fields + bytes(4) + tail
    assert read(segments(JPEG, block)).gps == (51.5, -1.1)
