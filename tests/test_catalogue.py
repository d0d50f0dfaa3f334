"""Contract tests: every entry of the catalogue is held to its roles, without knowing which system it is."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from vestige.core.catalogue import ROLES, WINGS, system, systems
from vestige.core.errors import UsageError, VestigeError
from vestige.core.findings import KINDS
from vestige.core.image_io import encode, to_float
from vestige.core.keys import PUBLIC_KEY
from vestige.core.subjects import ImageSubject

BUILT = [s for s in systems() if s.target is not None]


def with_role(role: str, subject: str = "image") -> list:
    chosen = [s for s in BUILT if role in s.roles and s.subject == subject and hasattr(s.load(), _METHODS[role])]
    chosen = [s for s in chosen if s.network != "recipe"]  # whose weights the user trains
    return [pytest.param(s, id=s.slug) for s in chosen]


_METHODS = {"find": "find", "mark": "mark", "erase": "erase", "restore": "restore"}


def odd_pictures() -> dict[str, bytes]:
    """Pictures that break careless code: tiny, thin, flat, extreme, grey, transparent, deep."""
    rng = np.random.default_rng(0)
    squares = np.kron(np.indices((32, 32)).sum(0) % 2, np.ones((8, 8))).astype(np.uint8) * 255
    noise = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    one = np.zeros((1, 1, 3), np.uint8)
    return {
        "one pixel": encode(one, "PNG"),
        "one pixel jpeg": encode(one, "JPEG"),
        "four pixels": encode(noise[:2, :2], "PNG"),
        "thin": encode(noise[:3, :5], "PNG"),
        "row": encode(np.repeat(noise[:1], 3, 1), "PNG"),
        "column jpeg": encode(noise[:, :1], "JPEG"),
        "black": encode(np.zeros((200, 300, 3), np.uint8), "PNG"),
        "white jpeg": encode(np.full((200, 300, 3), 255, np.uint8), "JPEG"),
        "flat": encode(np.full((128, 128, 3), 77, np.uint8), "WEBP", quality=100),
        "noise": encode(noise, "BMP"),
        "grey": encode(noise[..., 0], "PNG"),
        "transparent": encode(noise, "PNG", alpha=noise[..., 0]),
        "deep": encode(noise.astype(np.uint16) * 257, "PNG"),
        "gif": encode(noise, "GIF"),
        "avif": encode(noise, "AVIF"),
        "checkerboard": encode(squares, "JPEG"),
    }


ODD = odd_pictures()


def test_any_finder_of_pictures_can_be_named_instead_of_the_panel_or_beside_it():
    from vestige.core.panel import default_panel

    (finder,) = default_panel(only=["maskmark"]).finders
    assert finder.slug == "maskmark"
    default = [f.slug for f in default_panel().finders]
    assert "maskmark" not in default
    assert [f.slug for f in default_panel(only=["panel", "maskmark", "ela"]).finders] == [*default, "maskmark"]
    for slug in ("spread_spectrum", "nothing"):
        with pytest.raises(UsageError):
            default_panel(only=[slug])


def test_the_catalogue_has_142_published_systems():
    papers = [s for s in systems() if s.kind == "paper"]
    assert len(papers) == 142
    assert {s.wing for s in papers} == set(WINGS)
    for s in systems():
        assert set(s.roles) <= set(ROLES), s
        assert s.roles, s
        assert s.name, s
        assert s.slug.replace("_", "").isalnum(), s
        assert s.slug == s.slug.lower(), s
        assert s.title or s.kind == "baseline", s


def test_an_unknown_slug_gets_near_matches():
    with pytest.raises(UsageError, match="wouaf"):
        system("wuaf")
    planned = next(s for s in systems() if s.target is None)
    with pytest.raises(UsageError, match="planned"):
        planned.load()


@pytest.mark.parametrize("entry", BUILT, ids=lambda s: s.slug)
def test_a_built_system_loads_and_is_documented(entry):
    cls = entry.load()
    assert inspect.isclass(cls)
    assert cls.__doc__
    assert len(cls.__doc__.split()) > 8
    wraps_a_model = {"learn", "generate", "measure", "attack"} & set(entry.roles)
    for parameter in () if wraps_a_model else inspect.signature(cls).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        assert parameter.default is not inspect.Parameter.empty, f"{entry.slug}: {parameter} has no default"
    if entry.roles != ("measure",):
        assert getattr(cls, "slug", entry.slug) == entry.slug


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("entry", with_role("find"))
def test_finders_answer_on_odd_pictures(entry, name):
    subject = ImageSubject(ODD[name], name)
    finding = entry.load()().find(subject)
    assert finding.examiner == entry.slug
    assert finding.kind in KINDS
    assert finding.summary.strip()
    if finding.applies:
        assert np.isfinite(finding.score)
        assert finding.when_flagged
        assert finding.when_clear
    else:
        assert finding.why_not
        assert not finding.flagged
    if finding.map is not None:
        assert finding.map_caption
        assert np.isfinite(finding.map).all()
        assert finding.map.min() >= 0
        assert finding.map.max() <= 1
        tall = subject.height / subject.width
        assert 0.3 < (finding.map.shape[0] / finding.map.shape[1]) / tall < 3 or min(finding.map.shape) <= 2
    import json

    json.dumps(finding.to_dict(), allow_nan=False)


@pytest.mark.parametrize("entry", with_role("find"))
def test_finders_are_deterministic_and_leave_the_subject_alone(entry, photo):
    data = encode(photo[:256, :320], "JPEG", quality=88)
    first, second = ImageSubject(data, "a"), ImageSubject(data, "a")
    before = first.pixels.copy()
    one, two = entry.load()().find(first), entry.load()().find(second)
    assert one.to_dict() == two.to_dict()
    if one.map is not None:
        np.testing.assert_array_equal(one.map, two.map)
    np.testing.assert_array_equal(first.pixels, before)


@pytest.mark.parametrize("entry", with_role("mark"))
def test_markers_keep_shape_and_read_back(entry, photo):
    marker = entry.load()()
    images = to_float(photo[:320, :384])
    bits = np.random.default_rng(1).integers(0, 2, 32).astype(bool)
    marked = marker.mark(images, bits, PUBLIC_KEY)
    assert marked.shape == images.shape
    assert marked.dtype == np.float32
    assert marked.min() >= 0
    assert marked.max() <= 1
    (reading,) = marker.read(np.round(marked * 255).astype(np.float32) / 255, PUBLIC_KEY)
    assert reading.outcome == "read"
    np.testing.assert_array_equal(reading.bits, bits)
    (other,) = marker.read(marked, b"another key that is long enough!")
    assert other.outcome == "absent"
    assert other.bits is None
    (none,) = marker.read(images, PUBLIC_KEY)
    assert none.outcome == "absent"


@pytest.mark.parametrize("entry", with_role("erase"))
def test_erasers_return_images_and_masks(entry, astronaut):
    images = to_float(astronaut)
    changed, masks = entry.load()().erase(images, np.zeros((1, 1, 512, 512), bool))
    assert changed.shape == images.shape
    assert changed.dtype == np.float32
    assert masks.shape == (1, 1, 512, 512)
    assert masks.dtype == bool
    outside = ~np.broadcast_to(masks, images.shape)
    np.testing.assert_array_equal(changed[outside], images[outside])


@pytest.mark.parametrize("entry", with_role("restore"))
def test_restorers_return_images(entry, astronaut):
    images = to_float(astronaut[100:228, 150:310])
    masks = np.zeros((1, 1, 128, 160), bool)
    masks[..., 40:60, 50:70] = True
    restored = entry.load()().restore(images, masks)
    assert restored.dtype == np.float32
    assert restored.shape[:2] == (1, 3)
    assert restored.shape[2] % 128 == 0
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert np.isfinite(restored).all()


@pytest.mark.parametrize("entry", [p for role in ("erase", "restore") for p in with_role(role)])
def test_wrong_shapes_are_refused_in_one_sentence(entry):
    system = entry.load()()
    method = getattr(system, "erase", None) or system.restore
    with pytest.raises(VestigeError) as caught:
        method(np.zeros((2, 1, 8, 8), np.float32), np.zeros((1, 1, 4, 4), bool))
    assert "\n" not in str(caught.value)
