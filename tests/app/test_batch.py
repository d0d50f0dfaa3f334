"""Folder runs: parallel, resumable, and the same whatever happened in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vestige.app.jobs.batch import Batch, FindOptions, Shown, collect, parallel
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode, save_image


@pytest.fixture
def folder(tmp_path, photo):
    for i in range(8):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i}.jpg").write_bytes(encode(photo[20 * i : 20 * i + 200, :280], "JPEG", quality=70 + i))
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 40)
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    return tmp_path / "in"


def report(out: Path) -> dict:
    return {k: v for k, v in json.loads((out / "report.json").read_text()).items() if k != "date"}


#: Examiners that take long enough to be killed between two files.
FEW = [w for slug in ("copy_move", "noise_level", "jpeg_ghosts", "container") for w in ("--only", slug)]


def run_find(folder: Path, out: Path, jobs: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "vestige", "find", str(folder), "--out", str(out), "-j", str(jobs), "-q", *FEW]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def test_files_are_found_by_content_or_ending_and_sorted(folder, tmp_path):
    names = [p.name for p in collect([folder])]
    assert names == [*(f"{i}.jpg" for i in range(8)), "broken.png"]
    assert collect([folder / "*.jpg", folder / "0.jpg"]) == [folder / f"{i}.jpg" for i in range(8)]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no file"):
        collect([empty])


def test_a_killed_run_resumes_and_equals_an_uninterrupted_one(folder, tmp_path):
    whole = run_find(folder, tmp_path / "whole", 2)
    killed = tmp_path / "killed"
    process = run_find(folder, killed, 1)
    manifest = killed / "manifest.jsonl"
    for _ in range(6000):
        if manifest.is_file() and manifest.read_text().count("\n") >= 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = [json.loads(line)["source"] for line in manifest.read_text().splitlines()[1:]]
    assert 2 <= len(done) < 9
    with manifest.open("a") as log:
        log.write('{"source": "torn')  # a line cut by the kill
    stamps = {p.name: p.stat().st_mtime_ns for p in (killed / "items").glob("*.json")}
    assert run_find(folder, killed, 2).wait() == 5
    assert whole.wait() == 5
    assert report(killed) == report(tmp_path / "whole")
    assert (killed / "report.html").read_text() == (tmp_path / "whole" / "report.html").read_text()
    kept = [n for n, stamp in stamps.items() if (killed / "items" / n).stat().st_mtime_ns == stamp]
    assert len(kept) >= len(done) - 1  # the broken file leaves no item
    sources = [
        json.loads(line)["source"] for line in manifest.read_text().splitlines()[1:] if not line.endswith("torn")
    ]
    assert len(sources) == len(set(sources)) == 9


def test_changed_files_and_options_are_examined_again(folder, tmp_path, photo):
    batch = Batch(tmp_path / "run", FindOptions(only=("container", "ela")))
    files = collect([folder])[:3]
    first = list(Shown(batch.run(files)))
    stamp = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "items").glob("*.json")}
    save_image(files[0], photo[:100, :150])
    second = list(Shown(batch.run(files)))
    again = [p for p, t in stamp.items() if p.stat().st_mtime_ns != t]
    assert len(again) == 1
    assert second[0].findings.sha256 != first[0].findings.sha256
    assert [r.findings.to_dict() for r in second[1:]] == [r.findings.to_dict() for r in first[1:]]
    third = Shown(Batch(tmp_path / "run", FindOptions(only=("container",))).run(files))
    assert all(len(r.findings.findings) == 1 for r in third)


def _die(path: Path) -> str | None:
    if path.name == "3":
        import os

        os._exit(9)
    return None


def test_a_file_that_kills_its_worker_does_not_take_the_others_with_it():
    outcomes = dict(parallel(_die, [Path(str(i)) for i in range(6)], 2))
    assert len(outcomes) == 6
    assert "worker process" in (outcomes.pop(Path("3")) or "")
    assert set(outcomes.values()) == {None}


def _sleep(path: Path) -> str | None:
    from vestige.app.jobs.examine import time_limit
    from vestige.core.errors import VestigeError

    try:
        with time_limit(1, str(path)):
            while True:
                time.sleep(0.01)
    except VestigeError as error:
        return str(error)


def test_a_file_that_takes_too_long_is_given_up():
    start = time.monotonic()
    outcomes = dict(parallel(_sleep, [Path("a"), Path("b")], 2))
    assert time.monotonic() - start < 30
    assert all("--timeout" in (e or "") for e in outcomes.values())


def test_jobs_must_be_positive(tmp_path):
    with pytest.raises(UsageError, match="--jobs"):
        Batch(tmp_path, FindOptions(), 0)
