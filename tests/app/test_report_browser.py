"""The HTML report in a real browser: maps line up and toggle, folders filter, nothing is fetched."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.app.report_samples import batch, findings, hostile, photo
from vestige.app.report.html import render_html
from vestige.app.report.items import Failure, ReportItem

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium in the path; install the system's package")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Report files by name."""
    folder = tmp_path_factory.mktemp("reports")
    tall = ReportItem(findings(), np.ascontiguousarray(photo(240, 320).transpose(1, 0, 2)))
    evil = dataclasses.replace(hostile(), source=hostile().source + "very_long_name_" * 12)
    pages = {
        "one": render_html([ReportItem(findings(), photo())], title="Report"),
        "tall": render_html([tall], title="Report"),
        "folder": render_html(batch(7), title="Week 12", failures=[Failure("x.jpg", "It is empty.")]),
        "hostile": render_html([ReportItem(evil, photo(60, 80)), batch(1)[0]], title=evil.source),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


class Opened:
    """A page that remembers everything that must not happen."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.problems.append(m.text))
        self.page.on("pageerror", lambda e: self.problems.append(str(e)))
        self.page.on("dialog", lambda d: (self.problems.append(d.message), d.dismiss()))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())
        self.own = path.as_uri()

    def pixels(self, selector: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.page.locator(selector).screenshot())).convert("L"), np.float32)

    def shown(self) -> list[str]:
        return self.page.eval_on_selector_all(".overlay:not([hidden])", "all => all.map(e => e.dataset.map)")

    def close(self) -> None:
        self.page.close()
        assert self.problems == []
        assert [u for u in self.requests if not u.startswith(("data:", self.own))] == []


@pytest.fixture
def open_report(browser: Any, reports: dict[str, Path]) -> Iterator[Any]:
    opened: list[Opened] = []

    def start(name: str, **options: Any) -> Opened:
        opened.append(Opened(browser, reports[name], **options))
        return opened[-1]

    yield start
    for report in opened:
        report.close()


@pytest.mark.parametrize("name", ["one", "tall"])
@pytest.mark.parametrize("width", [1280, 390])
def test_maps_cover_the_picture_exactly(open_report: Any, name: str, width: int) -> None:
    report = open_report(name)
    report.page.set_viewport_size({"width": width, "height": 700})
    boxes = [report.page.locator(s).bounding_box() for s in (".base", ".overlay:not([hidden])")]
    for side in ("x", "y", "width", "height"):
        assert boxes[0][side] == pytest.approx(boxes[1][side], abs=1)
    natural = report.page.eval_on_selector(".base", "e => e.naturalWidth / e.naturalHeight")
    assert boxes[0]["width"] / boxes[0]["height"] == pytest.approx(natural, rel=0.02)
    assert boxes[0]["x"] >= 0
    assert boxes[0]["x"] + boxes[0]["width"] <= width


def test_the_marked_region_is_where_the_map_says(open_report: Any) -> None:
    report = open_report("one")
    report.page.get_by_label("Grey picture").uncheck()
    report.page.get_by_label("Opacity").fill("100")
    with_map = report.pixels(".frame")
    report.page.keyboard.press("1")
    report.page.mouse.move(0, 0)
    change = np.abs(with_map - report.pixels(".frame"))
    strong = change > 40
    rows, columns = np.flatnonzero(strong.mean(1) > 0.1), np.flatnonzero(strong.mean(0) > 0.1)
    height, width = change.shape
    found = np.array([rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width])
    assert found == pytest.approx([0.25, 0.5, 0.5, 0.75], abs=0.012)


def test_keys_and_buttons_switch_maps(open_report: Any) -> None:
    report = open_report("one")
    assert report.shown() == ["1"]
    report.page.keyboard.press("2")
    assert report.shown() == ["2"]
    assert "departs from what brightness predicts" in report.page.inner_text("figcaption")
    report.page.keyboard.press("2")
    assert report.shown() == []
    assert report.page.locator(".legend").is_hidden()
    report.page.get_by_role("radio", name="JPEG ghost").check()
    assert report.shown() == ["1"]
    report.page.keyboard.press("ArrowRight")
    assert report.shown() == ["2"]
    report.page.keyboard.press("9")  # there is no ninth map
    assert report.shown() == ["2"]
    report.page.locator(".jump").nth(2).click()
    assert report.shown() == ["3"]


def test_opacity_and_holding_change_what_is_seen(open_report: Any) -> None:
    report = open_report("one")
    slider = report.page.get_by_label("Opacity")
    slider.fill("0")
    none = report.pixels(".frame")
    slider.fill("100")
    report.page.wait_for_timeout(250)
    full = report.pixels(".frame")
    assert np.abs(full - none).max() > 40
    report.page.locator(".frame").hover()
    report.page.mouse.down()
    assert report.page.locator(".overlay:visible").count() == 0
    report.page.mouse.up()
    assert report.page.locator(".overlay:visible").count() == 1
    before = report.page.locator(".base").bounding_box()["width"]
    report.page.get_by_label("Large").check()
    boxes = [report.page.locator(s).bounding_box() for s in (".base", ".overlay:not([hidden])")]
    assert boxes[0]["width"] > 1.5 * before
    assert boxes[0] == boxes[1]
    assert report.page.locator(".columns.large").count() == 1


def _names(report: Opened) -> list[str]:
    return report.page.eval_on_selector_all(".rows li:not([hidden]) .name", "all => all.map(e => e.textContent)")


def test_folder_filters_sorts_and_searches(open_report: Any) -> None:
    report = open_report("folder")
    assert len(_names(report)) == 7
    report.page.get_by_label("Level").select_option("found")
    assert _names(report) == ["photo_000.jpg", "photo_003.jpg", "photo_006.jpg"]
    assert report.page.inner_text("#count") == "3 of 7 shown"
    report.page.get_by_label("Search names").fill("PHOTO 003")
    assert _names(report) == ["photo_003.jpg"]
    report.page.get_by_label("Search names").fill("nowhere")
    assert _names(report) == []
    assert report.page.get_by_text("No picture matches.").is_visible()
    report.page.get_by_label("Search names").fill("")
    report.page.get_by_label("Level").select_option("")
    report.page.get_by_label("Sort by").select_option("p")
    assert [n[6:9] for n in _names(report)] == ["000", "003", "006", "001", "004", "002", "005"]
    assert report.page.get_by_text("It is empty.").is_visible()


def test_folder_opens_pictures_and_returns(open_report: Any) -> None:
    report = open_report("folder")
    page = report.page
    assert page.locator(".picture").count() == 0  # nothing is built before it is asked for
    page.get_by_label("Level").select_option("found")
    page.get_by_role("link", name="photo_003.jpg").click()
    playwright.expect(page.locator(".picture h1")).to_have_text("photo_003.jpg")
    playwright.expect(page.locator(".picture h1")).to_be_focused()
    assert page.inner_text(".place") == "2 of 3"
    assert page.locator("#overview").is_hidden()
    assert report.shown() == ["1"]
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator(".picture h1")).to_have_text("photo_006.jpg")
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_role("button", name="Previous").click()
    playwright.expect(page.locator(".picture h1")).to_have_text("photo_003.jpg")
    page.keyboard.press("Escape")
    playwright.expect(page.get_by_role("link", name="photo_003.jpg")).to_be_focused()
    assert page.locator(".picture").count() == 0


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_names_stay_text_and_inside_the_page(open_report: Any, width: int, scheme: str) -> None:
    report = open_report("hostile", color_scheme=scheme)
    report.page.set_viewport_size({"width": width, "height": 700})
    for target in ("#top", "#p1"):
        report.page.goto(report.own + target)
        report.page.wait_for_timeout(30)
        assert report.page.evaluate("document.documentElement.scrollWidth") <= width
    assert "<script>alert('x')</script>" in report.page.inner_text(".identity")
    assert "<img src=x onerror=" in report.page.inner_text(".picture h1")
    assert report.page.locator("script").count() == 1
    dark = report.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(246, 246, 243)"
    assert dark == (scheme == "dark")


def test_print_drops_controls_and_unfolds(open_report: Any) -> None:
    report = open_report("one")
    report.page.emulate_media(media="print")
    assert report.page.locator(".maps").is_hidden()
    assert report.page.locator("#print").is_hidden()
    assert report.page.locator(".overlay:not([hidden])").is_visible()
    report.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert report.page.get_by_text("which removes the pattern").is_visible()
    report.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert report.page.get_by_text("which removes the pattern").is_hidden()
