"""The part of the page that accounts for every file that was put in."""

from __future__ import annotations

from collections.abc import Sequence

from vestige.app.report.examined import Line, account
from vestige.app.report.markup import Markup, element


def has_more(lines: Sequence[Line], notes: Sequence[tuple[str, str]] = ()) -> bool:
    """Whether there is more to say than what the examined pictures themselves do."""
    return bool(notes) or any(line.state != "examined" for line in lines)


def section(lines: Sequence[Line], notes: Sequence[tuple[str, str]] = ()) -> Markup | None:
    """The counts in words, what was skipped and why, and what else there is to say about files; None without lines."""
    if not lines:
        return None
    skipped = [(_name(line), line.why) for line in lines if line.state == "skipped"]
    return element(
        "section",
        element("h2", "What was put in"),
        element("p", account(lines)),
        _table("Skipped", "Reason", skipped),
        _table("File", "Note", notes),
        class_="failures",
        id="manifest",
    )


def _name(line: Line) -> str:
    return line.source if line.files == 1 else f"{line.source} ({line.files:,} files)"


def _table(left: str, right: str, rows: Sequence[tuple[str, str]]) -> Markup | None:
    if not rows:
        return None
    head = element("tr", element("th", left, scope="col"), element("th", right, scope="col"))
    body = [element("tr", element("th", name, scope="row"), element("td", why)) for name, why in rows]
    return element("table", element("thead", head), element("tbody", *body))
