"""Everything behind paths examined in this process: the Python form of ``vestige find``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestige.app.jobs.examine import FindOptions, LeftOut, examine_here
from vestige.app.report.examined import Examined, Line, account, counts
from vestige.app.report.json_report import to_json_report
from vestige.core.errors import VestigeError
from vestige.core.intake import take_in


@dataclass(frozen=True)
class Survey:
    """What was said about every file that was put in.

    items: the files that were examined. lines: what became of each file, in order.
    """

    items: tuple[Examined, ...]
    lines: tuple[Line, ...]

    @property
    def counts(self) -> dict[str, Any]:
        """How many files were put in, examined, skipped and failed."""
        return counts(self.lines)

    def __str__(self) -> str:
        return account(self.lines)

    def to_dict(self) -> dict[str, Any]:
        """The report of ``vestige find --json``."""
        from vestige.app.jobs.batch import calibration_id

        return to_json_report(self.items, self.lines, calibration=calibration_id())


def survey(paths: Sequence[str | Path], options: FindOptions) -> Survey:
    """Examine pictures, clips, documents, data sets and models; a file that fails is a line, not an error."""
    items, lines = [], []
    for entry in take_in(paths):
        if entry.state:
            lines.append(Line(entry.source, entry.state, entry.kind, entry.why, entry.files))
            continue
        try:
            item = examine_here(entry, options)
        except LeftOut as reason:
            lines.append(Line(entry.source, "skipped", entry.kind, str(reason), entry.files))
        except VestigeError as error:
            lines.append(Line(entry.source, "failed", entry.kind, str(error), entry.files))
        else:
            shown = tuple(dataclasses.replace(p, preview=p.preview[:1, :1]) for p in item.parts)
            items.append(dataclasses.replace(item, parts=shown))
            lines.append(Line.of(item, entry.files))
    return Survey(tuple(items), tuple(lines))
