"""``vestige find``: examine pictures and clips, group copies, write reports; scan models."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vestige.app.jobs.batch import Batch, FindOptions, collect, default_jobs
from vestige.app.report.html import ReportItem, render_html
from vestige.app.report.json_report import to_json_report, to_json_single
from vestige.app.report.markup import visible
from vestige.app.report.text import render_batch, render_text
from vestige.core.calibration import PRIOR
from vestige.core.errors import (
    BAD_INPUT,
    OK,
    PARTIAL,
    TRACE_FOUND,
    UNVOUCHED,
    InputError,
    Interrupted,
    UsageError,
    VestigeError,
)  # fmt: skip
from vestige.core.files import write_atomic, write_json
from vestige.core.findings import Finding
from vestige.core.image_io import Limits
from vestige.core.keys import load_key
from vestige.core.model_files import is_model_folder
from vestige.core.model_formats import foreign_format, is_compressed_model
from vestige.core.sniff import IMAGE_FORMATS, VIDEO_FORMATS, sniff
from vestige.core.subjects import MODEL_FORMATS, MODEL_SUFFIXES
from vestige.core.video import sample_times


def run(
    paths: Sequence[Path], *, out: Path | None, as_json: bool, html: Path | None, keys: Sequence[Path],
    only: Sequence[str], jobs: int, timeout: int, max_megapixels: float, fresh: bool, verbose: bool, quiet: bool,
    every: float | None = None, model: Path | None = None, prior: float | None = None, fast: bool = False,
) -> int:  # fmt: skip
    """Examine, print and write; returns the exit code (TRACE_FOUND when something was flagged)."""
    if are_models(paths):
        return _scan_models(paths, as_json, quiet)
    from vestige.core.panel import shared_panel

    secrets = tuple(load_key(k) for k in keys)
    if model is not None and not model.exists():
        raise InputError(f"{model} does not exist; check --model.")
    weights, prior = str(model or ""), PRIOR if prior is None else prior
    shared_panel(secrets, tuple(only), weights, prior, fast)  # an unknown examiner is refused before any file is read
    sample_times(1.0, every)  # and so is a spacing of frames that makes no sense
    limits = Limits(max_pixels=int(max_megapixels * 1e6))
    options = FindOptions(secrets, tuple(only), limits, timeout, every, weights, prior, fast)
    with tempfile.TemporaryDirectory(prefix="vestige-") as scratch:
        files = [_from_stdin(Path(scratch))] if [str(p) for p in paths] == ["-"] else collect(paths)
        if out is not None and out.exists() and not out.is_dir():
            raise UsageError(f"--out {out} is a file; find writes a folder (use --html for a single file).")
        batch = Batch(out or Path(scratch) / "run", options, jobs or default_jobs())
        try:
            results, failures = batch.run(files, fresh=fresh)
        except KeyboardInterrupt:
            kept = "the same command continues where this one stopped" if out else "with --out a run can be continued"
            raise Interrupted(f"interrupted; {kept}.") from None
    groups = _copies(files, results)
    report = to_json_report([r.findings for r in results], failures, groups)
    if out is not None or html is not None:
        name = paths[0].name if len(paths) == 1 else f"{len(files)} files"
        title = f"vestige report: {visible(name)}"
        if html is not None:
            alone = [replace(item, files={}) for item in results]  # it stands alone, without the maps' files
            write_atomic(html, render_html(alone, title=title, failures=failures, groups=groups))
        if out is not None:
            page = render_html(results, title=title, failures=failures, groups=groups)
            write_atomic(out / "report.html", page)
    if out is not None:
        write_json(out / "report.json", report)
    if as_json:
        single = len(files) == 1 and results
        print(json.dumps(to_json_single(results[0].findings) if single else report, indent=2))
    elif not quiet and results:
        _show(results, failures, groups, verbose)
        if out is not None:
            print(f"Report: {out / 'report.html'}")
    if failures:
        if as_json or quiet or not results:
            for failure in failures:
                print(f"vestige: {visible(failure['error'])}", file=sys.stderr)
        return PARTIAL if results else BAD_INPUT
    return TRACE_FOUND if any(r.findings.verdict.flagged for r in results) else OK


def _show(
    results: Sequence[ReportItem], failures: Sequence[dict[str, str]], groups: Sequence[Any], verbose: bool
) -> None:
    from rich.console import Console

    console = Console()
    if len(results) == 1 and not failures:
        render_text(results[0].findings, console, verbose=verbose)
        return
    if verbose:
        for item in results:
            render_text(item.findings, console, verbose=True)
    render_batch([r.findings for r in results], failures, console, groups=groups)


def _from_stdin(folder: Path) -> Path:
    data = sys.stdin.buffer.read()
    if not data:
        raise UsageError("Nothing came on stdin; pipe a picture into 'vestige find -'.")
    path = folder / "stdin"
    path.write_bytes(data)
    return path


def _copies(files: Sequence[Path], results: Sequence[ReportItem]) -> list[Any]:
    """Groups of exact and near copies among the pictures that could be read."""
    from vestige.core.catalogue import system

    readable = {r.findings.source for r in results if r.findings.format in IMAGE_FORMATS}
    if len(readable) < 2:
        return []
    return system("duplicates").load()().group([p for p in files if str(p) in readable])


def are_models(paths: Sequence[Path]) -> bool:
    """Whether every path is a model, by its content, or by its ending where the content has no signature."""
    return bool(paths) and all(_is_model(path) for path in paths)


def _is_model(path: Path) -> bool:
    if path.is_dir():
        return is_model_folder(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(300)
    kind, named = sniff(head), path.suffix.lower() in MODEL_SUFFIXES or is_compressed_model(head, path)
    if kind in (*IMAGE_FORMATS, *VIDEO_FORMATS):
        return named and _opens(path)  # a picture's bytes can be a pickle too, and its name decides who reads it
    return kind in MODEL_FORMATS or named or foreign_format(head, path.name) is not None


def _opens(path: Path) -> bool:
    from vestige.core.checkpoint import ModelSubject

    try:
        ModelSubject.open(path)
    except VestigeError:
        return False
    return True


def _scan_models(paths: Sequence[Path], as_json: bool, quiet: bool) -> int:
    """Scan each model; the exit code is that of the worst answer: dangerous, not to be vouched for, unreadable."""
    from vestige.core.catalogue import system
    from vestige.core.checkpoint import ModelSubject

    scanner, codes, documents = system("pickle_scan").load()(), [], []
    for path in paths:
        try:
            finding = scanner.find(ModelSubject.open(path))
        except VestigeError as error:
            if len(paths) == 1:
                raise
            print(f"vestige: {visible(str(error))}", file=sys.stderr)
            codes.append(PARTIAL)
            continue
        documents.append({"schema": 1, "source": str(path), "findings": [finding.to_dict()]})
        codes.append({"dangerous": TRACE_FOUND, "harmless": OK}.get(finding.details.get("answer", ""), UNVOUCHED))
        if not as_json and not quiet:
            _say(path, finding)
    if as_json:
        print(json.dumps(documents[0] if len(paths) == 1 else {"schema": 1, "models": documents}, indent=2))
    return next((code for code in (TRACE_FOUND, UNVOUCHED, PARTIAL) if code in codes), OK)


def _say(path: Path, finding: Finding) -> None:
    from rich.console import Console

    console = Console()
    console.print(visible(f"{path}: {finding.summary}"), markup=False, highlight=False, soft_wrap=True)
    for line in finding.evidence:
        console.print(f"  {visible(line)}", markup=False, highlight=False, soft_wrap=True)
