"""``vestige find`` on a folder with one of everything: the counts add up everywhere, and nothing is written over."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import vestige
from tests.core.test_parts import saved
from vestige.app.cli import main
from vestige.app.report.json_report import schema
from vestige.core.errors import UsageError
from vestige.core.image_io import encode

QUICK = ("--only", "container", "--only", "generator_tags", "-j", "1")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode(np.full((40, 60, 3), 90, np.uint8), "PNG"))
    (folder / "pages.tif").write_bytes(saved("TIFF", 3))
    (folder / "anim.webp").write_bytes(saved("WEBP", 3))
    (folder / "bad.pkl").write_bytes(pickle.dumps(eval))
    (folder / "drawing.svg").write_text("<svg/>")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 40)
    (folder / "link.png").symlink_to("nowhere")
    return folder


def test_counts_are_the_same_on_terminal_page_table_and_json(mixed: Path, tmp_path: Path, capsys: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    out, table, log = tmp_path / "out", tmp_path / "t.csv", tmp_path / "t.sarif"
    assert run("find", mixed, "--out", out, "--csv", table, "--sarif", log, *QUICK) == 6  # a model runs code
    shown = " ".join(capsys.readouterr().out.split())
    report = json.loads((out / "report.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(report)
    account = report["manifest"]["account"]
    assert account.startswith(
        "7 files were put in: 4 examined (2 pictures, 1 clip, 1 model), 2 skipped, 1 failed. They hold 3 pages"
    )
    assert account in shown
    assert account in (out / "report.html").read_text()
    rows = list(csv.DictReader(table.open()))
    counts = report["manifest"]["counts"]
    for state in ("examined", "skipped", "failed"):
        assert sum(int(r["files"]) for r in rows if r["state"] == state) == counts[state]
    assert [i["source"] for i in report["items"]] == [r["source"] for r in rows if r["state"] == "examined"]
    pages = next(i for i in report["items"] if i["source"].endswith("pages.tif"))
    assert [p["source"][-11:] for p in pages["parts"]] == ["page 1 of 3", "page 2 of 3", "page 3 of 3"]
    assert len({p["sha256"] for p in pages["parts"]} | {pages["sha256"]}) == 1
    clip = next(i for i in report["items"] if i["kind"] == "clip")
    assert len(clip["parts"][0]["clip"]["times"]) == 3
    assert "All 3 frames were examined." in " ".join(clip["parts"][0]["verdict"]["sentences"])
    scan = json.loads(log.read_text())
    assert scan["version"] == "2.1.0"
    (result,) = scan["runs"][0]["results"]
    assert result["level"] == "error"
    assert scan["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("/in/bad.pkl")


def test_one_file_has_the_shape_of_many(mixed: Path, capsys: Any) -> None:
    assert run("find", mixed / "a.png", "--json", *QUICK) == 0
    one = json.loads(capsys.readouterr().out)
    assert run("find", mixed / "a.png", mixed / "bad.pkl", "--json", *QUICK) == 6
    two = json.loads(capsys.readouterr().out)
    assert one.keys() == two.keys()
    assert [len(r["items"]) for r in (one, two)] == [1, 2]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one["date"])
    assert re.fullmatch(r"[0-9a-f]{64}", one["calibration"])
    assert run("find", "--schema") == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_python_takes_models_and_pictures_together(mixed: Path) -> None:
    found = vestige.find_all(mixed, only=["container"])
    assert (found.counts["put_in"], found.counts["examined"]) == (7, 4)
    assert [i.answer for i in found.items if i.kind == "model"] == ["dangerous"]
    assert vestige.find(mixed / "bad.pkl").verdict.level == "found"
    with pytest.raises(UsageError, match="find_all"):
        vestige.find(mixed)


def test_exit_codes_of_what_is_not_examined(mixed: Path, capsys: Any) -> None:
    assert run("find", mixed / "drawing.svg", *QUICK) == 2
    assert "SVG" in capsys.readouterr().err
    assert run("find", mixed / "a.png", mixed / "drawing.svg", "-q", *QUICK) == 5
    assert run("find", mixed / "a.png", mixed / "broken.png", "-q", *QUICK) == 5
    (mixed / "bad.pkl").unlink()
    (mixed / "broken.png").unlink()
    assert run("find", mixed, "-q", *QUICK) == 0  # a folder may hold what is no picture


@pytest.mark.parametrize("option", ["--html", "--csv", "--sarif"])
def test_reports_are_never_written_over_evidence(mixed: Path, tmp_path: Path, capsys: Any, option: str) -> None:
    evidence, key, letter = mixed / "a.png", tmp_path / "k.key", tmp_path / "letter"
    assert run("key", key) == 0
    letter.write_text("dear")
    before = [p.read_bytes() for p in (evidence, key, letter)]
    for target in (evidence, key, letter, tmp_path, mixed / "bad.pkl"):
        assert run("find", mixed, option, target, "--key", key, *QUICK) == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith("vestige: ")
    assert [p.read_bytes() for p in (evidence, key, letter)] == before
    assert run("find", mixed / "a.png", option, tmp_path / "new", "-q", *QUICK) == 0
    assert run("find", mixed / "a.png", option, tmp_path / "new", "-q", *QUICK) == 0  # its own is renewed


def test_a_folder_of_somebody_else_is_left_alone(mixed: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("report.html", "manifest.jsonl", "items"):
        out = tmp_path / f"with {name}"
        out.mkdir()
        (out / name).write_text("mine")
        assert run("find", mixed, "--out", out, "-q", *QUICK) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert [(p.name, p.read_text()) for p in out.iterdir()] == [(name, "mine")]


def test_verbs_that_write_pictures_keep_what_is_not_theirs(tmp_path: Path, photo: np.ndarray, capsys: Any) -> None:
    source, other, out = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    source.write_bytes(encode(photo[:200, :200], "PNG"))
    other.write_bytes(source.read_bytes() + b" ")
    for target in (source, other):
        assert run("mark", source, "-m", "hi", "-o", target) == 2
        assert run("data", "distort", source, "--out", target) == 2
        assert run("restore", source, "--out", target) == 2
    assert other.read_bytes() == source.read_bytes() + b" "
    assert run("mark", source, "-m", "hi", "-o", out) == 0
    with pytest.raises(UsageError, match="input"):
        vestige.mark(source, source, message="hi")


def test_a_full_disk_ends_the_run_and_loses_nothing(
    mixed: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, left = tmp_path / "out", [4]
    real = os.fsync

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert run("find", mixed, "--out", out, "-q", *QUICK) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in sentence
    done = {json.loads(line)["source"] for line in (out / "manifest.jsonl").read_text().splitlines()[1:]}
    assert done
    assert not [p for p in out.rglob("*") if p.name.startswith(".vestige")]
    stems = {p.name.split(".")[0] for p in (out / "items").iterdir()}
    assert all((out / "items" / f"{stem}.json").is_file() for stem in stems)  # nothing half-written
    assert run("find", mixed, "--out", out, "-q", *QUICK) == 6
    assert json.loads((out / "report.json").read_text())["manifest"]["counts"]["put_in"] == 7


HOSTILE = (
    "a\x1b[2J.png",
    "b\u202egnp.exe.png",
    "c\x9b31m.png",
    "d\nvestige: fine.png",
    "--help\x1b[1m.png",
    "[red]x[b].png",
)


def test_no_name_and_no_record_steers_the_terminal(tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    record = PngInfo()
    record.add_text(
        "parameters", "x\x1b[31m\u202e\nSteps: 20, Sampler: Euler\x1b[2J, CFG scale: 7, Size: 9x9, Model: t\x1b"
    )
    image = io.BytesIO()
    Image.new("RGB", (32, 32)).save(image, "PNG", pnginfo=record)
    for name in HOSTILE:
        Path(name).write_bytes(image.getvalue())
    Path("bad\x1b[5m.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Path("x\x1b[5m.svg").write_text("<svg/>")
    Path("m\x1b[5m.pkl").write_bytes(b"\x80\x04\x8c\x06m\x1b[2Jo\x8c\x01n\x93.")
    commands: list[tuple[object, ...]] = [
        ("find", ".", "-v", "--csv", tmp_path / "t.csv", "--html", tmp_path / "t.html", *QUICK),
        ("find", ".", "--json", *QUICK),
        ("find", "./bad\x1b[5m.png"), ("find", "./no\x1b[3m"), ("find", "--x\x1b[1m"), ("fi\x1b[1m",),
        ("find", ".", "--only", "a\x1b[1m"),
        ("mark", *(f"./{n}" for n in HOSTILE), "-m", "hi", "-o", tmp_path / "o\x1b"),
        ("read", *(f"./{n}" for n in HOSTILE)), ("data", "info", "./a\x1b[2J.png"), ("systems", "q\x1b[1m"),
    ]  # fmt: skip
    for command in commands:
        run(*command)
        shown = "".join(capfd.readouterr())
        steering = [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"]
        assert not steering, (command, steering)
        assert "Traceback" not in shown
        assert not any(line.startswith("vestige: fine") for line in shown.splitlines())


_PARENT = """
import sys, time
from pathlib import Path
from tests.app.test_find_everything import wait_long
from vestige.app.jobs.batch import parallel
if __name__ == "__main__":
    list(parallel(wait_long, [Path(sys.argv[1], n) for n in "ab"], 2))
"""


def wait_long(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(_PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
    )
    files = [tmp_path / n for n in "ab"]
    for _ in range(1200):
        if all(f.is_file() and f.read_text() for f in files):
            break
        time.sleep(0.05)
    workers = [int(f.read_text()) for f in files]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        if not any(_lives(pid) for pid in workers):
            break
        time.sleep(0.05)
    assert not any(_lives(pid) for pid in workers)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
