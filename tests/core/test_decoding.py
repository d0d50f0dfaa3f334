"""Reading pictures strictly: format × orientation × depth × transparency × damage."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.mutants import MUTATIONS, chunk, judge, mutants, scene, variants
from vestige.core.errors import InputError, LimitError
from vestige.core.image_io import DEFAULT_LIMITS, Limits, decode, encode
from vestige.core.panel import Panel
from vestige.core.pictures.orientation import READERS, orient
from vestige.core.pictures.tiff import tiff_directories
from vestige.core.subjects import ImageSubject

#: The orientation that puts back what an orientation did.
INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
PARTIAL = Limits(partial=True)


@pytest.fixture(scope="module")
def upright() -> np.ndarray:
    return scene(48, 64)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return variants(scene())


def stored_as(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The samples that are upright once turned by the orientation."""
    return orient(pixels, INVERSE[orientation])


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def turned_tiff(data: bytes, orientation: int) -> bytes:
    """A TIFF with an orientation field in place of a resolution unit or a software field, none of which bears on it."""
    tree = tiff_directories(data)
    at = tree.items[0].start + 2
    (count,) = struct.unpack_from("<H", data, tree.items[0].start)
    entries = [data[at + 12 * k : at + 12 * k + 12] for k in range(count)]
    entries = [e for e in entries if struct.unpack_from("<H", e)[0] not in (296, 305, 0x0112)]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
    entries.sort(key=lambda e: struct.unpack_from("<H", e)[0])
    body = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    moved = len(data) + len(data) % 2
    return data[:4] + struct.pack("<I", moved) + data[8:] + bytes(len(data) % 2) + body


def save(format: str, pixels: np.ndarray, orientation: int, depth: int, alpha: np.ndarray | None) -> bytes | None:
    """A file of these stored samples with that orientation, None where the format has no such file."""
    if format == "TIFF":
        deep = pixels.astype(np.uint16) * 257 if depth == 16 else pixels
        wide = None if alpha is None else alpha.astype(np.uint16) * 257 if depth == 16 else alpha
        return turned_tiff(encode(deep, "TIFF", alpha=wide), orientation)
    if depth == 16:
        if format != "PNG":
            return None
        wide = None if alpha is None else alpha.astype(np.uint16) * 257
        return encode(pixels.astype(np.uint16) * 257, "PNG", alpha=wide, exif=exif_of(orientation).tobytes())
    if alpha is not None and format in ("JPEG", "BMP", "GIF"):
        return None
    if orientation != 1 and format in ("BMP", "GIF", "HEIF"):
        return None
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    if format == "HEIF":
        return encode(pixels, "HEIF", alpha=alpha)
    options = {
        "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True},
        "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    }.get(format, {})  # fmt: skip
    if format not in ("BMP", "GIF"):
        options["exif"] = exif_of(orientation)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", sorted(READERS))
def test_every_format_depth_and_transparency_comes_out_upright(upright, format):
    loose = {"JPEG": 4, "AVIF": 5, "HEIF": 5, "GIF": 14}.get(format, 0.01)
    alpha = np.full(upright.shape[:2], 255, np.uint8)
    alpha[:12, :20] = 30
    seen = 0
    for orientation, depth, transparent in itertools.product(range(1, 9), (8, 16), (False, True)):
        stored = stored_as(upright, orientation)
        data = save(format, stored, orientation, depth, stored_as(alpha, orientation) if transparent else None)
        if data is None:
            continue
        seen += 1
        case = (format, orientation, depth, transparent)
        subject = ImageSubject(data)
        decoded = subject.decoded
        assert decoded.pixels.shape == upright.shape, case
        solid = alpha == 255 if transparent else np.ones_like(alpha, bool)
        assert np.abs(decoded.pixels.astype(int) - upright)[solid].mean() < loose, case
        if not READERS[format].turned:
            assert decoded.stored.shape == stored.shape, case
            assert np.abs(decoded.stored.astype(int) - stored)[stored_as(solid, orientation)].mean() < loose, case
            assert decoded.orientation == orientation, case
        assert (decoded.deep is not None) == (depth == 16 and READERS[format].deep), case
        if decoded.deep is not None:
            np.testing.assert_array_equal(decoded.deep[solid], upright.astype(np.uint16)[solid] * 257)
        assert (decoded.alpha is not None) == transparent, case
        if transparent:
            assert np.abs(decoded.alpha.astype(int) - alpha).mean() < 3, case
        assert subject.luma.shape == decoded.stored.shape[:2], case
        assert not decoded.missing, case
    assert seen >= (8 if READERS[format].says and format != "HEIF" else 1)


def test_what_pillow_does_to_a_tiff_is_not_done_twice(upright):
    """Compressed or not, by pages or not: the orientation field is applied once."""
    for compression, orientation in itertools.product((None, "tiff_lzw", "tiff_adobe_deflate", "packbits"), (3, 6, 8)):
        buffer = io.BytesIO()
        options = {"compression": compression} if compression else {}
        pages = [Image.fromarray(upright)] * 2
        Image.fromarray(stored_as(upright, orientation)).save(
            buffer, "TIFF", save_all=True, append_images=pages, tiffinfo={0x0112: orientation}, **options
        )
        decoded = decode(buffer.getvalue())
        np.testing.assert_array_equal(decoded.pixels, upright)
        assert decoded.frames == 3


def test_no_mutant_is_decoded_that_an_independent_decoder_finds_incomplete(files):
    counts, said = {"decoded": 0, "refused": 0}, []
    for what, data in mutants(3, len(files) * len(MUTATIONS), files):
        try:
            decode(data)
        except InputError as error:
            counts["refused"] += 1
            said.append(str(error))
        else:
            counts["decoded"] += 1
            assert not judge(data), what
    assert min(counts.values()) > 20
    assert all("\n" not in sentence and len(sentence) < 300 for sentence in said)


@pytest.mark.parametrize("name", ["png", "png palette", "png sixteen", "png interlaced"])
def test_a_png_whose_stream_ends_early_is_damaged_though_all_checksums_are_right(files, name):
    data = files[name]
    samples = b"".join(_png_streams(data))
    head = data[: data.index(b"IDAT") - 4]
    for kept in (zlib.compress(samples[: len(samples) // 3]), zlib.compress(b"")):
        short = head + chunk(b"IDAT", kept) + chunk(b"IEND", b"")
        with pytest.raises(InputError, match=r"of the .* bytes of its samples are there"):
            decode(short)
        subject = ImageSubject(short)
        with pytest.raises(InputError):  # asking twice changes nothing
            subject.luma  # noqa: B018
        with pytest.raises(InputError):
            subject.pixels  # noqa: B018


def _png_streams(data: bytes) -> list[bytes]:
    from tests.mutants import inflated

    return [inflated(data)]


def test_wrong_checksums_of_a_png_are_damage_and_a_missing_end_is_said(files):
    data = files["png"]
    at = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, at - 4)
    body = bytearray(data[at + 4 : at + 4 + length])
    wrong_crc = data[: at + 4 + length] + b"\0\0\0\0" + data[at + 8 + length :]
    with pytest.raises(InputError, match="checksum of its IDAT chunk"):
        decode(wrong_crc)
    body[-1] ^= 255
    with pytest.raises(InputError, match="checksum of its samples"):
        decode(data[: at - 4] + chunk(b"IDAT", bytes(body)) + chunk(b"IEND", b""))
    decoded = decode(data[: data.index(b"IEND") - 4])
    np.testing.assert_array_equal(decoded.pixels, scene())
    assert decoded.notes == ["It has no IEND chunk, the mark of a PNG's end."]


def test_a_jpeg_without_its_end_marker_is_examined_and_one_that_is_cut_is_not(files):
    for name in ("jpeg", "jpeg progressive", "jpeg restarts", "jpeg grey"):
        whole = files[name]
        subject = ImageSubject(whole[:-2])
        np.testing.assert_array_equal(subject.pixels, decode(whole).pixels)
        np.testing.assert_array_equal(subject.luma, ImageSubject(whole).luma)
        assert subject.notes == ("It has no end-of-image marker.",)
        for cut in (2, 3, 5, 40, 400):
            for ended in (b"", b"\xff\xd9"):
                with pytest.raises(InputError, match=r"damaged JPEG .*find --partial"):
                    decode(whole[: -2 - cut] + ended)


def test_a_progressive_jpeg_without_its_last_scans_is_damaged(files):
    data = files["jpeg progressive"]
    last = data.rindex(b"\xff\xda")
    with pytest.raises(InputError, match="progressive scans are missing"):
        decode(data[:last] + b"\xff\xd9")


def test_a_jpeg_that_stores_rgb_is_examined(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95, keep_rgb=True)
    subject = ImageSubject(buffer.getvalue())
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(subject.luma, subject.stored.astype(np.float32) @ weights, atol=1e-3)
    assert np.abs(subject.pixels.astype(int) - picture).mean() < 3


@pytest.mark.parametrize("name", ["jpeg", "png", "png palette", "tiff", "tiff deflate", "gif", "bmp"])
def test_partial_pictures_come_only_when_asked_and_say_so(files, name):
    whole, data = decode(files[name]).pixels, files[name]
    cut = data[: len(data) * 3 // 4]
    with pytest.raises(InputError, match="damaged"):
        decode(cut)
    subject = ImageSubject(cut, "cut", PARTIAL)
    if name == "tiff deflate":  # its directory lies behind its samples
        with pytest.raises(InputError):
            subject.decoded  # noqa: B018
        return
    decoded = subject.decoded
    assert "rows could be decoded" in decoded.missing
    there = slice(-16, None) if name == "bmp" else slice(16)  # BMP files start with the last row
    np.testing.assert_array_equal(decoded.pixels[there], whole[there])
    assert (decoded.pixels != whole).any()
    found = Panel().examine(subject)
    assert found.reading[0] == decoded.missing == found.verdict.sentences[0]
    with pytest.raises(InputError, match="cannot be changed and written"):
        subject.whole()


def test_apples_png_is_refused_by_name(picture):
    data = encode(picture, "PNG")
    with pytest.raises(InputError, match="CgBI"):
        decode(data[:8] + chunk(b"CgBI", b"\x50\0\x20\x02") + data[8:])


def test_grey_of_thirty_two_unsigned_bits_keeps_its_order_and_makes_no_noise(capfd):
    values = np.linspace(0, 2**32 - 1, 48 * 64, dtype=np.float64).astype(np.uint32).reshape(48, 64)
    entries = [
        (256, 4, 64), (257, 4, 48), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 48),
        (279, 4, values.nbytes), (339, 3, 1),
    ]  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    directory = struct.pack("<H", len(entries)) + fields + bytes(4)
    data = b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + directory
    decoded = decode(data)
    assert (np.diff(decoded.pixels[..., 0].astype(int).ravel()) >= 0).all()
    assert decoded.pixels.min() == 0
    assert decoded.pixels.max() == 255
    assert any("scaled to eight bits" in note for note in decoded.notes)
    with pytest.raises(InputError):
        decode(data[:200])
    assert capfd.readouterr().err == ""


def raw_like(samples: np.ndarray, preview: np.ndarray) -> bytes:
    """A DNG of a preview and, in a sub-directory, sensor samples."""
    height, width = preview.shape[:2]
    out = bytearray(b"II*\0\0\0\0\0")
    places = {}
    for name, array in (("preview", preview), ("samples", samples)):
        places[name] = len(out)
        out += array.tobytes()
    places["bits"] = len(out)
    out += struct.pack("<3H", 8, 8, 8)

    def directory(entries: list[tuple[int, int, int, int]]) -> int:
        at = len(out)
        body = b"".join(
            struct.pack("<HHI", t, k, n) + (bytes(v) if isinstance(v, tuple) else struct.pack("<I", v))
            for t, k, n, v in entries
        )
        out.extend(struct.pack("<H", len(entries)) + body + bytes(4))
        return at

    raw = directory([
        (254, 4, 1, 0), (256, 4, 1, samples.shape[1]), (257, 4, 1, samples.shape[0]), (258, 3, 1, 16), (259, 3, 1, 1),
        (262, 3, 1, 32803), (273, 4, 1, places["samples"]), (277, 3, 1, 1), (278, 4, 1, samples.shape[0]),
        (279, 4, 1, samples.nbytes),
    ])  # fmt: skip
    first = directory([
        (254, 4, 1, 1), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, places["bits"]), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, places["preview"]), (277, 3, 1, 3), (278, 4, 1, height),
        (279, 4, 1, preview.nbytes), (330, 4, 1, raw), (50706, 1, 4, (1, 4, 0, 0)),
    ])  # fmt: skip
    out[4:8] = struct.pack("<I", first)
    return bytes(out)


def test_of_a_raw_file_only_the_preview_is_examined_and_that_is_said():
    preview = scene(32, 48)
    subject = ImageSubject(raw_like(np.zeros((192, 256), np.uint16), preview), "photo.dng")
    np.testing.assert_array_equal(subject.pixels, preview)
    said = Panel().examine(subject).verdict.sentences[0]
    assert "raw file (DNG): only the preview of 48×32 pixels" in said
    assert "256×192" in said
    with pytest.raises(InputError, match="cannot be changed and written"):
        subject.whole()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_above_the_budget_a_picture_is_examined_at_a_stated_scale(format):
    y, x = np.mgrid[:300, :401]
    picture = np.stack([x * 255 // 401, y * 255 // 300, (x + y) % 120], -1).astype(np.uint8)
    data = save(format, stored_as(picture, 6), 6, 8, None)
    subject = ImageSubject(data, "large", Limits(reduce_above=20_000))
    decoded = subject.decoded
    assert decoded.scale == 4
    assert decoded.pixels.shape == (75, 101, 3)
    reference = np.asarray(Image.fromarray(picture).reduce(4)).astype(int)
    assert np.abs(decoded.pixels.astype(int)[:, :100] - reference[:, :100]).mean() < 4
    found = Panel().examine(subject)
    assert (found.width, found.height) == (401, 300)
    assert any("1/4 of its size" in sentence for sentence in found.verdict.sentences)
    with pytest.raises(InputError, match="cannot be changed and written"):
        subject.whole()


def test_examiners_of_the_file_and_of_the_stored_grid_are_told_apart_above_the_budget(picture):
    from vestige.core.panel import default_panel

    data = encode(picture, "JPEG", quality=85)
    panel = default_panel(only=["container", "jpeg_grid", "resampling"])
    found = panel.examine(ImageSubject(data, "large", Limits(reduce_above=picture.size // 12)))
    assert found["container"].applies
    assert not found["jpeg_grid"].applies
    assert "smaller scale" in found["jpeg_grid"].why_not
    assert "error" not in found["resampling"].details


def test_files_of_countless_segments_are_refused_at_once(picture):
    data = encode(picture, "JPEG")
    with pytest.raises(LimitError, match="more segments"):
        decode(data[:2] + b"\xff\xe5\0\2" * 1_000_000 + data[2:])
    png = encode(picture, "PNG")
    with pytest.raises(LimitError, match="more segments"):
        decode(png[:33] + chunk(b"teXt", b"") * 150_000 + png[33:])
    assert decode(data[:2] + b"\xff\xe5\0\2" * 1000 + data[2:], limits=DEFAULT_LIMITS).pixels.shape == picture.shape


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_frames_of_animations_are_upright_and_whole_or_not_given(format, upright):
    from vestige.core.pictures.animation import BrokenFrameError, frames_of

    stills = [np.roll(upright, 9 * k, axis=1) for k in range(4)]
    turned = 1 if format in ("GIF", "AVIF") else 6  # Pillow's encoder of AVIF animations does not survive EXIF
    options = {} if turned == 1 else {"exif": exif_of(turned)}
    options |= {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "AVIF" else {}
    frames = [Image.fromarray(stored_as(still, turned)) for still in stills]
    buffer = io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], duration=100, **options)
    data = buffer.getvalue()
    found = dict(frames_of(data, "moving", [0, 1, 3]))
    assert list(found) == [0, 1, 3]
    for number, pixels in found.items():
        assert np.abs(pixels.astype(int) - stills[number]).mean() < 14
    if format == "PNG":  # the last frame's stream ends early, with its checksums right
        at = data.rindex(b"fdAT")
        (length,) = struct.unpack_from(">I", data, at - 4)
        body = data[at + 4 : at + 4 + length]
        short = zlib.compress(zlib.decompress(body[4:])[:900])
        data = data[: at - 4] + chunk(b"fdAT", body[:4] + short) + data[at + 8 + length :]
    elif format == "GIF":
        data = data[: len(data) - len(data) // 8] + b"\0;"
    else:
        data = data[: len(data) - len(data) // 8]
    given = []
    with pytest.raises((BrokenFrameError, InputError)):
        given += [number for number, _ in frames_of(data, "moving", [0, 1, 3])]
    assert 3 not in given
