"""Files of clips: XMP, user data, tags, credentials and what does not belong there, without decoding a frame."""

import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vestige.core.clips import examine_clip
from vestige.core.panel import Panel
from vestige.core.records.clip import XMP_BOX, read_clip
from vestige.core.video import VideoSubject
from vestige.forensics.container import Container
from vestige.forensics.generator_tags import GeneratorTags
from vestige.forensics.metadata import Metadata
from vestige.forensics.provenance import ContentCredentials

sys.path.insert(0, str(Path(__file__).parent))
PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" e:DigitalSourceType='
    b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
)


def film(path, codec="mp4v"):
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {codec}")
    for n in range(10):
        writer.write(np.full((48, 64, 3), 20 * n, np.uint8))
    writer.release()
    return path.read_bytes()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return {name: film(folder / f"a.{name}") for name in ("mp4", "mov", "mkv")} | {
        "avi": film(folder / "a.avi", "MJPG")
    }


def box(name, body):
    return struct.pack(">I4s", 8 + len(body), name) + body


def text_box(name, text):
    return box(name, struct.pack(">HH", len(text), 0) + text)


def data_box(text):
    return box(b"data", struct.pack(">II", 1, 0) + text)


def user_data(*items, keys=()):
    """A moov box with a metadata list, as an addition behind a film's own boxes."""
    listed = b"".join(
        box(struct.pack(">I", n + 1) if keys else name, data_box(value)) for n, (name, value) in enumerate(items)
    )
    inner = box(b"ilst", listed)
    if keys:
        named = b"".join(box(b"mdta", key) for key in keys)
        inner = box(b"keys", struct.pack(">II", 0, len(keys)) + named) + inner
    handler = box(b"hdlr", bytes(8) + b"mdir" + bytes(13))
    return box(b"moov", box(b"udta", box(b"meta", bytes(4) + handler + inner)))


def opened(tmp_path, data, name="a.mp4"):
    (tmp_path / name).write_bytes(data)
    return VideoSubject.open(tmp_path / name)


EXTRAS = {
    "XMP in a uuid box": box(b"uuid", XMP_BOX + PACKET),
    "XMP in user data": box(b"moov", box(b"udta", box(b"XMP_", PACKET))),
    "AIGC label": user_data((b"AIGC", b'{"Label": "1", "ContentProducer": "x"}')),
    "AIGC label under a key": user_data((b"", b'{"AIGC": {"Label": "1", "ContentProducer": "x"}}'), keys=(b"AIGC",)),
    "graph in a comment": user_data((b"\xa9cmt", b'{"prompt": {"3": {"class_type": "KSampler", "inputs": {}}}}')),
    "signed program": user_data((b"\xa9too", b"Sora")),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXTRAS)
def test_generators_records_in_films_are_found(tmp_path, films, kind):
    for name in ("mp4", "mov"):
        subject = opened(tmp_path, films[name] + EXTRAS[kind], f"a.{name}")
        assert GeneratorTags().find_clip(subject).flagged
        assert not Container().find_clip(subject).flagged
    assert not GeneratorTags().find_clip(opened(tmp_path, films["mp4"])).flagged


def test_programs_and_positions_of_films_are_told(tmp_path, films):
    extra = user_data((b"", b"+51.5000-000.1200+010.0/"), (b"", b"Adobe Premiere Pro; Snapseed"),
                      keys=(b"com.apple.quicktime.location.ISO6709", b"com.apple.quicktime.software"))  # fmt: skip
    finding = Metadata().find_clip(opened(tmp_path, films["mov"] + extra, "a.mov"))
    assert finding.details["gps"] == [51.5, -0.12]
    assert "Snapseed" in finding.details["editors"]
    older = box(b"moov", box(b"udta", text_box(b"\xa9xyz", b"+10.0000+020.0000/")))
    assert Metadata().find_clip(opened(tmp_path, films["mp4"] + older)).details["gps"] == [10.0, 20.0]


def test_tags_of_matroska_files_are_read(tmp_path, films):
    def element(number, body):
        return number + (0x10000000 | len(body)).to_bytes(4, "big") + body

    tag = element(b"\x45\xa3", b"COMMENT") + element(
        b"\x44\x87", b'{"prompt": {"1": {"class_type": "K", "inputs": {}}}}'
    )
    tags = element(b"\x12\x54\xc3\x67", element(b"\x73\x73", element(b"\x67\xc8", tag)))
    attached = element(b"\x19\x41\xa4\x69", element(b"\x61\xa7", element(b"\x46\x6e", b"plan.txt")))
    head = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"webm"))
    path = tmp_path / "a.webm"
    path.write_bytes(head + element(b"\x18\x53\x80\x67", tags + attached))
    found = read_clip(path, "WEBM")
    assert (found.end, found.attached) == (found.size, ["plan.txt"])
    assert [(t.key, t.value[:9]) for t in found.embedded.texts] == [("comment", '{"prompt"')]
    own = read_clip(opened(tmp_path, films["mkv"], "b.mkv").path, "MKV")
    assert own.end == own.size
    assert any(t.key == "Software" for t in own.embedded.texts)


@pytest.mark.parametrize("name", ["mp4", "mov", "mkv", "avi"])
def test_what_follows_a_film_is_found(tmp_path, films, name):
    plain = Container().find_clip(opened(tmp_path, films[name], f"a.{name}"))
    assert not plain.flagged
    noise = np.random.default_rng(0).bytes(5000)
    finding = Container().find_clip(opened(tmp_path, films[name] + b"Rar!\x1a\x07\x00" + noise, f"a.{name}"))
    assert finding.flagged
    assert finding.details["appended_bytes"] == 5007
    assert "RAR" in finding.evidence[0]
    assert Container().find_clip(opened(tmp_path, films[name], f"{name}.pdf")).flagged


def test_credentials_of_films_are_checked(tmp_path, films):
    pytest.importorskip("c2pa")
    from c2pa_signing import make_identity, sign

    signed = sign(films["mp4"], make_identity(), source_type="trainedAlgorithmicMedia")
    finding = ContentCredentials().find_clip(opened(tmp_path, signed))
    assert finding.flagged
    assert finding.details["state"] == "valid"
    at = signed.find(b"mdat")
    changed = signed[: at + 40] + bytes([signed[at + 40] ^ 1]) + signed[at + 41 :]
    assert ContentCredentials().find_clip(opened(tmp_path, changed)).details["state"] == "tampered"
    assert ContentCredentials().find_clip(opened(tmp_path, films["mp4"])).details["state"] == "absent"
    assert not ContentCredentials().find_clip(opened(tmp_path, films["mkv"], "a.mkv")).applies


def test_a_clip_s_findings_hold_what_its_file_says(tmp_path, films):
    subject = opened(tmp_path, films["mp4"] + EXTRAS["XMP in a uuid box"])
    panel = Panel([Metadata(), GeneratorTags(), ContentCredentials(), Container()])
    findings, _ = examine_clip(subject, panel)
    assert all(f.applies for f in findings.findings)
    assert findings["generator_tags"].flagged


def test_damaged_films_do_not_raise(tmp_path, films):
    random = np.random.default_rng(1)
    path = tmp_path / "a.bin"
    for name, data in films.items():
        whole = bytearray(data + EXTRAS["AIGC label under a key"])
        for _ in range(12):
            cut = bytearray(whole[: random.integers(20, len(whole))])
            for at in random.integers(0, len(cut), 20):
                cut[at] = random.integers(256)
            path.write_bytes(bytes(cut))
            assert read_clip(path, name.upper()).end <= len(cut)
