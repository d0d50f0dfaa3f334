"""What mark, erase and restore keep of a file, and what they say they do not."""

from __future__ import annotations

import base64
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from tests.core.test_decoding import raw_like, save, stored_as
from tests.mutants import scene
from vestige.app import api
from vestige.app.verbs.editing import erase_files, restore_files
from vestige.app.verbs.marking import mark_files
from vestige.core.errors import InputError
from vestige.core.image_io import decode, encode
from vestige.core.subjects import ImageSubject


def mark(source, target, **options):
    return mark_files(
        [source], target, "hi", None, None, "spread_spectrum", {}, 95, options.get("keep", False),
        options.get("quiet", False),
    )  # fmt: skip


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_erase_fills_the_corner_that_is_seen_whatever_the_orientation(format, tmp_path):
    upright = scene(48, 64)
    mask = np.zeros((48, 64, 3), np.uint8)
    mask[:16, :24] = 255
    hole = ImageSubject(encode(mask, "PNG"))
    for orientation in range(1, 9):
        data = save(format, stored_as(upright, orientation), orientation, 8, None)
        pixels = api.restore(ImageSubject(data), method="inpaint_classic", mask=hole)
        changed = np.abs(pixels.astype(int) - upright).mean(axis=2)
        assert changed[2:14, 2:22].mean() > 15, orientation
        assert changed[20:, 28:].mean() < 6, orientation


def test_sixteen_bits_and_their_transparency_are_kept(tmp_path):
    rng = np.random.default_rng(2)
    deep = (scene(160, 160).astype(np.uint16) * 257) ^ rng.integers(0, 256, (160, 160, 3), dtype=np.uint16)
    alpha = np.full((160, 160), 65535, np.uint16)
    alpha[:40] = 12345
    source = tmp_path / "deep.png"
    exif = Image.Exif()
    exif[0x010E] = "a title"
    source.write_bytes(encode(deep, "PNG", alpha=alpha, exif=exif.tobytes()))
    for ending in ("png", "tif"):
        target = tmp_path / f"marked.{ending}"
        mark(source, target, keep=ending == "png")
        decoded = ImageSubject.open(target).decoded
        assert decoded.bit_depth == 16
        np.testing.assert_array_equal(decoded.deep_alpha, alpha)
    assert Image.open(tmp_path / "marked.png").getexif()[0x010E] == "a title"
    erase_files([source], tmp_path / "same.png", "faces", "blur", None, None, 95, False, True)
    restored = ImageSubject.open(tmp_path / "same.png").decoded
    assert np.abs(restored.deep.astype(int) - deep).max() <= 1


def test_what_a_format_cannot_hold_is_said(tmp_path, capsys):
    alpha = np.full((160, 160), 90, np.uint16)
    source = tmp_path / "deep.png"
    source.write_bytes(encode(scene(160, 160).astype(np.uint16) * 257, "PNG", alpha=alpha * 257))
    mark(source, tmp_path / "marked.jpg")
    said = capsys.readouterr().out
    assert "transparency is not kept" in said
    assert "sixteen bits a channel became eight" in said
    mark(source, tmp_path / "quiet.jpg", quiet=True)
    assert "transparency is not kept" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="transparency is not kept"):
        api.mark(source, tmp_path / "again.jpg", message="hi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        api.mark(source, tmp_path / "whole.png", message="hi")


@pytest.mark.parametrize("format", ["WEBP", "GIF", "PNG", "TIFF"])
def test_frames_that_are_not_kept_are_named(format, tmp_path, capsys):
    frames = [Image.fromarray(scene(160, 160, seed)) for seed in (1, 2, 3)]
    source = tmp_path / f"moving.{format.lower()}"
    frames[0].save(source, format, save_all=True, append_images=frames[1:])
    mark(source, tmp_path / "marked.png")
    assert "only the first of 3 frames or pages is kept" in capsys.readouterr().out


def test_no_preview_of_the_old_picture_is_carried_over(tmp_path, capsys):
    buffer = io.BytesIO()
    Image.fromarray(scene(40, 60)).save(buffer, "JPEG", quality=70)
    preview = buffer.getvalue()
    coded = base64.b64encode(preview)
    broken = b"&#xA;".join(coded[k : k + 76] for k in range(0, len(coded), 76))
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description dc:title="kept" tiff:Orientation="6">'
        b"<xmp:Thumbnails><xmpGImg:image>" + broken + b"</xmpGImg:image></xmp:Thumbnails>"
        b"</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    exif = Image.Exif()
    exif[0x010E] = "a title"
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x927C] = b"MAKER\0" + preview
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + preview[:900]
    source = tmp_path / "previews.jpg"
    source.write_bytes(encode(scene(160, 160), "JPEG", exif=exif.tobytes(), xmp=xmp))
    for ending in ("jpg", "png", "webp", "avif"):
        target = tmp_path / f"out.{ending}"
        erase_files([source], target, "faces", "blur", None, None, 95, True, False)
        data = target.read_bytes()
        assert coded[:60] not in data
        assert preview[-90:-20] not in data
        assert "left out of the metadata" in capsys.readouterr().out
        image = Image.open(target)
        assert image.getexif()[0x010E] == "a title"
        assert image.getexif().get(0x0112, 1) == 1
        assert ImageSubject.open(target).decoded.orientation == 1
    assert b"kept" in (tmp_path / "out.jpg").read_bytes()


def test_nothing_is_written_of_pictures_that_were_not_decoded_whole(tmp_path):
    whole = encode(scene(160, 160), "PNG")
    for name, data in {
        "cut.png": whole[: len(whole) // 2], "raw.dng": raw_like(np.zeros((192, 256), np.uint16), scene(160, 160)),
    }.items():  # fmt: skip
        source, target = tmp_path / name, tmp_path / "out.png"
        source.write_bytes(data)
        for verb in (
            lambda s=source, t=target: mark(s, t),
            lambda s=source, t=target: erase_files([s], t, "faces", "blur", None, None, 95, False, True),
            lambda s=source, t=target: restore_files([s], t, "noise", None, 2.0, None, 95, False, True),
        ):
            with pytest.raises(InputError, match=r"damaged|raw file"):
                verb()
        assert not target.exists()


def test_find_partial_examines_what_is_there_and_says_so_everywhere(tmp_path, capsys):
    from vestige.app.verbs import finding

    whole = encode(scene(160, 160), "PNG")
    source = tmp_path / "cut.png"
    source.write_bytes(whole[: len(whole) // 2])
    options = {"jobs": 1, "timeout": 60, "max_megapixels": 20.0, "fresh": False, "verbose": False, "quiet": False}
    options |= {"out": None, "html": tmp_path / "page.html", "as_json": False, "keys": [], "only": ["container"]}
    finding.run([source], partial=True, **options)
    assert "rows could be decoded" in " ".join(capsys.readouterr().out.split())
    assert "rows could be decoded" in (tmp_path / "page.html").read_text()
    assert decode(whole).missing == ""
