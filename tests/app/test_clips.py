"""``vestige find`` on clips: folders with pictures, resuming, exit codes, and the time line in every report."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import vestige
from tests.core.test_video import write
from vestige.app.cli import main
from vestige.app.jobs.batch import Batch, FindOptions, Outcome, Shown, collect
from vestige.app.jobs.store import load
from vestige.app.report.html import render_html
from vestige.app.report.items import ReportItem
from vestige.app.report.json_report import schema, to_json_report
from vestige.app.report.text import render_batch, render_text
from vestige.core.image_io import encode


def edited(photo: np.ndarray, time: int) -> np.ndarray:
    """A frame of a film that pans over the photograph; in its second half a part of it appears twice."""
    frame = photo[10 + time : 298 + time, 20 + 2 * time : 404 + 2 * time].copy()
    if time >= 6:
        frame[20:130, 250:370] = frame[160:270, 40:160]
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray) -> Path:
    """A film with a copied region, an animation, a picture, a broken clip and a text file."""
    folder = tmp_path_factory.mktemp("mixed")
    write(folder / "a.avi", "MJPG", [edited(photo, t) for t in range(12)])
    first, *rest = [Image.fromarray(photo[100:260, 100 + t : 300 + t]) for t in range(3)]
    first.save(folder / "b.gif", save_all=True, append_images=rest, duration=400)
    (folder / "c.png").write_bytes(encode(photo[:200, :200], "PNG"))
    (folder / "d.mp4").write_text("no film in here")
    (folder / "notes.txt").write_text("nor here")
    return folder


OPTIONS = FindOptions(only=("copy_move", "container"), every=0.2)


@pytest.fixture(scope="module")
def done(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[ReportItem], list[dict[str, str]], Outcome]:
    outcome = Batch(tmp_path_factory.mktemp("run"), OPTIONS).run(collect([folder]))
    return list(Shown(outcome)), outcome.failures, outcome


def test_folders_mix_pictures_and_clips(folder: Path, done: Any) -> None:
    assert [p.name for p in collect([folder])] == ["a.avi", "b.gif", "c.png", "d.mp4"]
    items, failures, _ = done
    film, animation, picture = (i.findings for i in items)
    assert [f["source"] for f in failures] == [str(folder / "d.mp4")]
    assert "not a clip" in failures[0]["error"]
    assert picture.clip is None
    assert film["copy_move"].flagged
    assert film.clip.tracks[0].flagged == (False,) * 3 + (True,) * 3
    assert film.verdict.kinds == ("edit",)
    assert film.clip.frames[0].time >= 0.59
    assert film["container"].applies
    assert not film["container"].flagged
    assert animation["container"].applies
    assert animation.clip.times == pytest.approx([0.0, 0.4, 0.8])


def test_clips_resume_like_pictures(folder: Path, tmp_path: Path) -> None:
    files = collect([folder])
    batch = Batch(tmp_path / "run", OPTIONS)
    first = list(Shown(batch.run(files)))
    stamps = {p: p.stat().st_mtime_ns for p in batch.items.iterdir()}
    outcome = batch.run(files)
    second, failures = list(Shown(outcome)), outcome.failures
    assert {p: p.stat().st_mtime_ns for p in batch.items.iterdir()} == stamps
    assert [i.findings.to_dict() for i in second] == [i.findings.to_dict() for i in first]
    assert len(failures) == 1
    assert render_html(first, title="t") == render_html(second, title="t")
    again = load(batch.items, next(p.name[:16] for p in batch.items.glob("*.f0.preview.jpg"))).parts[0]
    assert len(again.frames) == len(again.findings.clip.frames)
    third = Shown(Batch(tmp_path / "run", FindOptions(only=("copy_move",), every=0.6)).run(files[:1]))
    assert len(third[0].findings.clip.times) == 2


def test_json_keeps_to_its_schema(done: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    _, _, outcome = done
    report = to_json_report(outcome.examined(), outcome.lines)
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(report, allow_nan=False)))
    summary = report["summary"]
    assert (summary["pictures"], summary["clips"], summary["failed"]) == (1, 2, 1)


def _printed(show: Any, width: int = 100, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    show(console)
    return console.file.getvalue()


def test_text_draws_a_time_line(done: Any) -> None:
    items, failures, _ = done
    shown = _printed(lambda c: render_text(items[0].findings, c))
    assert "1.2 s, 6 frames examined, one every 0.2 s" in shown
    assert "copy_move  ···▮▮▮  3 of 6 frames, 0:00.6 to 0:01.0" in shown
    assert "one every 0.2 s; what lies between them was not looked at" in " ".join(shown.split())
    assert "1 picture, 2 clips, 1 found" in _printed(lambda c: render_batch([i.findings for i in items], failures, c))
    narrow = _printed(lambda c: render_text(items[0].findings, c, verbose=True), width=40)
    assert max(map(len, narrow.splitlines())) <= 40


def test_the_command_line_on_clips(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "head.mp4").write_bytes(b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41" + bytes(400))
    command = ["find", "-q", "-j", "1", "--only", "copy_move", "--exit-code"]

    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main([*command, *map(str, arguments)])
        return int(stop.value.code or 0)

    assert run(folder / "a.avi", "--every", "0.5") == 6
    assert run(tmp_path / "head.mp4", folder / "b.gif") == 5
    assert run(folder / "a.avi", "--every", "0") == 2
    broken = [tmp_path / "empty.mp4", tmp_path / "head.mp4", folder / "d.mp4"]
    done = subprocess.run(
        [sys.executable, "-m", "vestige", *command, *map(str, broken)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3  # one sentence for each, and nothing from the decoder


def test_a_cut_clip_is_examined_as_far_as_it_goes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = (folder / "a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    with pytest.raises(SystemExit) as stop:
        main(["find", str(tmp_path / "cut.avi"), "--json", "--only", "copy_move", "--every", "0.2"])
    assert not stop.value.code
    report = json.loads(capsys.readouterr().out)["items"][0]["parts"][0]
    assert "breaks off" in report["clip"]["notes"][0]
    assert report["clip"]["notes"][0] in report["verdict"]["sentences"]
    assert len(report["clip"]["times"]) < 6


def test_python_finds_in_clips(folder: Path) -> None:
    found = vestige.find(folder / "a.avi", only=["copy_move"], every=0.5)
    assert found.clip is not None
    assert found.clip.times == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize("width", [390, 1280])
def test_the_html_report_in_a_browser(done: Any, tmp_path: Path, width: int) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium in the path; install the system's package")
    items, _, _ = done
    (tmp_path / "r.html").write_text(render_html(items, title="Mixed"), encoding="utf-8")
    problems: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda m: problems.append(m.text))
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.goto((tmp_path / "r.html").as_uri())
        assert page.inner_text(".counts").split()[:4] == ["1", "picture", "2", "clips"]
        assert page.get_by_label("Level").is_visible()
        page.get_by_role("link", name="a.avi").click()
        page.locator(".timeline").wait_for()
        row = page.locator(".lane", has_text="3 of 6 frames")
        bars = [page.locator(f".lane.found rect.{kind}").count() for kind in ("fill", "hit")]
        assert bars == [3, 3]
        drawing, hit = row.locator("svg").bounding_box(), row.locator("rect.hit").first.bounding_box()
        assert (hit["x"] - drawing["x"]) / drawing["width"] == pytest.approx(0.5, abs=0.01)
        assert row.locator("rect.hit title").first.text_content().startswith("0:00.6: trace, score")
        assert page.locator(".shot").count() == len(items[0].frames)
        first = page.locator(".shot").first
        assert first.locator(".overlay:not([hidden])").count() == 1
        first.get_by_role("radio", name="None").check()
        assert first.locator(".overlay:not([hidden])").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert problems == []
