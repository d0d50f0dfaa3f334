"""The terminal report: order, evidence, plain terminals, hostile names."""

from __future__ import annotations

import io

from rich.console import Console

from tests.app.report_samples import batch, clear, findings, hostile, unexamined
from vestige.app.report.items import ReportGroup
from vestige.app.report.text import render_batch, render_text
from vestige.core.findings import Findings


def printed(found: Findings, *, width: int = 80, encoding: str = "utf-8", verbose: bool = False) -> str:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, newline="\n")
    render_text(found, Console(file=stream, width=width), verbose=verbose)
    stream.flush()
    return buffer.getvalue().decode(encoding)


def test_verdict_comes_before_examiners_and_evidence() -> None:
    text = printed(findings())
    places = [
        text.index(w)
        for w in ("harbour at dusk.jpg", "● Found: edited pixels", "Examiner", "● ", "fits quality 71; the")
    ]
    assert places[0] < places[1] < places[2] < places[4]
    assert "96% probability that pixels were edited" in text
    assert "0.50%" in text
    assert "fact" in text
    assert "cfa_traces, c2pa_claims do not apply here" in text


def test_evidence_of_clear_examiners_only_when_asked() -> None:
    quiet, full = printed(clear()), printed(clear(), verbose=True)
    assert "fits quality 71" not in quiet
    assert "fits quality 71" in full
    assert "Score 0.1, threshold 0.52." in full
    assert "removes the" not in quiet
    assert "Does not apply" in full
    assert "○ Nothing found" in quiet


def test_eighty_columns_and_narrower() -> None:
    for width in (80, 40, 24):
        text = printed(findings(), width=width)
        assert max(map(len, text.splitlines())) <= width
        assert "jpeg_ghost" in text.replace("\n", "") or width < 40


def test_ascii_terminal_gets_ascii() -> None:
    for found in (findings(), clear(), unexamined(), hostile()):
        text = printed(found, encoding="ascii", verbose=True)
        assert "\\u2013" not in text
    assert "* Found: edited pixels" in printed(findings(), encoding="ascii")
    assert 'EXIF names "Photo Editor 5"' in printed(findings(), encoding="ascii")


def test_pipes_get_no_escape_codes() -> None:
    assert "\x1b" not in printed(findings())


def test_hostile_names_cannot_steer_the_terminal() -> None:
    text = printed(hostile(), width=200)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold red]\\x1b[2J\\u202egpj.exe\\udc80" in text


def test_colour_is_an_addition() -> None:
    stream = io.StringIO()
    render_text(findings(), Console(file=stream, width=80, force_terminal=True, color_system="standard"))
    assert "\x1b[1;31m● Found: edited pixels" in stream.getvalue()


def test_unexamined_pictures_state_no_probability() -> None:
    text = printed(unexamined())
    assert "– Not examined\n" in text
    assert "nan" not in text


def test_batch_table() -> None:
    stream = io.StringIO()
    failures = [{"source": "x.jpg", "error": "x.jpg is empty."}, {"source": "y.jpg", "error": "It is cut off."}]
    groups = [ReportGroup("Two copies", ("folder/photo_000.jpg",), "One is mirrored.")]
    render_batch([i.findings for i in batch(3)], failures, Console(file=stream, width=80), groups=groups)
    text = stream.getvalue()
    rows = {line.split()[1]: line for line in text.splitlines() if line[:2] in ("● ", "○ ", "– ")}
    assert "Found" in rows["folder/photo_000.jpg"]
    assert "96%" in rows["folder/photo_000.jpg"]
    assert "Edited pixels" in rows["folder/photo_000.jpg"]
    assert "Nothing found" in rows["folder/photo_001.jpg"]
    assert "Not examined" in rows["folder/photo_002.jpg"]
    assert "  x.jpg is empty.\n" in text
    assert "  y.jpg: It is cut off.\n" in text
    assert "One is mirrored." in text
    assert text.rstrip().endswith("3 pictures, 1 found, 1 with nothing found, 1 not examined, 2 failed")


def test_batch_of_failures_only() -> None:
    stream = io.StringIO()
    render_batch([], [("x", "It is empty.")], Console(file=stream, width=80))
    assert stream.getvalue().rstrip().endswith("0 pictures, 0 found, 1 failed")
