"""``vestige find``: everything that was put in examined, copies grouped, models scanned, reports written."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestige.app.jobs.batch import Batch, FindOptions, Outcome, Shown, calibration_id, default_jobs
from vestige.app.report import csv_report, sarif
from vestige.app.report.examined import account
from vestige.app.report.html import render_html
from vestige.app.report.json_report import to_json_report
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
)  # fmt: skip
from vestige.core.files import scratch_folder, write_atomic, write_json
from vestige.core.findings import Findings
from vestige.core.guard import check_output, protect
from vestige.core.image_io import EXAMINED_PIXELS, Limits
from vestige.core.intake import Entry, take_in
from vestige.core.keys import load_key
from vestige.core.printing import complain, say, visible
from vestige.core.sniff import IMAGE_FORMATS
from vestige.core.video import sample_times

#: What files start with that an earlier run wrote, so that a new one may take their place.
_HTML = (b'<meta name="generator" content="vestige',)
_JSON = (b'"vestige": "',)


@dataclass(frozen=True)
class Outputs:
    """Where results are written, besides the terminal: a folder of everything, and single files."""

    out: Path | None = None
    html: Path | None = None
    csv: Path | None = None
    sarif: Path | None = None

    def check(self, inputs: Sequence[Path]) -> None:
        """Refuse, before any work, what would take the place of an input, a key or somebody else's file."""
        names = [p for p in (self.html, self.csv, self.sarif) if p is not None]
        if len({p.absolute() for p in names}) < len(names):
            raise UsageError("--html, --csv and --sarif name the same file; give each its own.")
        wanted = [(self.html, _HTML), (self.csv, (csv_report.SIGN,)), (self.sarif, (sarif.SIGN,))]
        if self.out is not None:
            wanted += [(self.out / "report.html", _HTML), (self.out / "report.json", _JSON)]
        for path, signs in wanted:
            if path is not None:
                check_output(path, signs, inputs)


def run(
    paths: Sequence[Path], *, out: Path | None, as_json: bool, html: Path | None, keys: Sequence[Path],
    only: Sequence[str], jobs: int, timeout: int, max_megapixels: float, fresh: bool, verbose: bool, quiet: bool,
    every: float | None = None, model: Path | None = None, prior: float | None = None, fast: bool = False,
    csv: Path | None = None, sarif: Path | None = None, exit_code: bool = False, partial: bool = False,
) -> int:  # fmt: skip
    """Examine, print and write; returns the exit code.

    TRACE_FOUND for a dangerous model and, with ``exit_code``, where a picture was flagged.
    """
    from vestige.core.panel import shared_panel

    outputs = Outputs(out, html, csv, sarif)
    secrets = tuple(load_key(k) for k in keys)
    if model is not None and not model.exists():
        raise InputError(f"{model} does not exist; check --model.")
    weights, prior = str(model or ""), PRIOR if prior is None else prior
    shared_panel(secrets, tuple(only), weights, prior, fast)  # an unknown examiner is refused before any file is read
    sample_times(1.0, every)  # and so is a spacing of frames that makes no sense
    limits = Limits(max_pixels=int(max_megapixels * 1e6), partial=partial, reduce_above=EXAMINED_PIXELS)
    options = FindOptions(secrets, tuple(only), limits, timeout, every, weights, prior, fast)
    with scratch_folder() as scratch:
        entries = [_from_stdin(scratch)] if [str(p) for p in paths] == ["-"] else take_in(paths, out)
        inputs = [e.path for e in entries]
        protect([*inputs, *keys])
        outputs.check([*inputs, *keys])
        batch = Batch(out or scratch / "run", options, jobs or default_jobs())
        try:
            outcome = batch.run(entries, fresh=fresh)
        except KeyboardInterrupt:
            kept = "the same command continues where this one stopped" if out else "with --out a run can be continued"
            raise Interrupted(f"interrupted; {kept}.") from None
        groups = _copies(entries, outcome)
        _write(outcome, groups, outputs, paths, as_json)
        silent = as_json or quiet or not outcome.done
        if not silent:
            _show(outcome, groups, verbose)
            if out is not None:
                say(f"Report: {out / 'report.html'}")
        return _close(outcome, silent, exit_code)


def _write(outcome: Outcome, groups: Sequence[Any], outputs: Outputs, paths: Sequence[Path], as_json: bool) -> None:
    lines, failures = outcome.lines, outcome.failures
    if outputs.out is not None or outputs.html is not None:
        name = visible(paths[0].name if len(paths) == 1 else f"{len(lines)} files")
        notes = [(item.source, note) for item in outcome.briefs for note in _notes(item)]
        for target in filter(None, (outputs.html, outputs.out and outputs.out / "report.html")):
            shown = Shown(outcome, linked=target != outputs.html)
            title = f"vestige report: {name}"
            page = render_html(shown, title=title, failures=failures, groups=groups, lines=lines, notes=notes)
            write_atomic(target, page)
    if outputs.csv is not None:
        write_atomic(outputs.csv, csv_report.to_csv(outcome.briefs, lines))
    if outputs.sarif is not None:
        write_json(outputs.sarif, sarif.to_sarif(outcome.briefs, lines))
    if outputs.out is not None or as_json:
        report = to_json_report(outcome.examined(), lines, groups, calibration=calibration_id())
        if outputs.out is not None:
            write_json(outputs.out / "report.json", report)
        if as_json:
            print(json.dumps(report, indent=2))


def _notes(item: Any) -> list[str]:
    return [*item.notes, *(f"{name} was not examined: {why}" for name, why in item.left_out)]


def _show(outcome: Outcome, groups: Sequence[Any], verbose: bool) -> None:
    from rich.console import Console

    console, lines = Console(), outcome.lines
    findings = outcome.findings()
    if len(lines) == 1 and len(findings) == 1 and not outcome.failures:
        if lines[0].kind == "model":
            _say_model(findings[0])
        else:
            render_text(next(outcome.examined()).parts[0].findings, console, verbose=verbose)
        return
    for item in outcome.examined() if verbose else outcome.briefs:
        if verbose and item.kind != "model":
            for part in item.parts:
                render_text(part.findings, console, verbose=True)
        if item.kind == "model" and (verbose or item.answer != "harmless"):
            _say_model(item.parts[0].findings)
        for note in _notes(item):
            say(f"{item.source}: {note}")
    render_batch(findings, outcome.failures, console, groups=groups, lines=lines)


def _say_model(found: Findings) -> None:
    finding = found.findings[0]
    say(f"{found.source}: {finding.summary}")
    for line in finding.evidence:
        say(f"  {line}")


def _close(outcome: Outcome, silent: bool, exit_code: bool) -> int:
    """Tell what went wrong where the report did not, and say it all in one number, the worst first."""
    lines = outcome.lines
    named = [line for entry, line in zip(outcome.entries, lines) if line.state == "skipped" and entry.named]
    if silent:
        for failure in outcome.failures:
            error, source = failure["error"], failure["source"]
            complain(error if source in error else f"{source}: {error}")
        for line in named:
            complain(f"{line.source} is skipped: {line.why}.")
    answers = [item.answer for item in outcome.briefs if item.kind == "model"]
    if "dangerous" in answers:
        return TRACE_FOUND
    if any(answer != "harmless" for answer in answers):
        return UNVOUCHED
    if not outcome.done:
        if not outcome.failures and not named:
            complain(f"nothing in there is of a kind that vestige examines. {account(lines)}")
        return BAD_INPUT
    if outcome.failures or named:
        return PARTIAL
    return TRACE_FOUND if exit_code and any(f.verdict.flagged for f in outcome.findings()) else OK


def _from_stdin(folder: Path) -> Entry:
    data = sys.stdin.buffer.read()
    if not data:
        raise UsageError("Nothing came on stdin; pipe a picture into 'vestige find -'.")
    write_atomic(folder / "stdin", data)
    (entry,) = take_in([folder / "stdin"])
    return entry


def _copies(entries: Sequence[Entry], outcome: Outcome) -> list[Any]:
    """Groups of exact and near copies among the pictures that could be read."""
    from vestige.core.catalogue import system

    single = {line.source for line in outcome.lines if line.state == "examined" and line.kind == "picture"}
    readable = {f.source for f in outcome.findings() if f.format in IMAGE_FORMATS} & single
    if len(readable) < 2:
        return []
    return system("duplicates").load()().group([e.path for e in entries if e.source in readable])
