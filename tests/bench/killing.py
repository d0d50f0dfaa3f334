"""Runs of a benchmark that are killed and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def records_after_a_kill(code: str, records: Path, script: Path) -> set[str]:
    """Names of the records of a program that SIGKILL stopped at its first one and that then ran to its end.

    code: the program, JOBS standing for its worker processes: two of the first run, one of the second. Asserts that
    what was written stays as it is.
    """
    script.write_text(code.replace("JOBS", "2"))
    first = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(records.glob("*.json")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = _times(records)
    assert before
    script.write_text(code.replace("JOBS", "1"))
    subprocess.run([sys.executable, str(script)], check=True)
    after = _times(records)
    assert before.items() <= after.items()
    return set(after)


def _times(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.json")}
