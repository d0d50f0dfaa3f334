"""The report as a table: a row for every file that was put in, so that rows add up to the counts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from vestige.app.report.examined import Examined, Line
from vestige.app.report.items import urgency
from vestige.core.printing import visible

COLUMNS = (
    "source", "state", "why", "kind", "files", "format", "sha256", "parts_met", "parts_examined", "parts_skipped",
    "parts_failed", "level", "kinds", "edit_probability", "model_answer", "said",
)  # fmt: skip
#: What the file starts with.
SIGN = ",".join(COLUMNS).encode()


def to_csv(items: Iterable[Examined], lines: Sequence[Line]) -> str:
    """The table as text. Of a file with several parts the one that asks for most attention is told.

    Cells are made printable, and none of them can be taken for a formula by a program for tables.

    >>> to_csv([], [Line("=a", "skipped", why="text")]).splitlines()[1][:18]
    "'=a,skipped,text,,"
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    found = iter(items)
    for line in lines:
        row: list[object] = [line.source, line.state, line.why, line.kind, line.files]
        if line.state == "examined":
            item = next(found)
            verdict = min((part.findings.verdict for part in item.parts), key=urgency)
            sure = "" if verdict.probability is None else f"{verdict.probability:.4f}"
            row += [item.format, item.sha256, *line.parts, verdict.level, " ".join(verdict.kinds), sure]
            row += [item.answer, " ".join(verdict.sentences)]
        table.writerow([_cell(value) for value in row] + [""] * (len(COLUMNS) - len(row)))
    return text.getvalue()


def _cell(value: object) -> str:
    shown = visible(str(value))
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown
