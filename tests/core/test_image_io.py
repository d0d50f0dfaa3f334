from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from vestige.core.errors import InputError, LimitError, UsageError
from vestige.core.image_io import Limits, decode, encode, orient, save_image, to_float, to_uint8
from vestige.core.subjects import ImageSubject


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_formats_give_back_the_samples(picture, format):
    decoded = decode(encode(picture, format, quality=100))
    assert decoded.format == format
    np.testing.assert_array_equal(decoded.pixels, picture)


@pytest.mark.parametrize("format", ["JPEG", "AVIF", "HEIF", "GIF"])
def test_lossy_formats_stay_close(picture, format):
    decoded = decode(encode(picture, format, quality=95))
    assert decoded.format == format
    assert decoded.pixels.shape == picture.shape
    assert np.abs(decoded.pixels.astype(int) - picture).mean() < (12 if format == "GIF" else 4)


def test_jpeg_is_written_without_chroma_subsampling(picture):
    image = Image.open(io.BytesIO(encode(picture, "JPEG")))
    assert [component[1:3] for component in image.layer] == [(1, 1)] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_only(picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(saved(Image.fromarray(picture), "PNG", exif=exif))
    np.testing.assert_array_equal(decoded.stored, picture)
    upright = Image.open(io.BytesIO(saved(Image.fromarray(picture), "PNG", exif=exif)))
    from PIL import ImageOps

    np.testing.assert_array_equal(decoded.pixels, np.asarray(ImageOps.exif_transpose(upright)))
    np.testing.assert_array_equal(orient(picture, orientation), decoded.pixels)


def test_sixteen_bit_colour_keeps_its_depth():
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        decoded = decode(encode(deep, format))
        assert decoded.bit_depth == 16
        np.testing.assert_array_equal(decoded.deep, deep)
        assert np.abs(decoded.pixels.astype(float) * 257 - deep).max() <= 129
    subject = ImageSubject(encode(deep, "PNG"))
    np.testing.assert_allclose(subject.image[0].transpose(1, 2, 0), deep / 65535, atol=1e-6)


def test_sixteen_bit_grey_is_read_as_grey():
    grey = np.linspace(0, 65535, 600, dtype=np.uint16).reshape(20, 30)
    decoded = decode(saved(Image.fromarray(grey), "PNG"))
    assert decoded.bit_depth == 16
    np.testing.assert_array_equal(decoded.deep, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_becomes_rgb(picture, mode):
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        srgb = ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(Image.fromarray(picture), srgb, lab, outputMode="LAB")
        data = saved(image, "TIFF")
    else:
        image = Image.fromarray(picture).convert("L").convert("LA") if mode == "LA" else Image.fromarray(picture)
        image = image.convert(mode)
        data = saved(image, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")
    decoded = decode(data)
    assert decoded.pixels.shape == picture.shape
    assert decoded.pixels.dtype == np.uint8
    if mode in ("CMYK", "YCbCr", "RGBA"):
        assert np.abs(decoded.pixels.astype(int) - picture).mean() < 6


def test_alpha_is_kept_apart(picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:10] = 40
    decoded = decode(encode(picture, "PNG", alpha=alpha))
    np.testing.assert_array_equal(decoded.alpha, alpha)
    np.testing.assert_array_equal(decoded.pixels, picture)
    assert decode(encode(picture, "PNG", alpha=np.full_like(alpha, 255))).alpha is None


def test_a_wide_gamut_profile_is_converted_to_srgb(picture):
    """A linear-light profile must brighten mid tones; the stored samples stay as they are."""
    from PIL.ImageCms import ImageCmsProfile, createProfile

    srgb = bytearray(ImageCmsProfile(createProfile("sRGB")).tobytes())
    description = srgb.replace(b"sRGB", b"test") if b"sRGB" in srgb else srgb
    wide = description.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    tags = struct.unpack(">I", wide[128:132])[0]
    for i in range(tags):  # exchange the red and green primaries: colours must swap
        at = 132 + 12 * i
        name = bytes(wide[at : at + 4])
        if name in (b"rXYZ", b"gXYZ"):
            wide[at : at + 4] = b"gXYZ" if name == b"rXYZ" else b"rXYZ"
    decoded = decode(saved(Image.fromarray(picture), "PNG", icc_profile=bytes(wide)))
    np.testing.assert_array_equal(decoded.stored, picture)
    swapped = picture[..., [1, 0, 2]]
    assert np.abs(decoded.pixels.astype(int) - swapped).mean() < 3


def test_a_broken_profile_is_ignored_with_a_note(picture):
    decoded = decode(saved(Image.fromarray(picture), "PNG", icc_profile=b"nonsense" * 20))
    np.testing.assert_array_equal(decoded.pixels, picture)
    assert any("profile" in note for note in decoded.notes)


def test_gif_gives_its_first_frame(picture):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    decoded = decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded.frames == 2
    assert np.abs(decoded.pixels.astype(int) - picture).mean() < 12


def test_limits_are_checked_before_decoding():
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png += struct.pack(">I", 100) + b"IDAT" + b"\0" * 100
    with pytest.raises(LimitError, match="megapixels"):
        decode(png)


def test_a_bomb_within_the_pixel_limit_is_refused():
    flat = saved(Image.new("1", (12_000, 9_000)), "PNG", compress_level=9)
    with pytest.raises(LimitError, match="decompression bomb"):
        decode(flat)
    assert decode(flat, limits=Limits(max_pixels_per_byte=1e9)).pixels.shape == (9000, 12000, 3)


def test_errors_are_one_sentence_that_names_the_file(tmp_path, picture):
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    text = tmp_path / "text.png"
    text.write_text("hello")
    cut = tmp_path / "cut.png"
    cut.write_bytes(encode(picture, "PNG")[:300])
    for path in (empty, text, cut, tmp_path / "missing.png", tmp_path):
        with pytest.raises(InputError) as caught:
            ImageSubject.open(path).pixels  # noqa: B018
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message


def test_writing_is_atomic_and_refuses_unknown_endings(tmp_path, picture):
    target = tmp_path / "sub" / "picture.png"
    save_image(target, picture)
    assert [p.name for p in target.parent.iterdir()] == ["picture.png"]
    with pytest.raises(UsageError, match="ending"):
        save_image(tmp_path / "picture.xyz", picture)
    with pytest.raises(UsageError, match="eight bits"):
        encode(picture.astype(np.uint16), "JPEG")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_float_and_eight_bits_round_trip(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = to_float(pixels)
    assert image.shape == (1, 3, height, width)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(to_uint8(image), pixels)


def test_luma_of_a_jpeg_is_what_the_file_stores(picture):
    subject = ImageSubject(encode(picture, "JPEG", quality=90))
    r, g, b = (subject.stored[..., c].astype(float) for c in range(3))
    assert np.abs(subject.luma - (0.299 * r + 0.587 * g + 0.114 * b)).mean() < 1
    assert subject.luma.dtype == np.float32
    assert (subject.luma == np.round(subject.luma)).all()
