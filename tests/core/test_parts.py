"""Files that hold several pictures: each page, frame and picture of a document is found, or counted as left out."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vestige.core.errors import InputError
from vestige.core.image_io import encode
from vestige.core.parts import MOST, MadeSubject, pages_of, spread
from vestige.core.picture import ImageSubject
from vestige.core.video import VideoSubject, is_clip


def frames(count: int, size: tuple[int, int] = (24, 16)) -> list[Image.Image]:
    return [Image.new("RGB", size, (9 * n % 256, 80, 255 - 9 * n % 256)) for n in range(count)]


def saved(format: str, count: int, **options: object) -> bytes:
    first, *rest = frames(count)
    buffer = io.BytesIO()
    first.save(buffer, format, save_all=True, append_images=rest, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("big", [False, True])
def test_every_page_of_a_tiff_keeps_its_own_directory(big: bool) -> None:
    subject = ImageSubject(saved("TIFF", 3, big_tiff=big), "a.tif")
    pages = pages_of(subject)
    assert pages is not None
    assert [p.name for p in pages] == ["page 1 of 3", "page 2 of 3", "page 3 of 3"]
    opened = [p.open() for p in pages]
    assert [s.pixels[0, 0, 0] for s in opened] == [0, 9, 18]
    assert opened[0] is subject
    assert all(s.format == "TIFF" and not isinstance(s, MadeSubject) for s in opened)
    assert pages_of(ImageSubject(saved("TIFF", 1), "a.tif")) is None


def test_of_many_pages_an_even_sample_is_taken_and_the_rest_counted() -> None:
    pages = pages_of(ImageSubject(saved("TIFF", 100), "a.tif"))
    assert pages is not None
    assert (pages.met, len(pages.taken), pages.between) == (100, MOST, 100 - MOST)
    assert pages.taken[-1].name == "page 100 of 100"
    assert spread(100)[:3] == [0, 2, 3]


def test_a_chain_of_pages_that_leads_back_or_out_ends() -> None:
    data = bytearray(saved("TIFF", 2))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * entries)
    (more,) = struct.unpack_from("<H", data, second)
    for target, said in ((first, "leads back"), (len(data) + 9, "leads out")):
        struct.pack_into("<I", data, second + 2 + 12 * more, target)
        pages = pages_of(ImageSubject(bytes(data), "a.tif"))
        assert pages is not None
        assert pages.met == 2
        assert said in pages.notes[0]


def test_reduced_copies_are_named_instead_of_examined() -> None:
    first, second = frames(2)
    second.encoderinfo = {"tiffinfo": {254: 1}}
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=[second])
    pages = pages_of(ImageSubject(buffer.getvalue(), "a.tif"))
    assert pages is not None
    if pages.left_out:  # Pillow writes the tag of a second page
        assert pages.left_out == [("page 2 of 2", "a reduced copy of another page")]
        assert len(pages.taken) == 1


def test_pictures_of_a_multi_picture_jpeg() -> None:
    pages = pages_of(ImageSubject(saved("MPO", 2), "a.jpg"))
    assert pages is not None
    assert pages.met == 2 == len(pages.taken) + len(pages.left_out)
    for part in pages:
        assert part.open().format == "JPEG"


@pytest.mark.parametrize(("format", "ending"), [("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif")])
def test_each_frame_of_an_animation_is_taken(tmp_path: Path, format: str, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(saved(format, 4, duration=80))
    assert is_clip(path)
    clip = VideoSubject.open(path)
    taken = list(clip.frames())
    assert len(taken) == len(clip.starts) == 4
    assert [round(t, 2) for t, _ in taken] == [0.0, 0.08, 0.16, 0.24]
    assert clip.picture is not None
    assert clip.picture.format == format
    still = tmp_path / f"still.{ending}"
    still.write_bytes(encode(np.zeros((8, 8, 3), np.uint8), format) if format != "GIF" else saved("GIF", 1))
    assert not is_clip(still)


def test_of_a_long_animation_a_sample_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(saved("GIF", 50, duration=20))
    clip = VideoSubject.open(tmp_path / "a.gif")
    times = [t for t, _ in clip.frames()]
    assert (len(clip.starts), len(times)) == (50, 30)
    assert (times[0], times[-1]) == (clip.starts[0], clip.starts[-1])


# PDF documents


def document(path: Path, jpeg: bytes, drawn: Image.Image) -> None:
    """Two pages that both show ``jpeg``; the first shows ``drawn`` too."""
    pdfium = pytest.importorskip("pypdfium2", reason="the extra 'documents' is not installed")
    pdf = pdfium.PdfDocument.new()
    for number in range(2):
        page = pdf.new_page(200, 200)
        picture = pdfium.PdfImage.new(pdf)
        picture.load_jpeg(io.BytesIO(jpeg), inline=True)
        page.insert_obj(picture)
        if number == 0:
            picture = pdfium.PdfImage.new(pdf)
            picture.set_bitmap(pdfium.PdfBitmap.from_pil(drawn))
            page.insert_obj(picture)
        page.gen_content()
    pdf.save(path)


def test_pictures_of_a_document_are_taken_once_each(tmp_path: Path) -> None:
    from vestige.core.pdf import pictures_of

    rng = np.random.default_rng(0)
    jpeg = encode(rng.integers(0, 256, (16, 24, 3), np.uint8), "JPEG")
    document(tmp_path / "a.pdf", jpeg, frames(3)[2])
    parts = pictures_of(tmp_path / "a.pdf")
    assert [p.name for p in parts] == ["page 1, picture 1", "page 1, picture 2"]
    first, second = (p.open() for p in parts)
    assert first.data == jpeg  # the file that was put into the document
    assert isinstance(second, MadeSubject)
    assert second.pixels[0, 0].tolist() == [18, 80, 237]
    assert "2 pages and 2 different pictures" in parts.notes[0]


def test_damaged_documents_end_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="the extra 'documents' is not installed")
    from vestige.core.pdf import pictures_of

    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\n\x1b[2J")
    with pytest.raises(InputError, match="damaged PDF document") as caught:
        pictures_of(tmp_path / "a.pdf")
    assert "\x1b" not in str(caught.value)
