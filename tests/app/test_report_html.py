"""The HTML report: self-contained, escaped, complete, bounded."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.app.report_samples import HOSTILE, batch, blob, clear, findings, hostile, photo, unexamined
from vestige.app.report.html import render_html
from vestige.app.report.items import (
    Failure,
    ReportGroup,
    ReportItem,
    error_rate,
    examiner_name,
    false_alarms,
    group_of,
    number,
    ordered,
    percent,
    tone_of,
)
from vestige.app.report.markup import visible
from vestige.core.findings import Finding, Findings, Verdict

_VOID = {"img", "input", "meta", "link", "br", "hr"}


class Page(HTMLParser):
    """Elements, attributes and words of a page; fails on elements that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else ""
        self.raw.get(where, self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, class_: str = "") -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag and class_ in ("", *a.get("class", "").split())]


def single(found: Findings | None = None, picture: np.ndarray | None = None) -> Page:
    item = ReportItem(found or findings(), photo(90, 120) if picture is None else picture)
    return Page(render_html([item], title="Report"))


def test_one_picture_says_everything() -> None:
    page = single()
    for words in (
        "harbour at dusk.jpg",
        "desk/harbour at dusk.jpg",
        "4,000 × 3,000 pixels",
        findings().sha256,
        "Found: edited pixels, file structure",
        "two independent examiners point to the same region",
        "96%",
        "JPEG ghost",
        "jpeg_ghost looks for signs that part of the picture was changed.",
        "fits quality 71; the rest",
        "0.83 (threshold 0.52)",
        "About 0.50% of photographs without the trace reach the threshold.",
        "About 1.0% of photographs without the trace reach the threshold.",
        "A fact read from the file",
        "2 examiners do not apply to this picture",
        "the picture was scaled down, which removes the pattern.",
        "2024:03:02 18:44:10",
    ):
        assert words in page.text, words
    assert len(page.all("article", "card")) == 7
    assert len(page.all("article", "away")) == 2
    assert len(page.all("img", "overlay")) == 3
    assert [a["checked"] for a in page.all("input") if "checked" in a and a["type"] == "radio"] == [""]
    assert "template" not in {t for t, _ in page.tags}


def test_only_the_first_flagged_map_is_shown_at_first() -> None:
    overlays = single().all("img", "overlay")
    assert ["hidden" in a for a in overlays] == [False, True, True]
    assert all("hidden" in a for a in single(clear()).all("img", "overlay"))


def test_hostile_strings_stay_text() -> None:
    item = ReportItem(hostile(), photo(30, 40))
    source = render_html(
        [item, ReportItem(findings(), photo(30, 40))],
        title=HOSTILE,
        failures=[Failure(HOSTILE, HOSTILE)],
        groups=[ReportGroup(HOSTILE, (HOSTILE, "elsewhere " + HOSTILE), HOSTILE)],
    )
    source.encode("utf-8")
    page = Page(source)
    calm = Page(render_html(batch(2), title="x", failures=[Failure("a", "b")], groups=[ReportGroup("g", ("a",))]))
    assert len(page.all("script")) == len(calm.all("script")) == 1
    assert not any(k.startswith("on") for _, attrs in page.tags for k in attrs)
    assert page.all("img")
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    assert "\x1b" not in source
    assert "\u202e" not in source
    assert page.text.count(visible(HOSTILE)) >= 8


def test_long_names_are_cut_in_headings_only() -> None:
    name = "a" * 200 + ".jpg"
    page = single(dataclasses.replace(findings(), source="folder/" + name))
    assert f" {'a' * 60}…{'a' * 24}.jpg " in page.text
    assert f" folder/{name} " in page.text


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_is_loaded(count: int) -> None:
    source = render_html(batch(count), title="Report", failures=[("a", "b")])
    page = Page(source)
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            if name in attrs:
                assert re.match(r"data:|#", attrs[name]), (tag, attrs[name][:80])
        assert "style" not in attrs
    assert not re.search(r"https?:|//[a-z0-9.-]+\.[a-z]|@import|url\(", source, re.I)


def test_policy_pins_style_and_script() -> None:
    page = Page(render_html(batch(2), title="Report"))
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256("".join(page.raw[kind]).encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_folder_lists_every_picture_once() -> None:
    items = batch(6)
    page = Page(render_html(iter(items), title="Week 12", failures=[{"source": "x.jpg", "error": "It is empty."}]))
    rows = [a for a in page.all("li") if "data-order" in a]
    assert [r["data-name"] for r in rows] == [items[n].findings.source for n in (0, 3, 1, 4, 2, 5)]  # worst first
    assert [r["data-level"] for r in rows] == ["found"] * 2 + ["nothing found"] * 2 + ["not examined"] * 2
    assert [float(r["data-p"]) for r in rows] == [0.96, 0.96, 0.04, 0.04, -1, -1]
    assert len(page.all("template")) == 6
    assert len(page.all("img", "base")) == 6
    for words in ("6 pictures", "2 found", "2 with nothing found", "2 not examined", "1 failed", "It is empty."):
        assert words in page.text
    large = [a["src"] for a in page.all("img", "base")]
    assert len(set(large)) == 6


def test_groups_link_to_their_pictures() -> None:
    items = batch(3)
    groups = [ReportGroup("Two copies", ("folder/photo_001.jpg", "gone.jpg"), "One is mirrored.")]
    page = Page(render_html(items, title="x", groups=groups))
    assert [a["href"] for a in page.all("a") if a.get("title")] == ["#p2"]
    assert "One is mirrored." in page.text
    assert "gone.jpg" in page.text


def test_an_empty_batch_is_a_page() -> None:
    assert "0 pictures" in Page(render_html([], title="Nothing")).text


def test_output_is_deterministic() -> None:
    assert render_html(batch(3), title="x") == render_html(batch(3), title="x")


def test_previews_and_maps_are_bounded() -> None:
    big = dataclasses.replace(findings().findings[0], map=blob(1200, 1600, (0.2, 0.2, 0.5, 0.5)))
    found = dataclasses.replace(findings(), findings=(big,))
    page = single(found, np.random.default_rng(0).integers(0, 255, (1500, 3000, 3), np.uint8))

    def size(attrs: dict[str, str]) -> tuple[int, int]:
        return Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))).size

    assert size(page.all("img", "base")[0]) == (1024, 512)
    assert max(size(page.all("img", "overlay")[0])) == 512
    item = ReportItem.of(found, np.zeros((3000, 1500, 3), np.uint8), side=400)
    assert item.preview.shape == (400, 200, 3)
    kept = item.findings["jpeg_ghost"].map
    assert kept is not None
    assert (kept.shape, kept.dtype) == ((150, 200), np.float32)


def test_hundreds_of_pictures_stay_small_and_quick() -> None:
    item = batch(1)[0]
    items = [ReportItem(dataclasses.replace(item.findings, source=f"{n}.jpg"), item.preview) for n in range(200)]
    source = render_html(items, title="Many")
    page = Page(source)
    assert len([a for a in page.all("li") if "data-order" in a]) == 200
    assert len(source) < 200 * 60_000
    assert "Its map is left out of this large report" in page.text
    assert len(page.all("img", "overlay")) == 400  # two flagged maps each; clear ones are left out


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 4000), (2000, 2), (40, 40)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 200, np.uint8)
    base = single(unexamined(), picture).all("img", "base")[0]
    width, height = int(base["width"]), int(base["height"])
    assert max(width, height) <= 1024
    if max(shape) < 192:
        assert max(width, height) > 192
        assert width * shape[0] == height * shape[1]


def test_odd_numbers_do_not_break_the_page() -> None:
    odd = Finding(
        "odd_scores", "edit", float("inf"), "Found.", "Clear.", flagged=True, probability=float("nan"),
        threshold=0.0, false_positive_rate=float("nan"), map=np.full((2, 2), np.nan, np.float32),
        details={"array": np.arange(4), "large": np.zeros((99, 99)), "share": np.float32(0.25), "set": {1}},
    )  # fmt: skip
    zero = Finding("zeros", "mark", 0.0, "Found.", "Clear.", threshold=0.0, probability=0.0)
    empty = Finding("empty", "edit", 1.0, "Found.", "", flagged=True, map=np.zeros((0, 3), np.float32))
    found = dataclasses.replace(
        findings(), findings=(odd, zero, empty), verdict=Verdict("found", float("nan"), ("Found.",))
    )
    page = single(found)
    assert "nan" not in page.text
    assert "array of shape (99, 99)" in page.text
    assert len(page.all("img", "overlay")) == 1


def test_a_preview_of_another_type_is_refused() -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="a preview is uint8"):
            ReportItem(findings(), wrong)


def test_words_for_numbers() -> None:
    assert [percent(p) for p in (0.004, 0.5, 0.995, float("nan"))] == ["<1%", "50%", ">99%", "–"]
    assert number(-0.41239) == "−0.4124"
    never = dataclasses.replace(findings()["jpeg_ghost"], false_positive_rate=0.0, n_clean=2300)
    assert error_rate(never) == "0 of 2,300 photographs without the trace reach the threshold: below 0.13%."
    assert false_alarms(never) == "<0.13%"
    assert examiner_name("find_odd-jpeg") == "Find odd JPEG"
    assert tone_of(True, ["mark", "provenance"]) == "noted"
    assert tone_of(True, ["mark", "edit"]) == "found"


def test_flagged_examiners_come_first() -> None:
    slugs = [f.examiner for f in ordered(reversed(findings().findings))]
    assert slugs[:5] == ["metadata", "jpeg_ghost", "noise_level", "double_jpeg", "lsb_payload"]


def test_groups_in_other_forms() -> None:
    assert group_of(("a", "b")) == ReportGroup("2 copies of one picture", ("a", "b"))
    near = SimpleNamespace(kind="near", members=(Path("a"), Path("b")), distance=3)
    assert group_of(near) == ReportGroup("2 near copies of one picture", ("a", "b"), kind="near")
    assert group_of({"sources": ["a"], "title": "t", "note": "n"}) == ReportGroup("t", ("a",), "n")
    with pytest.raises(TypeError, match="a group lists"):
        group_of("a.jpg")


def test_colours_meet_contrast_aa() -> None:
    style = "".join(single().raw["style"])
    light, dark = re.findall(r":root \{(.*?)\}", style, re.S)[:2]

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for block in (light, dark):
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        pairs = [(t, s) for t in ("ink", "quiet", "accent", "found", "noted", "clear") for s in ("page", "sheet")]
        pairs += [(t, f"{t}-sheet") for t in ("found", "noted", "clear")]
        pairs += [(t, f"{s}-sheet") for t in ("ink", "quiet") for s in ("found", "noted", "clear")]
        for front, back in pairs:
            a, b = sorted((luminance(colour[front]), luminance(colour[back])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (front, back)


def test_a_map_left_out_is_not_called_no_map() -> None:
    from vestige.app.report.detail import Bounds, detail

    left_out = str(detail(ReportItem(clear(), photo(30, 40)), 1, Bounds(clear_maps=False)))
    assert "No examiner drew a map" not in left_out
    assert "Its map is left out of this large report" in left_out
    bare = dataclasses.replace(clear(), findings=tuple(dataclasses.replace(f, map=None) for f in clear().findings))
    assert "No examiner drew a map." in str(detail(ReportItem(bare, photo(30, 40)), 1, Bounds()))


def test_maps_on_disk_are_linked_where_there_are_some() -> None:
    drawn = {"jpeg_ghost": "items/0123.jpeg_ghost.png"}
    page = Page(render_html([ReportItem(findings(), photo(30, 40), (), drawn)], title="x"))
    assert [a["href"] for a in page.all("a", "file")] == ["items/0123.jpeg_ghost.png"]
    assert not single().all("a", "file")


def test_a_place_to_look_at_has_words_and_a_colour_of_its_own() -> None:
    found = findings()
    unsure = dataclasses.replace(found.findings[0], flagged=False, look=True, when_look="Look at the quay.")
    verdict = Verdict("a place to look at", 0.2, ("Place to look at: Look at the quay.",), ("edit",), prior=0.25)
    page = single(dataclasses.replace(found, findings=(unsure,), verdict=verdict))
    for words in ("A place to look at: edited pixels?", "Look at the quay.", "if 25% of such pictures are (--prior)"):
        assert words in page.text
    assert "What would change this" in page.text
    assert page.all("article", "look")
