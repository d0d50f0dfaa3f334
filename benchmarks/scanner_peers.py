"""What one of the peers says of each file in a folder, as JSON; run by the Python that has it installed.

python scanner_peers.py picklescan|modelscan|fickling FOLDER
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import logging
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path


def picklescan() -> Callable[[Path], str]:
    from picklescan.scanner import scan_directory_path, scan_file_path

    def scan(path: Path) -> str:
        result = (scan_directory_path if path.is_dir() else scan_file_path)(str(path))
        return (
            "dangerous"
            if result.issues_count
            else "refused"
            if result.scan_err or not result.scanned_files
            else "harmless"
        )

    return scan


def modelscan() -> Callable[[Path], str]:
    from modelscan.modelscan import ModelScan

    def scan(path: Path) -> str:
        scanner = ModelScan()
        summary = scanner.scan(str(path))["summary"]
        if summary["total_issues"]:
            return "dangerous"
        return "harmless" if summary["scanned"]["total_scanned"] and not scanner.errors else "refused"

    return scan


def fickling() -> Callable[[Path], str]:
    from fickling.analysis import Severity, check_safety
    from fickling.fickle import StackedPickle

    def stream(data: bytes) -> str:
        results = [check_safety(pickled) for pickled in StackedPickle.load(io.BytesIO(data))]
        return "harmless" if all(r.severity == Severity.LIKELY_SAFE for r in results) else "dangerous"

    def file(path: Path) -> str:
        if not zipfile.is_zipfile(path):
            return stream(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".pkl")]
            answers = [stream(archive.read(name)) for name in names]
        return "dangerous" if "dangerous" in answers else "harmless" if answers else "refused"

    def scan(path: Path) -> str:
        answers = []
        for part in [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]:
            try:
                answers.append(file(part))
            except Exception:  # what is no pickle is refused with many types of exception
                answers.append("refused")
        return next((a for a in ("dangerous", "harmless") if a in answers), "refused")

    return scan


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.CRITICAL)
    scan = {"picklescan": picklescan, "modelscan": modelscan, "fickling": fickling}[name]()
    answers, start = {}, time.perf_counter()
    for path in sorted(folder.iterdir()):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                answers[path.name] = scan(path)
            except Exception:  # a scanner that breaks off has no answer
                answers[path.name] = "refused"
    version = importlib.metadata.version(name)
    print(json.dumps({"answers": answers, "seconds": time.perf_counter() - start, "version": version}))


if __name__ == "__main__":
    main()
