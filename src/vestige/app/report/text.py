"""The terminal report: verdict first, one line for every examiner, evidence where something was found.

Untrusted strings are printed as plain text with control characters shown as escapes, so a file name cannot steer the
terminal. Without UTF-8 output the report is pure ASCII; nothing is said by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vestige.app.report.examined import Line, account
from vestige.app.report.items import (
    LABELS,
    Failure,
    ReportGroup,
    clip_facts,
    counted,
    failure_of,
    false_alarms,
    group_of,
    headline,
    in_short,
    moments,
    odds,
    ordered,
    percent,
    tally,
    tone_of_finding,
    verdict_tone,
)
from vestige.app.report.json_report import to_json_report
from vestige.app.report.markup import visible
from vestige.core.findings import MIND, Clip, Finding, Findings
from vestige.core.video import clock

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["render_batch", "render_text", "to_json_report"]

#: How many skipped files are named on the terminal.
_SHOWN = 40
_STYLES = {"found": "bold red", "look": "bold yellow", "noted": "bold cyan", "clear": "bold", "none": "bold"}
_MARKS = {"found": "●", "a place to look at": "◐", "nothing found": "○", "does not apply": "–", "not examined": "–"}
_ASCII = str.maketrans(
    {"●": "*", "◐": "?", "○": "o", "▮": "#", "–": "-", "—": "-", "−": "-", "×": "x", "…": "...", "·": "-", "•": "*"}
    | dict.fromkeys("“”„«»", '"')
    | dict.fromkeys("‘’", "'")
    | dict.fromkeys("\u2009\u202f", " ")
)


class _Writer:
    """Prints plain strings that fit the console's encoding."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.ascii = console.options.ascii_only

    def plain(self, value: object) -> str:
        shown = visible(str(value))
        if not self.ascii:
            return shown
        return shown.translate(_ASCII).encode("ascii", "backslashreplace").decode()

    def text(self, value: object, style: str = "") -> Text:
        from rich.text import Text

        return Text(self.plain(value), style)

    def line(self, value: object = "", style: str = "", indent: int = 0, bullet: str = "") -> None:
        lead = " " * indent + bullet
        width = max(20, self.console.width - len(lead))
        for part in self.text(value, style).wrap(self.console, width) or [self.text("")]:
            part.rstrip()
            self.console.print(self.text(lead) + part, soft_wrap=True)
            lead = " " * len(lead)

    def table(self, *columns: tuple[str, dict[str, Any]]) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
        for title, options in columns:
            table.add_column(title, **options)
        return table


def render_text(findings: Findings, console: Console, *, verbose: bool = False) -> None:
    """Print what was found in one picture or clip.

    Evidence, and what would change the examiner's mind, is listed where something was found or is to be looked at, with
    ``verbose`` for all examiners, together with scores and thresholds.
    """
    out = _Writer(console)
    out.line(findings.source, "bold")
    facts = [findings.format, *([f"{findings.width} × {findings.height} pixels"] if findings.width else [])]
    facts += clip_facts(findings.clip) if findings.clip else []
    out.line(f"{', '.join(facts)}, sha256 {findings.sha256[:16]}…", "dim")
    out.line()
    _verdict(findings, out)
    if not findings.findings:
        return
    out.line()
    panel = ordered(findings.findings)
    shown = panel if verbose else [f for f in panel if f.applies]
    if shown:
        console.print(_examiners(shown, out))
    if findings.clip is not None:
        _time_line(findings.clip, out)
    left_out = [f for f in panel if not f.applies and not verbose]
    if left_out:
        names = ", ".join(f.examiner for f in left_out)
        verb = "does" if len(left_out) == 1 else "do"
        out.line(f"– {names} {verb} not apply here (--verbose says why).", "dim")
    for finding in shown:
        if finding.applies and (verbose or finding.flagged or finding.look):
            _evidence(finding, out, verbose)


def _verdict(findings: Findings, out: _Writer) -> None:
    verdict = findings.verdict
    out.line(f"{_MARKS[verdict.level]} {headline(verdict)}", _STYLES[_tone(findings)])
    said = odds(verdict, "clip" if findings.clip else "picture")
    if said:
        out.line(f"{said}.", indent=2)
    for sentence in verdict.sentences:
        out.line(sentence, indent=2)


def _tone(findings: Findings) -> str:
    return verdict_tone(findings.verdict)


def _examiners(shown: Sequence[Finding], out: _Writer) -> Table:
    table = out.table(
        ("", {"no_wrap": True}),
        ("Examiner", {"no_wrap": out.console.width >= 72, "overflow": "fold"}),
        ("Prob.", {"justify": "right", "no_wrap": True}),
        ("False alarms", {"no_wrap": True}),
        ("Finding", {"ratio": 1, "overflow": "fold"}),
    )
    for f in shown:
        style = "dim" if not f.applies else "bold" if f.flagged else ""
        mark_style = _STYLES[tone_of_finding(f)] if f.applies else "dim"
        table.add_row(
            out.text(_MARKS[f.level], mark_style),
            out.text(f.examiner, style),
            out.text("fact" if f.basis == "fact" else percent(f.probability)),
            out.text(false_alarms(f)),
            out.text(f.summary, style if not f.applies else ""),
        )
    return table


def _time_line(clip: Clip, out: _Writer) -> None:
    """One row for every examiner: its flagged frames, from the first to the last that was examined."""
    tracks = [t for t in clip.tracks if any(s is not None for s in t.scores)]
    if not tracks or len(clip.times) < 2:
        return
    name = max(len(t.examiner) for t in tracks)
    columns = min(len(clip.times), max(8, min(60, out.console.width - name - 36)))
    bins = [round(n * len(clip.times) / columns) for n in range(columns + 1)]
    out.line()
    out.line(f"Frames from {clock(clip.times[0])} to {clock(clip.times[-1])}: ▮ trace, · none", "bold")
    for track in tracks:
        cells = ""
        for start, stop in pairwise(bins):
            applies = any(s is not None for s in track.scores[start:stop])
            cells += "▮" if any(track.flagged[start:stop]) else "·" if applies else " "
        out.line(f"{track.examiner:<{name}}  {cells}  {moments(track, clip.times)}", indent=2)


def _evidence(finding: Finding, out: _Writer, verbose: bool) -> None:
    lines = [*finding.evidence]
    if verbose and finding.threshold is not None and math.isfinite(finding.score):
        lines.append(f"Score {finding.score:.4g}, threshold {finding.threshold:.4g}.")
    if finding.flagged or finding.look:
        lines.append(f"What would change this: {MIND[finding.kind]}")
    if not lines:
        return
    out.line()
    out.line(finding.examiner, "bold")
    for line in lines:
        out.line(line, indent=2, bullet="• ")


def render_batch(
    results: Iterable[Findings],
    failures: Sequence[Failure | Mapping[str, str] | tuple[str, str]],
    console: Console,
    *,
    groups: Sequence[ReportGroup | Any] = (),
    lines: Sequence[Line] = (),
) -> None:
    """Print one line for every picture, clip or model, then groups of related pictures, failures, what was skipped, and
    the counts. lines: what became of every file that was put in."""
    out = _Writer(console)
    found = list(results)
    failed = [failure_of(f) for f in failures]
    if found:
        table = out.table(
            ("", {"no_wrap": True}),
            ("File", {"overflow": "fold", "ratio": 3}),
            ("Verdict", {"no_wrap": True}),
            ("Edit prob.", {"justify": "right", "no_wrap": True}),
            ("What", {"overflow": "fold", "ratio": 2}),
        )
        for f in found:
            verdict, style = f.verdict, _STYLES[_tone(f)]
            table.add_row(
                out.text(_MARKS[verdict.level], style),
                out.text(f.source),
                out.text(LABELS[verdict.level], style if verdict.kinds else ""),
                out.text(percent(verdict.probability)),
                out.text(in_short(verdict)),
            )
        console.print(table)
    for group in map(group_of, groups):
        out.line()
        out.line(group.title, "bold")
        if group.note:
            out.line(group.note, indent=2)
        for source in group.sources:
            out.line(source, indent=2)
    if failed:
        out.line()
        out.line("Could not be examined", "bold")
        for failure in failed:
            said = failure.source in failure.error
            out.line(failure.error if said else f"{failure.source}: {failure.error}", indent=2)
    skipped = [line for line in lines if line.state == "skipped"]
    if skipped:
        out.line()
        out.line("Skipped", "bold")
        for line in skipped[:_SHOWN]:
            several = f" ({line.files:,} files)" if line.files > 1 else ""
            out.line(f"{line.source}{several}: {line.why}", indent=2)
        if len(skipped) > _SHOWN:
            out.line(f"and {len(skipped) - _SHOWN:,} more, which --out, --csv and --json list", indent=2)
    out.line()
    out.line(_counts(found, len(failed)), "bold")
    if lines:
        out.line(account(lines))


def _counts(found: Sequence[Findings], failed: int) -> str:
    counts = tally(found, failed)
    parts = [f"{n} {word}" for n, word in counted(counts)]
    parts.append(f"{counts['found']} found")
    for key, words in (
        ("a_place_to_look_at", "with a place to look at"),
        ("nothing_found", "with nothing found"),
        ("not_examined", "not examined"),
        ("failed", "failed"),
    ):
        if counts[key]:
            of = (
                f" (of these {counts['processed']} processed)" if key == "nothing_found" and counts["processed"] else ""
            )
            parts.append(f"{counts[key]} {words}{of}")
    return ", ".join(parts)
