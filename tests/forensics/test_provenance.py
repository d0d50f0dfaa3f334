"""Content credentials: intact, trusted, tampered, generated, remote and damaged."""

import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from vestige.core.image_io import encode
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject
from vestige.forensics.provenance import ContentCredentials, _declares

pytest.importorskip("c2pa")
sys.path.insert(0, str(Path(__file__).parent))
from c2pa_signing import make_identity, sign

rows, columns = np.mgrid[:48, :64]
PIXELS = np.stack([rows * 5, columns * 3, (rows + columns) * 2], -1).astype(np.uint8)
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF")


@pytest.fixture(scope="module")
def identity():
    return make_identity()


def find(data, **options):
    return ContentCredentials(**options).find(ImageSubject(data))


@pytest.mark.parametrize("format", [*FORMATS, "BMP", "HEIF"])
def test_unsigned_files_are_clear(format):
    finding = find(encode(PIXELS, format))
    assert isinstance(ContentCredentials(), Finder)
    assert not finding.flagged
    assert finding.details["state"] == "absent"
    assert "no content credentials" in finding.summary


@pytest.mark.parametrize("format", FORMATS)
def test_a_signed_file_is_intact_and_its_signer_unknown(format, identity):
    finding = find(sign(encode(PIXELS, format), identity))
    assert finding.details["state"] == "valid"
    assert not finding.flagged
    assert "Example Signer" in finding.details["signer"]
    assert finding.details["claim_generators"] == ["Example Camera 1.0"]
    assert finding.details["actions"][0]["source_type"] == "digitalCapture"


def test_a_signer_under_a_given_root_is_trusted(identity):
    signed = sign(encode(PIXELS, "PNG"), identity)
    assert find(signed, trust_anchors=identity.root).details["state"] == "trusted"
    assert find(signed, trust_anchors=make_identity().root).details["state"] == "valid"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_changed_pixels_are_tampering(format, identity):
    signed = sign(encode(PIXELS, format), identity)
    finding = find(_with_other_pixels(signed, format))
    assert finding.flagged
    assert finding.details["state"] == "tampered"
    assert any(code.endswith("mismatch") for code in finding.details["failures"])
    assert "changed after" in finding.summary


def _with_other_pixels(signed, format):
    """The same file with one bit of its picture data changed, and checksums repaired."""
    import struct
    import zlib

    data = bytearray(signed)
    if format != "PNG":
        data[-40] ^= 4
        return bytes(data)
    at = data.rfind(b"IDAT")
    length = struct.unpack_from(">I", data, at - 4)[0]
    raw = bytearray(zlib.decompress(bytes(data[at + 4 : at + 4 + length])))
    raw[100] ^= 4
    body = b"IDAT" + zlib.compress(bytes(raw), 6)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return bytes(data[: at - 4]) + chunk + bytes(data[at + 8 + length :])


def test_data_appended_after_signing_is_tampering(identity):
    assert find(sign(encode(PIXELS, "JPEG"), identity) + b"more").details["state"] == "tampered"


@pytest.mark.parametrize("source_type", ["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"])
def test_declared_generation_is_flagged(source_type, identity):
    finding = find(sign(encode(PIXELS, "PNG"), identity, source_type=source_type, generator="Example Generator"))
    assert finding.flagged
    assert finding.kind == "provenance"
    assert finding.details["state"] == "valid"
    assert finding.details["declares_generated"]
    assert "generative model" in finding.summary


def test_generation_declared_by_an_ingredient_is_inherited(identity):
    generated = sign(encode(PIXELS, "PNG"), identity, source_type="trainedAlgorithmicMedia")
    finding = find(sign(encode(PIXELS, "JPEG"), identity, ingredient=generated, generator="Example Editor"))
    assert finding.flagged
    assert finding.details["manifests"] == 2
    assert finding.details["ingredients"][0]["relationship"] == "parentOf"


def test_remote_manifests_are_named_and_never_fetched(identity):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        finding = find(sign(encode(PIXELS, "JPEG"), identity, remote_url=f"http://{address}/store.c2pa"))
        server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            server.accept()
    assert finding.details["state"] == "remote"
    assert not finding.flagged
    assert address in finding.evidence[0]


def test_damaged_credentials_are_flagged_in_words(identity):
    data = bytearray(sign(encode(PIXELS, "JPEG"), identity))
    at = data.find(b"c2pa.actions")
    data[at + 100] ^= 0xFF
    finding = find(bytes(data))
    assert finding.flagged
    assert finding.details["state"] in ("unreadable", "invalid", "tampered")


def test_the_word_alone_is_no_credential():
    finding = find(encode(PIXELS, "GIF") + b"c2pa jumd")
    assert finding.details["state"] == "absent"


def test_random_damage_never_raises(identity):
    signed = sign(encode(PIXELS, "PNG"), identity)
    random = np.random.default_rng(0)
    start = signed.find(b"caBX")
    for _ in range(40):
        data = bytearray(signed)
        for at in random.integers(start + 4, start + 3000, 3):
            data[at] = random.integers(256)
        finding = find(bytes(data))
        assert not finding.applies or finding.details["state"] != "trusted"


def test_source_types_in_an_action_s_parameters_count(identity):
    address = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    signed = sign(
        encode(PIXELS, "JPEG"), identity, source_type="digitalCapture",
        parameters={"com.adobe.digitalSourceType": address},
    )  # fmt: skip
    finding = find(signed)
    assert finding.flagged
    assert finding.details["declares_generated"]
    assert finding.details["actions"][0]["source_type"] == "trainedAlgorithmicMedia"


def test_what_is_declared_of_a_step_is_not_said_of_the_picture():
    term = "trainedAlgorithmicMedia"
    made, changed = ({"action": f"c2pa.{a}", "source_type": term} for a in ("created", "edited"))
    assert _declares([changed, made], []) == "the picture as created by a generative model"
    assert _declares([changed], []).startswith("a step (edited) with material")
    assert _declares([], [{"source_type": term}]).startswith("that what it was made from")
    assert _declares([], []) == ""


def test_the_terms_of_c2pa_itself_are_known(identity):
    space = "http://c2pa.org/digitalsourcetype/"
    signed = sign(encode(PIXELS, "PNG"), identity, source_type="trainedAlgorithmicData", source_address=space)
    assert find(signed).details["declares_generated"]
    signed = sign(encode(PIXELS, "PNG"), identity, source_type="algorithmicMedia")
    assert not find(signed).flagged


def _app11(data):
    """The file without its APP11 segments, and these."""
    kept, moved, position = data[:2], b"", 2
    while data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        moved, kept = (
            (moved + data[position:end], kept) if data[position + 1] == 0xEB else (moved, kept + data[position:end])
        )
        position = end
    return kept + data[position:], moved


def test_credentials_that_stand_elsewhere_are_not_called_absent(identity):
    signed = sign(encode(PIXELS, "JPEG"), identity, source_type="trainedAlgorithmicMedia")
    bare, moved = _app11(signed)
    assert find(bare).details["state"] == "absent"
    for data in (bare[:-2] + moved + bare[-2:], bare + moved):
        finding = find(data)
        assert finding.details["state"] == "misplaced"
        assert finding.details["declares_generated"]
        assert "carries no" not in finding.summary
