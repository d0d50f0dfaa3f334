"""Duplicates: exact, same pixels, near; plain pictures only match exactly."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from vestige.copies.duplicates import Duplicates, fingerprint
from vestige.core.errors import UsageError
from vestige.core.image_io import encode, save_image
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject

CHINA, FLOWER = (Image.fromarray(load_sample_image(n)) for n in ("china.jpg", "flower.jpg"))


def subject(image, name, format="JPEG", **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return ImageSubject(out.getvalue(), name)


REFERENCE = [subject(CHINA, "china", quality=90), subject(FLOWER, "flower", quality=90)]
VARIANTS = {
    "half": CHINA.resize((320, 213)),
    "tiny": CHINA.resize((96, 64)),
    "mirrored": ImageOps.mirror(CHINA),
    "upside down": ImageOps.flip(CHINA),
    "turned": CHINA.rotate(180),
    "bordered": ImageOps.expand(CHINA, 25, (0, 0, 0)),
    "cropped": CHINA.crop((12, 8, 628, 419)),
    "grey": CHINA.convert("L"),
    "squeezed": CHINA.resize((640, 360)),
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_changed_copies_are_found(name):
    finding = Duplicates(reference=REFERENCE).find(subject(VARIANTS[name], name, quality=60))
    assert isinstance(Duplicates(), Finder)
    assert finding.flagged
    assert [m["source"] for m in finding.details["matches"]] == ["china"]
    assert 0.8 < finding.score <= 1


def test_flips_are_named():
    index = Duplicates(reference=REFERENCE)
    for name, words in (
        ("mirrored", "mirrored"),
        ("upside down", "flipped"),
        ("turned", "turned by 180°"),
        ("half", ""),
    ):
        how = index.find(subject(VARIANTS[name], name)).details["matches"][0]["how"]
        assert words in how
        assert words or not any(w in how for w in ("mirrored", "flipped", "turned"))


def test_exact_and_pixel_copies_are_told_apart():
    png, other = subject(CHINA, "a.png", "PNG"), subject(CHINA, "b.png", "PNG", compress_level=1)
    index = Duplicates(reference=[png])
    assert "same file" in index.find(ImageSubject(png.data, "c.png")).summary
    assert "same pixels" in index.find(other).summary
    assert png.sha256 != other.sha256


def test_other_pictures_are_clear():
    finding = Duplicates(reference=REFERENCE[:1]).find(REFERENCE[1])
    assert not finding.flagged
    assert finding.score == 0


def test_flat_pictures_and_ramps_match_only_exactly():
    def plain(low, high, name):
        ramp = np.repeat(np.linspace(low, high, 64)[None, :, None], 48, 0).repeat(3, 2).astype(np.uint8)
        return ImageSubject(encode(ramp, "PNG"), name)

    items = [plain(9, 9, "a"), plain(10, 10, "b"), plain(255, 255, "c"), plain(0, 250, "d"), plain(20, 200, "e")]
    assert all(fingerprint(s).low is None for s in items)
    index = Duplicates(reference=items)
    assert index.group() == []
    assert index.find(ImageSubject(items[0].data, "x")).flagged
    assert not index.find(plain(11, 11, "y")).flagged


def test_noise_does_not_match_noise():
    random = np.random.default_rng(1)
    items = [
        ImageSubject(encode(random.integers(0, 255, (40, 40, 3), dtype=np.uint8), "PNG"), str(i)) for i in range(40)
    ]
    assert Duplicates(reference=items).group() == []


def test_groups_of_a_folder(tmp_path):
    china, flower = np.asarray(CHINA), np.asarray(FLOWER)
    save_image(tmp_path / "a.png", china)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    save_image(tmp_path / "sub" / "c.bmp", china)
    save_image(tmp_path / "d.jpg", china, quality=70)
    save_image(tmp_path / "e.jpg", flower)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "notes.txt").write_text("no picture")
    index = Duplicates(workers=2)
    groups = index.index([tmp_path]).group()
    names = [(g.kind, sorted(p.rsplit("/", 1)[-1] for p in g.members)) for g in groups]
    assert names == [("exact", ["a.png", "b.png"]), ("same pixels", ["a.png", "c.bmp"]), ("near", ["a.png", "d.jpg"])]
    assert [s.rsplit("/", 1)[-1] for s, _ in index.skipped] == ["broken.png"]
    assert index.group([tmp_path / "e.jpg"]) == []


def test_grouping_is_independent_of_order():
    items = [*REFERENCE, *(subject(v, n) for n, v in VARIANTS.items())]
    one = {frozenset(g.members) for g in Duplicates().group(items)}
    two = {frozenset(g.members) for g in Duplicates().group(items[::-1])}
    assert one == two == {frozenset({"china", *VARIANTS})}


def test_many_hashes_are_compared_in_bounded_blocks():
    import dataclasses

    base = fingerprint(REFERENCE[0])
    random = np.random.default_rng(0)
    prints = []
    for i in range(5000):
        low = random.standard_normal(255).astype(np.float32)
        value = int(random.integers(0, 2**63))
        prints.append(
            dataclasses.replace(
                base, source=str(i), sha256=str(i), pixels=str(i), hashes=(value,), low=low / np.linalg.norm(low)
            )
        )
    prints += [base, dataclasses.replace(base, source="twin", sha256="t", pixels="t", hashes=(base.hashes[0] ^ 5,))]
    index = Duplicates()
    index.fingerprints = prints
    (group,) = index.group()
    assert group.members == ("china", "twin")
    assert group.distance == 2


def test_odd_pictures_do_not_raise():
    index = Duplicates(reference=REFERENCE)
    for shape in ((1, 1, 3), (3, 5, 3), (1, 400, 3), (9, 9, 3)):
        assert not index.find(ImageSubject(encode(np.zeros(shape, np.uint8), "PNG"))).flagged
    assert not index.find(ImageSubject(b"nothing")).applies
    assert not Duplicates().find(REFERENCE[0]).applies


def test_alpha_and_depth_count_for_same_pixels():
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    plain = fingerprint(ImageSubject(encode(pixels, "PNG")))
    clear = fingerprint(ImageSubject(encode(pixels, "PNG", alpha=np.full((20, 20), 9, np.uint8))))
    assert plain.pixels != clear.pixels


def test_impossible_distance_is_refused():
    with pytest.raises(UsageError):
        Duplicates(max_distance=30)
